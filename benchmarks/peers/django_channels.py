"""Channels: consumers that ask the database."""

from benchmarks.peers.django_project import pause, set_up

set_up()

from channels.db import database_sync_to_async  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402


class Asker(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await database_sync_to_async(pause)()
        await self.send(text_data=text_data)


consumers = ProtocolTypeRouter({"websocket": URLRouter([path("ask", Asker.as_asgi())])})
