"""A server that is made the master again does not go on where it stood: what it has may lack events."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from trichannels.layers.history import History, Position
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.sync import SyncChannelLayer

from .servers import RedisProcess

pytestmark = [pytest.mark.server, pytest.mark.once]

HISTORY = {"log": History()}


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)  # replication tells nobody


def follow(replica: RedisProcess, master: RedisProcess) -> None:
    replica.admin("REPLICAOF", "127.0.0.1", master.port)
    until(lambda: replica.admin("INFO", "replication")["master_link_status"] == "up")
    until(lambda: replica.admin("DBSIZE") == master.admin("DBSIZE"))


@contextmanager
def a_master_and_a_replica(version: str) -> Iterator[tuple[RedisProcess, RedisProcess]]:
    with RedisProcess(version) as one, RedisProcess(version) as other:
        follow(other, one)
        yield one, other


def fail_over_and_back(one: RedisProcess, other: RedisProcess, in_between: Callable[[], None]) -> None:
    """``in_between``: what ``one`` still takes, and the other does not get. Nobody uses the other."""
    other.admin("REPLICAOF", "NO", "ONE")
    in_between()
    follow(one, other)
    one.admin("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("version", ["7", "8"])
async def test_positions_are_not_given_out_twice(version: str) -> None:
    with a_master_and_a_replica(version) as (one, other):
        async with RedisChannelLayer(url=one.url, history=HISTORY) as layer:
            sent: list[Position] = []

            async def send() -> Position:
                position = await layer.group_send("log", {"type": "note", "number": len(sent)})
                assert position is not None
                sent.append(position)
                return position

            for _ in range(3):
                await send()
            until(lambda: other.admin("HGET", "asgi:{log}:meta", "offset") == "3")
            other.admin("REPLICAOF", "NO", "ONE")
            seen = [await send() for _ in range(3)][-1]
            follow(one, other)
            one.admin("REPLICAOF", "NO", "ONE")
            for _ in range(6):
                await send()
            assert len(set(sent)) == len(sent)
            with anyio.fail_after(10):
                async with layer.subscribe("log", since={"log": seen}) as events:
                    assert not events.recoveries["log"].recovered


def test_nor_by_the_blocking_twin() -> None:
    with a_master_and_a_replica("7") as (one, other), SyncChannelLayer(url=one.url, history=HISTORY) as layer:
        sent = [layer.group_send("log", {"type": "note"}) for _ in range(3)]
        until(lambda: other.admin("HGET", "asgi:{log}:meta", "offset") == "3")
        fail_over_and_back(one, other, lambda: sent.append(layer.group_send("log", {"type": "note"})))
        sent += [layer.group_send("log", {"type": "note"}) for _ in range(3)]
        assert len(set(sent)) == len(sent) == 7


async def test_presence_begins_anew_where_it_may_lack_who_came() -> None:
    with a_master_and_a_replica("7") as (one, other):
        async with RedisChannelLayer(url=one.url) as layer, layer.track("room", "ada"):
            until(lambda: other.admin("HGET", "asgi:{room}:presence", "#offset") == "1")
            other.admin("REPLICAOF", "NO", "ONE")
            async with layer.track("room", "bob"):
                before = await layer.presence("room")
                follow(one, other)
                one.admin("REPLICAOF", "NO", "ONE")
                async with layer.track("room", "cyd"):
                    after = await layer.presence("room")
        assert before.position.offset == 2
        assert set(after.members) == {"ada", "bob", "cyd"}
        assert after.position.epoch != before.position.epoch, "else the diff of cyd is taken for that of bob"
