"""Ten thousand joins and leaves over a thousand groups, some of them cancelled: nothing of them is left anywhere."""

import random
from typing import Any

import anyio
import anyio.to_thread
import pytest

from trichannels.inbox import Mailbox
from trichannels.layers.history import History
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing.contract.base import mailbox, message

from .servers import RedisProcess, fresh_prefix
from .topologies import until

pytestmark = [pytest.mark.server, pytest.mark.once]

TIMES, GROUPS, AT_ONCE = 10_000, 1_000, 100


class Visitor:
    """Joins groups and leaves them, in one way or another."""

    def __init__(self, layer: RedisChannelLayer, seed: int) -> None:
        self.layer, self.dice = layer, random.Random(seed)

    async def run(self, times: int) -> None:
        for _ in range(times):
            group = f"{self.dice.choice(('plain', 'log'))}.{self.dice.randrange(GROUPS // 2)}"
            await self.visit(group, self.dice.choice((self.leaves, self.detaches, self.is_cancelled, self.subscribes)))

    async def visit(self, group: str, how: Any) -> None:
        box = mailbox()
        channel = self.layer.attach(box)
        try:
            await how(group, channel, box)
        finally:
            self.layer.detach(channel)

    async def leaves(self, group: str, channel: str, box: Mailbox) -> None:
        await self.layer.group_add(group, channel)
        await self.layer.group_discard(group, channel)

    async def detaches(self, group: str, channel: str, box: Mailbox) -> None:
        await self.layer.group_add(group, channel)

    async def is_cancelled(self, group: str, channel: str, box: Mailbox) -> None:
        with anyio.CancelScope() as scope:
            for _ in range(self.dice.randrange(4)):
                await anyio.lowlevel.checkpoint()
            scope.deadline = anyio.current_time() + self.dice.random() * 0.002
            await self.layer.group_add(group, channel)

    async def subscribes(self, group: str, channel: str, box: Mailbox) -> None:
        async with self.layer.subscribe(group):
            pass


async def test_nothing_is_left_of_ten_thousand_visits() -> None:
    with RedisProcess() as server:
        options: dict[str, Any] = {
            "url": server.url,
            "prefix": fresh_prefix(),
            "history": {"log.*": History(seconds=60)},
        }
        async with RedisChannelLayer(**options, timeout=20) as layer:
            with anyio.fail_after(120):
                async with anyio.create_task_group() as crowd:
                    for seed in range(AT_ONCE):
                        crowd.start_soon(Visitor(layer, seed).run, TIMES // AT_ONCE)
            redis = layer.hub.servers[0]
            inbox = layer.hub.post.inbox if layer.hub.post is not None else ""
            await anyio.to_thread.run_sync(
                lambda: until(lambda: server.admin("PUBSUB", "CHANNELS") == [inbox], "the end of all subscriptions")
            )
            assert not layer.hub.feeds
            statistics = layer.statistics()
            assert (statistics.channels, statistics.groups, statistics.memberships) == (0, 0, 0)
            assert (redis.statistics().in_flight, redis.statistics().waiting) == (0, 0)
            assert redis.statistics().subscriptions == 1
            # Of a history its number and its name are kept, for a while: a join may have been the first to ask.
            keys = server.admin("KEYS", "*")
            assert all(key.endswith(":meta") for key in keys)
            assert all(0 < server.admin("TTL", key) <= 86_400 for key in keys)
            await layer.group_send("plain.1", message())
        assert server.admin("PUBSUB", "CHANNELS") == []
        assert server.admin("CLIENT", "LIST").count("name=trichannels") == 0
