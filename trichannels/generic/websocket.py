"""WebSocket consumers: frames as ``receive(text_data, bytes_data)``, and JSON on top. Async and blocking."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from inspect import getattr_static
from typing import Any

from ..bridge import call, call_soon
from ..consumer import AsyncConsumer, SyncConsumer
from ..denial import DENIAL, offers_denial
from ..events import Event, HeaderInput, Scope, Serializer, Shares, as_headers
from ..exceptions import AcceptConnection, BadEvent, ConfigError, ConnectionClosed, DenyConnection


def accept_event(subprotocol: str | None, headers: HeaderInput | None) -> Event:
    """Return ``websocket.accept``; header names and values may be str."""
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": as_headers(headers)}


def send_event(text_data: str | None, bytes_data: bytes | None) -> Event:
    """Return ``websocket.send``; ValueError without data."""
    if text_data is not None:
        return {"type": "websocket.send", "text": text_data}
    if bytes_data is not None:
        return {"type": "websocket.send", "bytes": bytes_data}
    raise ValueError("You must pass one of bytes_data or text_data")


def close_event(code: int | bool | None, reason: str | None) -> Event:
    """Return ``websocket.close``; a code of None or True means 1000."""
    event: Event = {"type": "websocket.close", "code": code if code is not None and code is not True else 1000}
    if reason:
        event["reason"] = reason
    return event


def denial_events(scope: Scope, status: int, body: bytes, headers: HeaderInput | None) -> list[Event]:
    """Return the events that refuse a socket with an HTTP response, or a plain refusal (403) where none is offered.

    ASGI's WebSocket Denial Response extension.
    """
    if not offers_denial(scope):
        return [close_event(None, None)]
    start = {"type": f"{DENIAL}.start", "status": status, "headers": as_headers(headers)}
    return [start, {"type": f"{DENIAL}.body", "body": body}]


def not_json(error: Exception) -> str:
    """Return a close reason: a close frame has room for 123 bytes of it (RFC 6455 section 5.5)."""
    return f"not JSON: {error}".encode()[:123].decode(errors="ignore")


class shared_payload:
    """Make of an event of the layer what is sent, once for all members of a group in this process.

    Put it on a handler of a WebSocket consumer, async or blocking, that does nothing but send. It gets the class, not
    the instance, so that nothing of one socket gets into what all are sent, and returns a str, which is sent as a text
    frame, or bytes::

        class Prices(AsyncWebsocketConsumer):
            @shared_payload
            def price_changed(cls, event):
                return json.dumps({"symbol": event["symbol"], "price": event["price"]})

    Under ``trichannels serve`` the frame, too, is made once, and written to each socket without waking its instance,
    unless events that came earlier still wait there. Elsewhere each instance sends the payload that was made once.
    What it raises, each instance raises as from a handler. The event is shared: do not change it.
    """

    def __init__(self, function: Callable[[Any, Event], str | bytes]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        if not issubclass(owner, _Connecting):
            raise ConfigError(f"{owner.__qualname__}.{name}: shared_payload is for handlers of WebSocket consumers")
        self.__name__ = name

    def serializer(self, consumer: type) -> Serializer:
        """Return what makes a ``websocket.send`` of an event for this class of consumers."""

        def sent_as(event: Mapping[str, Any]) -> Event:
            payload = self._function(consumer, event)  # type: ignore[arg-type] # read-only by contract
            if isinstance(payload, str):
                return {"type": "websocket.send", "text": payload}
            if isinstance(payload, bytes):
                return {"type": "websocket.send", "bytes": payload}
            raise BadEvent(
                f"{consumer.__qualname__}.{self.__name__} returned {type(payload).__name__}: "
                "what shared_payload is put on returns a str or bytes, and is no async function"
            )

        return sent_as

    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the handler of an instance."""
        if instance is None:
            return self
        return lambda event: instance.base_send(self.serializer(owner)(event))


class _Connecting(AsyncConsumer):
    """Knows whether ``connect()`` has begun: only then does ``disconnect()`` follow."""

    groups: Iterable[str] | None = None
    _begun = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.groups is None:
            self.groups = []

    def _begin(self) -> None:
        """``connect()`` begins now; raises :class:`ConnectionClosed` if the socket has ended meanwhile."""
        ending = self._instance.ending
        if ending is not None:
            raise ConnectionClosed(ending.code, ending.reason)
        self._begun = True

    def handles(self, event_type: str) -> bool:
        """Say whether there is anything to do for events of this type; not so for a ``disconnect()`` that is ours."""
        if event_type == "websocket.disconnect" and _has_no_goodbye(self):
            return False
        return super().handles(event_type)

    def shares(self) -> Shares | None:
        """Return what :func:`shared_payload` was put on, and ``websocket.send`` unless it has a handler of its own.

        Nothing where a subclass has a ``dispatch()`` of its own, which must see every event.
        """
        consumer: Any = type(self)
        return _shares_of(consumer)

    def _has_begun(self) -> bool:
        # A consumer with a websocket_connect() of its own may never call ours.
        return self._begun or type(self).websocket_connect not in _OURS  # type: ignore[attr-defined]


class AsyncWebsocketConsumer(_Connecting):
    """One instance for each socket. Override ``connect``, ``receive``, ``disconnect``; join groups, send frames.

    ``groups``: names joined before ``connect()`` runs, and left with the socket.
    """

    async def websocket_connect(self, message: Event) -> None:
        """Join ``groups``, then run ``connect()``."""
        for group in self.groups or ():
            await self._instance.join(group)  # a handler may be named join
        self._begin()
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def connect(self) -> None:
        """Accept or refuse the socket; accepts unless overridden."""
        await self.accept()

    async def accept(self, subprotocol: str | None = None, headers: HeaderInput | None = None) -> None:
        """Accept the socket."""
        await self.base_send(accept_event(subprotocol, headers))

    async def deny(self, status: int = 403, body: bytes = b"", headers: HeaderInput | None = None) -> None:
        """Refuse the socket with an HTTP response instead of ``accept()``; with a plain 403 on servers without that."""
        for event in denial_events(self.scope, status, body, headers):
            await self.base_send(event)

    async def websocket_receive(self, message: Event) -> None:
        """Hand a frame to ``receive()``."""
        if message.get("text") is not None:
            await self.receive(text_data=message["text"])
        else:
            await self.receive(bytes_data=message.get("bytes"))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Override: a frame of the client."""

    async def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send a frame, and close behind it if ``close`` is True or a code.

        Raises :class:`~trichannels.exceptions.ConnectionClosed` when the socket has ended; ValueError without data.
        """
        await self.base_send(send_event(text_data, bytes_data))
        if close:
            await self.close(close)

    async def websocket_send(self, message: Event) -> None:
        """An event of the layer that is a frame already: sent on as it is."""
        await self.base_send(send_event(message.get("text"), message.get("bytes")))

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the socket, or refuse it before it is accepted. Does nothing once it has ended.

        Handlers that run get their grace, then ``disconnect(code)`` follows.
        """
        if self._instance.ending is None:
            await self.base_send(close_event(code, reason))

    async def websocket_disconnect(self, message: Event) -> None:
        """Run ``disconnect()`` if ``connect()`` had begun; the groups have been left already."""
        if self._has_begun():
            await self.disconnect(message["code"])

    async def disconnect(self, code: int) -> None:
        """Override: the socket has ended. Runs once, shielded, for at most ``disconnect_timeout`` seconds."""


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """Frames as JSON: override ``receive_json``, send with ``send_json``.

    A frame that is not JSON closes the socket with 1007, a binary one with 1003: that is the client's failure.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a text frame and hand it to ``receive_json()``."""
        if not text_data:
            await self.close(1003, "No text section for incoming WebSocket frame!")
            return
        try:
            content = await self.decode_json(text_data)
        except (ValueError, RecursionError) as error:
            await self.close(1007, not_json(error))
            return
        await self.receive_json(content, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Override: a decoded frame of the client."""

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send ``content`` as JSON."""
        await self.send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Return what a text frame says; raises ValueError if it is not JSON."""
        return json.loads(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Return ``content`` as text."""
        return json.dumps(content)


class WebsocketConsumer(_Connecting, SyncConsumer):
    """As :class:`AsyncWebsocketConsumer`, with blocking methods that run in the bridge's threads."""

    def websocket_connect(self, message: Event) -> None:
        """Join ``groups``, then run ``connect()``."""
        for group in self.groups or ():
            call(self._instance.join, group)
        call_soon(self._begin)  # on the loop's thread, where the end is decided too
        try:
            self.connect()
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """Accept or refuse the socket; accepts unless overridden."""
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: HeaderInput | None = None) -> None:
        """Accept the socket."""
        self.base_send(accept_event(subprotocol, headers))

    def deny(self, status: int = 403, body: bytes = b"", headers: HeaderInput | None = None) -> None:
        """Refuse the socket with an HTTP response instead of ``accept()``; with a plain 403 on servers without that."""
        for event in denial_events(self.scope, status, body, headers):
            self.base_send(event)

    def websocket_receive(self, message: Event) -> None:
        """Hand a frame to ``receive()``."""
        if message.get("text") is not None:
            self.receive(text_data=message["text"])
        else:
            self.receive(bytes_data=message.get("bytes"))

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Override: a frame of the client."""

    def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send a frame, and close behind it if ``close`` is True or a code."""
        self.base_send(send_event(text_data, bytes_data))
        if close:
            self.close(close)

    def websocket_send(self, message: Event) -> None:
        """An event of the layer that is a frame already: sent on as it is."""
        self.base_send(send_event(message.get("text"), message.get("bytes")))

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the socket, or refuse it before it is accepted. Does nothing once it has ended."""
        if self._instance.ending is None:
            self.base_send(close_event(code, reason))

    def websocket_disconnect(self, message: Event) -> None:
        """Run ``disconnect()`` if ``connect()`` had begun; the groups have been left already."""
        if self._has_begun():
            self.disconnect(message["code"])

    def disconnect(self, code: int) -> None:
        """Override: the socket has ended. Runs once."""


class JsonWebsocketConsumer(WebsocketConsumer):
    """As :class:`AsyncJsonWebsocketConsumer`, with blocking methods."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a text frame and hand it to ``receive_json()``."""
        if not text_data:
            self.close(1003, "No text section for incoming WebSocket frame!")
            return
        try:
            content = self.decode_json(text_data)
        except (ValueError, RecursionError) as error:
            self.close(1007, not_json(error))
            return
        self.receive_json(content, **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Override: a decoded frame of the client."""

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send ``content`` as JSON."""
        self.send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Return what a text frame says; raises ValueError if it is not JSON."""
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return ``content`` as text."""
        return json.dumps(content)


def _unchanged(event: Mapping[str, Any]) -> Event:
    return send_event(event.get("text"), event.get("bytes"))


@lru_cache(maxsize=1024)
def _shares_of(consumer: Any) -> Shares | None:
    if consumer.dispatch not in _OUR_DISPATCHES:
        return None
    found: dict[str, Serializer] = {}
    if consumer.websocket_send in _OUR_SENDS:
        found["websocket_send"] = _unchanged
    for name in dir(consumer):
        handler = getattr_static(consumer, name, None)  # what else there is may not like to be looked at
        if isinstance(handler, shared_payload) and not name.startswith("_"):  # events do not reach private methods
            found[name] = handler.serializer(consumer)

    @lru_cache(maxsize=1024)
    def serializer_for(kind: str) -> Serializer | None:
        return found.get(kind.replace(".", "_"))

    return serializer_for if found else None


def _has_no_goodbye(consumer: Any) -> bool:
    mine = type(consumer)
    unchanged = mine.dispatch in _OUR_DISPATCHES and mine.websocket_disconnect in _OUR_GOODBYES
    return unchanged and getattr(consumer.disconnect, "__func__", None) in _NO_GOODBYES


_OUR_DISPATCHES = (AsyncConsumer.dispatch, SyncConsumer.dispatch)
_NO_GOODBYES = (AsyncWebsocketConsumer.disconnect, WebsocketConsumer.disconnect)
_OUR_GOODBYES = (AsyncWebsocketConsumer.websocket_disconnect, WebsocketConsumer.websocket_disconnect)
_OURS = (AsyncWebsocketConsumer.websocket_connect, WebsocketConsumer.websocket_connect)
_OUR_SENDS = (AsyncWebsocketConsumer.websocket_send, WebsocketConsumer.websocket_send)
