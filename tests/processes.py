"""``trichannels`` as a process, for tests that look at its exit code, its standard error and its sockets."""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO

import httpx

PATIENCE = 60.0  # seconds; only a test that fails waits so long

APP = '''
import gc, json, os, pathlib, time

async def application(scope, receive, send):
    """A lifespan that leaves a file, pages by path, and a WebSocket that tells its process id."""
    await globals()[scope["type"]](scope, receive, send)

async def lifespan(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    pathlib.Path("shutdown").touch()
    await send({"type": "lifespan.shutdown.complete"})

async def http(scope, receive, send):
    if scope["path"] == "/busy":
        pathlib.Path("busy").touch()
        while True:
            pass
    facts = {"pid": os.getpid(), "frozen": gc.get_freeze_count(), "root_path": scope["root_path"]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(facts).encode()})

async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while scope["path"] == "/flood":
        await send({"type": "websocket.send", "bytes": bytes(2**16)})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "still here"})
'''


class Running:
    """One process; what it says is read as it comes."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.out = self.err = ""
        self._selector = selectors.DefaultSelector()
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ, name)

    @property
    def pid(self) -> int:
        return self.process.pid

    def heard(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until its output matches for that many times; return the last match."""
        deadline = time.monotonic() + PATIENCE
        while len(found := list(re.finditer(pattern, self.out + self.err))) < times:
            assert self._selector.get_map(), f"it ended without saying {pattern!r}: {self.out}{self.err}"
            assert time.monotonic() < deadline, f"it did not say {pattern!r} in time: {self.out}{self.err}"
            self._read(1.0)
        return found[times - 1]

    def address(self, times: int = 1) -> str:
        """Wait until it has said where it listens, for that many times."""
        return self.heard(r"https?://[\d.]+:\d+", times)[0]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, read to the end and return the exit code."""
        if number is not None:
            self.tell(number)
        deadline = time.monotonic() + PATIENCE
        while self._selector.get_map():
            assert time.monotonic() < deadline, f"it does not end: {self.out}{self.err}"
            self._read(1.0)
        return self.process.wait(PATIENCE)

    def _read(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
            data = os.read(stream.fileno(), 2**16).decode()
            setattr(self, key.data, getattr(self, key.data) + data)
            if not data:
                self._selector.unregister(stream)
                stream.close()

    def close(self) -> None:
        self._selector.close()


@contextmanager
def running(
    *arguments: str,
    cwd: Path,
    pass_fds: tuple[int, ...] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
    before: str = "",
) -> Iterator[Running]:
    """Run ``python -m trichannels`` in ``cwd``; killed at the end of the block if it still lives.

    With ``before``, Python that runs before it in the same process.
    """
    start = ["-c", f"{before}; import runpy; runpy.run_module('trichannels', run_name='__main__')"]
    program = [sys.executable, *(start if before else ["-m", "trichannels"]), *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONWARNINGS": "", **environment}
    with running_program(program, cwd=cwd, pass_fds=pass_fds, environment=environment) as started:
        yield started


@contextmanager
def running_program(
    program: Sequence[str], *, cwd: Path, environment: Mapping[str, str], pass_fds: tuple[int, ...] = ()
) -> Iterator[Running]:
    """Run any program; ``environment`` is added to the environment of this process."""
    with subprocess.Popen(
        program,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        start_new_session=True,
    ) as process:
        started = Running(process)
        try:
            yield started
        finally:
            started.close()
            kill_session(process.pid)
            process.wait()


def kill_session(leader: int) -> None:
    """Kill what is left of a process group that a test started."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def ask(address: str, path: str = "/") -> dict[str, object]:
    """GET a page of ``APP`` and return the facts that it tells."""
    found: dict[str, object] = httpx.get(address + path, timeout=PATIENCE, trust_env=False).raise_for_status().json()
    return found
