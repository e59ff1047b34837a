"""A browser in a room."""

from typing import Any

from trichannels.auth import get_user
from trichannels.db import database_sync_to_async
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer

from .models import Message, Room, latest


class RoomConsumer(AsyncJsonWebsocketConsumer):
    """Sends what is said, and who is there; takes what the browser says. Closes with 4401 for who is not logged in."""

    async def connect(self) -> None:
        self.user = await get_user(self.scope)
        if not self.user.is_authenticated:
            await self.accept()  # so that the browser gets the code
            await self.close(4401)
            return
        self.room = await self.find_room()
        if self.room is None:
            await self.close(4404)
            return
        await self.join(self.room.group)
        await self.accept()
        await self.track(self.room.group, self.user.get_username())
        await self.tell_who_is_there()

    @database_sync_to_async
    def find_room(self) -> Room | None:
        return Room.objects.filter(slug=self.scope["url_route"]["kwargs"]["slug"]).first()

    async def receive_json(self, content: Any, **more: Any) -> None:
        match content:
            case {"text": str(text)} if 0 < len(text.strip()) <= 1000:
                await self.say(text.strip())  # its signal tells the room, us included
            case {"after": int(after)}:
                for message in await database_sync_to_async(latest)(self.room, after):
                    await self.send_json({"message": message})
            case _:
                await self.send_json({"error": "say something, in no more than 1,000 characters"})

    @database_sync_to_async
    def say(self, text: str) -> None:
        Message.objects.create(room=self.room, author=self.user, text=text)

    # ---- what the room tells

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"message": event["message"]})

    async def room_deleted(self, event: dict[str, Any]) -> None:
        await self.send_json({"deleted": event["id"]})

    async def presence_diff(self, event: dict[str, Any]) -> None:
        await self.tell_who_is_there()

    async def tell_who_is_there(self) -> None:
        presence = await self.channel_layer.presence(self.room.group)
        await self.send_json({"here": sorted(presence.members)})
