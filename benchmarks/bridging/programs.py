"""Programs in a process of their own, on the servers' core: sending to a group, and calls of the bridge.

python -m benchmarks.bridging.programs NAME SECONDS [URL]
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from anyio import to_thread

from benchmarks.across.programs import rate_of
from benchmarks.comparing.frames import PAYLOAD

GROUP, MESSAGE = "all", {"type": "chat.message", "text": PAYLOAD.decode()}
SOME = 100  # calls between two looks at the clock
AT_ONCE = 10
Found = dict[str, float]


# ---- sending to a group


def configure(backend: str, *apps: str, **config: Any) -> None:
    import django
    from django.conf import settings

    layers = {"default": {"BACKEND": backend, "CONFIG": config}}
    settings.configure(CHANNEL_LAYERS=layers, INSTALLED_APPS=apps, SECRET_KEY="x" * 50)
    django.setup()


def configure_ours(url: str) -> None:
    configure("trichannels.layers.redis.RedisChannelLayer", "trichannels.django", hosts=[url])


def configure_theirs(url: str) -> None:
    configure("channels_redis.core.RedisChannelLayer", hosts=[url])


def send_ours() -> None:
    """As a view does it; it blocks, wherever it is called."""
    from trichannels.layers import get_channel_layer

    layer: Any = get_channel_layer()
    layer.group_send(GROUP, MESSAGE)


def send_theirs() -> None:
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    async_to_sync(get_channel_layer().group_send)(GROUP, MESSAGE)


def join_theirs() -> None:
    """Let the group have a member, or there would be nothing to send."""
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    async_to_sync(get_channel_layer().group_add)(GROUP, "specific.member!1")


def sending(seconds: float, send: Callable[[], None]) -> Found:
    """Send again and again; return CPU and wall milliseconds of each, all threads of the process together."""
    warm = time.perf_counter() + seconds / 4
    while time.perf_counter() < warm:
        send()
    done, began, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < began + seconds:
        send()
        done += 1
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    return {"a send: CPU, ms": cpu / done * 1000, "a send: wall, ms": wall / done * 1000}


async def in_lane(seconds: float, url: str) -> Found:
    """In a lane, while the loop has the layers open as a server has."""
    configure_ours(url)
    from trichannels.bridge import current_bridge
    from trichannels.layers.configured import configured_layers
    from trichannels.layers.host import open_layers

    async with open_layers(configured_layers()):
        return await current_bridge().run(sending, seconds, send_ours)


def without_loop(seconds: float, url: str) -> Found:
    configure_ours(url)
    return sending(seconds, send_ours)


def theirs_without_loop(seconds: float, url: str) -> Found:
    configure_theirs(url)
    join_theirs()
    return sending(seconds, send_theirs)


async def theirs_in_view(seconds: float, url: str) -> Found:
    """As in a view under ASGI: in the thread of ``sync_to_async``, whose loop does it."""
    configure_theirs(url)
    from asgiref.sync import sync_to_async

    await sync_to_async(join_theirs)()
    found: Found = await sync_to_async(sending)(seconds, send_theirs)
    return found


# ---- calls


def nothing() -> None:
    """What is run in a thread."""


async def calling(seconds: float, run: Callable[[], Awaitable[object]]) -> Found:
    """Return CPU microseconds of a call: one after the other, and many at once."""

    async def one_by_one() -> int:
        for _ in range(SOME):
            await run()
        return SOME

    async def at_once() -> int:
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(one_by_one)
        return SOME * AT_ONCE

    alone, many = await rate_of(seconds, one_by_one), await rate_of(seconds, at_once)
    return {"a call alone: CPU, µs": alone["cpu"], f"{AT_ONCE} calls at once: CPU, µs each": many["cpu"]}


async def bridge(seconds: float) -> Found:
    from trichannels.bridge import Bridge

    async with Bridge() as lanes:
        return await calling(seconds, lambda: lanes.run(nothing))


async def anyio_thread(seconds: float) -> Found:
    return await calling(seconds, lambda: to_thread.run_sync(nothing))


async def asgiref(seconds: float) -> Found:
    from asgiref.sync import sync_to_async

    return await calling(seconds, sync_to_async(nothing, thread_sensitive=True))


def on(backend: str, work: Callable[..., Awaitable[Found]]) -> Callable[..., Found]:
    return partial(anyio.run, work, backend=backend)


PROGRAMS: dict[str, Callable[..., Found]] = {
    "in-lane": on("trio", in_lane),
    "without-loop": without_loop,
    "theirs-without-loop": theirs_without_loop,
    "theirs-in-view": lambda *arguments: asyncio.run(theirs_in_view(*arguments)),
    "bridge-trio": on("trio", bridge),
    "anyio-trio": on("trio", anyio_thread),
    "bridge-asyncio": on("asyncio", bridge),
    "anyio-asyncio": on("asyncio", anyio_thread),
    "asgiref": lambda seconds: asyncio.run(asgiref(seconds)),
}


def main() -> None:
    name, seconds, *url = sys.argv[1:]
    print(json.dumps(PROGRAMS[name](float(seconds), *url)))


if __name__ == "__main__":
    main()
