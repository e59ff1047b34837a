"""The project behind our server, in a process of its own: real sockets, large bodies, clients that go away."""

import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.server, pytest.mark.once]

MB = 1024 * 1024


class Served:
    """The process, and how much memory it has."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.project.program"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True
        )
        assert self.process.stdout is not None
        self.host = urlsplit(self.process.stdout.readline().strip()).netloc

    def ask(self, path: str, method: str = "GET", **more: object) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, **more)  # type: ignore[arg-type]
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def peak_of(self, work: Callable[[], object]) -> float:
        """Return by how many MiB the process grew at the most meanwhile."""
        folder = Path(f"/proc/{self.process.pid}")
        (folder / "clear_refs").write_text("5")  # the peak is now what there is
        before = self._peak(folder)
        work()
        return (self._peak(folder) - before) / 1024

    def _peak(self, folder: Path) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
        assert found is not None
        return int(found[1])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    found = Served()
    try:
        for _ in range(20):
            assert found.ask("/hello/") == (200, b"hello you, 1")
            assert found.ask("/async/") == (200, b"hello you, 1")
        yield found
    finally:
        try:
            found.process.communicate(timeout=20)
        finally:
            found.process.kill()
    assert found.process.returncode == 0


def test_a_hundred_megabytes_up_take_no_memory(served: Served) -> None:
    piece, answers = bytes(MB), list[tuple[int, bytes]]()

    def upload(count: int = 100) -> None:
        pieces = (piece for _ in range(count))
        chunked = {"Transfer-Encoding": "chunked"}
        answers.append(served.ask("/upload/", "POST", body=pieces, encode_chunked=True, headers=chunked))

    upload(20)  # what it takes once
    assert served.peak_of(upload) < 5
    status, body = answers[1]
    assert status == 200
    assert json.loads(body) == {"size": 100 * MB, "digest": hashlib.sha256(bytes(100 * MB)).hexdigest()}


def test_fifty_megabytes_down_take_no_memory(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(50 * MB))
    sizes: list[int] = []

    def download() -> None:
        status, body = served.ask(f"/download/?file={file}")
        assert status == 200
        sizes.append(len(body))

    served.ask("/download/?file=" + __file__)
    assert served.peak_of(download) < 5
    assert sizes == [50 * MB]


@pytest.mark.parametrize("path", ["/stream/", "/async-stream/"])
def test_a_stream_comes_as_it_is_made(served: Served, path: str) -> None:
    connection = http.client.HTTPConnection(served.host, timeout=30)
    began = time.monotonic()
    connection.request("GET", f"{path}?count=5&pause=0.2")
    response = connection.getresponse()
    assert response.read(2) == b"0\n"
    assert time.monotonic() - began < 0.7, "not when all of it is there"
    assert response.read() == b"1\n2\n3\n4\n"
    connection.close()


def test_clients_that_leave_free_their_lanes(served: Served) -> None:
    """Twice as many as there are lanes, in the middle of streams and of an async view."""
    for path in ("/stream/?count=100000&pause=0.01", "/wait/", "/async-stream/?count=100000&pause=0.01"):
        for _ in range(20):
            host, _, port = served.host.partition(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                if "stream" in path:
                    client.recv(100)
    assert served.ask("/hello/") == (200, b"hello you, 1")
    status, body = served.ask("/seen/")
    seen = json.loads(body)
    assert status == 200
    assert seen["sync stream closed"] >= 20
    assert seen["async stream closed"] >= 20
    assert seen.get("async view cancelled", 0) == seen.get("waiting", 0)
    assert seen["requests under way"] == 1  # this one


def test_what_is_expected_is_asked_for(served: Served) -> None:
    host, _, port = served.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /upload/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100")
        client.sendall(b"body")
        answer = b""
        while b'"size": 4' not in answer:
            part = client.recv(10_000)
            assert part
            answer += part
