"""A chat inside Starlette: its pages and its lifespan, our sockets under ``/live``.

trichannels serve examples.inside_starlette:app      (or uvicorn, or hypercorn)
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trichannels.layers import get_channel_layer

from .chat import application as chat


async def announce(request: Request) -> PlainTextResponse:
    """``POST /announce/lobby`` says the body to a room: Starlette's views reach the layer as consumers do."""
    layer = get_channel_layer()
    assert layer is not None
    text = (await request.body()).decode()
    await layer.group_send(f"chat.{request.path_params['room']}", {"type": "chat.message", "text": text})
    return PlainTextResponse("said")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep the layers open: Starlette passes no lifespan on to what is mounted."""
    async with chat.opened():
        yield


app = Starlette(
    routes=[Route("/announce/{room}", announce, methods=["POST"]), Mount("/live", app=chat)], lifespan=lifespan
)
