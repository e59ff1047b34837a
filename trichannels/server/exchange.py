"""One request that hypercorn speaks for: its bounded queue of events, its application, its end."""

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from anyio import CancelScope

from ..events import ASGIApp, Event, Scope
from ..exceptions import ConnectionClosed
from ..protocol import TABLES, Conversation
from .contain import LOG, contained, describe
from .drain import Wall
from .statistics import Counters

LOOK = 2.0  # seconds between two looks whether the client has left, while its queue is full
MESSAGES = 64
BYTES = 2**17
RESTART = 1012
LOST: dict[str, Event] = {
    "http": {"type": "http.disconnect"},
    "websocket": {"type": "websocket.disconnect", "code": 1006, "reason": ""},
}

Put = Callable[[Event], Awaitable[None]]
HypercornSend = Callable[[Event | None], Awaitable[None]]


class Exchange:
    """One request that hypercorn speaks for: an HTTP request, or a WebSocket over HTTP/2."""

    def __init__(self, scope: Scope, send: HypercornSend, wall: Wall, peer_has_left: Callable[[], bool]) -> None:
        self.scope, self.wall, self._peer_has_left = scope, wall, peer_has_left
        self.conversation = Conversation(scope["type"])
        self.left: Event | None = None  # the disconnect event, once the peer has left (or the response is complete)
        self._events: deque[Event] = deque()
        self._bytes, self._done, self._whole = 0, False, scope["type"] != "http"
        self._changed = trio.lowlevel.ParkingLot()
        self._send = send
        self._callbacks: list[Callable[[int, str], None]] = []
        self._draining: list[Callable[[], None]] = []
        self._bounds: list[CancelScope] = []
        self._sending: set[trio.CancelScope] = set()

    def __deepcopy__(self, memo: object) -> "Exchange":
        # Middleware that deep-copies a scope (hypercorn's ProxyFixMiddleware) copies the reference.
        return self

    @property
    def needs_body(self) -> bool:
        """Whether its client has not sent the whole body, and is not excused by a complete response."""
        return not self._whole and self.conversation.state != "closed"

    # -- hypercorn's side

    async def put(self, event: Event) -> None:
        """Queue an event for the application; waits while the queue is full, unless it is the last one."""
        if event["type"].endswith(".disconnect"):
            self.lose(event)
            return
        while self._full and not self._done and self.left is None:
            with trio.move_on_after(LOOK):
                await self._changed.park()
            # Nothing is read now. Who waits to hear of it, and only then, does not care for what is left unread.
            if self._full and self._callbacks and self._peer_has_left():
                self.lose()
        self._whole = self._whole or not event.get("more_body", False)
        if not self._done and self.left is None:
            self._events.append(event)
            self._bytes += len(event.get("body") or event.get("bytes") or event.get("text") or b"")
            self._changed.unpark_all()

    @property
    def _full(self) -> bool:
        return len(self._events) >= MESSAGES or self._bytes >= BYTES

    def lose(self, event: Event | None = None) -> None:
        """Nothing more comes from the peer; what is queued stays readable."""
        if self.left is None:
            self.left = event or dict(LOST[self.scope["type"]])
            self._changed.unpark_all()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks if self.conversation.state != "closed" else ():
                callback(self.left.get("code", 1006), self.left.get("reason", ""))

    def cut(self) -> None:
        """The whole connection is gone: also end what hypercorn waits for on its behalf, such as room in a window."""
        self.lose()
        for sending in self._sending:
            sending.cancel()

    async def go_away(self) -> None:
        """Tell who wants to know that the server drains; close a WebSocket over HTTP/2 because it restarts."""
        callbacks, self._draining = self._draining, []
        for callback in callbacks:
            callback()
        if self.conversation.state == "open" and self.left is None:
            await self._through({"type": "websocket.close", "code": RESTART})
            self.lose({"type": "websocket.disconnect", "code": RESTART, "reason": ""})

    # -- beyond ASGI (events.Transport), for HTTP only: WebSockets over HTTP/2 have hypercorn's limits

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        """See :class:`trichannels.events.Transport`. A response that is complete is not a peer that has left."""
        if self.left is None:
            self._callbacks.append(callback)
        elif self.conversation.state != "closed":
            callback(self.left.get("code", 1006), "")

    def when_draining(self, callback: Callable[[], None]) -> None:
        """See :class:`trichannels.events.Draining`."""
        if self.wall.draining:
            callback()
        else:
            self._draining.append(callback)

    def bound(self, scope: CancelScope) -> None:
        """See :class:`trichannels.events.Transport`."""
        self._bounds.append(scope)
        self.wall.bound(scope)

    # -- the application's side

    async def receive(self) -> Event:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self.left is not None:
                return dict(self.left)
            await self._changed.park()
        event = self._events.popleft()
        self._bytes -= len(event.get("body") or event.get("bytes") or event.get("text") or b"")
        self._changed.unpark_all()
        return event

    async def send(self, event: Event) -> None:
        """Send one event; raises ``ConnectionClosed`` once the peer has left. Extensions are hypercorn's to check."""
        await trio.lowlevel.checkpoint()
        self._check_peer()
        if any(event.get("type") in followers for followers in TABLES[self.scope["type"]][0].values()):
            self.conversation.sent(event)
        if not await self._through(event):
            raise ConnectionClosed
        self._check_peer()

    async def _through(self, event: Event | None) -> bool:
        """Give hypercorn an event; return False if the connection was cut before it had done with it."""
        with trio.CancelScope() as sending:
            self._sending.add(sending)
            try:
                await self._send(event)
            finally:
                self._sending.discard(sending)
        return not sending.cancelled_caught

    def _check_peer(self) -> None:
        if self.left is not None and self.conversation.state != "closed":
            raise ConnectionClosed(self.left.get("code", 1006), self.left.get("reason") or "")

    async def run(self, app: ASGIApp, counters: Counters) -> None:
        """Run the application to its end and let hypercorn finish what it left undone."""
        what = describe(self.scope)
        try:
            error = await contained(
                lambda: app(self.scope, self.receive, self.send), what, counters, left=lambda: self.left is not None
            )
        finally:
            self._done = True
            self._changed.unpark_all()
            for scope in self._bounds:
                self.wall.release(scope)
        state = self.conversation.state
        if error is None and self.left is None and state not in ("open", "closed"):
            counters.failures += 1
            LOG.error("%s: the application returned before its response was complete", what)
        if error is None and self.left is None and state == "open":
            await self._through({"type": "websocket.close", "code": 1000})
        await self._through(None)
