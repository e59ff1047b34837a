"""The application's side of a WebSocket over HTTP/1.1: its ``receive`` and ``send``, and what we offer beyond ASGI."""

from collections.abc import Callable, Mapping
from typing import Any

import trio
from anyio import CancelScope
from websockets.frames import Frame, Opcode

from ..events import Event, Shared, check_sent
from ..exceptions import BadEvent, ConnectionClosed
from ..protocol import Conversation
from .drain import Wall
from .handshake import Answer, acceptance, denial, head, refusal
from .peer import Peer
from .wire import Wire

RESTART = 1012


class WebSocketTransport:
    """One socket, as its application has it. Offered as ``scope["extensions"]["trichannels.transport"]``."""

    def __init__(
        self, wire: Wire, peer: Peer, answer: Answer, scope: Mapping[str, Any], wall: Wall, log: Callable[[int], None]
    ) -> None:
        self.conversation = Conversation("websocket")
        self._wire, self._peer, self._answer, self._scope, self._wall, self._log = wire, peer, answer, scope, wall, log
        self._turn = trio.Lock()
        self._connected = self._closed_by_us = False
        self._callbacks: list[Callable[[int, str], None]] = []
        self._bounds: list[CancelScope] = []
        self._denied: Event = {}
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

    # -- ASGI

    async def receive(self) -> Event:
        """Return the next event, in the end ``websocket.disconnect`` as often as asked. Cancelling loses nothing."""
        if not self._connected or self._peer.ahead or self._peer.ended is not None:
            await trio.lowlevel.checkpoint()  # parking below is one, too
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not self._peer.ahead:
            if self._peer.ended is not None:
                code, reason = self._peer.ended
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self._peer.changed.park()
        event = self._peer.ahead.pop()
        self._peer.parse()
        return event

    async def send(self, event: Event) -> None:
        """Send one event; waits while ``write_buffer`` bytes wait for the peer. A cancelled send has sent nothing.

        Raises :class:`ConnectionClosed` once the peer has left, :class:`OutOfTurn` after the application's own close,
        :class:`BadEvent` for a malformed event.
        """
        await trio.lowlevel.checkpoint()
        # A close is small, and must not wait behind what a stuck peer does not read.
        if self._wire.full and self.conversation.state != "closed" and event.get("type") != "websocket.close":
            async with self._turn:
                await self._wire.room()
        if self._peer.ended is not None and self.conversation.state != "closed":
            raise ConnectionClosed(*self._peer.ended)
        before = self.conversation.state
        self.conversation.sent(event)
        try:
            SENDERS[event["type"]](self, event)
        except BadEvent:
            self.conversation.state = before
            raise

    def write_shared(self, event: Shared) -> bool:
        """See :class:`trichannels.events.Broadcasting`: framed once for all its receivers (RFC 6455 section 5.6)."""
        if self.conversation.state != "open" or self._wire.full or self._peer.ended is not None:
            return False
        frame = event.frame
        if frame is None:
            frame = event.frame = _framed(event.peek())
        return bool(frame) and self._peer.write_frame(frame)

    def _accept(self, event: Event) -> None:
        self._wire.write_nowait(bytes(acceptance(self._answer, event, self._scope["subprotocols"])))
        self._log(101)
        self._peer.open()

    def _send(self, event: Event) -> None:
        text = event.get("text")
        if text is not None:
            self._peer.send(Opcode.TEXT, text.encode())
        else:
            self._peer.send(Opcode.BINARY, bytes(event["bytes"]))

    def _close(self, event: Event) -> None:
        if self._peer.opened:
            self._leave(event.get("code", 1000), event.get("reason") or "")
        else:
            self._refuse(refusal(403, "The application refused the WebSocket."))

    def _leave(self, code: int, reason: str) -> None:
        self._closed_by_us = True
        self._peer.ahead.clear()
        self._peer.close(code, reason)
        self._peer.end(code, reason)

    def _refuse(self, answer: Answer) -> None:
        self._closed_by_us = True
        self._wire.write_nowait(bytes(answer))
        self._log(answer.status)
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
            self._log(answer.status)
            self._denied = {}
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
        await self._peer.left.wait()


def _framed(event: Mapping[str, Any]) -> bytes:
    """Return a ``websocket.send`` event as a frame, or nothing for one that its receivers should complain of."""
    try:
        check_sent(event)
    except BadEvent:
        return b""
    text = event.get("text")
    opcode, data = (Opcode.BINARY, bytes(event["bytes"])) if text is None else (Opcode.TEXT, text.encode())
    return bytes(Frame(opcode, data).serialize(mask=False))


SENDERS: dict[str, Callable[[WebSocketTransport, Event], None]] = {
    "websocket.accept": WebSocketTransport._accept,
    "websocket.send": WebSocketTransport._send,
    "websocket.close": WebSocketTransport._close,
    "websocket.http.response.start": WebSocketTransport._response_start,
    "websocket.http.response.body": WebSocketTransport._response_body,
}
