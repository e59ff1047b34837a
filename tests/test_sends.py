"""A send that is on its way when the socket ends: a normal end, also where the server calls it a mistake."""

from typing import Any

import anyio
import pytest

from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.exceptions import BadEvent, OutOfTurn
from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.testing.websocket import WebsocketCommunicator

ERRORS = [OutOfTurn("ours"), RuntimeError("uvicorn's"), ValueError("daphne's"), Exception("hypercorn's")]


class Ticker(AsyncWebsocketConsumer):
    """Closes while a task of its own is sending."""

    ended: list[tuple[int, BaseException | None]]

    async def connect(self) -> None:
        await self.accept()
        self.nursery.start_soon(self.tick)

    async def tick(self) -> None:
        await self.send("tick")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.close(4000, "enough")

    async def disconnect(self, code: int) -> None:
        self.ended.append((code, self._instance.error))


def late(app: ASGIApp, error: Exception) -> ASGIApp:
    """A server whose ``send`` takes frames only after a close has overtaken them, and complains of ``error`` then."""
    closed = anyio.Event()

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def slow(event: Event) -> None:
            if event["type"] == "websocket.send":
                await closed.wait()
                raise error
            await send(event)
            if event["type"] == "websocket.close":
                closed.set()

        await app(scope, receive, slow)

    return wrapped


@pytest.mark.parametrize("error", ERRORS, ids=str)
async def test_a_send_overtaken_by_our_close_is_no_failure(error: Exception) -> None:
    ended: list[Any] = []
    Ticker.ended = ended
    async with WebsocketCommunicator(late(Ticker.as_asgi(), error), "/") as socket:
        await socket.send_to(text_data="close")
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "enough"}
        await socket.wait()
    assert ended == [(4000, None)]


async def test_a_send_after_the_servers_own_close_is_no_failure() -> None:
    """uvicorn queues the disconnect, and refuses to send at once."""
    told = anyio.Event()
    ended: list[Any] = []
    Ticker.ended = ended

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        events = iter([{"type": "websocket.connect"}])

        async def until_told() -> Event:
            for event in events:
                return event
            await told.wait()
            return {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}

        async def refused(event: Event) -> None:
            if event["type"] == "websocket.send":
                told.set()
                raise RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")
            await send(event)

        await Ticker.as_asgi()(scope, until_told, refused)

    async with WebsocketCommunicator(server, "/") as socket:
        await socket.wait()
    assert ended == [(1011, None)]


async def test_a_send_that_fails_while_the_socket_is_open_is_one() -> None:
    class Wrong(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.base_send({"type": "websocket.send"})

    with pytest.raises(BadEvent):
        async with WebsocketCommunicator(Wrong.as_asgi(), "/") as socket:
            await socket.wait()
