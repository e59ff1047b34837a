"""Work that takes too long for a socket: thumbnails, made by a worker, announced when they are ready.

In one process, which also works: trichannels serve examples.thumbnails:application
In many, with REDIS_URL=redis://localhost: the same, and trichannels worker examples.thumbnails:application thumbnails
"""

import os
from typing import Any

from trichannels.bridge import async_to_sync
from trichannels.consumer import SyncConsumer
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import ChannelLayer, InMemoryChannelLayer
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, path

Picture = list[list[int]]


def shrink(picture: Picture) -> Picture:
    """Return every other pixel of every other row."""
    return [row[::2] for row in picture[::2]]


class Gallery(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.send(
            "thumbnails", {"type": "thumbnail.make", "picture": content["picture"], "reply_to": self.channel_name}
        )

    async def thumbnail_ready(self, event: dict[str, Any]) -> None:
        await self.send_json({"thumbnail": event["thumbnail"]})


class Thumbnails(SyncConsumer):
    """One instance for each job. If ``thumbnail_make`` raises, the job is tried again later."""

    def thumbnail_make(self, job: dict[str, Any]) -> None:
        thumbnail = shrink(job["picture"])
        async_to_sync(self.channel_layer.send)(job["reply_to"], {"type": "thumbnail.ready", "thumbnail": thumbnail})


def make_layer() -> ChannelLayer:
    """Return a layer for one process, or for many."""
    if "REDIS_URL" not in os.environ:
        return InMemoryChannelLayer()
    from trichannels.layers.redis import RedisChannelLayer

    return RedisChannelLayer(url=os.environ["REDIS_URL"])


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter([path("gallery/", Gallery.as_asgi())]),
        "channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi()}),
    },
    layers={"default": make_layer()},
    workers=() if "REDIS_URL" in os.environ else {"thumbnails": {"concurrency": 2}},
)
