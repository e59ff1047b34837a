"""The same application on the servers that people have: uvicorn, daphne, plain hypercorn on asyncio and on trio.

Real processes, a real client. Our own server has its tests elsewhere.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.usefixtures("descriptors")]

ROOT = Path(__file__).parent.parent
HYPERCORN = ["hypercorn", "--graceful-timeout", "1", "--bind", "fd://{fd}"]
SERVERS = {
    "uvicorn": ["uvicorn", "--ws", "websockets-sansio", "--fd", "{fd}"],
    "daphne": ["daphne", "--fd", "{fd}"],
    "hypercorn-asyncio": [*HYPERCORN, "--worker-class", "asyncio"],
    "hypercorn-trio": [*HYPERCORN, "--worker-class", "trio"],
}
APP = "tests.mounted_app"
SENDS_NO_LIFESPAN = ["daphne"]
SENDS_NO_DENIAL = ["daphne"]


class Served:
    """One server process, and what it printed once it has ended."""

    def __init__(self, kind: str, process: subprocess.Popen[str], port: int) -> None:
        self.kind, self.process, self.port = kind, process, port
        self.output = ""

    def connect(self, path: str, origin: str | None = "https://example.com") -> ClientConnection:
        """Open a WebSocket; raises ``InvalidStatus`` if it is refused."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", origin=origin, proxy=None, open_timeout=10)  # type: ignore[arg-type]

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            client.close()

    def stop(self, how: signal.Signals) -> None:
        """Ask the server to end, and wait until it has."""
        self.process.send_signal(how)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended."""
        self.output, _ = self.process.communicate(timeout=15)

    def layer(self, name: str) -> list[str]:
        """What one of the layers said, in order."""
        return re.findall(rf"^{name} layer (\w+)$", self.output, re.MULTILINE)


@contextmanager
def served(kind: str, target: str) -> Iterator[Served]:
    """Run a server for this block; it gets a socket that listens already, so nobody waits for it to be up."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        arguments = [argument.format(fd=listener.fileno()) for argument in SERVERS[kind]]
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments, target],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            pass_fds=[listener.fileno()],
            start_new_session=True,  # so that its workers can be ended with it
        )
        port = listener.getsockname()[1]
    try:
        yield Served(kind, process, port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            print(process.communicate(timeout=15)[0])  # noqa: T201 - why it hung
        assert process.stdout
        process.stdout.close()


def refusal(server: Served, path: str, **options: Any) -> int:
    """Return the status with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        server.connect(path, **options)
    return caught.value.response.status_code


def use(server: Served, at: str) -> None:
    """Try every part of the application that is mounted at ``at``."""
    assert server.get(f"{at}/hello/ann/") == (200, '{"who": "ann", "layers": ["default"]}')
    assert server.get(f"{at}/nowhere/") == (404, "404 Not Found\n")
    with server.connect(f"{at}/echo/") as peer:
        peer.send("héllo")
        assert peer.recv(timeout=10) == "héllo"
    with server.connect(f"{at}/shout/") as peer:
        peer.send('{"text": "hello"}')
        assert peer.recv(timeout=10) == '{"shouted": "HELLO"}'
    with server.connect(f"{at}/rooms/lobby/") as ann, server.connect(f"{at}/rooms/lobby/") as bob:
        ann.send("hi all")
        assert [ann.recv(timeout=10), bob.recv(timeout=10)] == ["hi all", "hi all"]
        bob.send("hi ann")
        assert [ann.recv(timeout=10), bob.recv(timeout=10)] == ["hi ann", "hi ann"]
    assert refusal(server, f"{at}/rooms/") == (403 if server.kind in SENDS_NO_DENIAL else 404)
    assert refusal(server, f"{at}/echo/", origin="https://evil.com") == 403
    assert refusal(server, f"{at}/echo/", origin=None) == 403


def check_frames(output: str) -> None:
    """No traceback leads through us, and nothing of ours was left behind."""
    assert not re.search(r'File ".*/(trichannels|tests)/', output), output
    assert "never awaited" not in output, output
    assert "destroyed" not in output, output


def check_output(output: str) -> None:
    """Nobody complains: no traceback at all, no task or coroutine left behind, no warning."""
    check_frames(output)
    assert "Traceback" not in output, output
    assert "Warning" not in output, output


def check_layer(server: Served, name: str, *, degraded: bool) -> None:
    """Open once for the server's life, or each time that somebody is there."""
    said = server.layer(name)
    if not degraded:
        assert said == ["opened", "closed"]
        return
    assert len(said) > 2
    # The last closing is left out where the process was stopped before it.
    assert said == (["opened", "closed"] * len(said))[: len(said)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", SERVERS)
def test_by_itself(kind: str, how: signal.Signals) -> None:
    with served(kind, f"{APP}:alone") as server:
        use(server, "")
        server.stop(how)
    check_output(server.output)
    check_layer(server, "alone", degraded=kind in SENDS_NO_LIFESPAN)


@pytest.mark.parametrize("kind", SERVERS)
def test_mounted_in_starlette(kind: str) -> None:
    with served(kind, f"{APP}:mounted") as server:
        assert server.get("/") == (200, "Starlette")
        use(server, "/owned")
        use(server, "/degraded")
        server.stop(signal.SIGTERM)
    check_output(server.output)
    check_layer(server, "owned", degraded=kind in SENDS_NO_LIFESPAN)
    check_layer(server, "degraded", degraded=True)


def waits_for_clients(kind: str) -> bool:
    """Say whether a server ends only after its last socket: https://github.com/pgjones/hypercorn/issues/308."""
    return kind == "hypercorn-asyncio" and sys.version_info >= (3, 12)


@pytest.mark.parametrize("kind", SERVERS)
def test_stopped_while_sockets_are_open(kind: str) -> None:
    with (
        served(kind, f"{APP}:alone") as server,
        server.connect("/rooms/lobby/") as ann,
        server.connect("/echo/") as other,
    ):
        ann.send("hi")
        assert ann.recv(timeout=10) == "hi"
        server.process.send_signal(signal.SIGTERM)
        if waits_for_clients(kind):
            ann.close()
            other.close()
        server.wait()
    if kind == "hypercorn-asyncio":
        # It cancels what is left, and asyncio's streams before Python 3.13 complain of that (python/cpython#113538).
        check_frames(server.output)
    else:
        check_output(server.output)
    # daphne ends with its process, whatever is open: of the degraded way nothing more can be had.
    closing = [] if kind in SENDS_NO_LIFESPAN else ["closed"]
    assert server.layer("alone") == ["opened", *closing]
