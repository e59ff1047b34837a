"""Litestar with its channels plugin in memory; each member's subscriber has a task that sends.

With REDIS_URL in the environment: on Redis, LITESTAR_REDIS says how, ``pubsub`` or ``streams``.
"""

import os
from typing import Any

from litestar import Litestar, get, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect

PAGE = "a page that never changes."


def backend() -> Any:
    if "REDIS_URL" not in os.environ:
        return MemoryChannelsBackend()
    from litestar.channels.backends.redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend
    from redis.asyncio import Redis

    redis = Redis.from_url(os.environ["REDIS_URL"])
    if os.environ["LITESTAR_REDIS"] == "pubsub":
        return RedisChannelsPubSubBackend(redis=redis)
    # It asks anew after so many milliseconds without an event: one, by default, which keeps a core busy for nothing.
    return RedisChannelsStreamBackend(1000, redis=redis, stream_sleep_no_subscriptions=1000)


plugin = ChannelsPlugin(backend(), channels=["all"])


@get("/", media_type="text/plain", sync_to_thread=False)
def page() -> str:
    return PAGE


@websocket("/echo")
async def echo(socket: Any) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


@websocket(["/group", "/unchanged"])
async def member(socket: Any, channels: ChannelsPlugin) -> None:
    async with (
        channels.start_subscription("all") as subscriber,
        subscriber.run_in_background(socket.send_text, join=False),
    ):
        await socket.accept()
        try:
            while True:
                channels.publish((await socket.receive_text()).encode(), "all")
        except WebSocketDisconnect:
            pass


application = Litestar([page, echo, member], plugins=[plugin], openapi_config=None)
