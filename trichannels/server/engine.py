"""What runs beside the connections of one server, once for all of them: reading, joined writes, pings and deadlines."""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .flusher import Flusher
from .pulse import Limits, Pulse
from .readers import Poller, Reader, TaskReader
from .statistics import Counters
from .wire import Wire


class Engine:
    """Has to run for as long as there are connections."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self.limits, self.counters = limits, counters
        self.flusher, self.pulse = Flusher(), Pulse(limits, counters)
        self._poller: Poller | None = None

    def reader_for(self, wire: Wire, nursery: trio.Nursery) -> Reader:
        """Return who reads this connection; a task of its own would run in ``nursery``."""
        return self._poller if self._poller is not None and wire.descriptor >= 0 else TaskReader(nursery)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run for this block."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            yield
            nursery.cancel_scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; reports once connections may begin."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flusher.run)
            nursery.start_soon(self.pulse.run)
            if hasattr(select, "epoll"):
                self._poller = Poller()
            task_status.started()
            if self._poller is not None:
                try:
                    await self._poller.run()
                finally:
                    self._poller.close()
