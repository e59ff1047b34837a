"""A chat inside Litestar: its handlers and its lifespan, our sockets under ``/live``.

trichannels serve examples.inside_litestar:app      (or uvicorn, or hypercorn)
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, asgi, post

from trichannels.layers import get_channel_layer

from .chat import application as chat


@asgi("/live", is_mount=True, copy_scope=True)  # type: ignore[untyped-decorator, unused-ignore]
async def live(scope: Any, receive: Any, send: Any) -> None:
    """Everything below it is ours."""
    await chat(scope, receive, send)


@post("/announce/{room:str}")  # type: ignore[untyped-decorator, unused-ignore]
async def announce(request: Request[Any, Any, Any]) -> str:
    """Say something to a room: Litestar's handlers reach the layer as consumers do."""
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_send(
        f"chat.{request.path_params['room']}", {"type": "chat.message", "text": (await request.body()).decode()}
    )
    return "said"


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Keep the layers open."""
    async with chat.opened():
        yield


app = Litestar(route_handlers=[live, announce], lifespan=[lifespan], logging_config=None, openapi_config=None)
