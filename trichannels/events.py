"""The ASGI border: its types, and the check of events that an application sends. Nothing here awaits.

ASGI's dicts stay dicts; the specification is at https://asgi.readthedocs.io (HTTP & WebSocket 2.5, lifespan 2.0).
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

from anyio import CancelScope

from .exceptions import BadEvent

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

HeaderInput: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]

WATCH = "trichannels.watch"
"""Scope key of what may want to close a socket from outside: an instance puts its way to do so into ``.close``."""

TRANSPORT = "trichannels.transport"
"""Key in ``scope["extensions"]`` under which our own server offers its :class:`Transport`."""


class Transport(Protocol):
    """What our server offers beyond ASGI to the instance that owns a socket.

    Its presence also promises that an application may stop calling ``receive()`` for as long as it likes:
    the transport then stops reading, and goes on serving control frames.
    """

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        """Call ``callback(code, reason)`` once, as soon as the peer has left, even if nobody is in ``receive()``.

        If the peer has left already, the callback runs at once. It must not block or raise.
        """

    def bound(self, scope: CancelScope) -> None:
        """Let the server bring this scope's deadline forward when it must be down sooner than that.

        For the shielded scope in which an instance says goodbye: a drain has a wall, and SIGINT moves it.
        """


class Draining(Transport, Protocol):
    """A transport of a response, which nobody ends for the application when the server drains."""

    def when_draining(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` once the server begins to drain; at once if it does already. It must not block or raise.

        For responses that have no end of their own: without it they last until the drain is over, and are cut.
        """


Serializer: TypeAlias = Callable[[Mapping[str, Any]], Event]
"""Makes the ``websocket.send`` that all members of a group send for one event; what it raises, each of them raises."""

Shares: TypeAlias = Callable[[str], Serializer | None]
"""Returns the serializer of an event type, or None for events that each instance handles for itself."""


class Shared(Protocol):
    """An event of the layer on its way to many. Who makes something of it first leaves that to the others."""

    type: str
    frames: dict[Hashable, bytes]

    def sent_as(self, serializer: Serializer) -> Event:
        """Return what ``serializer`` makes of the event, not to be changed. Raises what it raises."""


class Counting(Transport, Protocol):
    """A transport that bounds what waits for its application, wherever that waits: a stream of a multiplexed socket."""

    def count_in(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Ask ``waiting()`` how many messages, and how many bytes, the application has taken and not handled yet."""


def counts(transport: Transport | None) -> TypeGuard[Counting]:
    """Say whether the transport wants to know what waits in the inbox."""
    return hasattr(transport, "count_in")


class Broadcasting(Protocol):
    """A transport that can take a shared event without waiting."""

    async def send(self, event: Event) -> None:
        """ASGI's ``send``, as the application was given it."""

    def share(self, shares: Shares) -> Callable[[Shared], bool]:
        """Return what writes an event that has a serializer now, in order with what was sent before.

        It returns False for an event that must take the ordinary way.
        """


Feed: TypeAlias = Callable[[Event, int], bool]
"""Takes an event of the socket and the bytes of its message; returns whether there is room for another."""


class Feeding(Transport, Protocol):
    """A transport that hands over what comes by itself, so that no task has to wait in ``receive()``."""

    begun: bool
    """Whether somebody has been told of the connection already, by ``receive()`` or ``feed``."""

    async def receive(self) -> Event:
        """ASGI's ``receive``, as the application was given it; not to be called any more after ``feed``."""

    def feed(self, put: Feed) -> None:
        """Call ``put`` for ``websocket.connect``, now, and for each message. :meth:`Transport.when_gone` tells the end.

        After ``put`` has returned False, nothing comes until :meth:`resume`.
        """

    def resume(self) -> None:
        """There is room again."""

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any, name: object = None) -> None:
        """Start a task in the connection's nursery. Whoever starts it waits for its end before it ends itself."""

    def begin_turn(self) -> None:
        """The application has just waited for something: it may send a little before others have to get a turn."""


def transport_of(scope: Scope) -> Transport | None:
    """Return our server's transport, or None on any other server."""
    transport: Transport | None = (scope.get("extensions") or {}).get(TRANSPORT)
    return transport


def feeding(transport: Transport | None, receive: Receive) -> Feeding | None:
    """Return the transport if it can hand over what comes, and nobody stands, or stood, between it and ``receive``."""
    if not hasattr(transport, "feed") or getattr(transport, "receive", None) != receive:
        return None
    able = cast(Feeding, transport)
    return None if able.begun else able


def printable(text: str) -> str:
    """Return text from outside as it may stand in a log or on a terminal: no line breaks, no control characters."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def can_share(transport: Transport | None, send: Send) -> TypeGuard[Broadcasting]:
    """Say whether the transport takes shared events, and nobody stands between it and ``send``.

    Middleware whose ``send`` changes nothing once the socket is accepted says so by ``passes_on``, the next one's.
    """
    last: object = send
    while (beyond := getattr(last, "passes_on", None)) is not None:
        last = beyond
    return last == getattr(transport, "send", None) and hasattr(transport, "share")


def as_headers(headers: HeaderInput | None) -> Headers:
    """Return headers as ASGI wants them: pairs of bytes, names in lower case. Text is encoded as Latin-1."""

    def as_bytes(value: str | bytes) -> bytes:
        return value.encode("latin-1") if isinstance(value, str) else value

    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return [(as_bytes(name).lower(), as_bytes(value)) for name, value in pairs]


def _is_headers(value: object) -> TypeGuard[Headers]:
    try:
        return all(isinstance(name, bytes) and isinstance(data, bytes) for name, data in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False


def _check_accept(event: Mapping[str, Any]) -> str | None:
    if not isinstance(event.get("subprotocol"), str | None):
        return "'subprotocol' must be a str or None"
    if not _is_headers(event.get("headers") or ()):
        return "'headers' must be an iterable of (bytes, bytes) pairs"
    return None


def _check_send(event: Mapping[str, Any]) -> str | None:
    text, data = event.get("text"), event.get("bytes")
    if (text is None) == (data is None):
        return "give either 'text' or 'bytes', and not both"
    if text is not None and not isinstance(text, str):
        return f"'text' must be a str, not {type(text).__name__}"
    if data is not None and not isinstance(data, bytes | bytearray | memoryview):
        return f"'bytes' must be bytes, not {type(data).__name__}"
    return None


def _check_close(event: Mapping[str, Any]) -> str | None:
    code, reason = event.get("code", 1000), event.get("reason") or ""
    # RFC 6455 section 7.4: 1004-1006 and 1015 never travel; 1000-2999 belong to the protocol, 3000-4999 to others.
    if not isinstance(code, int) or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        return f"'code' must be 1000 to 1014 (not 1004, 1005, 1006) or 3000 to 4999, not {code!r}"
    if not isinstance(reason, str) or len(reason.encode()) > 123:
        return "'reason' must be a str of at most 123 bytes in UTF-8"
    return None


def _check_response_start(event: Mapping[str, Any]) -> str | None:
    status = event.get("status")
    if not isinstance(status, int) or not 100 <= status <= 599:
        return f"'status' must be an int from 100 to 599, not {status!r}"
    if not _is_headers(event.get("headers") or ()):
        return "'headers' must be an iterable of (bytes, bytes) pairs"
    return None


def _check_response_body(event: Mapping[str, Any]) -> str | None:
    body = event.get("body", b"")
    if not isinstance(body, bytes | bytearray | memoryview):
        return f"'body' must be bytes, not {type(body).__name__}"
    return None


CHECKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "websocket.accept": _check_accept,
    "websocket.send": _check_send,
    "websocket.close": _check_close,
    "websocket.http.response.start": _check_response_start,
    "websocket.http.response.body": _check_response_body,
    "http.response.start": _check_response_start,
    "http.response.body": _check_response_body,
}


def check_sent(event: Mapping[str, Any]) -> None:
    """Raise :class:`BadEvent` if a field of an event from the application has the wrong type or value.

    Which event may come when is the business of :mod:`trichannels.protocol`; unknown types pass here.
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("type"), str):
        raise BadEvent(f"an ASGI event is a dict with a 'type' of str, not {event!r}")
    check = CHECKS.get(event["type"])
    problem = check(event) if check else None
    if problem:
        raise BadEvent(f"{event['type']}: {problem}")
