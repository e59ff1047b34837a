"""trichannels: a consumer with a handler, and one whose group gets frames that are ready.

With REDIS_URL in the environment, the layer is on Redis; with HISTORY as well, the group has one.
"""

import os
from collections.abc import Mapping
from typing import Any

from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.layers import ChannelLayer, History, InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

PAGE = b"a page that never changes."


def layer() -> ChannelLayer:
    url = os.environ.get("REDIS_URL")
    if url is None:
        return InMemoryChannelLayer()
    from trichannels.layers.redis import RedisChannelLayer

    return RedisChannelLayer(url=url, history={"*": History()} if os.environ.get("HISTORY") else None)


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, PAGE, headers=[(b"content-type", b"text/plain")])


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class Member(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.join("all")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("all", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: Mapping[str, Any]) -> None:
        await self.send(text_data=event["text"])


class Unchanged(Member):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("all", {"type": "websocket.send", "text": text_data})


application = ProtocolTypeRouter(
    {
        "http": Page.as_asgi(),
        "websocket": URLRouter(
            [
                path("echo", Echo.as_asgi()),
                path("group", Member.as_asgi()),
                path("unchanged", Unchanged.as_asgi()),
            ]
        ),
    },
    layers={"default": layer()},
)
