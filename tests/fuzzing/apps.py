"""Applications that treat a WebSocket in all the ways that applications do; each is watched for what it is given."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trichannels.events import Event, Receive, Scope, Send

App = Callable[[Receive, Send], Awaitable[None]]
ACCEPT: Event = {"type": "websocket.accept"}
NEXT = {
    "": {"websocket.connect"},
    "websocket.connect": {"websocket.receive", "websocket.disconnect"},
    "websocket.receive": {"websocket.receive", "websocket.disconnect"},
    "websocket.disconnect": {"websocket.disconnect"},
}


class Watched:
    """``receive`` that asserts that each event is well-formed and in a legal order."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._last: Event = {"type": ""}

    async def __call__(self) -> Event:
        event = await self._receive()
        kind, last = event["type"], self._last
        assert kind in NEXT[last["type"]], f"{kind} after {last['type']}"
        CHECKS[kind](event)
        assert last["type"] != kind or kind != "websocket.disconnect" or last == event, "another end than before"
        self._last = dict(event)
        return event


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
    assert type(event["reason"]) is str


CHECKS: dict[str, Callable[[Event], Any]] = {
    "websocket.connect": lambda event: None,
    "websocket.receive": _check_message,
    "websocket.disconnect": _check_end,
}


async def application(scope: Scope, receive: Receive, send: Send, app: App) -> None:
    """Serve a page, or run ``app`` for a WebSocket."""
    if scope["type"] == "websocket":
        watched = Watched(receive)
        await app(watched, send)
    else:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a page"})


async def _accepted(receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)


async def _echo(receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    assert await receive() == event


async def echo(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)
    await _echo(receive, send)


async def slow(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)
    while (await receive())["type"] == "websocket.receive":
        await trio.sleep(2)


async def deaf(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)
    await trio.sleep(60)
    await _echo(receive, send)


async def late(receive: Receive, send: Send) -> None:
    await receive()
    await trio.sleep(15)
    await send(ACCEPT)
    await _echo(receive, send)


async def flood(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)
    for number in range(100):
        await send({"type": "websocket.send", "bytes": bytes(number * 10)})
    await _echo(receive, send)


async def closes(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)
    await receive()
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    assert (await receive())["type"] == "websocket.disconnect"


async def leaves(receive: Receive, send: Send) -> None:
    await _accepted(receive, send)


async def refuses(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def denies(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"x-price", b"2")]})
    for _ in range(3):
        await send({"type": "websocket.http.response.body", "body": b"pay first", "more_body": True})
        await trio.sleep(1)
    await send({"type": "websocket.http.response.body", "body": b"."})


async def both(receive: Receive, send: Send) -> None:
    """Receive with interruptions, while another task sends."""
    await _accepted(receive, send)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_interrupted, receive)
        for _ in range(20):
            await send({"type": "websocket.send", "text": "tick"})
            await trio.sleep(0.7)


async def _interrupted(receive: Receive) -> None:
    event: Event = {"type": ""}
    while event["type"] != "websocket.disconnect":
        with trio.move_on_after(0.5):
            event = await receive()


APPS: tuple[App, ...] = (echo, slow, deaf, late, flood, closes, leaves, refuses, denies, both)
