"""A connection that is made anew whenever it breaks: what commands and subscriptions have in common."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import anyio

from ...backoff import Backoff
from ...exceptions import LayerRefused, LayerUnreachable, TrichannelsError
from ...seam import open_wake
from .address import Endpoint
from .connection import Connection, hopeless, over
from .outbox import Pending, Stage, packed
from .server import Bounds, Timeouts

log = logging.getLogger("trichannels.layers.redis")

CLOSED = "the layer has been closed"

Resolve = Callable[[], Awaitable[Endpoint]]


class Attempts:
    """The pauses between attempts to connect, which grow until a connection has lasted."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._backoff, self._lasting = Backoff(timeouts.backoff_first, timeouts.backoff_most), timeouts.backoff_most
        self._began = anyio.current_time()

    def begin(self) -> None:
        """A connection is there."""
        self._began = anyio.current_time()

    async def pause(self, connected: bool) -> None:
        """Wait before the next attempt. A connection that broke at once counts as one that was not made."""
        if connected and anyio.current_time() >= self._began + self._lasting:
            self._backoff.reset()
        await anyio.sleep(self._backoff.next())


class Lasting(ABC):
    """Keeps one connection to wherever ``resolve`` says. ``run`` is its whole life, in a task of its owner's."""

    def __init__(self, label: str, resolve: Resolve, timeouts: Timeouts, bounds: Bounds) -> None:
        self.label, self._resolve, self._timeouts, self._bounds = label, resolve, timeouts, bounds
        self.connection: Connection | None = None
        self.generation = 0  # how many connections there have been
        self.problem = "no connection yet"
        self.denied: TrichannelsError | None = None  # why nobody needs to wait: it will not have us, or all is over

    async def run(self) -> None:
        """Connect, serve, and begin anew, for ever. Cancelled, it tells all who wait that it is over."""
        try:
            attempts = Attempts(self._timeouts)
            while True:
                began = self.generation
                await self._attempt(attempts)
                self._report()
                await attempts.pause(self.generation != began)
        finally:
            self.problem = CLOSED
            self._deny(LayerUnreachable(self.label, CLOSED))

    async def _attempt(self, attempts: Attempts) -> None:
        try:
            await self._once(attempts)
        except LayerRefused as error:
            self.problem = error.answer
            if hopeless(error):
                self._deny(error)
        except LayerUnreachable as error:
            self.problem, self.denied = error.problem, None

    def drop(self, problem: str) -> None:
        """Give the connection up: its server is not the one any more. The next one follows at once."""
        if self.connection is not None:
            self.connection.fail(problem)

    @abstractmethod
    async def _once(self, attempts: Attempts) -> None:
        """Connect, say so by ``attempts.begin()``, and serve until the connection ends; ``problem`` then says why."""

    @abstractmethod
    def _report(self) -> None:
        """Log the problem."""

    def _deny(self, error: TrichannelsError) -> None:
        """Refuse all who wait, and who comes, with an error."""
        self.denied = error


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
