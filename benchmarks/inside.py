"""What an echo costs without its sockets: the transport is fed from memory, in one process, and sends nowhere.

    python -m benchmarks.inside

The least CPU time of several rounds, in microseconds; what an echo costs beside is the kernel's, and the polling's.
"""

import gc
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
import trio.testing

from benchmarks.comparing.frames import upgrade
from benchmarks.comparing.load import MESSAGE
from benchmarks.peers.ours import Echo
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.seam import TrioWake
from trichannels.server.config import ServerConfig
from trichannels.server.config_file import hypercorn_config
from trichannels.server.connection import Connection
from trichannels.server.head import parse_upgrade
from trichannels.server.hypercorn_glue import worker_context
from trichannels.server.listening import Listener
from trichannels.server.peer import Peer
from trichannels.server.shared import Shared
from trichannels.server.wire import Wire

SOCKETS, ROUNDS, MESSAGES = 10, 7, 3000
DEEP = 14  # coroutines between a routed application's first frame and its sleep
MICRO = 1e6


class Silent(Echo):
    """Takes a message, and sends nothing."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        pass


class Nowhere:
    """An end of a connection that takes all and brings nothing."""

    descriptor = -1

    def send_nowait(self, data: bytes | memoryview) -> int:
        return len(data)

    async def receive_some(self, size: int) -> bytes:
        return await trio.sleep_forever()

    def finish_nowait(self) -> bool:
        return True

    def abort(self) -> None:
        pass

    close = abort


class NoSocket:
    """As much of a socket as a connection looks at."""

    def fileno(self) -> int:
        return -1


APPLICATION = ProtocolTypeRouter(
    {"websocket": URLRouter([path("echo", Echo.as_asgi()), path("silent", Silent.as_asgi())])}, layers={}
)


async def least(turn: Callable[[], None]) -> float:
    """Return what one of the ``SOCKETS`` costs in a turn, after which all others may run."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(MESSAGES):
            turn()
            await trio.lowlevel.checkpoint()
        found.append((time.process_time() - began) / MESSAGES / SOCKETS * MICRO)
    return min(found)


async def message(where: str) -> float:
    """Return what a message to this path costs."""
    settings = ServerConfig()
    config = hypercorn_config(settings, logging.getLogger("benchmarks"), logging.getLogger("benchmarks"))
    shared = Shared(app=APPLICATION, settings=settings, config=config, context=worker_context(config))
    peers: list[Peer] = []

    async def live() -> None:
        connection = Connection(shared, cast(Any, NoSocket()), Listener(cast(Any, None)))
        upgraded = parse_upgrade(upgrade(where), 2**16)
        assert upgraded is not None
        async with trio.open_nursery() as nursery:
            end = cast(Any, Nowhere())
            wire = Wire(end, nursery, shared.counters, shared.engine.flusher, limit=2**16, timeout=1)
            peers.append(Peer(wire, nursery, shared.engine, b""))
            transport, scope = connection._meet(wire, peers[-1], upgraded, (("", 0), ("", 0)))
            assert transport is not None
            await connection._run_application(transport, peers[-1], scope)

    def feed() -> None:
        for peer in peers:
            peer.feed(MESSAGE)

    return await among(live, lambda: least(feed))


async def wake(depth: int) -> float:
    """Return what it costs to wake a task that sleeps below so many coroutines."""
    bells: list[TrioWake] = []

    async def sleep(left: int, bell: TrioWake) -> None:
        if left:
            await sleep(left - 1, bell)
        while True:
            await bell.sleep()

    async def live() -> None:
        bells.append(TrioWake())
        await sleep(depth, bells[-1])

    def ring() -> None:
        for bell in bells:
            bell.ring()

    return await among(live, lambda: least(ring))


async def among(live: Callable[[], Awaitable[None]], measure: Callable[[], Awaitable[float]]) -> float:
    """Measure while ``SOCKETS`` tasks live."""
    async with trio.open_nursery() as nursery:
        for _ in range(SOCKETS):
            nursery.start_soon(live)
        await trio.testing.wait_all_tasks_blocked()
        found = await measure()
        nursery.cancel_scope.cancel()
    return found


async def measure() -> dict[str, float]:
    """Return each figure by what it is of."""
    gc.disable()
    async with APPLICATION.opened():
        return {
            "echo, µs": await message("/echo"),
            "message that is not answered, µs": await message("/silent"),
            f"wake of a task {DEEP} coroutines deep, µs": await wake(DEEP),
            "wake of a task, µs": await wake(0),
        }


if __name__ == "__main__":
    print(json.dumps(trio.run(measure), indent=1))
