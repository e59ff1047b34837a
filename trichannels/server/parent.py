"""What a supervisor and a reloader have in common: sockets that outlive workers, and one way to end them all."""

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf

import trio

from ..exceptions import StartupFailed
from .child import Child, Command, open_child
from .signals import obeyed_signals

MARGIN = 5.0  # seconds beyond the drain until a worker is killed: lifespan.shutdown, and the interpreter's own end


class Parent(ABC):
    """Holds worker processes, none of which outlives :meth:`run`."""

    def __init__(self, command: Command, sockets: Sequence[socket.socket], drain_time: float) -> None:
        self._command, self._sockets, self._drain_time = command, sockets, drain_time
        self._children: set[Child] = set()
        self._stopping = trio.Event()
        self._stop_by = inf
        self._patience = trio.CancelScope()
        self._failure: Exception | None = None

    @abstractmethod
    async def _hold(self) -> None:
        """Start workers, and others in their place, until ``_stopping`` is set and they have ended."""

    async def run(self) -> None:
        """Hold workers until told to stop.

        Raises :class:`StartupFailed` or :class:`ConfigError` if they came to nothing, and :class:`StartupFailed` if one
        did not end as it should.
        """
        with obeyed_signals(self.stop, self._drain_time), self._patience:
            await self._hold()
        if self._patience.cancelled_caught:
            self._fail(StartupFailed("a worker did not end within the drain time and was killed"))
        if self._failure is not None:
            raise self._failure

    def stop(self, seconds: float) -> None:
        """Let all workers end within so many seconds; called again, it can only shorten that."""
        self._stop_by = min(self._stop_by, trio.current_time() + seconds)
        self._patience.deadline = self._stop_by + MARGIN
        self._stopping.set()
        for sock in self._sockets:  # nobody shall wait in a queue that nobody serves
            sock.close()
        for child in self._children:
            child.drain(seconds)

    def _fail(self, error: Exception) -> None:
        """Remember the first failure: it becomes the exit code."""
        self._failure = self._failure or error

    def _give_up(self, error: Exception) -> None:
        self._fail(error)
        self.stop(self._drain_time)

    @asynccontextmanager
    async def _open_child(self) -> AsyncIterator[Child]:
        """Start a worker, which hears of the stop; leaving the block ends it."""
        async with open_child(self._command, self._sockets) as child:
            self._children.add(child)
            if self._stopping.is_set():  # told so while the process was being made
                child.drain(0)
            try:
                yield child
            finally:
                self._children.discard(child)
        if self._stopping.is_set() and child.started.is_set() and not child.clean:
            self._fail(StartupFailed(f"a worker ended with {child.end} while it was stopping"))
