"""A master behind sentinels: found, left when another takes its place, and nothing told to be sent that was not."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.history import History
from trichannels.layers.redis.address import Sentinels, parse_url
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.sentinel import SentinelServer
from trichannels.layers.redis.server import RedisServer, Timeouts, open_server
from trichannels.layers.redis.sync import SyncChannelLayer
from trichannels.testing.contract.base import mailbox, message

from .servers import fresh_prefix
from .sinks import Told
from .topologies import SentinelTrio, sentinel_trio

pytestmark = [pytest.mark.server, pytest.mark.once]

TIMES = Timeouts(connect=1, reply=5, ping_interval=0.2, ping=0.3, backoff_first=0.02, backoff_most=0.2)


@pytest.fixture(scope="module", params=["7", "8"])
def trio(request: pytest.FixtureRequest) -> Iterator[SentinelTrio]:
    with sentinel_trio(request.param) as found:
        yield found


async def test_the_master_is_found_though_the_first_sentinel_is_dead(trio: SentinelTrio) -> None:
    target = parse_url(trio.url.replace("redis+sentinel://", "redis+sentinel://127.0.0.1:1,"))
    assert isinstance(target, Sentinels)
    async with open_server(target, Told(), timeouts=TIMES) as server:
        assert await server.execute("SET", "key", "value") == b"OK"
        assert trio.master.admin("GET", "key") == "value"
        async with server.dedicated("key") as connection:
            assert await connection.ask("GET", "key") == b"value"


async def test_a_name_that_no_sentinel_knows_is_an_error_at_once(trio: SentinelTrio) -> None:
    async with open_server(parse_url(trio.url.replace("mymaster", "yours")), Told(), timeouts=TIMES) as server:
        with anyio.fail_after(3), pytest.raises((LayerRefused, LayerUnreachable), match="no master 'yours'"):
            await server.execute("PING")


async def test_no_sentinel_at_all() -> None:
    target = parse_url("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster")
    async with open_server(target, Told(), timeouts=Timeouts(connect=0.5, reply=0.5)) as server:
        with pytest.raises(LayerUnreachable, match="no sentinel has led to a master"):
            await server.execute("PING")


async def publish_on(server: RedisServer, results: list[Any], number: int = 0) -> None:
    """Publish numbers for ever; write down what came of each."""
    while True:
        number += 1
        try:
            await server.execute("PUBLISH", "channel", number)
            results.append((number, "sent"))
        except OutcomeUnknown:
            results.append((number, "unknown"))
        except (LayerUnreachable, LayerRefused):
            results.append((number, "not"))
        await anyio.sleep(0.005)


async def replaced(trio: SentinelTrio, how: Any) -> None:
    told, results = Told(), list[Any]()
    before = trio.master
    async with open_server(parse_url(trio.url), told, timeouts=TIMES) as server:
        await server.subscribe(["channel"])
        async with anyio.create_task_group() as group:
            group.start_soon(publish_on, server, results)
            await told.wait_for("message", "channel", times=5)
            await anyio.to_thread.run_sync(how)
            await told.wait_for("restored", "channel")
            restored = len(told.messages["channel"])
            await told.wait_for("message", "channel", times=restored + 20)
            group.cancel_scope.cancel()
        assert trio.master is not before
        got = [int(payload) for payload in told.messages["channel"]]
        assert got == sorted(set(got)), "twice, or out of order"
        outcomes = dict(results)
        assert not [number for number in got if outcomes.get(number) == "not"], "told not to be sent, and was"
        # What was answered and did not come must lie between the loss and the restoration that were told.
        at_loss = told.events.index(("lost", "channel"))
        before_it = [int(event[2]) for event in told.events[:at_loss] if event[0] == "message"]
        after = told.events[len(told.events) - told.events[::-1].index(("restored", "channel")) :]
        after_it = [int(event[2]) for event in after if event[0] == "message"]
        for number in range(before_it[0], before_it[-1]):
            assert number in got or outcomes[number] != "sent"
        for number in range(after_it[0], after_it[-1]):
            assert number in got or outcomes[number] != "sent"


async def test_a_failover_while_publishing(trio: SentinelTrio) -> None:
    await replaced(trio, trio.failover)
    await anyio.to_thread.run_sync(trio.wait_until_ready)


async def test_a_master_that_is_killed_while_publishing(trio: SentinelTrio) -> None:
    before = trio.master

    def kill() -> None:
        before.kill()
        trio.wait_for_another(before)

    try:
        await replaced(trio, kill)
    finally:
        before.start()
        trio.demote(before)
        await anyio.to_thread.run_sync(trio.wait_until_ready)


async def test_a_demotion_that_no_sentinel_has_told_of_is_noticed(
    trio: SentinelTrio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself says so: a subscription at a replica looks as if all were well."""
    monkeypatch.setattr(SentinelServer, "listen", lambda _: anyio.sleep_forever())
    told = Told()
    async with open_server(parse_url(trio.url), told, timeouts=TIMES) as server:
        await server.subscribe(["channel"])
        await server.execute("PING")
        await anyio.to_thread.run_sync(trio.failover)
        await told.wait_for("lost", "channel")
        await told.wait_for("restored", "channel")
        with anyio.fail_after(10):
            while "read only" in str(await _tried(server)):
                await anyio.sleep(0.05)
    await anyio.to_thread.run_sync(trio.wait_until_ready)


async def _tried(server: RedisServer) -> object:
    try:
        return await server.execute("SET", "key", "value")
    except (LayerUnreachable, LayerRefused) as error:
        return error


async def test_the_layer_over_a_failover(trio: SentinelTrio) -> None:
    options: dict[str, Any] = {
        "url": trio.url, "prefix": fresh_prefix(), "history": {"log": History()}, "timeouts": TIMES,
    }  # fmt: skip
    async with RedisChannelLayer(**options) as layer, RedisChannelLayer(**options) as peer:
        box = mailbox()
        channel = layer.attach(box)
        await peer.group_add("plain", channel)
        await peer.send(channel, message(1))
        assert await _next(box) == message(1)
        async with layer.subscribe("log") as events:
            first = await peer.group_send("log", message(2))
            with anyio.fail_after(10):
                assert await events.receive() == message(2)
            with SyncChannelLayer(url=trio.url, prefix=options["prefix"], history=options["history"]) as sync:
                await anyio.to_thread.run_sync(lambda: sync.group_send("log", message(3)))
                await anyio.to_thread.run_sync(lambda: sync.group_add("other", channel))
            assert layer.groups_of(channel) == ("other", "plain")
            with anyio.fail_after(10):
                assert await events.receive() == message(3)
            await anyio.to_thread.run_sync(trio.failover)
            with anyio.fail_after(20):  # another run of a server is another history, and says so
                assert await events.receive() == {"type": "layer.resync", "group": "log", "recovered": False}
            assert (await _next(box))["type"] == "layer.resync"
            with anyio.fail_after(20):
                while isinstance(after := await _sent(peer, "log"), Exception):
                    await anyio.sleep(0.05)
            assert after.epoch != first.epoch  # type: ignore[union-attr]
            with anyio.fail_after(10):
                assert await events.receive() == message(4)
    await anyio.to_thread.run_sync(trio.wait_until_ready)


async def _sent(layer: RedisChannelLayer, group: str) -> Any:
    try:
        return await layer.group_send(group, message(4))
    except LayerUnreachable as error:
        return error


async def _next(box: Any) -> Any:
    with anyio.fail_after(20):
        return (await box.get()).open()
