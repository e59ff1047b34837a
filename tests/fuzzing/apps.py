"""Applications that treat a WebSocket in all the ways that applications do; each is watched for what it is given."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio

from trichannels.events import TRANSPORT, Event, Receive, Scope, Send, Serializer
from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.inbox import Inbox
from trichannels.server.transport import WebSocketTransport

ACCEPT: Event = {"type": "websocket.accept"}
NEXT = {
    "": {"websocket.connect"},
    "websocket.connect": {"websocket.receive", "websocket.disconnect"},
    "websocket.receive": {"websocket.receive", "websocket.disconnect"},
    "websocket.disconnect": {"websocket.disconnect"},
}


# Messages that are handled slowly. While others wait, a client may stay without a pong: that takes as long as it takes.
SLOWLY = 300
MOST_WAITING, MOST_WAITING_BYTES = 400, 90_000  # of a consumer's inbox; it may be overshot by what is parsed at once


class Watched:
    """``receive`` that asserts that each event is well-formed and in a legal order."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self.unwatched = scope, receive
        self.transport: WebSocketTransport | None = scope["extensions"].get(TRANSPORT)
        self._last: Event = {"type": ""}
        self._gone: tuple[int, str] | None = None

    def when_gone(self) -> None:
        """Wait to hear of the end, and not only for its turn among the messages."""
        if self.transport is not None:  # over HTTP/2 the socket is hypercorn's
            self.transport.when_gone(self._hear)

    def _hear(self, code: int, reason: str) -> None:
        assert self._gone is None, "told twice"
        self._gone = code, reason

    async def __call__(self) -> Event:
        event = await self.unwatched()
        kind, last = event["type"], self._last
        assert kind in NEXT[last["type"]], f"{kind} after {last['type']}"
        CHECKS[kind](event)
        assert last["type"] != kind or kind != "websocket.disconnect" or last == event, "another end than before"
        assert kind != "websocket.disconnect" or self._gone in (None, (event["code"], event.get("reason")))
        self._last = dict(event)
        return event


App = Callable[[Watched, Send], Awaitable[None]]


class Shared:
    """An event for many sockets (``events.Shared``)."""

    type = "websocket.send"

    def __init__(self, text: str) -> None:
        self._text = text
        self.frames: dict[Hashable, bytes] = {}

    def sent_as(self, serializer: Serializer) -> Event:
        return serializer({"type": self.type, "text": self._text})


def _check_message(event: Event) -> None:
    text, data = event.get("text"), event.get("bytes")
    assert (text is None) != (data is None)
    assert type(text) is str or type(data) is bytes
    if text is not None:
        text.encode()


def _check_end(event: Event) -> None:
    code = event["code"]
    assert type(code) is int
    assert code in (1005, 1006, 1012) or 1000 <= code <= 1015 or 3000 <= code < 5000, code
    assert type(event.get("reason", "")) is str  # may be missing: it is over HTTP/2


CHECKS: dict[str, Callable[[Event], Any]] = {
    "websocket.connect": lambda event: None,
    "websocket.receive": _check_message,
    "websocket.disconnect": _check_end,
}


async def application(scope: Scope, receive: Receive, send: Send, app: App) -> None:
    """Serve a page, or run ``app`` for a WebSocket."""
    if scope["type"] == "websocket":
        await app(Watched(scope, receive), send)
    else:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a page"})


async def _accepted(receive: Watched, send: Send) -> None:
    await receive()
    await send(ACCEPT)


async def _echo(receive: Watched, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
    assert await receive() == event


async def echo(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)
    await _echo(receive, send)


async def slow(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)
    receive.when_gone()
    handled = 0
    while (await receive())["type"] == "websocket.receive":
        handled += 1
        await trio.sleep(2 * (handled < SLOWLY))


async def deaf(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)
    receive.when_gone()
    await trio.sleep(60)
    await _echo(receive, send)


async def late(receive: Watched, send: Send) -> None:
    await receive()
    await trio.sleep(15)
    await send(ACCEPT)
    await _echo(receive, send)


async def flood(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)
    for number in range(100):
        await send({"type": "websocket.send", "bytes": bytes(number * 10)})
    await _echo(receive, send)


async def closes(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)
    await receive()
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    assert (await receive())["type"] == "websocket.disconnect"


async def leaves(receive: Watched, send: Send) -> None:
    await _accepted(receive, send)


async def refuses(receive: Watched, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def denies(receive: Watched, send: Send) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"x-price", b"2")]})
    for _ in range(3):
        await send({"type": "websocket.http.response.body", "body": b"pay first", "more_body": True})
        await trio.sleep(1)
    await send({"type": "websocket.http.response.body", "body": b"."})


async def both(receive: Watched, send: Send) -> None:
    """Receive with interruptions, while another task sends."""
    await _accepted(receive, send)
    receive.when_gone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_interrupted, receive)
        for _ in range(20):
            await send({"type": "websocket.send", "text": "tick"})
            await trio.sleep(0.7)


async def _interrupted(receive: Watched) -> None:
    event: Event = {"type": ""}
    while event["type"] != "websocket.disconnect":
        with trio.move_on_after(0.5):
            event = await receive()


async def shares(receive: Watched, send: Send) -> None:
    """Echo, while events for many go past the queue of this one."""
    await _accepted(receive, send)
    receive.when_gone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_share, receive.transport)
        await _echo(receive, send)
        nursery.cancel_scope.cancel()


async def _share(transport: WebSocketTransport | None) -> None:
    if transport is None:
        return
    write = transport.share(lambda kind: dict)
    for number in range(200):
        write(Shared("news" * number))
        await trio.sleep(0.1 * (number % 3))


class Consumer(AsyncWebsocketConsumer):
    """A consumer that echoes, at first after ``pause`` seconds each. It is fed, and never calls ``receive()``."""

    inbox = Inbox(client_messages=16, client_bytes=30_000)
    pause = 0.0
    ended = False
    handled = 0

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert not self.ended
        _check_message({"text": text_data, "bytes": bytes_data})
        waiting = self._instance.mailbox.statistics()
        assert waiting.client_messages < MOST_WAITING, waiting
        assert waiting.client_bytes < MOST_WAITING_BYTES, waiting
        self.handled += 1
        if self.pause and self.handled < SLOWLY:
            await trio.sleep(self.pause)
        await self.send(text_data, bytes_data)

    async def disconnect(self, close_code: int) -> None:
        assert not self.ended, "told twice"
        self.ended = True
        _check_end({"code": close_code})


class SlowConsumer(Consumer):
    pause = 2.0


class ClosingConsumer(Consumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await super().receive(text_data, bytes_data)
        await self.close(4000, "enough")


class LateConsumer(Consumer):
    async def connect(self) -> None:
        await trio.sleep(15)
        await self.accept()


def consumes(consumer: type[Consumer]) -> App:
    """Return an application that has the transport feed a consumer."""

    async def app(receive: Watched, send: Send) -> None:
        await consumer.as_asgi()(receive.scope, receive.unwatched, send)

    return app


APPS: tuple[App, ...] = (
    *(echo, slow, deaf, late, flood, closes, leaves, refuses, denies, both, shares),
    *(consumes(consumer) for consumer in (Consumer, SlowConsumer, ClosingConsumer, LateConsumer)),
)
