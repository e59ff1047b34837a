"""Whole consumers as named streams of one socket. What frames look like is in ``generic/frames.py``.

``Multiplexer`` reads the socket and hands each message to its stream; a stream runs an ASGI application in a task of
its own, which thinks it has a WebSocket: it receives ``websocket.connect``, messages and ``websocket.disconnect``.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ..denial import DENIAL
from ..events import (
    TRANSPORT,
    WATCH,
    ASGIApp,
    Broadcasting,
    Event,
    Receive,
    Scope,
    Send,
    Shared,
    Shares,
    can_share,
    printable,
    transport_of,
)
from ..exceptions import BadEvent, ConfigError, ConnectionClosed, InvalidRoute
from ..nursery import collapsed, sort_out
from ..patterns import check_app
from ..protocol import Conversation
from .frames import (
    BadFrame,
    Format,
    Frame,
    closed_frame,
    error_frame,
    opened_frame,
    payload_frame,
    payload_of,
    read_frame,
    serializer_on,
)

log = logging.getLogger("trichannels.multiplexer")


class Multiplexer:
    """An ASGI application for WebSockets that runs others as streams of one socket, by their names::

        Multiplexer({"chat": Chat.as_asgi(), "prices": Prices.as_asgi()})

    Each stream is an application instance of its own: what it starts, joins or holds ends with it, and its failure
    closes it alone (1011). They share the socket's scope: its user, session, URL and route; ``scope["stream"]`` is the
    name. Payloads are JSON, for consumers that ``receive_json`` and ``send_json``; for those that deal in plain text,
    say ``text=["name"]``: their payloads are strings.

    ``at_connect``: the streams that are open from the start; by default, all. The socket is accepted by the first of
    them that accepts, with its subprotocol and headers, and refused if all of them refuse. The client may open and
    close streams at any time, of which ``max_open`` may be open at once. ``messages`` and ``bytes`` bound what waits
    for one stream, here and in its consumer's inbox together: it is closed (1013) when more comes, and never keeps the
    socket from being read.

    A frame that is malformed, or names no open stream, gets an error frame. Works on any ASGI server; under ours,
    events that a group's members send alike are framed once for all members of a stream name.
    """

    def __init__(
        self,
        applications: Mapping[str, ASGIApp],
        *,
        at_connect: Iterable[str] | None = None,
        text: Iterable[str] = (),
        max_open: int = 16,
        messages: int = 64,
        bytes: int = 1024 * 1024,  # noqa: A002 - as Inbox names it
    ) -> None:
        self.applications = _checked(applications)
        self.at_connect = tuple(self.applications) if at_connect is None else tuple(at_connect)
        self.text = frozenset(text)
        for option, names in (("at_connect", self.at_connect), ("text", self.text)):
            if unknown := sorted(set(names) - set(self.applications)):
                raise InvalidRoute(f"Multiplexer({option}=…): {unknown[0]!r} is none of its streams")
        if twice := sorted(name for name in set(self.at_connect) if self.at_connect.count(name) > 1):
            raise InvalidRoute(f"Multiplexer(at_connect=…): {twice[0]!r} is named more than once")
        for option, value in (("max_open", max_open), ("messages", messages), ("bytes", bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"Multiplexer({option}=…) must be an int of at least 1, not {value!r}")
        if len(self.at_connect) > max_open:
            raise ConfigError(
                f"Multiplexer: {len(self.at_connect)} streams open at connect, but max_open is {max_open}"
            )
        self.max_open, self.messages, self.bytes = max_open, messages, bytes

    def __repr__(self) -> str:
        return f"<Multiplexer of {', '.join(map(repr, self.applications))}>"

    def format_of(self, stream: str) -> Format:
        """Return what the payloads of a stream are."""
        return "text" if stream in self.text else "json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one socket; returns when all of its streams have ended."""
        if scope["type"] != "websocket":
            raise InvalidRoute(
                f"a Multiplexer is for WebSockets, not for {scope['type']!r}: put it inside the 'websocket' entry"
            )
        async with collapsed(), anyio.create_task_group() as group:
            await Socket(self, scope, send, group).live(receive)


def _checked(applications: Mapping[str, ASGIApp]) -> dict[str, ASGIApp]:
    if not isinstance(applications, Mapping) or not applications:
        raise InvalidRoute(f"Multiplexer takes a dict of stream names to applications, not {applications!r}")
    for name, app in applications.items():
        if not isinstance(name, str) or not name:
            raise InvalidRoute(f"Multiplexer: a stream's name is a str, not {name!r}")
        check_app(app, f"Multiplexer, {name!r}")
    return dict(applications)


class Socket:
    """One multiplexed socket: its streams, and what is common to them."""

    def __init__(self, plan: Multiplexer, scope: Scope, send: Send, group: TaskGroup) -> None:
        self.plan, self.scope, self.transport = plan, scope, transport_of(scope)
        self.streams: dict[str, Stream] = {}
        self._send, self._group = send, group
        self.accepted = self.over = False
        self._refused: list[Stream] = []  # before the socket was accepted
        self._accepting = anyio.Lock()
        self.shares = can_share(self.transport, send)  # then frames can go straight to it

    # ---- the client's side

    async def live(self, receive: Receive) -> None:
        """Open what is to be open, and hand out what comes, until the client leaves; then tell all streams."""
        code, reason = 1006, ""
        try:
            await receive()  # websocket.connect
            for name in self.plan.at_connect:
                self._begin(self._new(name, asked=False))
            if not self.plan.at_connect:
                await self.accept({"type": "websocket.accept"})
            while (event := await receive())["type"] != "websocket.disconnect":
                await self._heard(event.get("text"))
            code, reason = event.get("code") or 1005, event.get("reason") or ""
        finally:
            self.over = True
            for stream in list(self.streams.values()):
                stream.end(code, reason)

    async def _heard(self, text: str | None) -> None:
        """Do what a frame says, or say what is wrong with it."""
        name: str | None = None
        try:
            frame = read_frame(text)
            name = frame.stream
            await self._ends_told(frame)
            self._take(frame)
        except BadFrame as error:
            await self.tell(error_frame(name, error.code, str(error)))

    async def _ends_told(self, frame: Frame) -> None:
        """Let the client read of an end before what follows from it: the place of a stream is free by then."""
        for stream in list(self.streams.values()):
            if stream.ended and (frame.kind == "open" or stream.name == frame.stream):
                await stream.told.wait()

    def _take(self, frame: Frame) -> None:
        """Do what a frame says, without waiting; raises :class:`BadFrame`.

        What comes for a stream that is ending is for its successor, if the client has opened one.
        """
        name = frame.stream
        if name not in self.plan.applications:
            raise BadFrame("there is no such stream", "unknown_stream")
        stream = self.streams.get(name)
        if frame.kind == "open":
            self._open_asked(name, stream)
            return
        latest = stream and (stream.successor or stream)
        if latest is None or latest.left:
            raise BadFrame("this stream is not open", "not_open")
        if frame.kind == "close":
            latest.leave()
        elif not latest.ending:  # else the client is yet to read that it has ended
            latest.put(payload_of(frame, latest.format))

    def _open_asked(self, name: str, stream: "Stream | None") -> None:
        if stream is None:
            if len(self.streams) >= self.plan.max_open:
                raise BadFrame(f"no more than {self.plan.max_open} streams may be open", "too_many")
            self._begin(self._new(name, asked=True))
        elif not (stream.successor or stream).ending:
            raise BadFrame("this stream is open", "already_open")
        elif stream.successor is None:
            stream.successor = self._new(name, asked=True)
        else:
            raise BadFrame("while a stream ends, it may be opened again once", "too_many")

    async def tell(self, text: str) -> None:
        """Send a frame; nothing if the client has left."""
        try:
            await self._send({"type": "websocket.send", "text": text})
        except (ConnectionClosed, OSError):
            await checkpoint()

    # ---- the streams' side

    def _new(self, name: str, *, asked: bool) -> "Stream":
        return (SharingStream if self.shares else Stream)(name, self, asked=asked)

    def _begin(self, stream: "Stream") -> None:
        self.streams[stream.name] = stream
        self._group.start_soon(stream.run, self.plan.applications[stream.name], name=f"stream {stream.name}")

    async def accept(self, event: Event) -> None:
        """Accept the socket, if no other stream has done so: with its subprotocol and headers."""
        async with self._accepting:
            if self.accepted:
                return
            await self._send(event)
            self.accepted = True
            for stream in self._refused:
                await self.tell(closed_frame(stream.name, *stream.outcome))

    async def send(self, event: Event) -> None:
        """Send to the client, for a stream."""
        await self._send(event)

    async def ended(self, stream: "Stream") -> None:
        """A stream's application has returned: tell the client, and have its name free, or taken by who waits for it,
        once that is said.
        """
        try:
            await self._tell_end(stream)
        finally:
            del self.streams[stream.name]
            stream.told.set()
        if stream.successor is not None and not self.over:
            self._begin(stream.successor)

    async def _tell_end(self, stream: "Stream") -> None:
        if self.over:
            return
        if self.accepted:
            await self.tell(closed_frame(stream.name, *stream.outcome))
        elif len(self.streams) > 1:
            self._refused.append(stream)
        else:  # all of them have refused
            self.over = True
            await self._send({"type": "websocket.close", "code": stream.outcome[0], "reason": stream.outcome[1]})


class Stream:
    """One application of a multiplexed socket: what it receives, what it sends, and how it ends.

    It offers what our server's transport offers (:class:`~trichannels.events.Transport`).
    """

    def __init__(self, name: str, socket: Socket, *, asked: bool) -> None:
        self.name, self.format = name, socket.plan.format_of(name)
        self.outcome: tuple[int, str] = (1000, "")
        self.ended = False  # its application has returned
        self.told = anyio.Event()  # that it has, to the client
        self.left = False  # the client has closed it
        self.successor: Stream | None = None  # what the client has opened by its name while it was ending
        self._socket, self._asked = socket, asked
        self._conversation = Conversation("websocket")
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._taken: Callable[[], tuple[int, int]] = lambda: (0, 0)  # that waits with its application
        self._connected = self._accepted = False
        self._gone: tuple[int, str] | None = None
        self._news = anyio.Event()
        self._callbacks: list[Callable[[int, str], None]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._conversation.state}, {len(self._waiting)} waiting>"

    @property
    def ending(self) -> bool:
        """Whether nothing more is taken for it."""
        return self.ended or self._gone is not None or self._conversation.state == "closed"

    # ---- its life

    async def run(self, app: ASGIApp) -> None:
        """Run the application; what it raises is logged, and ends this stream alone."""
        try:
            if self._gone is None:  # else it was closed before it has begun
                await app(self._scope(), self.receive, self.send)
        except BaseException as raised:  # noqa: BLE001 - sorted out below
            failures, cancelled = sort_out(raised)
            for error in failures:
                if self._gone is None or not isinstance(error, ConnectionClosed):  # which says that it is gone
                    self._failed(error)
            if cancelled is not None:
                raise cancelled from None
        if self._conversation.state == "connecting" and self._gone is None and self.outcome == (1000, ""):
            self.outcome = (4403, "refused")
        self.ended = True
        with CancelScope() as scope:
            self.bound(scope)
            await self._socket.ended(self)

    def _failed(self, error: BaseException) -> None:
        self.outcome = (1011, "failed")
        if not isinstance(error, Exception):
            raise error  # KeyboardInterrupt and the like are nobody's to keep
        path = printable(self._socket.scope.get("path", ""))
        log.error("stream %r of the socket at %s failed", self.name, path, exc_info=error)

    def _scope(self) -> Scope:
        scope = {name: value for name, value in self._socket.scope.items() if name != WATCH}
        extensions = {**(scope.get("extensions") or {}), TRANSPORT: self}
        extensions.pop(DENIAL, None)  # one stream cannot answer for the socket
        return {**scope, "stream": self.name, "extensions": extensions}

    def leave(self) -> None:
        """The client has closed it."""
        self.left = True
        self.end(1000, "")

    def end(self, code: int, reason: str) -> None:
        """The client, or the multiplexer, has closed it."""
        if self._gone is not None:
            return
        self._gone = (code, reason)
        if self._conversation.state != "closed":
            self.outcome = self._gone
        self._ring()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks if self._conversation.state != "closed" else ():
            callback(code, reason)

    # ---- ASGI

    def put(self, text: str) -> None:
        """Hand over a message if there is room, and for one there always is; a stream that has none is closed."""
        plan, size = self._socket.plan, _size(text)
        messages, taken = self._taken()
        messages += len(self._waiting)
        if messages and (messages >= plan.messages or taken + self._bytes + size > plan.bytes):
            self.end(1013, "too slow")
            return
        self._waiting.append(text)
        self._bytes += size
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def receive(self) -> Event:
        """ASGI's ``receive``: no message before the application has accepted. Cancelling loses nothing."""
        await checkpoint()
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not (self._accepted and self._waiting) and self._gone is None:
            await self._news.wait()
        if self._accepted and self._waiting:
            text = self._waiting.popleft()
            self._bytes -= _size(text)
            return {"type": "websocket.receive", "text": text, "bytes": None}
        assert self._gone is not None
        return {"type": "websocket.disconnect", "code": self._gone[0], "reason": self._gone[1]}

    async def send(self, event: Event) -> None:
        """ASGI's ``send``. Raises :class:`ConnectionClosed` once the client has closed the stream, or has left."""
        if self._gone is not None and self._conversation.state != "closed":
            await checkpoint()
            raise ConnectionClosed(*self._gone)
        before = self._conversation.state
        self._conversation.sent(event)
        try:
            await SENDERS[event["type"]](self, event)
        except BadEvent:
            self._conversation.state = before
            raise

    async def _accept(self, event: Event) -> None:
        await self._socket.accept(event)
        if self._asked:
            await self._socket.tell(opened_frame(self.name))
        self._accepted = True
        self._ring()

    async def _message(self, event: Event) -> None:
        text = payload_frame(self.name, event, self.format)
        await self._socket.send({"type": "websocket.send", "text": text})

    async def _close(self, event: Event) -> None:
        self.outcome = (event.get("code", 1000), event.get("reason") or "")
        self._gone = self._gone or self.outcome
        self._ring()
        await checkpoint()

    # ---- beyond ASGI (events.Transport)

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        """See :class:`trichannels.events.Transport`."""
        if self._gone is None:
            self._callbacks.append(callback)
        elif self._conversation.state != "closed":
            callback(*self._gone)

    def count_in(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """See :class:`trichannels.events.Counting`."""
        self._taken = waiting

    def bound(self, scope: CancelScope) -> None:
        """See :class:`trichannels.events.Transport`."""
        if self._socket.transport is not None:
            self._socket.transport.bound(scope)


class SharingStream(Stream):
    """A stream on our own server, which can write a frame to the socket without waking anybody."""

    def share(self, shares: Shares) -> Callable[[Shared], bool]:
        """See :class:`trichannels.events.Broadcasting`."""
        transport = cast(Broadcasting, self._socket.transport)
        return transport.share(partial(_framed, shares, self.name, self.format))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _framed(shares: Shares, stream: str, form: Format, kind: str) -> Any:
    serializer = shares(kind)
    return None if serializer is None else serializer_on(stream, serializer, form)


SENDERS: dict[str, Callable[[Stream, Event], Any]] = {
    "websocket.accept": Stream._accept,
    "websocket.send": Stream._message,
    "websocket.close": Stream._close,
}
