"""Programs that run in a process of their own, on the servers' core, and print what they found as JSON.

python -m benchmarks.across.programs publish-many URL SECONDS [BACKEND]
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from benchmarks.comparing.frames import PAYLOAD

GROUP = "all"
MESSAGE = {"type": "chat.message", "text": PAYLOAD.decode()}
BATCH = 100
TASKS = 100


def ours(url: str, **options: Any) -> Any:
    from trichannels.layers.redis import RedisChannelLayer

    return RedisChannelLayer(url=url, **options)


def theirs(kind: str, url: str, **options: Any) -> Any:
    if kind == "core":
        from channels_redis.core import RedisChannelLayer as Layer
    else:
        from channels_redis.pubsub import RedisPubSubChannelLayer as Layer
    return Layer(hosts=[url], **options)


async def rate_of(seconds: float, work: Callable[[], Awaitable[int]]) -> dict[str, float]:
    """Do ``work`` again and again; return how much of it a second, and CPU microseconds for each."""
    warm = time.perf_counter() + seconds / 4
    while time.perf_counter() < warm:
        await work()
    done, began, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < began + seconds:
        done += await work()
    return {"rate": done / (time.perf_counter() - began), "cpu": (time.process_time() - spent) / done * 1e6}


# ---- publishing


async def publish_many(url: str, seconds: float, **options: Any) -> dict[str, float]:
    async with ours(url, **options) as layer:
        batch = [(GROUP, MESSAGE)] * BATCH

        async def work() -> int:
            await layer.group_send_many(batch)
            return BATCH

        return await rate_of(seconds, work)


async def publish_tasks(url: str, seconds: float, **options: Any) -> dict[str, float]:
    async with ours(url, **options) as layer:

        async def some() -> None:
            for _ in range(BATCH):
                await layer.group_send(GROUP, MESSAGE)

        async def work() -> int:
            async with anyio.create_task_group() as group:
                for _ in range(TASKS):
                    group.start_soon(some)
            return TASKS * BATCH

        return await rate_of(seconds, work)


async def publish_theirs(kind: str, url: str, seconds: float) -> dict[str, float]:
    layer = theirs(kind, url)

    async def work() -> int:
        await asyncio.gather(*[layer.group_send(GROUP, MESSAGE) for _ in range(BATCH)])
        return BATCH

    return await rate_of(seconds, work)


async def publish_redis_py(url: str, seconds: float, frame: str) -> dict[str, float]:
    """What the usual client gets of ready bytes, in pipelines."""
    from redis.asyncio import Redis

    async with Redis.from_url(url) as redis:

        async def work() -> int:
            async with redis.pipeline(transaction=False) as pipe:
                for _ in range(BATCH):
                    pipe.publish(GROUP, frame)
                await pipe.execute()
            return BATCH

        return await rate_of(seconds, work)
