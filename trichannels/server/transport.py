"""The application's side of a WebSocket over HTTP/1.1: its ``receive`` and ``send``, and what we offer beyond ASGI."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import trio
from anyio import CancelScope

from ..events import Event, Feed, Serializer, Shared, Shares, check_sent
from ..exceptions import BadEvent, ConnectionClosed
from ..protocol import Conversation
from .deflate import Framer, framer
from .drain import Wall
from .frames import BINARY, COMMON, COMPRESSED, TEXT, frame
from .handshake import Answer, acceptance, denial, head, refusal
from .peer import Peer
from .wire import Wire

RESTART = 1012
TURN = 0.001  # seconds for which a task may send on before others get a turn
SENDS = 16  # messages, likewise


class WebSocketTransport:
    """One socket, as its application has it. Offered as ``scope["extensions"]["trichannels.transport"]``."""

    __slots__ = (
        "_answer",
        "_bounds",
        "_callbacks",
        "_closed_by_us",
        "_denied",
        "_frame",
        "_log",
        "_offered",
        "_peer",
        "_sends",
        "_turn",
        "_until",
        "_wall",
        "_wire",
        "begun",
        "conversation",
    )

    def __init__(
        self, wire: Wire, peer: Peer, answer: Answer, scope: Mapping[str, Any], wall: Wall, log: Callable[[int], None]
    ) -> None:
        self.conversation = Conversation("websocket")
        self._wire, self._peer, self._wall = wire, peer, wall
        self._offered: Sequence[str] = scope["subprotocols"]  # not the scope: it leads back to us
        self._answer: Answer | None = answer
        self._frame: Framer = framer(answer.window) if answer.window else frame
        peer.common = COMPRESSED if answer.window else COMMON
        self._log: Callable[[int], None] | None = log
        self._turn: trio.Lock | None = None
        self.begun = self._closed_by_us = False
        self._callbacks: list[Callable[[int, str], None]] = []
        self._bounds: list[CancelScope] = []
        self._denied: Event | None = None
        self._until, self._sends = 0.0, 0
        peer.on_end = self._tell
        peer.on_left_behind = self._left_behind

    def __repr__(self) -> str:
        return f"<WebSocketTransport {self.conversation.state}, ended={self._peer.ended}>"

    def __deepcopy__(self, memo: object) -> "WebSocketTransport":
        # Middleware that deep-copies a scope (hypercorn's ProxyFixMiddleware) copies the reference.
        return self

    # -- beyond ASGI (events.Transport)

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        """See :class:`trichannels.events.Transport`."""
        if self._peer.ended is None:
            self._callbacks.append(callback)
        elif not self._closed_by_us:
            callback(*self._peer.ended)

    def bound(self, scope: CancelScope) -> None:
        """See :class:`trichannels.events.Transport`."""
        self._bounds.append(scope)
        self._wall.bound(scope)

    def release(self) -> None:
        """The application has ended: its scopes are no longer ours to shorten."""
        for scope in self._bounds:
            self._wall.release(scope)

    def _tell(self, code: int, reason: str) -> None:
        callbacks, self._callbacks = self._callbacks, []
        if not self._closed_by_us:
            for callback in callbacks:
                callback(code, reason)

    def _left_behind(self) -> None:
        # Somebody waits to hear of it: give up what nobody has read, and read on to the close frame. An application
        # that only ever calls receive() gets to the end in its own time, and misses nothing.
        if self._callbacks:
            self._peer.discard()

    def feed(self, put: Feed) -> None:
        """See :class:`trichannels.events.Feeding`."""
        self.begun = True
        put({"type": "websocket.connect"}, 0)
        self._peer.put = put

    def resume(self) -> None:
        """See :class:`trichannels.events.Feeding`."""
        self._peer.resume()

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any, name: object = None) -> None:
        """See :class:`trichannels.events.Feeding`."""
        self._peer.nursery.start_soon(function, *args, name=name)

    def begin_turn(self) -> None:
        """See :class:`trichannels.events.Feeding`."""
        self._sends, self._until = SENDS, perf_counter() + TURN

    # -- ASGI

    async def receive(self) -> Event:
        """Return the next event, in the end ``websocket.disconnect`` as often as asked. Cancelling loses nothing."""
        if not self.begun or self._peer.ahead or self._peer.ended is not None:
            await trio.lowlevel.checkpoint()  # to wait for news is one, too
        if not self.begun:
            self.begun = True
            return {"type": "websocket.connect"}
        while (event := self._peer.pop()) is None:
            if self._peer.ended is not None:
                code, reason = self._peer.ended
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self._peer.news()
        return event

    async def send(self, event: Event) -> None:
        """Send one event; waits while ``write_buffer`` bytes wait for the peer. A cancelled send has sent nothing.

        Each call sees a cancellation; who sends on and on lets others run at least after each millisecond or 16 calls.
        Raises :class:`ConnectionClosed` once the peer has left, :class:`OutOfTurn` after the application's own close,
        :class:`BadEvent` for a malformed event.
        """
        peer, conversation = self._peer, self.conversation
        self._sends -= 1
        if self._sends > 0 and peer.ended is None and perf_counter() < self._until:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self.begin_turn()
        # A close is small, and must not wait behind what a stuck peer does not read.
        if self._wire.full and conversation.state != "closed" and event.get("type") != "websocket.close":
            self._turn = self._turn or trio.Lock()
            async with self._turn:
                await self._wire.room()
        if peer.ended is not None and conversation.state != "closed":
            raise ConnectionClosed(*peer.ended)
        text = event.get("text") if type(event) is dict else None
        if (
            type(text) is str
            and event.get("bytes") is None
            and event.get("type") == "websocket.send"
            and conversation.state == "open"
        ):  # nearly all that is ever sent; below, it would come to the same
            self._wire.write_nowait(self._frame(TEXT, text.encode()))
            return
        before = conversation.state
        conversation.sent(event)
        try:
            SENDERS[event["type"]](self, event)
        except BadEvent:
            conversation.state = before
            raise

    def share(self, shares: Shares) -> Callable[[Shared], bool]:
        """See :class:`trichannels.events.Broadcasting`."""
        return partial(self._write_shared, shares)

    def _write_shared(self, shares: Shares, event: Shared) -> bool:
        """Write an event that is framed once for all its receivers (RFC 6455 section 5.6)."""
        serializer = shares(event.type)
        if serializer is None:
            return False
        key = serializer if self._frame is frame else (serializer, self._frame)
        data = event.frames.get(key)
        if data is None:
            data = event.frames[key] = _framed(event, serializer, self._frame)
        wire, peer = self._wire, self._peer
        if not data or self.conversation.state != "open" or peer.ended is not None or wire.full:
            return False
        if not peer.takes_frames:
            return False
        wire.post(data)
        return True

    def _logged(self, status: int) -> None:
        """Write the access log's line, and forget what was kept for the handshake alone."""
        if self._log is not None:
            self._log(status)
        self._log = self._answer = None

    def _accept(self, event: Event) -> None:
        assert self._answer is not None
        self._wire.write_nowait(bytes(acceptance(self._answer, event, self._offered)))
        self._logged(101)
        self._peer.open()

    def _send(self, event: Event) -> None:
        text = event.get("text")
        data = self._frame(BINARY, bytes(event["bytes"])) if text is None else self._frame(TEXT, text.encode())
        if self._peer.takes_frames:
            self._wire.write_nowait(data)

    def _close(self, event: Event) -> None:
        if self._peer.opened:
            self._leave(event.get("code", 1000), event.get("reason") or "")
        else:
            self._refuse(refusal(403, "The application refused the WebSocket."))

    def _leave(self, code: int, reason: str) -> None:
        self._closed_by_us = True
        self._peer.ahead = None
        self._peer.close(code, reason)
        self._peer.end(code, reason)

    def _refuse(self, answer: Answer) -> None:
        self._closed_by_us = True
        self._wire.write_nowait(bytes(answer))
        self._logged(answer.status)
        self._peer.finish()
        self._peer.end(1006, "")

    def _response_start(self, event: Event) -> None:
        head(event["status"], event.get("headers") or ())  # raises BadEvent here, where the header came from
        self._denied = dict(event)

    def _response_body(self, event: Event) -> None:
        body, more = bytes(event.get("body", b"")), event.get("more_body", False)
        if self._denied:
            answer = denial(self._denied["status"], list(self._denied.get("headers") or ()), None if more else body)
            self._wire.write_nowait(bytes(answer))
            self._logged(answer.status)
            self._denied = None
            if more:
                self._wire.write_nowait(body)
        else:
            self._wire.write_nowait(body)
        if not more:
            self._closed_by_us = True
            self._peer.finish()
            self._peer.end(1006, "")

    # -- the server's part

    def go_away(self) -> None:
        """The server restarts: tell the peer (1012) and, through it, the application."""
        if self._peer.ended is None:
            if self._peer.opened:
                self._peer.close(RESTART)
            self._peer.end(RESTART, "")

    async def conclude(self, failed: bool) -> None:
        """The application has ended: say to the peer what it left unsaid, and wait until the peer has left too."""
        state = self.conversation.state
        if state == "open" and self._peer.ended is None:
            self._leave(1011 if failed else 1000, "")
        elif state == "connecting" and self._peer.ended is None:
            self._refuse(refusal(500, "Internal Server Error"))
        elif state == "connecting" and self._peer.ended == (RESTART, ""):
            self._refuse(refusal(503, "The server restarts."))
        elif state == "denying":
            if self._denied:
                self._wire.write_nowait(bytes(refusal(500, "Internal Server Error")))
            self._peer.finish()
        self._peer.hurry()
        await self._peer.gone()


def _framed(shared: Shared, serializer: Serializer, frame: Framer) -> bytes:
    """Return the frame of a shared event; nothing where something is wrong: that is told in each handler."""
    try:
        event = shared.sent_as(serializer)
        check_sent(event)
    except Exception:  # noqa: BLE001 - it will be raised in each handler
        return b""
    text = event.get("text")
    return frame(BINARY, bytes(event["bytes"])) if text is None else frame(TEXT, text.encode())


SENDERS: dict[str, Callable[[WebSocketTransport, Event], None]] = {
    "websocket.accept": WebSocketTransport._accept,
    "websocket.send": WebSocketTransport._send,
    "websocket.close": WebSocketTransport._close,
    "websocket.http.response.start": WebSocketTransport._response_start,
    "websocket.http.response.body": WebSocketTransport._response_body,
}
