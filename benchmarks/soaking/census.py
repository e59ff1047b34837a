"""What a serving process holds at one moment, counted inside of it. What the numbers should be is in ``verdict``."""

import asyncio
import ctypes
import gc
import logging
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import trio

from trichannels.bridge import current_bridge
from trichannels.seam import backend
from trichannels.server import ServerStatistics

from .app import LAYER, TALLY, Planned

PAGE = os.sysconf("SC_PAGE_SIZE")
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
PACKAGES = ("trichannels", "trio", "anyio", "websockets", "hypercorn", "h11", "wsproto", "uvicorn")
"""Whose objects are counted: what nobody lists any more may still be kept by somebody."""
THREAD_CACHE = "trio._core._thread_cache"  # its objects are threads, which are counted by themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The numbers. All but the last two must come back to what they were at the start."""

    tasks: int
    connections: int
    instances: int
    channels: int
    """Inboxes that the layer knows."""
    groups: int
    memberships: int
    waiting: int
    """Messages that wait in inboxes and channels."""
    calls: int
    """Blocking handlers that run in threads, are left behind in one, or wait for one."""
    goodbyes: int
    """Consumers whose ``connect()`` has begun and whose ``disconnect()`` has not."""
    descriptors: int
    threads: int
    objects: int
    """Living objects of the classes of ``PACKAGES``."""
    blocks: int
    """Blocks of memory that Python has in use, whatever is in them: what a leak of any kind adds to."""
    rss: int
    """Resident memory in bytes, after a garbage collection."""


async def open_lanes() -> None:
    """Have the bridge for blocking handlers make all its threads now: they stay as long as their loop."""
    bridge = current_bridge()
    together = threading.Barrier(bridge.limit)
    async with anyio.create_task_group() as group:
        for _ in range(bridge.limit):
            group.start_soon(bridge.run, together.wait, 20)


def take_census(server: ServerStatistics | None = None) -> Census:
    """Collect garbage and count. Call it on the event loop."""
    gc.collect()
    layer, calls = LAYER.statistics(), current_bridge().statistics()
    return Census(
        tasks=sum(1 for _ in living_tasks()),
        connections=server.connections if server else 0,
        instances=layer.instances,
        channels=layer.channels,
        groups=layer.groups,
        memberships=layer.memberships,
        waiting=layer.waiting_messages,
        calls=calls.running + calls.waiting + calls.abandoned,
        goodbyes=TALLY.begun - TALLY.ended,
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        threads=len(list(Path("/proc/self/task").iterdir())),
        objects=living_objects().total(),
        blocks=sys.getallocatedblocks(),
        rss=resident(),
    )


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def living_tasks() -> Iterator[str]:
    """Yield the name of every task of the loop, trio's own included."""
    if backend() == "asyncio":
        yield from (task.get_name() for task in asyncio.all_tasks())
        return
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        yield task.name
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def living_objects() -> Counter[str]:
    """Return how many objects there are of each class of ``PACKAGES``."""
    kinds = Counter(type(thing) for thing in gc.get_objects())
    return Counter(
        {
            f"{kind.__module__}.{kind.__qualname__}": count
            for kind, count in kinds.items()
            if str(kind.__module__).partition(".")[0] in PACKAGES and kind.__module__ != THREAD_CACHE
        }
    )


def trim() -> None:
    """Let the C library give back what it has free and keeps: 4 to 9 MB here, never the same."""
    if TRIM is not None:
        TRIM(0)


class Reports(logging.Handler):
    """Takes all log records of the process: failures that were planned, by number, and whatever else was said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.planned: Counter[int] = Counter()
        self.others: Counter[str] = Counter()
        self.texts: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        numbers = list(_planned(record.exc_info[1])) if record.exc_info else []
        self.planned.update(numbers)
        if not numbers:
            text = self.format(record)
            kind = re.sub(r"[\d.]+", "N", f"{record.name}: {text.splitlines()[-1] if record.exc_info else text}")
            self.others[kind] += 1
            self.texts.setdefault(kind, text)

    def complaints(self) -> list[str]:
        """Return what is wrong with the reports: each planned failure must be told once, and nothing else."""
        lost = [number for number in range(1, TALLY.planned + 1) if not self.planned[number]]
        twice = [number for number, times in self.planned.items() if times > 1]
        found = [f"{len(lost)} of {TALLY.planned} failures of the application were not reported"] if lost else []
        found += [f"{len(twice)} of {TALLY.planned} failures were reported more than once"] if twice else []
        return found + [f"logged {times} times: {self.texts[kind]}" for kind, times in self.others.items()]


def _planned(error: BaseException | None) -> Iterator[int]:
    if isinstance(error, Planned):
        yield error.number
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _planned(inner)
