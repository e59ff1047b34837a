"""The application that is soaked: consumers that do what a client tells them, also what they should not.

Written on anyio, so that other servers can serve it too. What the application itself has counted is in ``TALLY``.
"""

import threading
import time
from typing import Any

import anyio

from trichannels.bridge import async_to_sync
from trichannels.exceptions import StopConsumer
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.inbox import Inbox
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

GRACE = 0.05  # seconds for running handlers: most of them are cut off in the middle
TICK = 0.05
FLOOD = bytes(2**15)
DELUGE = bytes(2**20)  # fills at once what the kernel holds for a client that does not read
NEVER = 3600.0


class Planned(Exception):
    """An application fails because its client asked for it. The number says which one must be reported."""

    def __init__(self) -> None:
        super().__init__("planned")
        self.number = TALLY.count("planned")


class Tally:
    """What has happened, counted from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begun = self.ended = self.planned = 0

    def count(self, name: str) -> int:
        """Add one, and return the sum."""
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)
            return int(getattr(self, name))


TALLY = Tally()


class Soaked(AsyncWebsocketConsumer):
    """Joins its room, ticks in its nursery, tells the room when it leaves. Each word of its client is a deed."""

    disconnect_grace = GRACE
    spoiled = False

    async def connect(self) -> None:
        TALLY.count("begun")
        self.room = f"room.{self.scope['url_route']['kwargs']['room']}"
        await self.join(self.room)
        self.nursery.start_soon(self.tick)
        await self.accept()

    async def tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            await self.send(text_data="~tick")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is not None:
            await getattr(self, f"do_{text_data}")()

    async def do_echo(self) -> None:
        await self.send(text_data="echo")

    async def do_wait(self) -> None:
        await self.send(text_data="waiting")
        await anyio.sleep(NEVER)

    async def do_linger(self) -> None:
        await self.send(text_data="waiting")
        with anyio.CancelScope(shield=True):  # it stays a little beyond its grace
            await anyio.sleep(2 * GRACE)

    async def do_flood(self) -> None:
        while True:
            await self.send(bytes_data=FLOOD)

    async def do_deluge(self) -> None:
        while True:
            await self.send(bytes_data=DELUGE)

    async def do_shout(self) -> None:
        for _ in range(10):
            await self.channel_layer.group_send(self.room, {"type": "said", "text": "~said"})

    async def do_roar(self) -> None:
        while True:  # more than the room can take: inboxes overflow
            await self.channel_layer.group_send(self.room, {"type": "said", "text": "~" * 2**13})
            await self.send(text_data="~roar")

    async def do_close(self) -> None:
        await self.close(4000, "as you wish")

    async def do_stop(self) -> None:
        raise StopConsumer

    async def do_fail(self) -> None:
        raise Planned

    async def do_fail_beside(self) -> None:
        self.nursery.start_soon(self.do_fail)

    async def do_fail_goodbye(self) -> None:
        self.spoiled = True
        await self.send(text_data="spoiled")

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        TALLY.count("ended")
        await self.channel_layer.group_send(self.room, {"type": "said", "text": "~left"})
        if self.spoiled:
            raise Planned


class SoakedCrew(Soaked):
    """Runs several handlers at once."""

    concurrency = 4


class SoakedOverrun(Soaked):
    """Is closed when its small inbox overflows."""

    inbox = Inbox(messages=4, overflow="disconnect")

    async def do_overrun(self) -> None:
        for _ in range(10):
            await self.channel_layer.group_send(self.room, {"type": "said", "text": "~said"})
        await anyio.sleep(NEVER)


class SoakedThreads(WebsocketConsumer):
    """Has blocking handlers, which nobody can cancel: some are left behind in their thread."""

    disconnect_grace = GRACE
    disconnect_timeout = 30.0  # there may be a queue for the threads

    def connect(self) -> None:
        TALLY.count("begun")
        self.room = f"room.{self.scope['url_route']['kwargs']['room']}"
        self.join(self.room)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        getattr(self, f"do_{text_data}")()

    def do_echo(self) -> None:
        self.send(text_data="echo")

    def do_wait(self) -> None:
        self.send(text_data="waiting")
        time.sleep(3 * GRACE)
        self.send(text_data="waited")

    def do_shout(self) -> None:
        async_to_sync(self.channel_layer.group_send)(self.room, {"type": "said", "text": "~said"})

    def do_close(self) -> None:
        self.close(4000, "as you wish")

    def do_fail(self) -> None:
        raise Planned

    def said(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])

    def disconnect(self, code: int) -> None:
        TALLY.count("ended")


class SoakedHandshake(Soaked):
    """Takes for ever to accept, fails, or refuses, as its path says."""

    async def connect(self) -> None:
        TALLY.count("begun")
        self.room = "room.handshake"
        await self.join(self.room)
        match self.scope["url_route"]["kwargs"]["what"]:
            case "wait":
                await anyio.sleep(NEVER)
            case "fail":
                raise Planned
            case "refuse":
                await self.close()


class SoakedPage(AsyncHttpConsumer):
    """Answers, streams for ever, or never answers, as its path says."""

    disconnect_grace = GRACE

    async def handle(self, body: bytes) -> None:
        await self.join("pages")
        match self.scope["url_route"]["kwargs"]["what"]:
            case "answer":
                await self.send_response(200, b"ok", headers={"content-length": "2"})
            case "stream":
                await self.send_headers()
                while True:
                    await self.send_body(FLOOD, more_body=True)
            case "wait":
                await anyio.sleep(NEVER)
            case "fail":
                raise Planned


LAYER = InMemoryChannelLayer()
application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("async/<int:room>/", Soaked.as_asgi()),
                path("crew/<int:room>/", SoakedCrew.as_asgi()),
                path("overrun/<int:room>/", SoakedOverrun.as_asgi()),
                path("threads/<int:room>/", SoakedThreads.as_asgi()),
                path("handshake/<slug:what>/", SoakedHandshake.as_asgi()),
            ]
        ),
        "http": URLRouter([path("page/<slug:what>/", SoakedPage.as_asgi())]),
    },
    layers={"default": LAYER},
)
