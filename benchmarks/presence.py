"""What presence costs in a group of 10,000: to come, to be told of it, to look who is there, to count. Linux only.

    python -m benchmarks.presence [--members N]

CPU time of this process, and the wall's, for both layers. Redis, a process of its own, runs on another core; its CPU
time is not in these figures. The members are tracked by one process; those who are told are members of the group.
"""

import argparse
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import anyio

from benchmarks.across.processes import open_redis, redis_version
from trichannels.inbox import Inbox
from trichannels.layers.base import ChannelLayer, Subscription
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.redis.layer import RedisChannelLayer

GROUP, TIMES = "crowd", 20


class Clocked:
    """The CPU and wall time of a block, in seconds."""

    def __enter__(self) -> "Clocked":
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *raised: object) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


async def fill(layer: ChannelLayer, members: int) -> Clocked:
    """Let so many come, a hundred at a time."""
    with Clocked() as clocked:
        for start in range(0, members, 100):
            async with anyio.create_task_group() as group:
                for number in range(start, min(start + 100, members)):
                    group.start_soon(layer.enter_presence, GROUP, f"c{number}", f"user {number}", {"name": "Ada"})
    return clocked


@asynccontextmanager
async def crowd(layer: ChannelLayer, readers: int) -> AsyncIterator[list[Subscription]]:
    """Hold as many members of the group, who are told of each diff."""
    async with AsyncExitStack() as stack:
        inbox = Inbox(messages=100_000, bytes=2**30)
        yield [await stack.enter_async_context(layer.subscribe(GROUP, inbox=inbox)) for _ in range(readers)]


async def each(times: int, work: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """Return the median CPU and wall time of a call, in milliseconds."""
    found = []
    for number in range(times):
        with Clocked() as clocked:
            await work(number)
        found.append((clocked.cpu, clocked.wall))
    return 1000 * median(cpu for cpu, _ in found), 1000 * median(wall for _, wall in found)


async def measure(layer: ChannelLayer, members: int) -> dict[str, tuple[float, float]]:
    """Return CPU and wall milliseconds of each thing that is done."""
    async with layer:
        filled = await fill(layer, members)
        rows = {f"join, of {members:,}, 100 at once": (1000 * filled.cpu / members, 1000 * filled.wall / members)}
        rows["join, alone, with all there"] = await each(
            TIMES, lambda number: layer.enter_presence(GROUP, f"late {number}", f"late {number}")
        )
        rows["snapshot"] = await each(10, lambda number: layer.presence(GROUP))
        rows["count"] = await each(TIMES, lambda number: layer.presence_count(GROUP))
        async with crowd(layer, members) as readers:

            async def come_and_be_told(number: int) -> None:
                await layer.enter_presence(GROUP, f"told {number}", f"told {number}")
                for reader in readers:
                    await reader.receive()

            rows[f"join, told to all {members:,}"] = await each(10, come_and_be_told)
    return rows


async def run(members: int) -> None:
    memory = await measure(InMemoryChannelLayer(), members)
    with open_redis() as redis:
        over_redis = await measure(RedisChannelLayer(url=redis.url), members)
    print(f"ms, CPU / wall; {members:,} in the group; {redis_version()}\n")
    print(f"{'':<40}{'memory':>20}{'Redis':>20}")
    for what, (cpu, wall) in memory.items():
        other = over_redis[what]
        print(f"{what:<40}{f'{cpu:.3f} / {wall:.3f}':>20}{f'{other[0]:.3f} / {other[1]:.3f}':>20}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    anyio.run(run, parser.parse_args().members, backend="trio")


if __name__ == "__main__":
    main()
