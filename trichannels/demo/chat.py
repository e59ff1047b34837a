"""A chat with rooms: who is here, who is typing, and every message in every tab at once.

Who is here is the layer's presence: a tab is tracked when it enters, and gone with its socket, however that ended. The
application itself is the last line; ``trichannels demo`` serves it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from ..generic.websocket import AsyncJsonWebsocketConsumer
from ..layers.memory import InMemoryChannelLayer
from ..layers.presence import Roster, Step
from ..routing import ProtocolTypeRouter, URLRouter, re_path
from .pages import FILES, Door, Missing, Page
from .requests import Enter, Refused, Request, Say, Typing, clean_name, clean_text, parse

ROOM = r"(?P<room>[-a-zA-Z0-9_]{1,64})"


class Chat(AsyncJsonWebsocketConsumer):
    """One tab in one room."""

    async def connect(self) -> None:
        self.name = ""  # until the page says who is there
        self.member = token_hex(6)
        self.group = f"chat.{self.scope['url_route']['kwargs']['room']}"
        await self.accept()

    # What the page asks for.

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Answer a bad request with an error event: one typing mistake should not cost the socket."""
        try:
            await self.receive_json(parse(text_data or ""))
        except Refused as problem:
            await self.send_json({"kind": "error", "text": str(problem)})

    async def receive_json(self, content: Request, **kwargs: Any) -> None:
        match content:
            case Enter(name):
                await self.enter(clean_name(name))
            case _ if not self.name:
                raise Refused("Say who you are first.")
            case Say(text):
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                await self.tell({"type": "chat.said", **self.card, "text": clean_text(text), "at": now})
            case Typing(active):
                await self.tell({"type": "member.typing", **self.card, "active": active})

    async def enter(self, name: str) -> None:
        if self.name:
            raise Refused("You are in already; leave first to come back under another name.")
        self.name = name
        await self.join(self.group)  # left by itself when the socket ends, as is the presence
        await self.track(self.group, self.member, {"name": name})
        await self.send_json({"kind": "welcome", **self.card})
        await self.look_around()

    async def look_around(self) -> None:
        """Show who is here; whoever comes and goes from now on is told by diffs."""
        self.roster = Roster(await self.channel_layer.presence(self.group))
        await self.show("entered", self.card)
        for member, cards in self.roster.members.items():
            if member != self.member:
                await self.show("here", {"member": member, **cards[0]})

    # What happens in the room: each of these is an event from the layer.

    async def presence_diff(self, event: Mapping[str, Any]) -> None:
        before = dict(self.roster.members)
        match self.roster.apply(event):
            case Step.APPLIED:
                await self.tell_apart(before)
            case Step.GAP:
                await self.layer_resync(event)

    async def layer_resync(self, event: Mapping[str, Any]) -> None:
        """Something may be missing: look who is here now."""
        before = self.roster.members
        self.roster = Roster(await self.channel_layer.presence(self.group))
        await self.tell_apart(before)

    async def tell_apart(self, before: Mapping[str, list[Any]]) -> None:
        """Show who has left and who has entered since ``before``."""
        now = self.roster.members
        for kind, one, other in (("left", before, now), ("entered", now, before)):
            for member in one.keys() - other.keys() - {self.member}:
                await self.show(kind, {"member": member, **one[member][0]})

    async def member_typing(self, event: Mapping[str, Any]) -> None:
        if event["member"] != self.member:
            await self.show("typing", event, active=event["active"])

    async def chat_said(self, event: Mapping[str, Any]) -> None:
        await self.show("said", event, text=event["text"], at=event["at"])

    async def layer_dropped(self, event: Mapping[str, Any]) -> None:
        """This tab read too slowly and events were dropped: say so instead of hiding it."""
        await self.send_json({"kind": "dropped"})

    # Helpers.

    @property
    def card(self) -> dict[str, str]:
        return {"member": self.member, "name": self.name}

    async def tell(self, event: dict[str, Any]) -> None:
        await self.channel_layer.group_send(self.group, event)

    async def show(self, kind: str, event: Mapping[str, Any], **more: Any) -> None:
        await self.send_json({"kind": kind, "member": event["member"], "name": event["name"], **more})


def build() -> ProtocolTypeRouter:
    """Return a chat with a memory layer of its own."""
    files = [re_path(rf"^{name}$", Page.as_asgi(name=name)) for name in FILES]
    pages = [re_path(r"^$", Door.as_asgi()), re_path(rf"^room/{ROOM}$", Page.as_asgi(name="page.html")), *files]
    return ProtocolTypeRouter(
        {
            "http": URLRouter([*pages, re_path("", Missing.as_asgi())]),
            "websocket": URLRouter([re_path(rf"^ws/{ROOM}$", Chat.as_asgi())]),
        },
        layers={"default": InMemoryChannelLayer()},
    )


application = build()
