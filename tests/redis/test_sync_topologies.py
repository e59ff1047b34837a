"""The blocking twin where there are several servers: it sends nothing twice, and nothing to who is no master."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import redis

from trichannels.exceptions import LayerUnreachable, OutcomeUnknown
from trichannels.layers.history import History
from trichannels.layers.redis import sync
from trichannels.layers.redis.sync import SyncChannelLayer

from .servers import RedisProcess
from .topologies import SentinelTrio, redis_cluster

pytestmark = [pytest.mark.server, pytest.mark.once]

NOTE = {"type": "note"}


@contextmanager
def sentinels() -> Iterator[SentinelTrio]:
    with ExitStack() as stack:
        yield SentinelTrio(stack)


@contextmanager
def heard_at(server: RedisProcess, channel: str) -> Iterator[redis.client.PubSub]:
    with redis.Redis(port=server.port) as client, client.pubsub() as pubsub:
        pubsub.subscribe(channel)
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        yield pubsub


def test_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    with sentinels() as trio, SyncChannelLayer(url=trio.url, timeout=1) as layer:
        master = trio.master
        replica = next(server for server in trio.servers if server is not master)

        # A sentinel that has not heard of the newest master leads to a replica, which would take what is published.
        right = redis.sentinel.Sentinel.discover_master
        monkeypatch.setattr(redis.sentinel.Sentinel, "discover_master", lambda *_: ("127.0.0.1", replica.port))
        with heard_at(replica, "asgi:{news}:events") as pubsub:
            with pytest.raises(LayerUnreachable, match="no master any more") as caught:
                layer.group_send("news", NOTE)
            assert type(caught.value) is LayerUnreachable
            assert pubsub.get_message(timeout=0.05) is None
        monkeypatch.setattr(redis.sentinel.Sentinel, "discover_master", right)

        # A master that was replaced goes on as one until the sentinels get to it.
        monkeypatch.setattr(sync, "LOOK_EVERY", 0.05)
        with heard_at(master, "asgi:{news}:events") as pubsub:
            layer.group_send("news", NOTE)
            assert pubsub.get_message(timeout=5)
        monkeypatch.setattr(redis.sentinel.Sentinel, "discover_master", lambda *_: ("127.0.0.1", replica.port))
        replica.admin("REPLICAOF", "NO", "ONE")
        with heard_at(replica, "asgi:{news}:events") as pubsub:
            time.sleep(sync.LOOK_EVERY)
            layer.group_send("news", NOTE)
            assert pubsub.get_message(timeout=5)


def test_no_sentinel_lives() -> None:
    with sentinels() as trio, SyncChannelLayer(url=trio.url, timeout=1) as layer:
        for sentinel in trio.sentinels:
            sentinel.kill()
        began = time.monotonic()
        with pytest.raises(LayerUnreachable):
            layer.group_send("news", NOTE)
        assert time.monotonic() - began < 2  # redis-py would try for seconds, each of them


def test_a_cluster_is_sent_nothing_twice() -> None:
    history = {"log*": History()}
    with redis_cluster() as cluster, SyncChannelLayer(url=cluster.url, history=history, timeout=0.5) as layer:
        for number in range(3):
            assert layer.group_send(f"log{number}", NOTE)
        node = cluster.masters[0]
        groups = (f"log{number}" for number in itertools.count(3))
        group = next(group for group in groups if cluster.owner(int(node.admin("CLUSTER", "KEYSLOT", group))) is node)
        first = layer.group_send(group, NOTE)
        assert first is not None
        node.stop()
        try:
            with pytest.raises(OutcomeUnknown):
                layer.group_send(group, NOTE)
        finally:
            node.cont()
        third = layer.group_send(group, NOTE)
        assert third is not None
        assert (third.epoch, third.offset) == (first.epoch, 3)


def test_no_node_of_a_cluster_lives() -> None:
    with RedisProcess() as server:
        port = server.port
    with (
        SyncChannelLayer(url=f"redis+cluster://127.0.0.1:{port}", timeout=0.5) as layer,
        pytest.raises(LayerUnreachable) as caught,
    ):
        layer.group_send("news", NOTE)
    assert type(caught.value) is LayerUnreachable
