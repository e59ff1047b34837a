"""A chat in one file. Run it with: trichannels serve examples.chat:application"""

from collections.abc import Mapping
from typing import Any

from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path


class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.room = f"chat.{self.scope['url_route']['kwargs']['room']}"
        await self.join(self.room)  # left by itself when the socket ends, however it ends
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": content["text"]})

    async def chat_message(self, event: Mapping[str, Any]) -> None:
        await self.send_json({"text": event["text"]})


application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("ws/<slug:room>/", Chat.as_asgi())])},
    layers={"default": InMemoryChannelLayer()},
)
