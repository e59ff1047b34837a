"""Several workers on the same sockets: started, replaced when they die, ended together."""

import logging
import socket
from collections.abc import Sequence

import trio

from ..backoff import pause_after
from ..exceptions import StartupFailed
from .child import Child, Command
from .parent import Parent

LOG = logging.getLogger("trichannels.server.supervisor")

HEALTHY = 5.0  # seconds of serving after which a death says nothing about the start
ATTEMPTS = 5  # deaths in a row, each before it was healthy, until we give up
PAUSE = (0.5, 10.0)  # seconds before the next start: at most, after none and after many failures


class Supervisor(Parent):
    """Keeps ``count`` workers. The first must serve before the others are begun: what is wrong with it, shows once."""

    def __init__(self, command: Command, sockets: Sequence[socket.socket], drain_time: float, count: int) -> None:
        super().__init__(command, sockets, drain_time)
        self._count = count
        self._proven = trio.Event()

    async def _hold(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, nursery)

    async def _keep(self, nursery: trio.Nursery) -> None:
        """Keep one worker: start it, and another whenever it dies."""
        failures = 0
        while not self._stopping.is_set():
            async with self._open_child() as child:
                await self._attend(child, nursery)
            failures = 0 if child.served >= HEALTHY else failures + 1
            if not self._stopping.is_set():
                await self._after(child, failures)

    async def _attend(self, child: Child, nursery: trio.Nursery) -> None:
        """Stay with a worker to its end; the first that serves brings the others."""
        async with trio.open_nursery() as watch:
            watch.start_soon(self._greet, child, nursery)
            await child.ended()
            watch.cancel_scope.cancel()

    async def _greet(self, child: Child, nursery: trio.Nursery) -> None:
        await child.started.wait()
        if not self._proven.is_set():
            self._proven.set()
            for _ in range(self._count - 1):
                nursery.start_soon(self._keep, nursery)

    async def _after(self, child: Child, failures: int) -> None:
        """Give up, or wait a while before another worker takes this one's place."""
        if child.failure is not None and not self._proven.is_set():
            self._give_up(child.failure)
        elif failures >= ATTEMPTS:
            self._give_up(child.failure or StartupFailed(f"{failures} workers in a row died early, {child.end}"))
        else:
            seconds = pause_after(failures, *PAUSE)
            LOG.error("worker %d is gone (%s): another one starts in %.1f s", child.pid, child.end, seconds)
            with trio.move_on_after(seconds):
                await self._stopping.wait()
