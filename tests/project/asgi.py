"""The application of the project of the tests: sockets in a room, and one named channel whose jobs are counted."""

from typing import Any

from trichannels.consumer import SyncConsumer
from trichannels.django.http import DjangoHTTP
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter


class Room(AsyncJsonWebsocketConsumer):
    groups = ("room",)

    async def room_message(self, event: Any) -> None:
        await self.send_json(event["n"])


class Work(SyncConsumer):
    """Tells the room of each job, from a lane, by the layer."""

    def job(self, event: Any) -> None:
        self.channel_layer.group_send("room", {"type": "room.message", "n": event["n"]})


application = ProtocolTypeRouter(
    {
        "http": DjangoHTTP(),
        "websocket": Room.as_asgi(),
        "channel": ChannelNameRouter({"jobs": Work.as_asgi(), "others": Work.as_asgi()}),
    }
)
