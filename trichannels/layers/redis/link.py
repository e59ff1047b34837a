"""Keeps one connection to wherever ``resolve`` says, makes it anew when it breaks, and carries commands over it.

What had not been written when a connection broke goes over the next one; what had is OutcomeUnknown.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from copy import copy
from math import inf
from typing import Any

import anyio

from ...exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from ...seam import open_wake
from .address import Endpoint
from .connection import DENIED, Connection, open_connection
from .outbox import Outbox, Pending, Stage, packed
from .server import Bounds, Timeouts

log = logging.getLogger("trichannels.layers.redis")

SETTLE = 1.0  # seconds for which a cancelled caller waits for the answer to what was written

Resolve = Callable[[], Awaitable[Endpoint]]


class Link:
    """Commands of many tasks over one connection at a time. ``run`` is its whole life, in a task of its owner's."""

    def __init__(self, label: str, resolve: Resolve, timeouts: Timeouts, bounds: Bounds) -> None:
        self.label, self._resolve, self._timeouts, self._bounds = label, resolve, timeouts, bounds
        self.outbox = Outbox(bounds.commands, bounds.bytes)
        self.connection: Connection | None = None
        self.generation = 0  # how many connections there have been
        self.problem = "no connection yet"
        self._told = ""  # the problem that the log has
        self.denied: LayerRefused | None = None  # it will not have us: nobody needs to wait for that to change

    def __repr__(self) -> str:
        return f"<Link to {self.label}, {self.connection or self.problem}>"

    # ---- the connection

    async def run(self) -> None:
        """Connect, serve, and begin anew, for ever."""
        pause = self._timeouts.backoff_first
        while True:
            began = self.generation
            try:
                await self._once()
            except LayerRefused as error:
                self._deny(error)
            except LayerUnreachable as error:
                self.problem = error.problem
            if self.generation != began:
                pause = self._timeouts.backoff_first
            if self.problem != self._told:
                self._told = self.problem
                log.warning("%s: %s; trying again until it is there", self.label, self.problem)
            await anyio.sleep(random.uniform(0, pause))  # noqa: S311 - full jitter
            pause = min(2 * pause, self._timeouts.backoff_most)

    async def _once(self) -> None:
        endpoint = await self._resolve()
        async with open_connection(
            endpoint, timeout=self._timeouts.connect, outbox=self.outbox, reply_bytes=self._bounds.reply_bytes
        ) as connection:
            self.connection, self.denied = connection, None
            self.generation += 1
            if self._told:
                self._told = ""
                log.warning("%s: connected again", self.label)
            try:
                await watched(connection, self._timeouts)
            finally:
                self.connection = None
                self.problem = connection.problem or "the connection was closed"

    def _deny(self, error: LayerRefused) -> None:
        self.problem = error.answer
        if error.code in DENIED:
            self.denied = error
            for pending in self.outbox.drop():
                pending.finish(error)

    def drop(self, problem: str) -> None:
        """Give the connection up: its server is not the one any more. The next one follows at once."""
        if self.connection is not None:
            self.connection.fail(problem)

    # ---- commands

    async def submit(
        self,
        data: bytes,
        count: int,
        timeout: float | None = None,
        *,
        marked: bool = False,
        patience: float | None = None,
    ) -> list[Any]:
        """Send ``count`` packed commands; return their answers, errors among them.

        Raises as :class:`RedisServer` says. With ``patience``, seconds, what is not even written by then is given up.
        """
        limit = self._timeouts.reply if timeout is None else timeout
        pending = Pending(data, count, open_wake(), marked=marked)
        queued = False
        try:
            with anyio.move_on_after(limit):
                if self.outbox.full:
                    await self.outbox.room()
                if self.denied is not None:
                    await anyio.lowlevel.checkpoint()
                    raise copy(self.denied)
                self.outbox.put(pending)
                queued = True
                if patience is not None:
                    with anyio.move_on_after(patience):
                        await _over(pending)
                if patience is None or pending.stage is Stage.WRITTEN:
                    await _over(pending)
        except anyio.get_cancelled_exc_class():
            if not queued or self.outbox.withdraw(pending) or not await self._settled(pending):
                raise
        finally:
            if queued:
                self.outbox.done(pending)
        if pending.stage is Stage.OVER and (pending.error is not None or pending.answers):
            if pending.error is not None:
                raise copy(pending.error)
            return pending.answers
        if not queued:
            raise LayerUnreachable(self.label, f"no room for more commands within {limit:g} s: {self.problem}")
        if self.outbox.withdraw(pending):
            raise LayerUnreachable(self.label, f"not reached within {limit:g} s: {self.problem}")
        raise OutcomeUnknown(self.label, f"no answer within {limit:g} s; whether it was carried out is unknown")

    async def _settled(self, pending: Pending) -> bool:
        """A cancelled caller's command is on its way: wait for its answer, not for long; True if it may be returned.

        So cancelled means not done, unless the server does not answer. The cancellation shows at the next checkpoint.
        """
        ours = anyio.current_effective_deadline() == -inf  # else it is asyncio's own cancel(), which must go on
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE):
            await _over(pending)
        return ours and pending.stage is Stage.OVER and pending.error is None


async def _over(pending: Pending) -> None:
    assert pending.wake is not None
    while pending.stage is not Stage.OVER:
        await pending.wake.sleep()


async def watched(connection: Connection, timeouts: Timeouts) -> None:
    """Ask the server every now and then whether it lives; returns when the connection is over."""
    while not connection.over.is_set():
        with anyio.move_on_after(timeouts.ping_interval):
            await connection.over.wait()
            return
        ping = Pending(packed("PING"), 1, open_wake())
        connection.outbox.put(ping)
        try:
            with anyio.move_on_after(timeouts.ping):
                await _over(ping)
        finally:
            connection.outbox.withdraw(ping)
            connection.outbox.done(ping)
        if not ping.answers:
            connection.fail(f"no answer to a ping within {timeouts.ping:g} s")
