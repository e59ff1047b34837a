"""A worker process as its parent holds it. What the worker itself does is in ``worker``."""

import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from math import inf

import trio

from ..exceptions import ConfigError, StartupFailed
from .exits import CLEAN, error_of
from .files import Looks
from .line import Line

LAST_WORDS = 1.0  # seconds to wait for the end of a dead worker's line: a program that it forked may hold it open

Command = Callable[[Sequence[int]], Sequence[str]]
"""Makes the command line of a worker that inherits these descriptors: the line, then the listening sockets."""


class Child:
    """One worker process, from its start to its last word."""

    def __init__(self, process: trio.Process, line: Line) -> None:
        self._process, self._line = process, line
        self._silent = trio.Event()
        self._started_at = inf
        self.started = trio.Event()
        self.failure: ConfigError | StartupFailed | None = None
        """Why it could not start, as it told itself."""
        self.on_files: Callable[[Looks], None] = lambda files: None

    def __repr__(self) -> str:
        state = self.end or ("serving" if self.started.is_set() else "starting")
        return f"<worker {self._process.pid}: {state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def served(self) -> float:
        """For how many seconds it has been serving."""
        return trio.current_time() - self._started_at

    @property
    def clean(self) -> bool:
        """Whether it ended as it should."""
        return self._process.returncode == CLEAN

    @property
    def end(self) -> str:
        """How it ended, in words; empty while it lives."""
        code = self._process.returncode
        if code is None:
            return ""
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def drain(self, seconds: float) -> None:
        """Tell it to end within so many seconds; what has not started serving ends at once."""
        self._line.tell(drain=seconds)
        if not self.started.is_set():
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def ended(self) -> None:
        """Wait until it has ended and its last message has been read. May be cancelled and called again."""
        await self._process.wait()
        with trio.move_on_after(LAST_WORDS):
            await self._silent.wait()

    async def listen(self) -> None:
        async for message in self._line.messages():
            if "files" in message:
                self.on_files(message["files"])
            if "started" in message:
                self._started_at = trio.current_time()
                self.started.set()
            if "failed" in message:
                self.failure = error_of(message["code"], message["failed"])
        self._silent.set()


@asynccontextmanager
async def open_child(command: Command, sockets: Sequence[socket.socket]) -> AsyncIterator[Child]:
    """Start a worker that listens on ``sockets``; leaving the block kills it if it lives, and waits for its end."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, ExitStack() as copies:
            # Of our own, because the caller may close its sockets while the process is being made.
            listening = [copies.enter_context(sock.dup()) for sock in sockets]
            descriptors = [theirs.fileno(), *(sock.fileno() for sock in listening)]
            process = await trio.lowlevel.open_process(list(command(descriptors)), pass_fds=descriptors)
        child = Child(process, Line(ours))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.listen)
                yield child
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
