"""Starlette with broadcaster in memory; each member has a second task that sends what it subscribed to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = "a page that never changes."
hub = Broadcast("memory://")


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(PAGE)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


async def member(socket: WebSocket) -> None:
    async with hub.subscribe("all") as subscriber:
        await socket.accept()

        async def forward() -> None:
            async for event in subscriber:
                await socket.send_text(event.message)

        sender = asyncio.create_task(forward())
        try:
            while True:
                await hub.publish("all", await socket.receive_text())
        except WebSocketDisconnect:
            pass
        finally:
            sender.cancel()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with hub:
        yield


application = Starlette(
    routes=[
        Route("/", page),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/group", member),
        WebSocketRoute("/unchanged", member),
    ],
    lifespan=lifespan,
)
