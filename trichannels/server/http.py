"""HTTP on one connection: our socket and tasks around hypercorn's protocol object, until it closes or is upgraded."""

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from math import inf
from typing import Any

import trio

from ..events import TRANSPORT
from .contain import contained, describe
from .exchange import Exchange, HypercornSend, Put
from .handshake import Upgrade
from .hypercorn_glue import Closed, Event, HTTPProtocol, RawData, Updated, UpgradeRequested
from .shared import Shared
from .wire import Wire

LINGER = 2.0  # seconds that a client has, after the last response, to take it and close


class Phase(Enum):
    """What a connection is at, which says how long its next byte may take."""

    IDLE = auto()  # no request, or not the whole of its head
    BODY = auto()  # whatever is left to do needs more of a body
    BUSY = auto()


class HTTPConnection:
    """Reads for hypercorn, writes for it, and starts the applications that it asks for."""

    def __init__(
        self,
        shared: Shared,
        wire: Wire,
        nursery: trio.Nursery,
        addresses: tuple[Any, Any],
        secure: bool,
        alpn: str,
    ) -> None:
        self._shared, self._settings, self._wire, self._nursery = shared, shared.settings, wire, nursery
        self._exchanges: set[Exchange] = set()
        self._helpers: set[trio.CancelScope] = set()
        self._reading, self._handling = trio.CancelScope(), trio.CancelScope()
        self._deadline, self._phase = inf, Phase.IDLE
        self._resting, self._closing = True, False
        wire.on_lost = self._cut
        self._protocol = HTTPProtocol(
            shared.app, shared.config, shared.context, self, shared.state, secure, *addresses, self._act, alpn
        )

    async def serve(self, first: bytes, deadline: float) -> Upgrade | None:
        """Speak HTTP until the connection has closed (then return None) or asks to become a WebSocket.

        ``first`` has been read already; the first request's head must be complete by ``deadline``.
        """
        self._until(-inf if self._shared.wall.draining else deadline)
        try:
            await self._protocol.initiate()
            await self._read(first)
        except UpgradeRequested as request:
            return request.upgrade
        await self._protocol.handle(Closed())
        self._cut()
        self._wire.finish()
        await self._wire.flushed()
        # Closing with unread bytes would reset the connection and take our last bytes from the client.
        with trio.move_on_after(LINGER):
            while await self._wire.read():
                pass
        self._wire.close()
        return None

    def go_away(self) -> None:
        """The server drains: close now if idle, else after the response; WebSockets over HTTP/2 are told 1012."""
        if self._current_phase() is Phase.IDLE:
            self._until(-inf)
        for exchange in self._exchanges:
            self.spawn(exchange.go_away)

    async def _read(self, first: bytes) -> None:
        """Give hypercorn what comes, until the client leaves, idles or stalls too long, or hypercorn closes."""
        while not self._closing:
            self._set_phase(self._current_phase(), fresh=True)
            data, first = first or await self._next(), b""
            if not data:
                return
            with trio.CancelScope() as self._handling:
                await self._protocol.handle(RawData(data))

    async def _next(self) -> bytes:
        with trio.CancelScope(deadline=self._deadline) as self._reading:
            return await self._wire.read()
        return b""

    async def _act(self, event: Event) -> None:
        """What hypercorn wants done with the connection."""
        if isinstance(event, RawData):
            # Queued whole and at once, so that a cancelled send() cannot tear a response; the waiting comes after.
            self._wire.write_nowait(event.data)
            await self._wire.room()
        elif isinstance(event, Updated):
            self._resting = event.idle
            self._set_phase(self._current_phase())
        elif isinstance(event, Closed):
            self._closing = True
            await self._protocol.handle(Closed())
            self._until(-inf)
            # hypercorn's reader may wait for a response that will not come, if requests were pipelined.
            self._handling.cancel()

    def _current_phase(self) -> Phase:
        # hypercorn says that it rests; but not of a connection whose requests it has refused by itself.
        if self._resting or not self._exchanges:
            return Phase.IDLE
        return Phase.BODY if all(exchange.needs_body for exchange in self._exchanges) else Phase.BUSY

    def _set_phase(self, phase: Phase, *, fresh: bool = False) -> None:
        """Set the deadline of the next byte; one that has come (``fresh``) prolongs nothing but a body."""
        if self._closing or (phase is self._phase and not (fresh and phase is Phase.BODY)):
            return
        self._phase = phase
        patience = {Phase.IDLE: self._settings.keep_alive_timeout, Phase.BODY: self._settings.body_timeout}
        if phase is Phase.IDLE and self._shared.wall.draining:
            self._until(-inf)
        else:
            self._until(trio.current_time() + patience.get(phase, inf))

    def _until(self, moment: float) -> None:
        self._deadline = self._reading.deadline = moment

    def _cut(self) -> None:
        """Nobody is there any more: tell the applications, and end what waits on the client."""
        self._closing = True
        self._handling.cancel()
        for exchange in tuple(self._exchanges):
            exchange.cut()
        for helper in tuple(self._helpers):
            helper.cancel()

    # -- what hypercorn calls its task group, and what the glue needs beside

    @property
    def write_timeout(self) -> float:
        return self._settings.write_timeout

    def overdue(self) -> None:
        """A stream of HTTP/2 was reset, because its client gave it no window."""
        self._shared.counters.write_timeouts += 1

    def look(self) -> None:
        """Find out whether the peer has left, where reading cannot tell because nothing is read."""
        if self._wire.end.peer_has_left():
            self._cut()

    async def spawn_app(self, app: object, config: object, scope: Any, send: HypercornSend) -> Put:
        """Start the application for one request; return the function that takes its events."""
        exchange = Exchange(scope, send, self._shared.wall, self._wire.end.peer_has_left)
        self._shared.prepare(scope)
        if scope["type"] == "http":
            scope["extensions"][TRANSPORT] = exchange
        self._exchanges.add(exchange)
        self._nursery.start_soon(self._run, exchange)
        return exchange.put

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a helper of hypercorn's, which ends with the connection."""
        self._nursery.start_soon(self._help, function, *args)

    async def _run(self, exchange: Exchange) -> None:
        counters = self._shared.counters
        try:
            if await contained(lambda: exchange.run(self._shared.app, counters), describe(exchange.scope), counters):
                self._wire.lose()
        finally:
            self._exchanges.discard(exchange)
            self._set_phase(self._current_phase())

    async def _help(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        with trio.CancelScope() as scope:
            self._helpers.add(scope)
            try:
                if await contained(lambda: function(*args), "connection", self._shared.counters):
                    self._wire.lose()
            finally:
                self._helpers.discard(scope)
