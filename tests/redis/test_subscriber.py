"""Subscriptions: confirmed, refused, left, lost and restored; what is wanted is in force, and nothing else is."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from trichannels.exceptions import LayerRefused, LayerUnreachable
from trichannels.layers.redis import subscriber as module
from trichannels.layers.redis.address import Endpoint, Standalone
from trichannels.layers.redis.server import Bounds, RedisServer, Timeouts, open_server
from trichannels.layers.redis.subscriber import Subscriber

from ..proxy import Proxy
from .fake import FakeRedis, push, soon
from .servers import RedisProcess, fresh_prefix, shared_server
from .sinks import Told
from .test_connection import endpoint_of

QUICK = Timeouts(connect=2, reply=5, ping_interval=0.1, ping=0.3, backoff_first=0.01, backoff_most=0.05)
DENIED = "NOPERM No permissions to access a channel"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    return FakeRedis(monkeypatch)


@asynccontextmanager
async def opened(
    told: Told | None = None, timeouts: Timeouts = QUICK, endpoint: Endpoint | None = None, kind: str = ""
) -> AsyncIterator[Subscriber]:
    """Run a subscriber for the block."""

    async def resolve() -> Endpoint:
        return endpoint or Endpoint()

    subscriber = Subscriber("the server", resolve, told or Told(), timeouts, Bounds(), kind)
    async with anyio.create_task_group() as group:
        group.start_soon(subscriber.run)
        yield subscriber
        group.cancel_scope.cancel()


def commands(fake: FakeRedis, *verbs: bytes) -> list[list[bytes]]:
    return [command for command in fake.seen if command[0] in verbs]


def nothing_kept(subscriber: Subscriber) -> bool:
    """Of subscriptions that are gone, nothing is kept."""
    wanted = subscriber.wanted
    return (
        subscriber.confirmed == wanted
        and set(subscriber._held) <= wanted
        and not subscriber._requests
        and not subscriber._granted
        and not subscriber._lost
        and not subscriber._restored
        and not subscriber._refused
        and not subscriber._wishes
        and not subscriber._on_their_way
        and subscriber._batches == 0
    )


# ---- on real servers


@pytest.mark.server
@pytest.mark.parametrize("version", ["7", "8"])
async def test_channels_and_patterns(version: str) -> None:
    told, prefix = Told(), fresh_prefix()
    async with open_server(Standalone(endpoint_of(shared_server(version).url)), told, timeouts=QUICK) as server:
        await server.subscribe([f"{prefix}.a", f"{prefix}.b"], patterns=[f"{prefix}.x*"])
        assert await server.execute("PUBLISH", f"{prefix}.a", b"1") == 1
        assert await server.execute("PUBLISH", f"{prefix}.xyz", b"2") == 1
        server.unsubscribe([f"{prefix}.a"])
        await server.subscribe([f"{prefix}.c"])  # it follows on the same wire
        assert await server.execute("PUBLISH", f"{prefix}.a", b"3") == 0
        assert await server.execute("PUBLISH", f"{prefix}.b", b"4") == 1
        await told.wait_for("message", f"{prefix}.b", "4")
        assert told.messages == {f"{prefix}.a": [b"1"], f"{prefix}.xyz": [b"2"], f"{prefix}.b": [b"4"]}
        assert server.statistics().subscriptions == 3
        await anyio.sleep(3 * QUICK.ping_interval)  # pings go on behind all that
        assert server.statistics().reconnects == 0


@pytest.mark.server
async def test_a_channel_that_is_no_text_comes_by_a_pattern() -> None:
    told, prefix = Told(), fresh_prefix()
    async with open_server(Standalone(endpoint_of(shared_server().url)), told, timeouts=QUICK) as server:
        await server.subscribe([], patterns=[f"{prefix}*"])
        await server.execute("PUBLISH", prefix.encode() + b"\xff", b"1")
        await told.wait_for("message", f"{prefix}\ufffd", "1")
        assert server.statistics().reconnects == 0


@pytest.mark.server
async def test_a_user_who_may_not_listen_everywhere() -> None:
    told = Told()
    acl = ("--user", "some", "on", ">pw", "~*", "&mine:*", "+@all")
    with RedisProcess("7", *acl) as process:
        place = Endpoint("127.0.0.1", process.port, username="some", password="pw")
        async with open_server(Standalone(place), told, timeouts=QUICK) as server:
            with pytest.raises(LayerRefused, match="change its ACL") as caught:
                await server.subscribe(["yours"])
            assert caught.value.code == "NOPERM"
            with pytest.raises(LayerRefused):
                await server.subscribe(["mine:1", "yours", "mine:2"])
            await server.subscribe(["mine:3"])
            assert server.statistics().subscriptions == 1
            # The others of the refused command were not wanted any more, and are not in force.
            assert await anyio.to_thread.run_sync(process.admin, "PUBSUB", "CHANNELS") == ["mine:3"]
            await server.subscribe([f"mine:{number}" for number in range(100, 200)])
            # Forbidden while it is away: the one is lost, the others come back.
            await anyio.to_thread.run_sync(process.admin, "ACL", "SETUSER", "some", "resetchannels", "&mine:1*")
            await told.wait_for("lost", "mine:3")
            for number in range(100, 200):
                await told.wait_for("restored", f"mine:{number}")
            assert told.times("restored", "mine:3") == 0
            await anyio.to_thread.run_sync(process.admin, "ACL", "SETUSER", "some", "&mine:*")
            await told.wait_for("restored", "mine:3")
            assert nothing_kept(server.subscriber)  # type: ignore[attr-defined]


@pytest.mark.server
async def test_a_thousand_come_back_after_a_kill() -> None:
    told, prefix = Told(), fresh_prefix()
    channels = [f"{prefix}.{number}" for number in range(1500)]
    with RedisProcess("8") as process:
        async with open_server(Standalone(endpoint_of(process.url)), told, timeouts=QUICK) as server:
            await server.subscribe(channels)
            await anyio.to_thread.run_sync(process.restart)
            await told.wait_for("lost", times=1500)
            await told.wait_for("restored", times=1500)
            for channel in (channels[0], channels[-1]):
                assert await server.execute("PUBLISH", channel, b"x", timeout=10) == 1
                await told.wait_for("message", channel, "x")
            assert told.times("lost") == told.times("restored") == 1500


@pytest.mark.server
async def test_client_kill_while_messages_come() -> None:
    told, channel = Told(), fresh_prefix()
    with RedisProcess() as process:
        async with open_server(Standalone(endpoint_of(process.url)), told, timeouts=QUICK) as server:
            await server.subscribe([channel])
            for round_ in range(1, 6):
                await server.execute("PUBLISH", channel, f"before {round_}")
                await told.wait_for("message", channel, f"before {round_}")
                await anyio.to_thread.run_sync(process.admin, "CLIENT", "KILL", "TYPE", "pubsub")
                await told.wait_for("restored", channel, times=round_)
                assert await server.execute("PUBLISH", channel, f"after {round_}") == 1
                await told.wait_for("message", channel, f"after {round_}")
            kinds = [event[0] for event in told.events]
            assert kinds == ["message", "lost", "restored", "message"] * 5


@pytest.mark.server
async def test_a_stopped_server_is_found_out_by_the_ping() -> None:
    told, channel = Told(), fresh_prefix()
    with RedisProcess() as process:
        async with open_server(Standalone(endpoint_of(process.url)), told, timeouts=QUICK) as server:
            await server.subscribe([channel])
            process.stop()
            await told.wait_for("lost", channel)
            with anyio.fail_after(5), pytest.raises(LayerUnreachable, match="not subscribed within"):
                await server.subscribe(["other"], timeout=0.2)
            process.cont()
            await told.wait_for("restored", channel)
            assert server.statistics().subscriptions == 1


@pytest.mark.server
async def test_cut_at_each_byte_of_the_confirmations() -> None:
    """Wherever it is cut, all that is wanted is in force in the end, and told once."""
    told, prefix = Told(), fresh_prefix()
    timeouts = Timeouts(backoff_first=0.001, backoff_most=0.002)
    with Proxy(shared_server().port) as proxy:
        place = Endpoint("127.0.0.1", proxy.port)
        async with opened(told, timeouts, place) as subscriber:
            await subscriber.subscribe([f"{prefix}.{number}" for number in range(3)], [])
            for cut in range(1, 200, 3):
                await anyio.to_thread.run_sync(proxy.cut_after, cut)
                name = f"{prefix}.new{cut}"
                await subscriber.subscribe([name], [])
                subscriber.unsubscribe([name])
                await subscriber.subscribe([f"{prefix}.0"], [])
            await anyio.to_thread.run_sync(proxy.resume)
            await subscriber.subscribe([f"{prefix}.last"], [])
            with anyio.fail_after(10):
                while not nothing_kept(subscriber):
                    await anyio.sleep(0.01)
            assert len(subscriber.confirmed) == 4
            for number in range(3):
                name = f"{prefix}.{number}"
                assert told.times("lost", name) == told.times("restored", name) > 10


# ---- who wants what


async def test_confirmed_only_when_the_server_says_so(fake: FakeRedis) -> None:
    async with opened() as subscriber:
        await subscriber.subscribe(["a"], ["p*"])
        assert fake.subscribed == ["a", "p*"]
        fake.silent = True
        async with anyio.create_task_group() as group:
            group.start_soon(subscriber.subscribe, ["b", "c", "b"], [])
            await soon(lambda: len(commands(fake, b"SUBSCRIBE")) == 2)
            stream = fake.streams[0]
            stream.say(push("subscribe", "b", 1))
            await soon(lambda: ("", "b") in subscriber.confirmed)
            assert list(subscriber._requests) == [("", "c")], "it waits for both"
            token = fake.seen[-1][1]
            stream.say(push("subscribe", "c", 2))
            stream.say(b"$%d\r\n%b\r\n" % (len(token), token))
        fake.silent = False
        await subscriber.subscribe(["d"], [])
        assert nothing_kept(subscriber)


async def test_a_failed_subscribe_leaves_nothing_wanted(fake: FakeRedis, autojump_clock: object) -> None:
    fake.refused[b"no"] = DENIED
    async with opened(timeouts=Timeouts(ping_interval=1000)) as subscriber:
        with pytest.raises(LayerRefused, match="NOPERM"):
            await subscriber.subscribe(["a", "no", "b"], [])
        fake.silent = True
        with pytest.raises(LayerUnreachable, match="not subscribed within 2 s"):
            await subscriber.subscribe(["c"], [], timeout=2)
        with anyio.move_on_after(1):
            await subscriber.subscribe(["d"], [])
        assert not subscriber.wanted
        fake.silent = False
        fake.cut()
        await subscriber.subscribe(["kept"], [])
        assert fake.subscribed == ["kept"]
        await soon(lambda: nothing_kept(subscriber))


async def test_one_call_that_fails_takes_nothing_from_another(fake: FakeRedis, autojump_clock: object) -> None:
    fake.refused[b"no"] = DENIED
    async with opened(timeouts=Timeouts(ping_interval=1000)) as subscriber:
        await subscriber.subscribe(["first"], [])
        with pytest.raises(LayerRefused):
            await subscriber.subscribe(["first", "no"], [])
        assert fake.subscribed == ["first"]
        fake.silent = True
        errors: list[Exception] = []

        async def one(*channels: str, timeout: float) -> None:
            try:
                await subscriber.subscribe(channels, [], timeout)
            except LayerUnreachable as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for timeout in (1.0, 2.0):  # the first to want it is the first to give up
                group.start_soon(lambda timeout=timeout: one("shared", timeout=timeout))  # type: ignore[misc]
        assert len(errors) == 2
        assert subscriber.wanted == {("", "first")}


async def test_a_call_that_fails_leaves_what_another_has_found_in_force(fake: FakeRedis) -> None:
    async with opened(timeouts=Timeouts(ping_interval=1000)) as subscriber:
        await subscriber.subscribe(["first"], [])
        fake.silent = True
        failing = anyio.CancelScope()

        async def fail() -> None:
            with failing:
                await subscriber.subscribe(["shared", "never"], [])

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await soon(lambda: subscriber._on_their_way)
            fake.streams[0].say(push("subscribe", "shared", 2))
            await soon(lambda: ("", "shared") in subscriber.confirmed)
            group.start_soon(subscriber.subscribe, ["shared", "last"], [])
            await soon(lambda: ("", "last") in subscriber._on_their_way)
            failing.cancel()
            await soon(lambda: ("", "never") not in subscriber.wanted)
            fake.streams[0].say(push("subscribe", "last", 3))
        assert subscriber.wanted == subscriber.confirmed == {("", "first"), ("", "shared"), ("", "last")}


async def test_unsubscribed_while_somebody_waits(fake: FakeRedis) -> None:
    async with opened() as subscriber:
        await subscriber.subscribe(["a"], [])
        fake.silent = True
        async with anyio.create_task_group() as group:

            async def one() -> None:
                with pytest.raises(LayerUnreachable, match="unsubscribed from b before that was confirmed"):
                    await subscriber.subscribe(["b"], [])

            group.start_soon(one)
            await soon(lambda: len(commands(fake, b"SUBSCRIBE")) == 2)
            subscriber.unsubscribe(["b"])
        assert subscriber.wanted == {("", "a")}


async def test_unsubscribed_before_who_waited_has_woken_up(fake: FakeRedis) -> None:
    """It must not be told that it is subscribed, nor take away what somebody else has got since."""
    async with opened() as subscriber:
        await subscriber.subscribe(["a"], [])
        confirm, errors = subscriber._complete, list[Exception]()

        def confirmed_and_gone(request: module.Request) -> None:
            confirm(request)
            if ("", "b") in request.names and request.confirmed:
                subscriber._complete = confirm  # type: ignore[method-assign]
                subscriber.unsubscribe(["b"])

        async def one() -> None:
            try:
                await subscriber.subscribe(["b", "c"], [])
            except LayerUnreachable as error:
                errors.append(error)

        subscriber._complete = confirmed_and_gone  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            await soon(lambda: subscriber._complete == confirm)
            group.start_soon(subscriber.subscribe, ["b"], [])
        assert ["unsubscribed from b" in str(error) for error in errors] == [True]
        assert subscriber.wanted == {("", "a"), ("", "b")}
        await soon(lambda: nothing_kept(subscriber))
        assert fake.subscribed == ["a", "b"]


async def test_left_and_wanted_again_before_anything_was_answered(fake: FakeRedis) -> None:
    """What the server says first is about the first time; it must not be taken for the last."""
    async with opened() as subscriber:
        await subscriber.subscribe(["a"], [])
        for _ in range(3):
            subscriber.unsubscribe(["a"])
            async with anyio.create_task_group() as group:
                group.start_soon(subscriber.subscribe, ["a"], [])
                await anyio.lowlevel.checkpoint()
                with anyio.move_on_after(0):
                    await subscriber.subscribe(["a"], [])
        assert fake.subscribed == ["a"]
        await soon(lambda: nothing_kept(subscriber))
        assert subscriber.generation == 1


async def test_random_wishes_end_as_they_were_wished(fake: FakeRedis) -> None:
    chance, names = random.Random(3), [f"{number}" for number in range(8)]
    wanted: set[str] = set()
    async with opened() as subscriber:

        async def want(name: str, patience: float) -> None:
            try:
                with anyio.move_on_after(patience):
                    await subscriber.subscribe([name], [])
                    wanted.add(name)
            except LayerUnreachable:
                wanted.discard(name)

        for _ in range(60):
            async with anyio.create_task_group() as group:
                for _ in range(chance.randrange(1, 12)):
                    name = chance.choice(names)
                    if chance.random() < 0.4:
                        subscriber.unsubscribe([name])
                        wanted.discard(name)
                    else:
                        group.start_soon(want, name, chance.choice((0.0, 5.0)))
                    if chance.random() < 0.5:
                        await anyio.lowlevel.checkpoint()
                if chance.random() < 0.1:
                    fake.cut()
            await soon(lambda: nothing_kept(subscriber))
            assert fake.subscribed == sorted(name for _, name in subscriber.wanted)
            assert wanted <= {name for _, name in subscriber.wanted}
            wanted = {name for _, name in subscriber.wanted}


# ---- batches


async def test_many_wishes_go_in_few_commands(fake: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as subscriber:
        await subscriber.subscribe(["first"], [])
        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(subscriber.subscribe, [f"{number}"], [])
        assert len(commands(fake, b"SUBSCRIBE")) < 2 + 3 * module.AT_ONCE
        monkeypatch.setattr(module, "BATCH", 50)
        fake.seen.clear()
        fake.cut()
        await soon(lambda: len(subscriber.confirmed) == 301 and subscriber.generation == 2)
        assert [len(command) - 1 for command in commands(fake, b"SUBSCRIBE")] == [50] * 6 + [1]
        subscriber.unsubscribe([f"{number}" for number in range(300)])
        await soon(lambda: fake.subscribed == ["first"])
        assert len(commands(fake, b"UNSUBSCRIBE")) == 6


async def test_which_of_many_is_refused_is_found_out(fake: FakeRedis) -> None:
    """After a reconnect, the others must not be lost with it; and it is tried on, for rules may change."""
    told = Told()
    names = [f"{number}" for number in range(100)]
    async with opened(told) as subscriber:
        await subscriber.subscribe(names, [])
        fake.refused[b"37"] = fake.refused[b"73"] = DENIED
        fake.cut()
        await told.wait_for("restored", times=98)
        assert subscriber.confirmed == {("", name) for name in names} - {("", "37"), ("", "73")}
        assert subscriber.wanted == {("", name) for name in names}
        del fake.refused[b"37"]
        await told.wait_for("restored", "37")
        assert told.times("restored", "73") == 0


async def test_a_busy_server_refuses_the_ping_too(fake: FakeRedis) -> None:
    async with opened(timeouts=Timeouts(ping_interval=1000, ping=1000)) as subscriber:
        await subscriber.subscribe(["a"], [])
        fake.refused[b"SUBSCRIBE"] = fake.refused[b"PING"] = "BUSY Redis is busy running a script."
        with pytest.raises(LayerRefused, match="BUSY"):
            await subscriber.subscribe(["b"], [])
        fake.refused.clear()
        await subscriber.subscribe(["c"], [])
        assert subscriber.generation == 1
        assert nothing_kept(subscriber)


async def test_leaving_may_be_refused(fake: FakeRedis) -> None:
    fake.refused[b"UNSUBSCRIBE"] = DENIED
    async with opened() as subscriber:
        await subscriber.subscribe(["a", "b"], [])
        subscriber.unsubscribe(["a"])
        await subscriber.subscribe(["c"], [])
        assert nothing_kept(subscriber)
        assert subscriber.generation == 1


# ---- lost and restored


async def test_each_loss_is_told_once_however_often_it_breaks(fake: FakeRedis) -> None:
    told = Told()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a", "b"], [])
        fake.silent = True
        fake.cut()
        await told.wait_for("lost", "b")
        for _ in range(3):  # it breaks again before anything is in force
            connects = fake.connects
            await soon_connected(fake, connects)
            fake.cut()
        fake.silent = False
        fake.cut()
        await told.wait_for("restored", "a")
        await told.wait_for("restored", "b")
        assert sorted(told.events) == [("lost", "a"), ("lost", "b"), ("restored", "a"), ("restored", "b")]


async def soon_connected(fake: FakeRedis, connects: int) -> None:
    with anyio.fail_after(5):
        while fake.connects == connects:
            await anyio.sleep(0.001)


async def test_what_breaks_before_it_was_told_to_be_back_is_still_lost(fake: FakeRedis) -> None:
    """A sink that delivers slowly must not hear of the connection before the last one."""
    told, gate = Gate(), anyio.Event()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a"], [])
        await subscriber.subscribe(["b"], [])
        fake.cut()
        await told.wait_for("restored", "b")
        told.gate = gate
        fake.publish(b"a", b"1")  # whose delivery takes long
        await soon(lambda: told.waits)
        fake.cut()
        told.gate = None
        gate.set()
        await told.wait_for("restored", "a", times=2)
        await told.wait_for("restored", "b", times=2)
        for name in ("a", "b"):
            about = [event[0] for event in told.events if event[1] == name and event[0] != "message"]
            assert about == ["lost", "restored"] * 2


class Gate(Told):
    """Its deliveries wait for a gate to open."""

    gate: anyio.Event | None = None
    waits = False

    async def settle(self) -> None:
        if self.gate is not None:
            self.waits = True
            await self.gate.wait()


async def test_restored_is_told_before_what_comes_on_it(fake: FakeRedis) -> None:
    told = Told()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a"], [])
        fake.told.append(lambda command: follow(fake, command))
        fake.cut()
        await told.wait_for("message", "a", "at once")
        assert told.events == [("lost", "a"), ("restored", "a"), ("message", "a", "at once")]


def follow(fake: FakeRedis, command: list[bytes]) -> None:
    """Have a message follow a confirmation in the same read."""
    if command[0] == b"SUBSCRIBE":
        stream, say = fake.streams[-1], fake.streams[-1].say

        def both(data: bytes) -> None:
            stream.say = say  # type: ignore[method-assign]
            say(data + push("message", "a", "at once"))

        stream.say = both  # type: ignore[method-assign]


async def test_what_is_left_while_it_is_lost_is_not_restored(fake: FakeRedis) -> None:
    told = Told()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a", "b"], [])
        fake.away = True
        fake.cut()
        await told.wait_for("lost", "a")
        subscriber.unsubscribe(["a"])
        fake.away = False
        await told.wait_for("restored", "b")
        assert told.times("restored", "a") == 0
        assert fake.subscribed == ["b"]
        await soon(lambda: nothing_kept(subscriber))


async def test_wanted_while_nobody_is_there(fake: FakeRedis) -> None:
    fake.away = True
    told = Told()
    async with opened(told) as subscriber, anyio.create_task_group() as group:
        group.start_soon(subscriber.subscribe, ["a"], [])
        await soon(lambda: subscriber.wanted)
        fake.away = False
    assert told.events in ([], [("lost", "a")])  # the latter when all is over


@pytest.mark.parametrize("kind", ["", "s"])
async def test_a_server_that_ends_a_subscription_unasked(fake: FakeRedis, kind: str) -> None:
    """As a cluster's node does when a slot moves: told to be lost, and to the owner."""
    told = Told()
    async with opened(told, kind=kind) as subscriber:
        moved: list[Sequence[str]] = []
        await subscriber.subscribe(["a", "b"], [])
        fake.streams[0].say(push(f"{kind}unsubscribe", "a", 1))
        await told.wait_for("lost", "a")
        await told.wait_for("restored", "a")  # by a new connection, for want of a better owner
        assert subscriber.generation == 2
        subscriber.moved = moved.append  # type: ignore[method-assign, assignment]
        fake.streams[0].say(push(f"{kind}unsubscribe", "b", 1))
        await soon(lambda: moved == [["b"]])
        assert told.times("lost", "b") == 2


# ---- what comes


@pytest.mark.parametrize(
    "nonsense",
    [b">0\r\n", push(b"message"), push("message", "c"), push("message", 7, "x"), push("subscribe"), b"+nonsense\r\n"],
    ids=repr,
)
async def test_pushes_without_their_shape_end_the_connection(fake: FakeRedis, nonsense: bytes) -> None:
    told = Told()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a"], [])
        fake.streams[0].say(nonsense)
        await told.wait_for("restored", "a")
        assert subscriber.generation == 2


async def test_pushes_of_other_kinds_are_nothing_to_us(fake: FakeRedis) -> None:
    told = Told()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a"], [])
        fake.streams[0].say(push("invalidate", "x") + push("unsubscribe", "never", 1) + push("subscribe", "never", 1))
        fake.publish(b"a", b"1")
        await told.wait_for("message", "a", "1")
        assert subscriber.generation == 1
        assert nothing_kept(subscriber)


async def test_a_sink_that_fails_over_a_message_gets_the_next_one(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(Told):
        def message(self, channel: str, payload: bytes) -> None:
            if payload == b"poison":
                raise ZeroDivisionError
            super().message(channel, payload)

    told = Fragile()
    async with opened(told) as subscriber:
        await subscriber.subscribe(["a"], [])
        for payload in (b"1", b"poison", b"2"):
            fake.publish(b"a", payload)
        await told.wait_for("message", "a", "2")
        assert subscriber.generation == 1
    assert "a message on a could not be taken" in caplog.text


# ---- the end, and who is not let in


async def test_who_is_not_let_in_is_told_at_once(fake: FakeRedis) -> None:
    fake.refused[b"HELLO"] = "WRONGPASS invalid username-password pair"
    async with opened(timeouts=Timeouts(reply=60, backoff_first=0.01, backoff_most=0.01)) as subscriber:
        for _ in range(2):
            with anyio.fail_after(5), pytest.raises(LayerRefused, match="not right"):
                await subscriber.subscribe(["a"], [])
        assert not subscriber.wanted
        fake.refused.clear()
        with anyio.fail_after(5):
            while not subscriber.confirmed:
                try:
                    await subscriber.subscribe(["a"], [])
                except LayerRefused:
                    await anyio.sleep(0.001)


async def test_the_end_is_told_to_all_who_wait(fake: FakeRedis) -> None:
    fake.away = True
    errors: list[LayerUnreachable] = []

    async def one(subscriber: Subscriber) -> None:
        try:
            await subscriber.subscribe(["a"], [], 60)
        except LayerUnreachable as error:
            errors.append(error)

    async with anyio.create_task_group() as outer, opened() as subscriber:
        outer.start_soon(one, subscriber)
        await soon(lambda: subscriber.wanted)
    assert ["closed" in str(error) for error in errors] == [True]
    with anyio.fail_after(1), pytest.raises(LayerUnreachable, match="closed"):
        await subscriber.subscribe(["b"], [], 60)


@pytest.mark.server
async def test_a_burst_comes_whole_and_in_order() -> None:
    told, channel = Told(), fresh_prefix()
    async with open_server(Standalone(endpoint_of(shared_server().url)), told) as server:
        await server.subscribe([channel])
        await burst(server, channel, 5000)
        await told.wait_for("message", channel, times=5000)
        assert told.messages[channel] == [b"%d" % number for number in range(5000)]


async def burst(server: RedisServer, channel: str, count: int) -> None:
    answers: list[Any] = await server.pipeline([("", ("PUBLISH", channel, number)) for number in range(count)])
    assert answers == [1] * count
