"""On a cluster events carry numbers: what a node passes on late, or once more, is told to be missing, and not shown."""

import os
from collections.abc import Iterator

import anyio
import pytest
import redis

from trichannels.inbox import Mailbox
from trichannels.layers.redis import RedisChannelLayer
from trichannels.layers.redis import feed as feeds
from trichannels.layers.redis.names import NUMBERED, Native
from trichannels.layers.redis.sync import SyncChannelLayer
from trichannels.layers.serializers import MsgpackSerializer
from trichannels.testing.contract.base import mailbox, message

from .servers import RedisProcess, fresh_prefix, shared_server
from .topologies import RedisCluster, redis_cluster

RESYNC = {"type": "layer.resync", "group": "group", "recovered": False}


async def seen(box: Mailbox, count: int) -> list[object]:
    with anyio.fail_after(10):
        return [(await box.get()).open() for _ in range(count)]  # type: ignore[union-attr]


def publish(server: RedisProcess, names: Native, sender: str, number: int) -> None:
    """As a process that numbers its events; the number is in the event, too."""
    sealed = MsgpackSerializer().encode(message(number))
    with redis.Redis(port=server.port) as client:
        client.publish(names.events("group"), names.numbered(sender, number, sealed))


@pytest.mark.server
async def test_what_comes_late_or_twice_is_a_gap() -> None:
    server = shared_server()
    async with RedisChannelLayer(url=server.url, prefix=fresh_prefix()) as layer:
        assert isinstance(layer.wire, Native)
        box = mailbox()
        await layer.group_add("group", layer.attach(box))
        for sender, number in [("a", 1), ("a", 2), ("b", 1), ("a", 2), ("a", 4), ("a", 3), ("a", 5)]:
            publish(server, layer.wire, sender, number)
        assert await seen(box, 7) == [
            message(1), message(2), message(1), RESYNC, message(4), RESYNC, message(5),
        ]  # fmt: skip


@pytest.mark.server
async def test_not_all_senders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "SENDERS", 2)
    server = shared_server()
    async with RedisChannelLayer(url=server.url, prefix=fresh_prefix()) as layer:
        assert isinstance(layer.wire, Native)
        await layer.group_add("group", layer.attach(mailbox()))
        feed = layer.hub.feeds["group"]
        assert [feed.is_stale(sender, 5) for sender in "abacab"] == [False, False, True, False, True, False]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as found:
        yield found


@pytest.mark.server
@pytest.mark.once
async def test_all_who_publish_on_a_cluster_number_their_events(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fresh_prefix()
    async with (
        RedisChannelLayer(url=cluster.url, prefix=prefix) as layer,
        RedisChannelLayer(url=cluster.url, prefix=prefix) as peer,
    ):
        assert isinstance(layer.wire, Native)
        frames: list[bytes] = []
        read = layer.wire.read_event
        layer.wire.read_event = lambda frame: [frames.append(frame), read(frame)][1]  # type: ignore
        box = mailbox()
        await layer.group_add("group", layer.attach(box))
        for number in range(3):
            await peer.group_send("group", message(number))
        await peer.group_send_many([("group", message(number)) for number in range(3, 6)])
        assert await seen(box, 6) == [message(number) for number in range(6)]
        with SyncChannelLayer(url=cluster.url, prefix=prefix) as twin:
            for number in (6, 7):
                await anyio.to_thread.run_sync(twin.group_send, "group", message(number))
            monkeypatch.setattr(os, "getpid", lambda: 1)  # as in a child after fork(), which must not go on with these
            for number in (8, 9):
                await anyio.to_thread.run_sync(twin.group_send, "group", message(number))
            monkeypatch.undo()
        assert await seen(box, 4) == [message(number) for number in (6, 7, 8, 9)]
        events = [read(frame) for frame in frames]
        assert {event.kind for event in events} == {NUMBERED}
        assert [event.number for event in events] == [1, 2, 3, 4, 5, 6, 1, 2, 1, 2]
        assert len({event.sender for event in events}) == 3  # the peer, the twin, and the child
