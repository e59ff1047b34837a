"""A cluster of which one master is away: the others serve on, and it is said exactly what was sent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from trichannels.exceptions import LayerUnreachable, OutcomeUnknown
from trichannels.inbox import Inbox
from trichannels.layers.history import History
from trichannels.layers.redis.address import parse_url
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.options import Buffer
from trichannels.layers.redis.server import Timeouts, open_server
from trichannels.layers.redis.slots import slot_of
from trichannels.testing.contract.base import message

from .servers import RedisProcess, fresh_prefix
from .sinks import Told
from .topologies import RedisCluster, redis_cluster

pytestmark = [pytest.mark.server, pytest.mark.once]

TIMES = Timeouts(connect=1, reply=1, ping_interval=0.2, ping=1, backoff_first=0.02, backoff_most=0.2)
GROUPS = [f"{kind}.{number}" for kind in ("plain", "log") for number in range(12)]


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    """Whose masters serve what is theirs, whatever has become of the others."""
    with redis_cluster() as found:
        for master in found.masters:
            master.admin("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield found


def has(master: RedisProcess, cluster: RedisCluster, group: str) -> bool:
    """Say whether a group is on a master; the slots are shared out in order."""
    index = cluster.masters.index(master)
    return index * 16384 // 3 <= slot_of(group) < (index + 1) * 16384 // 3


@asynccontextmanager
async def opened(cluster: RedisCluster, **more: Any) -> AsyncIterator[RedisChannelLayer]:
    options = {"prefix": fresh_prefix(), "history": {"log.*": History()}, "timeout": 1, "timeouts": TIMES, **more}
    with anyio.fail_after(60):
        async with RedisChannelLayer(url=cluster.url, **options) as layer:
            yield layer


async def until_lost(layer: RedisChannelLayer, group: str) -> None:
    """Wait until it is known that the node of a group is away."""
    node: Any = layer.hub.servers[0].node_of(layer.wire.events(group))
    with anyio.fail_after(10):
        while node.link.connection is not None:
            await anyio.sleep(0.01)


async def test_errors_stand_in_the_places_of_what_could_not_be_asked(cluster: RedisCluster) -> None:
    keys = [f"{{key{number}}}" for number in range(30)]
    async with open_server(parse_url(cluster.url), Told(), timeouts=TIMES) as server:
        for key in keys:
            await server.execute("SET", key, key)
        dead = cluster.masters[0]
        dead.kill()
        commands = [(key, ("GET", key)) for key in keys]
        with anyio.fail_after(10):
            while True:
                answers = await server.pipeline(commands)
                away = {key for key, answer in zip(keys, answers, strict=True) if isinstance(answer, LayerUnreachable)}
                assert away == {key for key in keys if has(dead, cluster, key)}
                if not any(isinstance(answer, OutcomeUnknown) for answer in answers):
                    break
        assert [answer for answer in answers if isinstance(answer, bytes)] == [
            key.encode() for key in keys if key not in away
        ]
        with pytest.raises(LayerUnreachable):  # nothing at all was sent
            await server.pipeline([(key, ("GET", key)) for key in sorted(away)])
        for master in cluster.masters:
            master.kill()
        with pytest.raises(LayerUnreachable):  # and not a group of errors
            await server.pipeline(commands)


async def test_it_is_told_that_a_part_was_sent(cluster: RedisCluster) -> None:
    async with opened(cluster) as layer:
        await layer.group_send_many([(group, message(0)) for group in GROUPS])
        dead = cluster.masters[1]
        away = [group for group in GROUPS if has(dead, cluster, group)]
        dead.kill()
        await until_lost(layer, away[0])
        with pytest.raises(OutcomeUnknown, match=rf"{24 - len(away)} of 24 events were sent, the others were not"):
            await layer.group_send_many([(group, message(1)) for group in GROUPS])
        with pytest.raises(LayerUnreachable) as caught:
            await layer.group_send_many([(group, message(1)) for group in away])
        assert type(caught.value) is LayerUnreachable


async def test_what_is_kept_is_sent_once_and_the_others_do_not_wait(cluster: RedisCluster) -> None:
    async with opened(cluster, unreachable=Buffer()) as layer:
        dead = cluster.masters[2]
        away = [group for group in GROUPS if has(dead, cluster, group)]
        here = [group for group in GROUPS if group not in away]
        logs = [group for group in away if group.startswith("log")]
        seen: dict[str, list[Any]] = {group: [] for group in GROUPS}
        async with layer.subscribe(*GROUPS, inbox=Inbox(messages=1000)) as events:

            async def read(groups: list[str], count: int) -> None:
                with anyio.fail_after(20):
                    while any(len(seen[group]) < count for group in groups):
                        event = await events.receive()
                        if event["type"] in seen:
                            seen[event["type"]].append(event["number"])

            dead.kill()
            await until_lost(layer, away[0])
            for number in range(0, 10, 2):
                await layer.group_send_many([(group, {"type": group, "number": number}) for group in GROUPS])
                for group in GROUPS:
                    with anyio.fail_after(0.5 if number else 5):  # those of the first time find out
                        await layer.group_send(group, {"type": group, "number": number + 1})
            await read(here, 10)
            assert not any(seen[group] for group in away)
            dead.start()
            assert layer._publisher is not None
            with anyio.fail_after(20):
                await layer._publisher.backlogs[layer.hub.servers[0]].sent()
            with anyio.move_on_after(0.3):
                await read(GROUPS, 11)
            for group in here:
                assert seen[group] == list(range(10)), group
            for group in logs:
                async with layer.subscribe(group) as log:
                    assert log.positions[group].offset == 10
            for group in away:  # what was sent before we were subscribed again is told to be missing
                assert seen[group] == sorted(set(seen[group])), group
