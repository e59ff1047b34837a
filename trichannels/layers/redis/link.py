"""Keeps one connection to wherever ``resolve`` says, makes it anew when it breaks, and carries commands over it.

What had not been written when a connection broke goes over the next one; what had is OutcomeUnknown.
"""

import logging
from copy import copy
from math import inf
from typing import Any

import anyio

from ...exceptions import LayerUnreachable, OutcomeUnknown, TrichannelsError
from ...seam import open_wake
from .connection import open_connection, over
from .lasting import Attempts, Lasting, Resolve, watched
from .outbox import Outbox, Pending, Stage
from .server import Bounds, Timeouts

log = logging.getLogger("trichannels.layers.redis")

WRITTEN_BY = 7 / 8  # of the time for a command: what is written later could hardly be answered
SETTLE = 1.0  # seconds for which a cancelled caller waits for the answer to what was written


class Link(Lasting):
    """Commands of many tasks over one connection at a time. ``run`` is its whole life, in a task of its owner's."""

    def __init__(self, label: str, resolve: Resolve, timeouts: Timeouts, bounds: Bounds) -> None:
        super().__init__(label, resolve, timeouts, bounds)
        self.outbox = Outbox(bounds.commands, bounds.bytes)
        self._told = ""  # the problem that the log has

    def __repr__(self) -> str:
        return f"<Link to {self.label}, {self.connection or self.problem}>"

    # ---- the connection

    def _report(self) -> None:
        if self.problem != self._told:
            self._told = self.problem
            log.warning("%s: %s; trying again until it is there", self.label, self.problem)

    async def _once(self, attempts: Attempts) -> None:
        endpoint = await self._resolve()
        async with open_connection(
            endpoint, timeout=self._timeouts.connect, outbox=self.outbox, reply_bytes=self._bounds.reply_bytes
        ) as connection:
            self.connection, self.denied = connection, None
            self.generation += 1
            if self._told:
                self._told = ""
                log.warning("%s: connected again", self.label)
            attempts.begin()
            try:
                await watched(connection, self._timeouts)
            finally:
                self.connection = None
                self.problem = connection.problem or "the connection was closed"

    def _deny(self, error: TrichannelsError) -> None:
        super()._deny(error)
        for pending in self.outbox.drop():
            pending.finish(error)

    # ---- commands

    async def submit(
        self,
        data: bytes,
        count: int,
        timeout: float | None = None,
        *,
        patience: float | None = None,
    ) -> list[Any]:
        """Send ``count`` packed commands; return their answers, errors among them.

        Raises as :class:`RedisServer` says. If some answers came before the connection broke, or in time, the error
        stands in the places of the others. What is not even written within ``patience``, in seconds, is given up.
        """
        limit = self._timeouts.reply if timeout is None else timeout
        patience = limit * WRITTEN_BY if patience is None else min(patience, limit * WRITTEN_BY)
        pending = Pending(data, count, open_wake())
        queued = False
        try:
            with anyio.move_on_after(patience):
                if self.outbox.crowded and self.denied is None:
                    await self.outbox.room()
                if (denied := self.denied) is not None:
                    await anyio.lowlevel.checkpoint()
                    raise copy(denied)
                self.outbox.put(pending)
                queued = True
                await over(pending)
            if pending.stage is Stage.WRITTEN:
                with anyio.move_on_after(limit - patience):
                    await over(pending)
        except anyio.get_cancelled_exc_class():
            if not queued or self.outbox.withdraw(pending) or not await self._settled(pending):
                raise
        if pending.error is not None:
            return _answered(pending, pending.error)
        if pending.stage is Stage.OVER:
            return pending.answers
        if not queued:
            raise LayerUnreachable(self.label, f"no room for more commands in time ({limit:g} s): {self.problem}")
        if self.outbox.withdraw(pending):
            raise LayerUnreachable(self.label, f"not reached in time ({limit:g} s): {self.problem}")
        late = f"no answer within {limit:g} s; whether it was carried out is unknown"
        return _answered(pending, OutcomeUnknown(self.label, late))

    async def _settled(self, pending: Pending) -> bool:
        """A cancelled caller's command is on its way: wait for its answer, not for long; True if it may be returned.

        So cancelled means not done, unless the server does not answer. The cancellation shows at the next checkpoint.
        """
        ours = anyio.current_effective_deadline() == -inf  # else it is asyncio's own cancel(), which must go on
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE):
            await over(pending)
        return ours and pending.stage is Stage.OVER and pending.error is None


def _answered(pending: Pending, error: TrichannelsError) -> list[Any]:
    """Return the answers that came, and the error in the places of the others; raise it if none came."""
    if not pending.answers:
        raise copy(error)
    return [*pending.answers, *(copy(error) for _ in range(pending.count - len(pending.answers)))]
