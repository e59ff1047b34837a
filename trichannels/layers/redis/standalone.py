"""One Redis server: a connection for commands, and one for subscriptions."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from ...exceptions import TrichannelsError
from ...nursery import collapsed
from .address import Endpoint, Standalone
from .connection import Connection, open_connection, ours
from .link import Link
from .outbox import packed, packed_all, packed_head
from .scripts import Script, run_script
from .server import Arg, Bounds, Command, RedisServer, RedisStatistics, Sink, Timeouts
from .subscriber import Subscriber


class OneServer(RedisServer):
    """Commands and subscriptions at whichever server ``resolve`` finds: the only one, or a sentinel's master."""

    publish_command = "PUBLISH"

    def __init__(self, label: str, sink: Sink, timeouts: Timeouts, bounds: Bounds) -> None:
        self.label, self.timeouts, self.bounds = label, timeouts, bounds
        self.link = Link(label, self.resolve, timeouts, bounds)
        self.subscriber = Subscriber(label, self.resolve, sink, timeouts, bounds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.link!r}, {self.subscriber!r}>"

    async def resolve(self) -> Endpoint:
        """Return where the server is now."""
        raise NotImplementedError

    async def execute(self, *command: Arg, key: str = "", timeout: float | None = None) -> Any:
        answer = await self._answer(packed(*command), timeout)
        if isinstance(answer, Exception):
            raise ours(self.label, answer)
        return answer

    async def pipeline(self, commands: Sequence[tuple[str, Command]], *, timeout: float | None = None) -> list[Any]:
        if not commands:
            await anyio.lowlevel.checkpoint()
            return []
        answers = await self.link.submit(packed_all([command for _, command in commands]), len(commands), timeout)
        return [ours(self.label, each) if isinstance(each, Exception) else each for each in answers]

    async def publish_many(
        self, events: Sequence[tuple[str, bytes]], *, timeout: float | None = None
    ) -> dict[int, TrichannelsError]:
        heads: dict[str, bytes] = {}  # what all commands for a channel begin with
        parts = []
        for channel, payload in events:
            head = heads.get(channel)
            if head is None:
                head = heads[channel] = packed_head("PUBLISH", channel)
            parts.append(b"%b$%d\r\n%b\r\n" % (head, len(payload), payload))
        answers = await self.link.submit(b"".join(parts), len(parts), timeout) if parts else ()
        return {index: ours(self.label, each) for index, each in enumerate(answers) if isinstance(each, Exception)}

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], *, timeout: float | None = None
    ) -> Any:
        limit = self.timeouts.reply if timeout is None else timeout
        answer = await run_script(self._answer, script, [len(keys), *keys, *args], limit)
        if isinstance(answer, Exception):
            raise ours(self.label, answer)
        return answer

    async def _answer(self, data: bytes, timeout: float | None) -> Any:
        return (await self.link.submit(data, 1, timeout))[0]

    async def subscribe(
        self, channels: Sequence[str], *, patterns: Sequence[str] = (), timeout: float | None = None
    ) -> None:
        await self.subscriber.subscribe(channels, patterns, timeout)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self.subscriber.unsubscribe(channels)

    def dedicated(self, key: str) -> AbstractAsyncContextManager[Connection]:
        return self._dedicated()

    @asynccontextmanager
    async def _dedicated(self) -> AsyncIterator[Connection]:
        endpoint, most = await self.resolve(), self.bounds.reply_bytes
        async with open_connection(endpoint, timeout=self.timeouts.connect, reply_bytes=most) as connection:
            yield connection

    async def delete_matching(self, pattern: str) -> int:
        return await delete_on(self.link, pattern)

    def statistics(self) -> RedisStatistics:
        link, subscriber = self.link, self.subscriber
        return RedisStatistics(
            connections=(link.connection is not None) + (subscriber.connection is not None),
            generation=link.generation,
            reconnects=max(0, link.generation - 1) + max(0, subscriber.generation - 1),
            in_flight=link.outbox.under_way,
            waiting=link.outbox.waiting,
            subscriptions=len(subscriber.wanted),
        )


class StandaloneServer(OneServer):
    """The server at a fixed place."""

    def __init__(self, target: Standalone, sink: Sink, timeouts: Timeouts, bounds: Bounds) -> None:
        super().__init__(target.label, sink, timeouts, bounds)
        self._endpoint = target.endpoint

    async def resolve(self) -> Endpoint:
        return self._endpoint


@asynccontextmanager
async def open_standalone(
    target: Standalone, sink: Sink, timeouts: Timeouts, bounds: Bounds
) -> AsyncIterator[RedisServer]:
    """Keep two connections to a server for the block."""
    server = StandaloneServer(target, sink, timeouts, bounds)
    async with collapsed(), anyio.create_task_group() as group:
        group.start_soon(server.link.run)
        group.start_soon(server.subscriber.run)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()


async def delete_on(link: Link, pattern: str) -> int:
    """Delete the keys of one server that match a pattern."""
    cursor, deleted = b"0", 0
    while True:
        answer = (await link.submit(packed("SCAN", cursor, "MATCH", pattern, "COUNT", 500), 1))[0]
        if isinstance(answer, Exception):
            raise ours(link.label, answer)
        cursor, keys = answer
        if keys:
            commands = b"".join([packed("UNLINK", key) for key in keys])  # one by one: they may be of different slots
            answers = await link.submit(commands, len(keys))
            deleted += sum(each for each in answers if isinstance(each, int))
        if cursor == b"0":
            return deleted
