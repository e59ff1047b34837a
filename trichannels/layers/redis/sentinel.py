"""The master that sentinels watch: found by asking them, and left as soon as they, or it, say that it is no master.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ...exceptions import LayerRefused, LayerUnreachable
from ...nursery import collapsed
from .address import Endpoint, Sentinels
from .connection import Connection, open_connection
from .lasting import watched
from .outbox import packed
from .server import Bounds, RedisServer, Sink, Timeouts
from .standalone import OneServer

log = logging.getLogger("trichannels.layers.redis")

SWITCHED = b"+switch-master"
MOST_SENTINELS = 32


class SentinelServer(OneServer):
    """The master of a name, wherever it is."""

    def __init__(self, target: Sentinels, sink: Sink, timeouts: Timeouts, bounds: Bounds) -> None:
        super().__init__(target.label, sink, timeouts, bounds)
        self._target = target
        self._sentinels = list(target.endpoints)  # the one that answered last comes first

    async def resolve(self) -> Endpoint:
        """Return where the master is; raises :class:`LayerUnreachable` if no sentinel knows, or it is no master yet."""
        problems = []
        for sentinel in list(self._sentinels):
            try:
                master = await self._ask(sentinel)
                await self._require_master(master)
            except (LayerUnreachable, LayerRefused) as error:
                if isinstance(error, LayerRefused) and error.code == "NOMASTER":
                    raise
                problems.append(str(error))
                continue
            self._prefer(sentinel)
            return master
        raise LayerUnreachable(self.label, f"no sentinel has led to a master: {'; '.join(problems)}")

    async def _ask(self, sentinel: Endpoint) -> Endpoint:
        name = self._target.master_name
        async with open_connection(sentinel, timeout=self.timeouts.connect) as connection:
            answer = await connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name, timeout=self.timeouts.reply)
            if answer is None:
                raise LayerRefused(self.label, f"NOMASTER the sentinel {sentinel.label} watches no master {name!r}")
            await self._learn(connection, sentinel)
        host, port = answer
        return self._target.master.at(host.decode(), int(port))

    async def _learn(self, connection: Connection, asked: Endpoint) -> None:
        """Remember the other sentinels that this one knows."""
        others = await connection.ask("SENTINEL", "SENTINELS", self._target.master_name, timeout=self.timeouts.reply)
        for other in others:
            found = _as_dict(other)
            endpoint = asked.at(found[b"ip"].decode(), int(found[b"port"]))
            if endpoint not in self._sentinels and len(self._sentinels) < MOST_SENTINELS:
                self._sentinels.append(endpoint)

    async def _require_master(self, master: Endpoint) -> None:
        async with open_connection(master, timeout=self.timeouts.connect) as connection:
            role = await connection.ask("ROLE", timeout=self.timeouts.reply)
        if role[0] != b"master":
            raise LayerUnreachable(master.label, "it is to be the master, but is none yet")

    def _prefer(self, sentinel: Endpoint) -> None:
        self._sentinels.remove(sentinel)
        self._sentinels.insert(0, sentinel)

    # ---- when it moves

    async def listen(self) -> None:
        """Hear of a new master from a sentinel, for ever: whichever can be reached."""
        while True:
            for sentinel in list(self._sentinels):
                try:
                    async with open_connection(
                        sentinel, timeout=self.timeouts.connect, on_push=self._heard
                    ) as connection:
                        await self._subscribe(connection)
                        await watched(connection, self.timeouts)
                except (LayerUnreachable, LayerRefused) as error:
                    log.info("%s", error)
            await anyio.sleep(self.timeouts.backoff_first)

    async def _subscribe(self, connection: Connection) -> None:
        from .outbox import Pending

        connection.outbox.put(Pending(packed("SUBSCRIBE", SWITCHED), 0))

    def _heard(self, push: list[Any]) -> None:
        if push[0] == b"message" and push[1] == SWITCHED:
            name, *_ = push[2].decode().split(" ")
            if name == self._target.master_name:
                self._leave("the sentinels have made another server the master")

    def _leave(self, problem: str) -> None:
        self.link.drop(problem)
        self.subscriber.drop(problem)

    async def check(self) -> None:
        """Ask the server itself whether it still is the master, for ever: a sentinel's word may have been lost.

        A replica takes subscriptions, and passes on what its master publishes; so nobody would notice.
        """
        while True:
            await anyio.sleep(self.timeouts.ping_interval)
            try:
                role = (await self.link.submit(packed("ROLE"), 1))[0]
            except (LayerUnreachable, LayerRefused):
                continue  # which the link sees to
            if isinstance(role, list) and role[0] != b"master":
                self._leave("it is no master any more")
            elif self._apart:
                self.subscriber.drop("the master is another server")

    @property
    def _apart(self) -> bool:
        """Whether commands and subscriptions are with different servers."""
        one, other = self.link.connection, self.subscriber.connection
        return one is not None and other is not None and one.endpoint != other.endpoint


def _as_dict(answer: Any) -> dict[bytes, bytes]:
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


@asynccontextmanager
async def open_sentinel(
    target: Sentinels, sink: Sink, timeouts: Timeouts, bounds: Bounds
) -> AsyncIterator[RedisServer]:
    """Keep connections to a master, and to a sentinel, for the block."""
    server = SentinelServer(target, sink, timeouts, bounds)
    async with collapsed(), anyio.create_task_group() as group:
        for task in (server.link.run, server.subscriber.run, server.listen, server.check):
            group.start_soon(task)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()
