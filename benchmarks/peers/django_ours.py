"""trichannels: the Django project for HTTP, and consumers that ask the database."""

from benchmarks.peers.django_project import pause, set_up
from trichannels.django.http import DjangoHTTP
from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

set_up("trichannels.django")

from trichannels.db import database_sync_to_async  # noqa: E402


class Asker(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await database_sync_to_async(pause)()
        await self.send(text_data=text_data)


http = DjangoHTTP()
consumers = ProtocolTypeRouter({"websocket": URLRouter([path("ask", Asker.as_asgi())])})
