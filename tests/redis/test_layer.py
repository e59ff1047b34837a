"""What the Redis layer costs Redis, what may be under way, and what it makes of what is not its own."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from trichannels.exceptions import InvalidChannelLayerError, LayerRefused, LayerUnreachable
from trichannels.inbox import Inbox
from trichannels.layers.history import History
from trichannels.layers.redis import Bounds, RedisChannelLayer, Timeouts
from trichannels.layers.redis.names import Native
from trichannels.testing.contract.base import mailbox, message

from ..ports import free_port
from ..proxy import Proxy
from .servers import RedisProcess, fresh_prefix, shared_server

pytestmark = pytest.mark.server

QUICK = Timeouts(connect=1, reply=1, ping_interval=0.2, ping=0.3, backoff_first=0.01, backoff_most=0.1)


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[RedisChannelLayer]:
    given = {"url": shared_server().url, "prefix": fresh_prefix(), **options}
    with anyio.fail_after(30):
        async with RedisChannelLayer(**given) as layer:
            yield layer


async def _next(box: Any) -> Any:
    with anyio.fail_after(10):
        return (await box.get()).open()


def subscribers(server: RedisProcess, *channels: str) -> list[int]:
    """How many are subscribed to each channel, by the server's own count."""
    flat = server.admin("PUBSUB", "NUMSUB", *channels)
    return [int(count) for count in flat[1::2]]


async def test_one_publish_a_send_and_one_subscription_a_group() -> None:
    with RedisProcess() as server:
        async with opened(url=server.url) as layer:
            boxes = [mailbox() for _ in range(10)]
            for box in boxes:
                for group in ("a", "b"):
                    await layer.group_add(group, layer.attach(box))
            assert subscribers(server, *map(layer.wire.events, ("a", "b"))) == [1, 1]
            server.admin("CONFIG", "RESETSTAT")
            for number in range(7):
                await layer.group_send("a", message(number))
            for box in boxes:
                assert [(await _next(box))["number"] for _ in range(7)] == list(range(7))
            calls = server.admin("INFO", "commandstats")
            assert calls["cmdstat_publish"]["calls"] == 7
            assert not [name for name in calls if "eval" in name]


async def test_of_a_loss_is_told_and_of_closing_is_not() -> None:
    told: list[str] = []
    is_back = anyio.Event()

    def back() -> None:
        told.append("back")
        is_back.set()

    with RedisProcess() as server:
        options = {"on_disconnect": lambda: told.append("lost"), "on_reconnect": back}
        async with opened(url=server.url, timeouts=QUICK, **options) as layer:
            await layer.group_add("group", layer.attach(mailbox()))
            server.admin("CLIENT", "KILL", "TYPE", "pubsub")
            with anyio.fail_after(20):
                await is_back.wait()
        assert told[0] == "lost"
        assert told.count("lost") == told.count("back")


async def test_the_last_to_leave_ends_the_subscription() -> None:
    async with opened() as layer:
        channels = [layer.attach(mailbox()) for _ in range(2)]
        name = layer.wire.events("group")
        for channel in channels:
            await layer.group_add("group", channel)
        assert subscribers(shared_server(), name) == [1]
        await layer.group_discard("group", channels[0])
        await layer.hub.servers[0].subscribe(["barrier"])  # what is told before it has been done before it
        assert subscribers(shared_server(), name) == [1]
        layer.detach(channels[1])
        await layer.hub.servers[0].subscribe(["another barrier"])
        assert subscribers(shared_server(), name) == [0]
        assert not layer.hub.feeds


async def test_senders_do_not_wait_for_each_other() -> None:
    server = shared_server()
    with Proxy(server.port) as proxy:
        async with opened(url=f"redis://127.0.0.1:{proxy.port}") as layer:
            await layer.group_send("group", message())
            proxy.pause()
            async with anyio.create_task_group() as senders:
                for number in range(200):
                    senders.start_soon(layer.group_send, "group", message(number))
                await anyio.wait_all_tasks_blocked()
                assert layer.hub.servers[0].statistics().in_flight == 200  # one round trip for all of them
                proxy.resume()
            assert layer.hub.servers[0].statistics().in_flight == 0


async def test_what_is_under_way_is_bounded() -> None:
    server = shared_server()
    bounds = Bounds(commands=10)
    with Proxy(server.port) as proxy:
        async with opened(url=f"redis://127.0.0.1:{proxy.port}", bounds=bounds, timeout=5) as layer:
            done: list[int] = []

            async def send(number: int) -> None:
                await layer.group_send("group", message(number))
                done.append(number)

            await send(-1)
            proxy.pause()
            async with anyio.create_task_group() as senders:
                for number in range(50):
                    senders.start_soon(send, number)
                await anyio.wait_all_tasks_blocked()
                assert layer.hub.servers[0].statistics().in_flight <= 10
                proxy.resume()
            assert sorted(done) == list(range(-1, 50))


async def test_many_at_once() -> None:
    async with opened(history={"log": History()}) as layer, layer.subscribe("plain", "log") as events:
        sends = [(group, message(number)) for number in range(50) for group in ("plain", "log")]
        positions = await layer.group_send_many(sends)
        assert positions[0] is None
        assert [position.offset for position in positions[1::2] if position] == list(range(1, 51))
        with anyio.fail_after(10):
            got = [(await events.receive())["number"] for _ in sends]
        assert sorted(got) == sorted(2 * list(range(50)))
        assert await layer.group_send_many([]) == []


async def test_many_at_once_are_one_round_trip_with_history_too() -> None:
    with RedisProcess() as server:
        async with RedisChannelLayer(url=server.url, history={"log*": History()}) as layer:
            sends = [(f"log.{number % 3}", message(number)) for number in range(30)]
            for turn in range(2):
                server.admin("SCRIPT", "FLUSH")
                server.admin("CONFIG", "RESETSTAT")
                positions = await layer.group_send_many(sends)
                assert [position.offset for position in positions if position] == [
                    turn * 10 + number // 3 + 1 for number in range(30)
                ]
                calls = server.admin("INFO", "commandstats")
                assert (calls["cmdstat_eval"]["calls"], calls["cmdstat_evalsha"]["calls"]) == (3, 27)
            server.admin("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(LayerRefused, match="OOM"):
                await layer.group_send_many(sends)


async def test_what_others_publish_is_thrown_away_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(history={"log": History()}) as layer, layer.subscribe("plain", "log") as events:
        await layer.group_send("log", message(0))
        with anyio.fail_after(10):
            await events.receive()
        server = layer.hub.servers[0]
        for group in ("plain", "log"):
            for junk in (
                b"",
                b"junk",
                b"e",
                b"e\xc1",
                b"h1",
                layer.wire.event(layer.serializer.encode({"type": "layer.x"})),
            ):
                await server.execute("PUBLISH", layer.wire.events(group), junk)
        await server.execute("PUBLISH", layer.hub.post.inbox, b"no letter")  # type: ignore[union-attr]
        for group in ("plain", "log"):
            await layer.group_send(group, message(1))
        got: list[Any] = []
        with anyio.fail_after(10):
            while sum(event == message(1) for event in got) < 2:
                got.append(await events.receive())
        assert {event.get("group") for event in got if event["type"] == "layer.resync"} == {"plain", "log"}
        assert layer.statistics().undeliverable == 13
    assert [record.levelno for record in caplog.records if "thrown away" in record.message] == [logging.ERROR]


async def test_an_event_of_a_history_that_cannot_be_read_is_a_gap() -> None:
    prefix = fresh_prefix()
    given: dict[str, Any] = {"prefix": prefix, "history": {"log": History()}}
    async with (
        opened(**given, symmetric_encryption_keys=["new", "old"]) as layer,
        opened(**given, symmetric_encryption_keys=["stranger"]) as stranger,
    ):
        start = (await layer.join("log", layer.attach(mailbox()))).position
        async with layer.subscribe("log") as events:
            await layer.group_send("log", message(1))
            await stranger.group_send("log", message(2))
            await layer.group_send("log", message(3))
            with anyio.fail_after(10):
                assert await events.receive() == message(1)
                assert await events.receive() == {"type": "layer.resync", "group": "log", "recovered": False}
                assert await events.receive() == message(3)
            assert events.positions["log"].offset == 3
        assert not (await layer.join("log", layer.attach(mailbox()), start)).recovered


async def test_no_server_no_layer() -> None:
    layer = RedisChannelLayer(url=f"redis://127.0.0.1:{free_port()}", timeout=0.5)
    with pytest.raises(LayerUnreachable, match=r"refused|Connect call failed"):
        async with layer:
            pass
    assert not layer.opened


async def test_a_wrong_password_is_told_at_once() -> None:
    with RedisProcess(password="secret") as server:
        layer = RedisChannelLayer(url=server.url.replace("secret", "wrong"), timeout=20)
        with anyio.fail_after(5), pytest.raises((LayerRefused, LayerUnreachable), match="WRONGPASS") as caught:
            async with layer:
                pass
        assert "wrong" not in str(caught.value).replace("wrong password", "")


async def test_tls_files_that_are_none_are_told_on_opening() -> None:
    layer = RedisChannelLayer(url="rediss://127.0.0.1:1?ssl_ca_certs=/no/such/file")
    with anyio.fail_after(5), pytest.raises(InvalidChannelLayerError, match="TLS files"):
        async with layer:
            pass


async def test_several_servers_share_the_groups() -> None:
    hosts = [shared_server("7").url, shared_server("8").url]
    prefix = fresh_prefix()
    groups = [f"group.{number}" for number in range(20)]
    async with RedisChannelLayer(hosts, prefix) as layer, RedisChannelLayer(hosts, prefix) as peer:
        box = mailbox()
        channel = layer.attach(box)
        for group in groups:
            await peer.group_add(group, channel)
        names = [layer.wire.events(group) for group in groups]
        counts = [sum(subscribers(shared_server(version), *names)) for version in ("7", "8")]
        assert sum(counts) == 20
        assert all(counts)
        await peer.group_send_many([(group, message(number)) for number, group in enumerate(groups)])
        assert sorted([(await _next(box))["number"] for _ in groups]) == list(range(20))


async def test_the_tail_of_a_history_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last event is lost, and nothing follows that could show it."""
    monkeypatch.setattr("trichannels.layers.redis.hub.CHECK_EVERY", 0.05)
    async with opened(history={"log": History()}) as layer, layer.subscribe("log") as events:
        feed = layer.hub.feeds["log"]
        arrive = feed.arrive
        monkeypatch.setattr(feed, "arrive", lambda envelope: False)
        await layer.group_send("log", message(1))
        await layer.hub.servers[0].subscribe(["barrier"])
        monkeypatch.setattr(feed, "arrive", arrive)
        with anyio.fail_after(10):
            assert await events.receive() == message(1)


async def test_a_join_that_is_cancelled_at_once_leaves_no_subscription() -> None:
    """Its feed has been begun by then, in a task that has not run yet."""
    async with opened() as layer:
        channel = layer.attach(mailbox())
        for steps in range(12):
            group = f"group.{steps}"
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(layer.group_add, group, channel)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await layer.group_discard(group, channel)
            await layer.hub.servers[0].subscribe([f"barrier {steps}"])
        names = [layer.wire.events(f"group.{steps}") for steps in range(12)]
        assert layer.hub.servers[0].statistics().subscriptions == 1 + 12
        assert not any(subscribers(shared_server(), *names))


async def test_many_events_of_a_group_travel_in_few_frames_and_arrive_one_by_one() -> None:
    with RedisProcess() as server:
        prefix = fresh_prefix()
        async with opened(url=server.url, prefix=prefix) as layer, opened(url=server.url, prefix=prefix) as peer:
            inbox = Inbox(messages=2000)
            async with peer.subscribe("a", "b", inbox=inbox) as events:
                server.admin("CONFIG", "RESETSTAT")
                sent = [("ab"[number % 3 == 0], message(number)) for number in range(1000)]
                sent += [
                    ("a", {"type": "note", "number": number, "text": "x" * 50_000}) for number in range(1000, 1004)
                ]
                assert await layer.group_send_many(sent) == [None] * 1004
                seen: dict[str, list[int]] = {"a": [], "b": []}
                with anyio.fail_after(10):
                    for _ in range(1004):
                        event = await events.receive()
                        number = event["number"]
                        seen["b" if number < 1000 and number % 3 == 0 else "a"].append(number)
                assert seen["a"] == [number for number in range(1004) if number >= 1000 or number % 3]
                assert seen["b"] == [number for number in range(1000) if number % 3 == 0]
                assert server.admin("INFO", "commandstats")["cmdstat_publish"]["calls"] <= 10


async def test_one_of_many_that_cannot_be_read_is_a_gap_and_the_others_arrive() -> None:
    async with opened(symmetric_encryption_keys=["ours"]) as layer, layer.subscribe("a") as events:
        good = layer.encoded(message(1))
        assert isinstance(layer.wire, Native)
        frame = layer.wire.many([good, b"no message of ours", layer.encoded(message(3))])
        for data in (frame, b"mno list", layer.wire.event(layer.encoded(message(4)))):
            await layer.hub.servers[0].execute("PUBLISH", layer.wire.events("a"), data)
        resync = {"type": "layer.resync", "group": "a", "recovered": False}
        with anyio.fail_after(10):
            got = [await events.receive() for _ in range(5)]
        assert got == [message(1), resync, message(3), resync, message(4)]
