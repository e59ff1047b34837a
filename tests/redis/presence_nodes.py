"""One process's presence on a real server, without the layer around it: a board, its connections, and what it hears."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import anyio

from trichannels.layers.presence import Presence, Roster, Step
from trichannels.layers.redis.address import parse_hosts
from trichannels.layers.redis.names import PRESENCE, Native
from trichannels.layers.redis.presence import RedisPresence
from trichannels.layers.redis.server import RedisServer, Timeouts, open_server
from trichannels.layers.serializers import MsgpackSerializer, Serializer

PATIENCE = 20.0  # seconds; only a test that fails waits so long
QUICK = Timeouts(connect=1, reply=1, ping_interval=0.3, ping=0.3, backoff_first=0.01, backoff_most=0.1)


class Node:
    """A process with a board. It keeps what its connections bring, and tells the board when they are back."""

    def __init__(self, prefix: str) -> None:
        self.names = Native(prefix)
        self.token = token_hex(6)
        self.heard: list[dict[str, Any]] = []
        self.news = anyio.Event()
        self.board: RedisPresence
        self.server: RedisServer
        self.losses = 0

    def message(self, channel: str, payload: bytes) -> None:
        event, group = self.names.read_event(payload), self.names.group_of(channel)
        assert event.kind == PRESENCE
        assert group is not None
        self.heard.append(self.board.decode_diff(group, event.body))
        self._ring()

    async def settle(self) -> None:
        pass

    def lost(self, channels: Collection[str]) -> None:
        self.losses += 1

    def restored(self, channels: Collection[str]) -> None:
        self.board.restored()
        self._ring()

    def _ring(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def follow(self, *groups: str) -> None:
        """Hear the diffs of groups from now on."""
        await self.server.subscribe([self.names.events(group) for group in groups])

    async def hear(self, fits: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until what was heard fits."""
        with anyio.fail_after(PATIENCE):
            while not fits(self.heard):
                await self.news.wait()
        return self.heard

    async def sees(self, group: str, *keys: str, within: float = PATIENCE) -> Presence:
        """Wait until these keys are present, and no others; by asking, for without members nothing is told."""
        return await self.finds(group, lambda members: set(members) == set(keys), within)

    async def shows(self, group: str, members: dict[str, list[Any]], within: float = PATIENCE) -> Presence:
        """Wait until the metadata of each key's connections, in any order, is this."""
        wanted = {key: Counter(metas) for key, metas in members.items()}
        return await self.finds(
            group, lambda found: {key: Counter(metas) for key, metas in found.items()} == wanted, within
        )

    async def finds(self, group: str, fits: Callable[[dict[str, list[Any]]], bool], within: float) -> Presence:
        """Ask until the answer fits."""
        presence = None
        try:
            with anyio.fail_after(within):
                while True:
                    presence = await self.board.snapshot(group)
                    if fits(presence.members):
                        return presence
                    await anyio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"it does not come to what it should be, but to {presence}") from None


def followed(roster: Roster, heard: list[dict[str, Any]]) -> set[str]:
    """Apply what was heard to a roster; it must go on without a gap. Return who is there."""
    for event in heard:
        assert roster.apply(event) is not Step.GAP
    return set(roster.members)


@asynccontextmanager
async def node(
    url: str,
    prefix: str,
    *,
    lease: float = 1.0,
    linger: float = 0.0,
    serializer: Serializer | None = None,
    dies: bool = False,
    timeout: float = 2.0,
    timeouts: Timeouts = QUICK,
) -> AsyncIterator[Node]:
    """Run one for the block. With ``dies`` it ends without a word, as after kill -9."""
    one = Node(prefix)
    target = parse_hosts([url])[0]
    async with open_server(target, one, timeouts=timeouts) as one.server, anyio.create_task_group() as tasks:
        one.board = RedisPresence(
            lambda group: one.server,
            one.names,
            token=one.token,
            serializer=serializer or MsgpackSerializer(),
            lease=lease,
            linger=linger,
            start_soon=tasks.start_soon,
            timeout=timeout,
        )
        try:
            yield one
        finally:
            if not dies:
                await one.board.close()
            tasks.cancel_scope.cancel()
