"""Django Channels with its in-memory layer. It has one way to reach a group: a handler of each member.

With REDIS_URL in the environment: a layer of channels_redis, CHANNELS_REDIS says which, ``core`` or ``pubsub``.
"""

import os
from typing import Any

import django
from django.conf import settings

LAYERS = {
    "": "channels.layers.InMemoryChannelLayer",
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
LAYER: dict[str, Any] = {"BACKEND": LAYERS[os.environ.get("CHANNELS_REDIS", "")]}
if "REDIS_URL" in os.environ:
    LAYER["CONFIG"] = {"hosts": [os.environ["REDIS_URL"]]}
settings.configure(CHANNEL_LAYERS={"default": LAYER}, ALLOWED_HOSTS=["*"])
django.setup()

from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

PAGE = b"a page that never changes."


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, PAGE, headers=[(b"content-type", b"text/plain")])


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class Member(AsyncWebsocketConsumer):
    groups = ("all",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("all", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


application = ProtocolTypeRouter(
    {
        "http": Page.as_asgi(),
        "websocket": URLRouter(
            [path("echo", Echo.as_asgi()), path("group", Member.as_asgi()), path("unchanged", Member.as_asgi())]
        ),
    }
)
