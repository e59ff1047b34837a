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

from ...exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown, TrichannelsError
from ...seam import open_wake
from .address import Endpoint
from .connection import Connection, hopeless, open_connection, over
from .outbox import Outbox, Pending, Stage, packed
from .server import Bounds, Timeouts

log = logging.getLogger("trichannels.layers.redis")

SETTLE = 1.0  # seconds for which a cancelled caller waits for the answer to what was written
CLOSED = "the layer has been closed"

Resolve = Callable[[], Awaitable[Endpoint]]


class Backoff:
    """The pauses between attempts to connect: random up to a limit, which doubles until something has lasted."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._first, self._most = timeouts.backoff_first, timeouts.backoff_most
        self._limit = self._first
        self._began = anyio.current_time()

    def begin(self) -> None:
        """A connection is there."""
        self._began = anyio.current_time()

    async def pause(self, connected: bool) -> None:
        """Wait before the next attempt. A connection that broke at once counts as one that was not made."""
        if connected and anyio.current_time() >= self._began + self._most:
            self._limit = self._first
        await anyio.sleep(random.uniform(0, self._limit))  # noqa: S311 - full jitter
        self._limit = min(2 * self._limit, self._most)


class Link:
    """Commands of many tasks over one connection at a time. ``run`` is its whole life, in a task of its owner's."""

    def __init__(self, label: str, resolve: Resolve, timeouts: Timeouts, bounds: Bounds) -> None:
        self.label, self._resolve, self._timeouts, self._bounds = label, resolve, timeouts, bounds
        self.outbox = Outbox(bounds.commands, bounds.bytes)
        self.connection: Connection | None = None
        self.generation = 0  # how many connections there have been
        self.problem = "no connection yet"
        self._told = ""  # the problem that the log has
        self.denied: TrichannelsError | None = None  # why nobody needs to wait: it will not have us, or all is over

    def __repr__(self) -> str:
        return f"<Link to {self.label}, {self.connection or self.problem}>"

    # ---- the connection

    async def run(self) -> None:
        """Connect, serve, and begin anew, for ever. Cancelled, it tells all who wait that it is over."""
        try:
            backoff = Backoff(self._timeouts)
            while True:
                began = self.generation
                await self._attempt(backoff)
                if self.problem != self._told:
                    self._told = self.problem
                    log.warning("%s: %s; trying again until it is there", self.label, self.problem)
                await backoff.pause(self.generation != began)
        finally:
            self.problem = CLOSED
            self._deny(LayerUnreachable(self.label, CLOSED))

    async def _attempt(self, backoff: Backoff) -> None:
        try:
            await self._once(backoff)
        except LayerRefused as error:
            self.problem = error.answer
            if hopeless(error):
                self._deny(error)
        except LayerUnreachable as error:
            self.problem, self.denied = error.problem, None

    async def _once(self, backoff: Backoff) -> None:
        endpoint = await self._resolve()
        async with open_connection(
            endpoint, timeout=self._timeouts.connect, outbox=self.outbox, reply_bytes=self._bounds.reply_bytes
        ) as connection:
            self.connection, self.denied = connection, None
            self.generation += 1
            if self._told:
                self._told = ""
                log.warning("%s: connected again", self.label)
            backoff.begin()
            try:
                await watched(connection, self._timeouts)
            finally:
                self.connection = None
                self.problem = connection.problem or "the connection was closed"

    def _deny(self, error: TrichannelsError) -> None:
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
        patience: float | None = None,
    ) -> list[Any]:
        """Send ``count`` packed commands; return their answers, errors among them.

        Raises as :class:`RedisServer` says. With ``patience``, seconds, what is not even written by then is given up.
        """
        limit = self._timeouts.reply if timeout is None else timeout
        pending = Pending(data, count, open_wake())
        queued = False
        try:
            with anyio.move_on_after(limit):
                if self.outbox.crowded and self.denied is None:
                    await self.outbox.room()
                if (denied := self.denied) is not None:
                    await anyio.lowlevel.checkpoint()
                    raise copy(denied)
                self.outbox.put(pending)
                queued = True
                if patience is not None:
                    with anyio.move_on_after(patience):
                        await over(pending)
                if patience is None or pending.stage is Stage.WRITTEN:
                    await over(pending)
        except anyio.get_cancelled_exc_class():
            if not queued or self.outbox.withdraw(pending) or not await self._settled(pending):
                raise
        if pending.error is not None:
            raise copy(pending.error)
        if pending.stage is Stage.OVER:
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
            await over(pending)
        return ours and pending.stage is Stage.OVER and pending.error is None


async def watched(connection: Connection, timeouts: Timeouts, on_pong: Callable[[], object] | None = None) -> None:
    """Ask the server every now and then whether it lives; returns when the connection is over."""
    async with anyio.create_task_group() as group:
        group.start_soon(_ping, connection, timeouts, on_pong)
        await connection.over.wait()
        group.cancel_scope.cancel()


async def _ping(connection: Connection, timeouts: Timeouts, on_pong: Callable[[], object] | None) -> None:
    while True:
        await anyio.sleep(timeouts.ping_interval)
        ping = Pending(packed("PING"), 1, open_wake())
        connection.outbox.put(ping)
        heard = -1
        try:
            # Behind much else a ping takes its time: whoever says anything is alive, and we are who does not listen.
            while ping.stage is not Stage.OVER and (heard != connection.heard or connection.settling):
                heard = connection.heard
                with anyio.move_on_after(timeouts.ping):
                    await over(ping)
        finally:
            connection.outbox.withdraw(ping)
        if not ping.answers:
            connection.fail(f"no answer to a ping within {timeouts.ping:g} s")
        elif on_pong is not None:
            on_pong()
