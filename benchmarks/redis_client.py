"""What our Redis client costs, beside redis-py's and the least that the parser and the socket need. Linux only.

    python -m benchmarks.redis_client [--rounds N]

CPU time of this process in microseconds, the least of several rounds: for a command alone, among 50 at once, and in a
pipeline of 100, and for a message that is received. Redis, a process of its own, runs on another core.
"""

import argparse
import json
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import anyio
import hiredis
import redis.asyncio as redis_py

from benchmarks.across.processes import module, open_redis, redis_version, result_of
from trichannels.layers.redis.address import parse_url
from trichannels.layers.redis.outbox import packed_all
from trichannels.layers.redis.server import open_server

PAYLOAD = "x" * 120
AT_ONCE, DEPTH = 50, 100
COMMANDS, MESSAGES = 3000, 20_000  # in a round
COLUMNS = ("alone", f"{AT_ONCE} at once", f"pipeline of {DEPTH}", "received")
PUBLISH = ("PUBLISH", "nobody", PAYLOAD)
# One command, which costs us nothing, and brings many messages.
FLOOD = ("EVAL", "for _ = 1, ARGV[2] do redis.call('PUBLISH', KEYS[1], ARGV[1]) end", 1, "news", PAYLOAD, MESSAGES)

Work = Callable[[], Awaitable[object]]


class Counting:
    """A sink that counts, and tells when all has come."""

    def __init__(self) -> None:
        self.left, self.all = 0, anyio.Event()

    def expect(self, count: int) -> None:
        self.left, self.all = count, anyio.Event()

    def message(self, channel: str, payload: bytes) -> None:
        self.left -= 1

    async def settle(self) -> None:
        if not self.left:
            self.all.set()

    def lost(self, channels: Collection[str]) -> None:
        raise RuntimeError("the connection was lost")

    def restored(self, channels: Collection[str]) -> None: ...


async def least(rounds: int, work: Work, count: int) -> float:
    """Return the least CPU time that one of ``count`` takes, in microseconds."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        await work()
        found.append((time.process_time() - began) / count * 1e6)
    return min(found)


async def at_once(one: Work, count: int) -> None:
    """Have many tasks do it, one after the other each."""

    async def task() -> None:
        for _ in range(count // AT_ONCE):
            await one()

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(task)


async def repeat(one: Work, count: int) -> None:
    for _ in range(count):
        await one()


async def measure(rounds: int, one: Work, hundred: Work, flood: Work) -> list[float]:
    """Return what each column needs."""
    return [
        await least(rounds, lambda: repeat(one, COMMANDS), COMMANDS),
        await least(rounds, lambda: at_once(one, COMMANDS), COMMANDS),
        await least(rounds, lambda: repeat(hundred, COMMANDS * 10 // DEPTH), COMMANDS * 10),
        await least(rounds, flood, MESSAGES),
    ]


async def ours(url: str, rounds: int) -> list[float]:
    """Measure our client on the running backend."""
    sink, pipeline = Counting(), [("", PUBLISH)] * DEPTH
    async with open_server(parse_url(url), sink) as server, server.dedicated("") as other:
        await server.subscribe(["news"])

        async def flood() -> None:
            sink.expect(MESSAGES)
            await other.ask(*FLOOD)
            await sink.all.wait()

        return await measure(rounds, lambda: server.execute(*PUBLISH), lambda: server.pipeline(pipeline), flood)


async def theirs(url: str, rounds: int) -> list[float]:
    """Measure redis-py."""
    client = redis_py.Redis.from_url(url, protocol=3)
    async with client, client.pubsub() as pubsub:
        await pubsub.subscribe("news")
        await pubsub.get_message(timeout=5)

        async def hundred() -> None:
            pipeline = client.pipeline(transaction=False)
            for _ in range(DEPTH):
                pipeline.execute_command(*PUBLISH)
            await pipeline.execute()

        async def flood() -> None:
            await client.execute_command(*FLOOD)  # type: ignore[no-untyped-call]
            left = MESSAGES
            while left:
                left -= await pubsub.get_message(ignore_subscribe_messages=True, timeout=5) is not None

        return await measure(rounds, partial(client.execute_command, *PUBLISH), hundred, flood)


class Raw:
    """A blocking socket and the parser: no tasks, no deadlines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = hiredis.Reader(notEnoughData=self)

    def close(self) -> None:
        self._socket.close()

    def ask(self, *commands: Any) -> None:
        self._socket.sendall(packed_all(commands))
        self.take(len(commands))

    def take(self, count: int) -> None:
        while count:
            while self._parser.gets() is not self:
                count -= 1
            if count:
                self._parser.feed(self._socket.recv(2**16))


async def raw(url: str, rounds: int) -> list[float]:
    """Measure the least that there is; at once means in one write."""
    port = int(url.rpartition(":")[2])
    client, listener = Raw(port), Raw(port)
    listener.ask(("SUBSCRIBE", "news"))

    async def send(count: int) -> None:
        client.ask(*[PUBLISH] * count)

    async def flood() -> None:
        client.ask(FLOOD)
        listener.take(MESSAGES)

    found = await measure(rounds, lambda: send(1), lambda: send(DEPTH), flood)
    found[1] = await least(rounds, lambda: repeat(lambda: send(AT_ONCE), COMMANDS // AT_ONCE), COMMANDS)
    client.close()
    listener.close()
    return found


# A name, who is measured, and on what.
CLIENTS: Mapping[str, tuple[Callable[[str, int], Awaitable[list[float]]], str]] = {
    "trichannels, trio": (ours, "trio"),
    "trichannels, asyncio": (ours, "asyncio"),
    "redis-py, asyncio": (theirs, "asyncio"),
    "hiredis, blocking": (raw, "trio"),
}


def table(found: Mapping[str, list[float]]) -> str:
    """Return the figures as text."""
    lines = [f"{'CPU µs':22}" + "".join(f"{column:>16}" for column in COLUMNS)]
    lines += [f"{name:22}" + "".join(f"{each:16.1f}" for each in row) for name, row in found.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure all, each in a process of its own, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        work, backend = CLIENTS[options.only]
        print(json.dumps(anyio.run(work, options.url, options.rounds, backend=backend)))
        return
    with open_redis() as server:
        found = {
            name: result_of(module(__spec__.name, "--rounds", options.rounds, "--only", name, "--url", server.url))
            for name in CLIENTS
        }
    print(f"redis-server {redis_version()}, " + ", ".join(f"{name} {version(name)}" for name in ("hiredis", "redis")))
    print(table(found))


if __name__ == "__main__":
    main()
