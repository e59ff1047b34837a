"""Presence on a cluster whose slots move, and behind sentinels that fail over."""

from collections.abc import Iterator
from typing import ClassVar

import anyio
import anyio.to_thread
import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.layers.presence import Roster, Step
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.names import Native
from trichannels.layers.redis.server import Timeouts
from trichannels.layers.redis.slots import slot_of
from trichannels.testing.contract.presence import PresenceContract

from .presence_nodes import node
from .servers import fresh_prefix
from .topologies import RedisCluster, SentinelTrio, redis_cluster, sentinel_trio

pytestmark = [pytest.mark.server, pytest.mark.once]

LEASE = 1.0
PATIENT = Timeouts(ping_interval=0.5, ping=0.5, backoff_first=0.01, backoff_most=0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster("7") as found:
        TestOnACluster.url = found.url
        yield found


@pytest.fixture(scope="module")
def trio() -> Iterator[SentinelTrio]:
    with sentinel_trio("7") as found:
        yield found


@pytest.mark.usefixtures("cluster")
class TestOnACluster(PresenceContract):
    """The contract, with sharded pub/sub."""

    url: ClassVar[str]
    quiet = 0.03

    def make_layer(self) -> ChannelLayer:
        return RedisChannelLayer(url=self.url, prefix=fresh_prefix())

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, RedisChannelLayer)
        return RedisChannelLayer(url=self.url, prefix=layer.wire.prefix, presence_linger=layer.presence_linger)


async def test_who_is_there_stays_while_their_slot_moves(cluster: RedisCluster) -> None:
    prefix = fresh_prefix()
    slot = slot_of(Native(prefix).key("room", "presence"))
    async with (
        node(cluster.url, prefix, lease=LEASE, timeouts=PATIENT, timeout=10) as here,
        node(cluster.url, prefix, lease=LEASE, timeouts=PATIENT, timeout=10) as other,
    ):
        await here.follow("room")
        for number in range(20):
            await other.board.enter("room", f"c{number}", f"user{number}", number)
        await here.board.enter("room", "c0", "user0", "here")
        everybody = {f"user{number}": [number] for number in range(20)} | {"user0": [0, "here"]}
        await here.shows("room", everybody)
        for turn in range(3):
            await anyio.to_thread.run_sync(cluster.migrate, slot)
            await here.board.enter("room", f"late{turn}", "late", turn)
            here.board.leave_all(f"late{turn}")
            await here.shows("room", everybody)
        heard = len(here.heard)
        roster = Roster(await here.board.snapshot("room"))
        other.board.leave_all("c7")
        await here.hear(lambda told: len(told) > heard and "user7" in told[-1]["leaves"])
        assert roster.apply(here.heard[-1]) is Step.APPLIED


async def test_who_is_there_stays_over_a_failover(trio: SentinelTrio) -> None:
    prefix = fresh_prefix()
    async with (
        node(trio.url, prefix, lease=LEASE, timeouts=PATIENT, timeout=30) as here,
        node(trio.url, prefix, lease=LEASE, timeouts=PATIENT, timeout=30) as other,
    ):
        await here.follow("room")
        await here.board.enter("room", "c1", "ada", 1)
        await other.board.enter("room", "c1", "ada", 2)
        await other.board.enter("room", "c2", "bob", 3)
        before = (await here.board.snapshot("room")).position
        former = trio.master
        former.kill()
        other.board.leave_all("c2")
        await anyio.to_thread.run_sync(trio.wait_for_another, former)
        presence = await here.shows("room", {"ada": [1, 2]})
        assert presence.position.epoch != before.epoch
