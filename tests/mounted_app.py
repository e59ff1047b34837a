"""What ``test_mounted`` serves: a router by itself, and two of them mounted in Starlette.

Each of the layers prints when it opens and closes.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trichannels.events import Receive, Scope, Send
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.security.websocket import OriginValidator


class Layer(InMemoryChannelLayer):
    """Says what happens to it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def open(self) -> None:
        await super().open()
        print(f"{self.name} layer opened", flush=True)  # noqa: T201

    async def close(self) -> None:
        await super().close()
        print(f"{self.name} layer closed", flush=True)  # noqa: T201


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and send back whatever comes: an ASGI application without a consumer."""
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": event["text"]})


class Chat(AsyncWebsocketConsumer):
    """Everybody in a room hears everybody."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.join(f"room.{self.room}")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.layer.group_send(f"room.{self.room}", {"type": "said", "text": text_data})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    @property
    def layer(self) -> Any:
        return self.channel_layer


class Shout(JsonWebsocketConsumer):
    """Blocking handlers, which the bridge runs in threads."""

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json({"shouted": content["text"].upper()})


class Hello(AsyncHttpConsumer):
    """Greets by HTTP, and tells of the layers."""

    async def handle(self, body: bytes) -> None:
        answer = {**self.scope["url_route"]["kwargs"], "layers": sorted(self.scope["channel_layers"])}
        await self.send_response(200, json.dumps(answer).encode())


def router(name: str) -> ProtocolTypeRouter:
    """Make the application once more, with a layer of its own."""
    rooms = URLRouter([path("<slug:room>/", Chat.as_asgi())])
    sockets = URLRouter([path("echo/", echo), path("shout/", Shout.as_asgi()), path("rooms/", rooms)])
    pages = URLRouter([path("hello/<str:who>/", Hello.as_asgi())])
    guarded = OriginValidator(sockets, ["https://example.com"])
    return ProtocolTypeRouter({"websocket": guarded, "http": pages}, layers={"default": Layer(name)})


alone = router("alone")
owned, degraded = router("owned"), router("degraded")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Open the layers of one of the two; a mount forwards no lifespan to it."""
    async with owned.opened():
        yield


async def home(_: object) -> PlainTextResponse:
    return PlainTextResponse("Starlette")


mounted = Starlette(routes=[Route("/", home), Mount("/owned", owned), Mount("/degraded", degraded)], lifespan=lifespan)
