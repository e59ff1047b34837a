"""A bare ASGI application: no framework, no task of its own; a group is a set of ``send``."""

from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

PAGE = b"a page that never changes."
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", str(len(PAGE)).encode())]
MEMBERS: set[Send] = set()


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": PAGE})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await (echo if scope["path"] == "/echo" else member)(receive, send)
    else:
        await lifespan(receive, send)


async def echo(receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def member(receive: Receive, send: Send) -> None:
    MEMBERS.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = {"type": "websocket.send", "text": event["text"]}
            for other in MEMBERS:
                await other(message)
    finally:
        MEMBERS.discard(send)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return
