"""Programs that run in a process of their own, on the servers' core, and print what they found as JSON.

python -m benchmarks.across.programs NAME URL SECONDS|COUNT
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from benchmarks.comparing.frames import PAYLOAD

GROUP = "all"
MESSAGE = {"type": "chat.message", "text": PAYLOAD.decode()}
BATCH = 100
TASKS = 100
FEW = 20  # at once, where each needs a connection
SENDERS = 50  # of batches; as many clients as redis-benchmark has


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

        async def some() -> None:
            for _ in range(10):
                await layer.group_send_many(batch)

        async def work() -> int:
            async with anyio.create_task_group() as group:
                for _ in range(SENDERS):
                    group.start_soon(some)
            return SENDERS * 10 * BATCH

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


# ---- a burst


async def burst(kind: str, url: str, count: int) -> dict[str, float]:
    """Send so many events to a group with one reader; return how many arrive."""
    if kind == "ours":
        return await _burst_on_ours(url, count)
    return await _burst_on_theirs(kind, url, count)


async def _burst_on_ours(url: str, count: int) -> dict[str, float]:
    from trichannels.layers import Inbox

    arrived = 0
    async with ours(url) as layer, layer.subscribe(GROUP, inbox=Inbox(messages=count, bytes=2**30)) as events:

        async def read() -> None:
            nonlocal arrived
            with anyio.move_on_after(QUIET) as waiting:
                while arrived < count:
                    await events.receive()
                    arrived += 1
                    waiting.deadline = anyio.current_time() + QUIET

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for _ in range(count // BATCH):
                await layer.group_send_many([(GROUP, MESSAGE)] * BATCH)
    return {"arrived": arrived}


async def _burst_on_theirs(kind: str, url: str, count: int) -> dict[str, float]:
    layer, arrived = theirs(kind, url), 0
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)

    async def read() -> None:
        nonlocal arrived
        try:
            while arrived < count:
                await asyncio.wait_for(layer.receive(channel), QUIET)
                arrived += 1
        except TimeoutError:
            pass

    reader = asyncio.create_task(read())
    for _ in range(count // FEW):
        await asyncio.gather(*[layer.group_send(GROUP, MESSAGE) for _ in range(FEW)])
    await reader
    return {"arrived": arrived}


QUIET = 2.0  # seconds without an event, after which nothing more is waited for
PROGRAMS: dict[str, tuple[Callable[..., Any], str]] = {
    "publish-many": (lambda url, seconds: publish_many(url, float(seconds)), "trio"),
    "publish-tasks": (lambda url, seconds: publish_tasks(url, float(seconds)), "trio"),
    "publish-history": (lambda url, seconds: publish_tasks(url, float(seconds), history=_every()), "trio"),
    "publish-core": (lambda url, seconds: publish_theirs("core", url, float(seconds)), "asyncio"),
    "publish-pubsub": (lambda url, seconds: publish_theirs("pubsub", url, float(seconds)), "asyncio"),
    "burst-ours": (lambda url, count: burst("ours", url, int(count)), "trio"),
    "burst-core": (lambda url, count: burst("core", url, int(count)), "asyncio"),
    "burst-pubsub": (lambda url, count: burst("pubsub", url, int(count)), "asyncio"),
}


def _every() -> Any:
    from trichannels.layers import History

    return {"*": History()}


def main() -> None:
    name, *arguments = sys.argv[1:]
    work, backend = PROGRAMS[name]
    print(json.dumps(anyio.run(work, *arguments, backend=backend)))


if __name__ == "__main__":
    main()
