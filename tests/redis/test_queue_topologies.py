"""Work queues on a cluster whose slots move, and behind sentinels that fail over: at least once, all the same."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import anyio
import anyio.to_thread
import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.layers.redis.names import Native
from trichannels.layers.redis.slots import slot_of
from trichannels.nursery import collapsed
from trichannels.testing.contract.base import message
from trichannels.testing.contract.queues import QueuesContract
from trichannels.worker import run_worker

from .queue_layers import QueueLayer
from .test_queue import WORK, Tally
from .topologies import RedisCluster, SentinelTrio, redis_cluster, sentinel_trio

pytestmark = [pytest.mark.server, pytest.mark.once]

JOBS = 300


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
class TestOnACluster(QueuesContract):
    """The contract."""

    url: ClassVar[str]

    def make_layer(self) -> ChannelLayer:
        return QueueLayer(url=self.url)

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, QueueLayer)
        return QueueLayer(url=layer.url, prefix=layer.prefix)


async def test_jobs_are_done_while_their_slot_moves(cluster: RedisCluster) -> None:
    tally = Tally()
    async with QueueLayer(url=cluster.url, capacity=10_000) as layer, collapsed(), anyio.create_task_group() as nursery:
        slot = slot_of(Native(layer.prefix).key(WORK, "jobs"))
        for number in range(JOBS):
            await layer.send(WORK, message(number))
        for number in range(JOBS, JOBS + 10):
            await layer.send(WORK, message(number), delay=0.5)
        for _ in range(2):
            await nursery.start(partial(run_worker, tally.application(0.01), layer, WORK, concurrency=2))
        for _ in range(3):
            await tally.until(len(tally.done) + 20)
            await anyio.to_thread.run_sync(cluster.migrate, slot)
        await tally.until(JOBS + 10, within=25)
        nursery.cancel_scope.cancel()


async def test_jobs_are_done_over_a_failover(trio: SentinelTrio) -> None:
    tally = Tally()
    async with QueueLayer(url=trio.url, capacity=10_000) as layer, collapsed(), anyio.create_task_group() as nursery:
        for number in range(JOBS):
            await layer.send(WORK, message(number))
        trio.master.admin("WAIT", 1, 5000)  # what had not reached the replica would be lost with the master
        for _ in range(2):
            await nursery.start(partial(run_worker, tally.application(0.01), layer, WORK, concurrency=2))
        await tally.until(50)
        former = trio.master
        former.kill()
        await anyio.to_thread.run_sync(trio.wait_for_another, former)
        await tally.until(JOBS, within=50)  # what was handed out by the dead master alone comes after the claim
        nursery.cancel_scope.cancel()
