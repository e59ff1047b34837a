"""A cluster: each key at its node, and where it goes when slots move and nodes die."""

import re
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from trichannels.exceptions import InvalidChannelLayerError, LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.history import History
from trichannels.layers.redis.address import parse_url
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.scripts import Script
from trichannels.layers.redis.server import Timeouts, open_server
from trichannels.layers.redis.slots import slot_of
from trichannels.layers.redis.sync import SyncChannelLayer
from trichannels.testing.contract.base import mailbox, message

from .servers import fresh_prefix
from .sinks import Told
from .topologies import RedisCluster, redis_cluster, until

pytestmark = [pytest.mark.server, pytest.mark.once]

TIMES = Timeouts(connect=1, reply=5, ping_interval=0.2, ping=0.3, backoff_first=0.02, backoff_most=0.2)
KEYS = [f"{{key{number}}}" for number in range(30)]  # on all nodes


@pytest.fixture(scope="module", params=["7", "8"])
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    with redis_cluster(request.param) as found:
        yield found


async def test_keys_on_all_nodes(cluster: RedisCluster) -> None:
    async with open_server(parse_url(cluster.url), Told(), timeouts=TIMES) as server:
        for key in KEYS:
            assert await server.execute("SET", key, key) == b"OK"
        answers = await server.pipeline([(key, ("GET", key)) for key in KEYS] + [(KEYS[0], ("INCR", KEYS[0]))])
        assert answers[:-1] == [key.encode() for key in KEYS]
        assert isinstance(answers[-1], LayerRefused)
        assert server.statistics().connections >= 3
        assert await server.delete_matching("{key*") == len(KEYS)
        async with server.dedicated(KEYS[3]) as connection:
            assert await connection.ask("GET", KEYS[3]) is None


async def test_only_one_seed_lives(cluster: RedisCluster) -> None:
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:{cluster.masters[2].port}"
    async with open_server(parse_url(url), Told(), timeouts=TIMES) as server:
        assert await server.execute("SET", KEYS[0], 1) == b"OK"


async def test_scripts_have_one_slot_and_run_on_its_node(cluster: RedisCluster) -> None:
    script = Script("who", "return redis.call('INFO', 'server')")
    async with open_server(parse_url(cluster.url), Told(), timeouts=TIMES) as server:
        ports = {re.findall(rb"tcp_port:(\d+)", await server.run(script, [key], []))[0].decode() for key in KEYS}
        assert ports == {str(master.port) for master in cluster.masters}
        with pytest.raises(InvalidChannelLayerError, match="one slot"):
            await server.run(script, KEYS[:2], [])


async def test_a_slot_that_moves_takes_its_keys_and_subscriptions_along(cluster: RedisCluster) -> None:
    told, key = Told(), KEYS[5]
    async with open_server(parse_url(cluster.url), told, timeouts=TIMES) as server:
        await server.subscribe(KEYS)
        await server.execute("SET", key, "here")
        await server.execute("SPUBLISH", key, "one")
        await told.wait_for("message", key, "one")
        await anyio.to_thread.run_sync(cluster.migrate, slot_of(key))
        await told.wait_for("lost", key)
        await told.wait_for("restored", key)
        assert await server.execute("GET", key) == b"here"
        for each in KEYS:
            assert await server.execute("SPUBLISH", each, "two") == 1
        for each in KEYS:
            await told.wait_for("message", each, "two")
        assert told.times("message", key) == 2
        assert told.times("lost") == told.times("restored") == 1


async def test_in_the_middle_of_a_move(cluster: RedisCluster) -> None:
    old, new = "{key7}.old", "{key7}.new"
    async with open_server(parse_url(cluster.url), Told(), timeouts=TIMES) as server:
        await server.execute("SET", old, "old")
        with cluster.migrating(slot_of(old)):
            assert await server.execute("GET", old) == b"old"
            assert await server.execute("SET", new, "new") == b"OK"  # asked for at the new node
            answers = await server.pipeline([(key, ("GET", key)) for key in (old, new)])
            assert answers == [b"old", b"new"]
        answers = await server.pipeline([(key, ("GET", key)) for key in (old, new)])
        assert answers == [b"old", b"new"]


async def test_what_a_cluster_cannot_do(cluster: RedisCluster) -> None:
    async with open_server(parse_url(cluster.url), Told(), timeouts=TIMES) as server:
        with pytest.raises(InvalidChannelLayerError, match="no patterns"):
            await server.subscribe([], patterns=["*"])
        with pytest.raises(InvalidChannelLayerError, match="names no key"):
            await server.execute("PING")


async def test_nowhere() -> None:
    target = parse_url("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    async with open_server(target, Told(), timeouts=Timeouts(connect=0.3, reply=0.5)) as server:
        with pytest.raises(LayerUnreachable, match=r"no master of slot|nobody is known"):
            await server.execute("GET", "key")
        with pytest.raises(LayerUnreachable):
            await server.subscribe(["key"])


async def test_a_master_dies_and_its_replica_takes_over() -> None:
    with redis_cluster(replicas=1) as cluster:
        told, key = Told(), KEYS[5]
        async with open_server(parse_url(cluster.url), told, timeouts=TIMES) as server:
            await server.subscribe(KEYS)
            owner = cluster.owner(slot_of(key))
            await server.execute("SET", key, 0)
            owner.kill()
            await told.wait_for("lost", key)
            outcomes = []
            with anyio.fail_after(30):
                while True:
                    try:
                        await server.execute("INCR", key)
                        break
                    except OutcomeUnknown:
                        outcomes.append("unknown")
                    except (LayerUnreachable, LayerRefused):
                        outcomes.append("not")
            await told.wait_for("restored", key)
            await anyio.to_thread.run_sync(lambda: until(lambda: cluster.owner(slot_of(key)) is not owner, "it"))
            assert await server.execute("SPUBLISH", key, "after") == 1
            await told.wait_for("message", key, "after")
            lost, restored = told.times("lost"), told.times("restored")
            assert lost == restored == sum(_of_third(cluster, each, owner) for each in KEYS)


def _of_third(cluster: RedisCluster, key: str, owner: Any) -> bool:
    index = cluster.masters.index(owner)
    return index * 16384 // 3 <= slot_of(key) < (index + 1) * 16384 // 3


async def test_the_layer_on_a_cluster(cluster: RedisCluster) -> None:
    options: dict[str, Any] = {
        "url": cluster.url, "prefix": fresh_prefix(), "history": {"log.*": History()}, "timeouts": TIMES,
    }  # fmt: skip
    groups = [f"{kind}.{number}" for kind in ("plain", "log") for number in range(10)]
    async with RedisChannelLayer(**options) as layer, RedisChannelLayer(**options) as peer:
        box = mailbox()
        channel = layer.attach(box)
        await peer.send(channel, message(1))
        assert await _next(box) == message(1)
        async with layer.subscribe(*groups) as events:
            for number, group in enumerate(groups):
                await peer.group_send(group, message(number))
            with anyio.fail_after(10):
                got = sorted([(await events.receive())["number"] for _ in groups])
            assert got == list(range(20))
            slot = slot_of("log.3")
            before = events.positions["log.3"]
            await anyio.to_thread.run_sync(cluster.migrate, slot)
            await layer.group_send_many([(group, message(50)) for group in groups])
            # Another node is another run: what it has of a history is not believed. What was sent meanwhile may be
            # the first event of the new one, and then is told with the rest to be missing.
            resync, got = {"type": "layer.resync", "group": "log.3", "recovered": False}, list[Any]()
            with anyio.fail_after(10):
                while resync not in got or len(got) < 20:
                    got.append(await events.receive())
            assert events.positions["log.3"].epoch != before.epoch
        await layer.send("work", message(7))
        with anyio.fail_after(10):
            assert await peer.receive("work") == message(7)
        with SyncChannelLayer(url=cluster.url, prefix=options["prefix"], history=options["history"]) as sync:
            await anyio.to_thread.run_sync(lambda: sync.group_add("log.5", channel))
            await anyio.to_thread.run_sync(lambda: sync.group_send("log.5", message(8)))
            assert await _next(box) == message(8)
        await layer.flush()
        assert layer.statistics().groups == 0


async def _next(box: Any) -> Any:
    with anyio.fail_after(20):
        return (await box.get()).open()
