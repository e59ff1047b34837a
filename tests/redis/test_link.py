"""Commands of many tasks over one connection: whatever is cancelled and whatever breaks, each gets its own answer."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown, TrichannelsError
from trichannels.layers.redis import link as link_module
from trichannels.layers.redis.address import Endpoint, Standalone
from trichannels.layers.redis.connection import Connection
from trichannels.layers.redis.link import WRITTEN_BY, Link
from trichannels.layers.redis.outbox import Outbox, Pending, packed
from trichannels.layers.redis.scripts import Script
from trichannels.layers.redis.server import Bounds, RedisServer, Timeouts, open_server
from trichannels.seam import open_wake

from ..checkpoints import every_iteration, every_step
from ..proxy import Proxy
from .fake import FakeRedis, soon
from .servers import RedisProcess, fresh_prefix, shared_server
from .sinks import Told
from .test_connection import endpoint_of

QUICK = Timeouts(connect=2, reply=5, ping_interval=0.1, ping=0.3, backoff_first=0.01, backoff_most=0.05)
CALM = replace(QUICK, ping_interval=60)  # a ping may be under way at any moment, and nothing is idle then


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    return FakeRedis(monkeypatch)


@asynccontextmanager
async def opened(
    endpoint: Endpoint | None = None, timeouts: Timeouts = QUICK, bounds: Bounds | None = None
) -> AsyncIterator[Link]:
    """Run a link for the block."""

    async def resolve() -> Endpoint:
        return endpoint or Endpoint()

    link = Link("the server", resolve, timeouts, bounds or Bounds())
    async with anyio.create_task_group() as group:
        group.start_soon(link.run)
        yield link
        group.cancel_scope.cancel()


async def echo(link: Link, text: str, timeout: float | None = None) -> None:
    assert await link.submit(packed("ECHO", text), 1, timeout) == [text.encode()]


def idle(link: Link) -> bool:
    """Nothing is under way, and nothing of it is kept."""
    return link.outbox.under_way == link.outbox.bytes == link.outbox.waiting == 0


# ---- each step interrupted


class Run:
    """A victim and its neighbours use one server; at some step something happens to it."""

    script = Script("echo", "return ARGV[1]")

    def __init__(self, how: str) -> None:
        self.how = how
        self.fake = FakeRedis()
        self.told = Told()
        self.scope: anyio.CancelScope | None = None
        self.task: asyncio.Task[Any] | None = None
        self.counted = self.unknown = 0  # what the victim knows of its INCRs
        self.finished = False

    def interrupt(self) -> None:
        if self.how == "cut":
            if not self.finished:
                self.fake.cut()
        elif self.how == "task" and self.task is not None:
            self.task.cancel()
        elif self.scope is not None:
            self.scope.cancel()

    async def victim(self, server: RedisServer) -> None:
        with anyio.CancelScope() as scope:
            self.scope = scope if self.how == "cancel" else None
            await self.deeds(server)
        self.scope = None

    async def deeds(self, server: RedisServer) -> None:
        for number in range(2):
            await self.tried(self.count, server)
            await self.tried(self.echoes, server, f"victim {number}")
            await self.tried(self.scripted, server)
            await self.tried(self.subscribed, server, f"channel {number}")

    async def tried(self, deed: Callable[..., Any], *args: Any) -> None:
        try:
            await deed(*args)
        except LayerUnreachable:
            assert self.how != "cancel"

    async def count(self, server: RedisServer) -> None:
        try:
            await server.execute("INCR", "victim")
        except OutcomeUnknown:
            self.unknown += 1
            raise
        self.counted += 1

    async def echoes(self, server: RedisServer, text: str) -> None:
        answers = await server.pipeline([("", ("ECHO", f"{text}.{part}")) for part in range(3)])
        assert answers == [f"{text}.{part}".encode() for part in range(3)]

    async def scripted(self, server: RedisServer) -> None:
        assert await server.run(self.script, ["k"], ["u", "v"]) == b"v"

    async def subscribed(self, server: RedisServer, channel: str) -> None:
        await server.subscribe([channel])
        server.unsubscribe([channel])

    async def neighbour(self, server: RedisServer, name: str) -> None:
        for number in range(2):
            await self.tried(self.echoes, server, f"{name} {number}")

    async def live(self) -> None:
        async with open_server(Standalone(Endpoint()), self.told, timeouts=QUICK) as server:
            await self.tried(server.subscribe, ["kept"])
            async with anyio.create_task_group() as group:
                for name in ("one", "two"):
                    group.start_soon(self.neighbour, server, name)
                group.start_soon(self.victim_task if self.how == "task" else self.victim, server)
            self.finished = True
            with suppress(OutcomeUnknown):  # the connection may have been cut at the last moment
                await server.execute("PING")
            for number in range(3):
                assert await server.execute("ECHO", f"after {number}") == f"after {number}".encode()
            await server.subscribe(["kept"])
            await soon(lambda: self.fake.subscribed == ["kept"])
            await soon(lambda: self.told.times("lost") == self.told.times("restored"))
            statistics = server.statistics()
            assert (statistics.in_flight, statistics.waiting, statistics.subscriptions) == (0, 0, 1)
            assert server.link.outbox.bytes == 0  # type: ignore[attr-defined]
            subscriber = server.subscriber  # type: ignore[attr-defined]
            kept = (subscriber._requests, subscriber._on_their_way, subscriber._wishes, subscriber._lost)
            assert not any(kept), kept
            assert set(subscriber._held) <= {("", "kept")}
        assert not self.fake.streams, "a connection was left open"

    async def victim_task(self, server: RedisServer) -> None:
        self.task = asyncio.create_task(self.deeds(server))
        await asyncio.wait([self.task])
        if not self.task.cancelled() and self.task.exception() is not None:
            raise self.task.exception()  # type: ignore[misc]

    def check(self) -> None:
        """Cancelled means not done, and an error that nothing was, unless it says that this is unknown."""
        done = self.fake.counters.get(b"victim", 0)
        if self.how == "task":  # asyncio's own cancel() cannot be told what was done
            assert self.counted <= done <= self.counted + 1
        else:
            assert self.counted <= done <= self.counted + self.unknown


async def live(run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        run.fake.install(patch)
        with anyio.fail_after(60):
            await run.live()


def another(runs: list[Run], how: str) -> Run:
    runs.append(Run(how))
    return runs[-1]


@pytest.mark.exhaustive
@pytest.mark.once
@pytest.mark.trio_only
@pytest.mark.parametrize("how", ["cancel", "cut"])
def test_interrupted_at_every_step(how: str) -> None:
    runs: list[Run] = []
    for _ in every_step(live, partial(another, runs, how), clock=partial(MockClock, autojump_threshold=0)):
        runs[-1].check()
    assert len(runs) > 100


@pytest.mark.exhaustive
@pytest.mark.once
@pytest.mark.parametrize("how", ["cancel", "cut", "task"])
def test_interrupted_at_every_iteration_of_asyncio(how: str) -> None:
    runs: list[Run] = []
    for _ in every_iteration(live, partial(another, runs, how)):
        runs[-1].check()
    assert len(runs) > 50


# ---- in step, whatever is cancelled


async def crowd(link: Link, seed: int, callers: int = 60, rounds: int = 20) -> dict[str, int]:
    """Let many tasks send at once, and be cancelled at random; each looks whether an answer is its own."""
    chance, seen = random.Random(seed), {"answered": 0, "cancelled": 0, "unknown": 0, "unreachable": 0}

    async def caller(name: int) -> None:
        for number in range(rounds):
            text = f"{name}.{number}." + "x" * chance.choice((0, 10, 3000))
            patience = chance.choice((0.0, 0.0005, 0.002, 30, 30))
            try:
                with anyio.move_on_after(patience) as scope:
                    answers = await link.submit(packed("ECHO", text) * 2, 2)
                    assert answers[0] == text.encode(), "another's answer"
                    if isinstance(answers[1], OutcomeUnknown):
                        raise answers[1]
                    assert answers == [text.encode()] * 2, "another's answer"
                    seen["answered"] += 1
                seen["cancelled"] += scope.cancelled_caught
            except OutcomeUnknown:
                seen["unknown"] += 1
            except LayerUnreachable:
                seen["unreachable"] += 1

    async with anyio.create_task_group() as group:
        for name in range(callers):
            group.start_soon(caller, name)
    return seen


@pytest.mark.server
@pytest.mark.parametrize("version", ["7", "8"])
async def test_random_cancellations_among_many_commands(version: str) -> None:
    async with opened(endpoint_of(shared_server(version).url), CALM) as link:
        seen = await crowd(link, seed=1)
        assert link.generation == 1
        assert seen["cancelled"] > 20 < seen["answered"]
        assert seen["unknown"] == seen["unreachable"] == 0
        await echo(link, "after")
        assert idle(link)


@pytest.mark.server
async def test_random_cuts_among_many_commands() -> None:
    with Proxy(shared_server().port) as proxy:
        async with opened(Endpoint("127.0.0.1", proxy.port)) as link, anyio.create_task_group() as group:
            chance = random.Random(2)

            async def cut() -> None:
                while True:
                    await anyio.sleep(0.02)
                    await anyio.to_thread.run_sync(proxy.cut_after, chance.randrange(1, 9000))

            group.start_soon(cut)
            seen = await crowd(link, seed=2)
            group.cancel_scope.cancel()
        assert link.generation > 2
        assert seen["answered"] > 0


@pytest.mark.server
async def test_answers_cut_off_at_each_byte_by_the_network() -> None:
    """Where the cut falls decides what is known: the answers before it are right, of the rest nothing is known."""
    numbers = [f"{number}" for number in range(6)]
    length = len(b"".join(b"$1\r\n%b\r\n" % number.encode() for number in numbers))
    with Proxy(shared_server().port) as proxy:
        async with opened(Endpoint("127.0.0.1", proxy.port), Timeouts(backoff_first=0.001, backoff_most=0.01)) as link:
            for cut in range(1, length + 1):
                await echo(link, "connected")
                await anyio.to_thread.run_sync(proxy.cut_after, cut)
                outcomes: dict[str, bool] = {}

                async def one(number: str, outcomes: dict[str, bool]) -> None:
                    try:
                        await echo(link, number)
                        outcomes[number] = True
                    except OutcomeUnknown:
                        outcomes[number] = False

                async with anyio.create_task_group() as group:
                    for number in numbers:
                        group.start_soon(one, number, outcomes)
                assert sum(outcomes.values()) >= cut // 7
                assert len(outcomes) == 6


# ---- what is not written, and what is


async def test_what_was_not_written_goes_over_the_next_connection(fake: FakeRedis) -> None:
    fake.away = True
    async with opened() as link, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(echo, link, f"{number}")
        await soon(lambda: link.outbox.waiting == 5)
        fake.away = False
    assert [command for command in fake.seen if command[0] == b"ECHO"]
    assert idle(link)


async def test_what_was_written_is_not_sent_again(fake: FakeRedis) -> None:
    async with opened() as link:
        await echo(link, "first")
        fake.silent = True

        async def unknown() -> None:
            with pytest.raises(OutcomeUnknown, match="whether it was carried out is unknown"):
                await link.submit(packed("INCR", "k"), 1)

        async with anyio.create_task_group() as group:
            group.start_soon(unknown)
            await soon(lambda: fake.counters)
            fake.silent = False
            fake.cut()
        await echo(link, "after")
        assert fake.counters == {b"k": 1}
        assert link.generation == 2
        assert idle(link)


async def test_order_of_one_caller_is_kept(fake: FakeRedis) -> None:
    async with opened() as link:
        for number in range(20):
            if number % 5 == 4:
                fake.cut()
            with suppress(OutcomeUnknown):
                await echo(link, f"{number:02}")
    said = [command[1] for command in fake.seen if command[0] == b"ECHO"]
    assert said == sorted(said)


# ---- deadlines


async def test_deadlines_when_nobody_is_there(fake: FakeRedis, autojump_clock: object) -> None:
    fake.away = True
    async with opened(timeouts=Timeouts(backoff_first=1, backoff_most=60)) as link:
        began = anyio.current_time()
        with pytest.raises(LayerUnreachable, match=r"not reached in time \(3 s\): .* nobody is there") as caught:
            await echo(link, "x", timeout=3)
        assert type(caught.value) is LayerUnreachable
        # It is given up as long as it could still be answered in time, were it written now.
        assert anyio.current_time() - began == pytest.approx(3 * WRITTEN_BY, abs=0.1)
        for _ in range(1000):  # an hour of this must cost nothing
            with pytest.raises(LayerUnreachable):
                await echo(link, "x" * 1000, timeout=3.6)
        assert idle(link)


async def test_deadlines_when_it_does_not_answer(fake: FakeRedis, autojump_clock: object) -> None:
    async with opened(timeouts=Timeouts(ping_interval=100)) as link:
        await echo(link, "first")
        fake.silent = True
        with pytest.raises(OutcomeUnknown, match="no answer within 2 s"):
            await echo(link, "x", timeout=2)
        assert link.outbox.under_way == 1, "its answer is due: it counts as long as the connection is there"
        fake.streams[0].say(b"+late\r\n")
        fake.silent = False
        await echo(link, "after")
        assert idle(link)


async def test_a_ping_finds_who_does_not_answer(fake: FakeRedis, autojump_clock: object) -> None:
    async with opened(timeouts=Timeouts(ping_interval=5, ping=2)) as link:
        await echo(link, "first")
        fake.silent = True
        began = anyio.current_time()
        with pytest.raises(OutcomeUnknown, match="no answer to a ping within 2 s"):
            await echo(link, "x", timeout=60)
        assert anyio.current_time() - began <= 7.1
        fake.silent = False
        await echo(link, "after")


async def test_whoever_says_anything_is_alive(fake: FakeRedis, autojump_clock: object) -> None:
    """An answer that takes long to come in is no reason to give up the connection, nor is what we do not read."""
    async with opened(timeouts=Timeouts(ping_interval=5, ping=2)) as link:
        await echo(link, "first")
        fake.silent = True
        async with anyio.create_task_group() as group:
            group.start_soon(echo, link, "x" * 20, 100)
            await soon(lambda: fake.seen[-1][0] == b"ECHO" and link.outbox.under_way)
            for part in (b"$20\r\n", *[b"x"] * 20, b"\r\n"):
                await anyio.sleep(1.5)
                fake.streams[0].say(part)
        fake.streams[0].say(b"+PONG\r\n")
        fake.silent = False
        await echo(link, "after")
        assert link.generation == 1


async def test_a_break_before_the_ping_is_written_costs_no_ping(fake: FakeRedis, autojump_clock: object) -> None:
    async with opened(timeouts=Timeouts(ping_interval=1, ping=50, backoff_first=0.01)) as link:
        await echo(link, "first")
        began = anyio.current_time()
        await anyio.sleep(0.999999)
        fake.cut()
        await soon(lambda: link.connection is None)
        await echo(link, "after")
        assert anyio.current_time() - began < 2


# ---- a cancelled caller


async def test_cancelled_before_it_was_written_it_is_withdrawn(fake: FakeRedis) -> None:
    fake.away = True
    async with opened() as link:
        with anyio.move_on_after(0.01) as scope:
            await link.submit(packed("INCR", "k"), 1)
        assert scope.cancelled_caught
        assert idle(link)
        fake.away = False
        await echo(link, "after")
        assert not fake.counters


async def test_cancelled_after_it_was_written_it_has_its_answer(fake: FakeRedis) -> None:
    async with opened() as link:
        await echo(link, "first")
        fake.silent = True
        answers = []
        with anyio.CancelScope() as scope:

            async def answer() -> None:
                await soon(lambda: fake.counters)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
                fake.streams[0].say(b":1\r\n")

            async with anyio.create_task_group() as group:
                with anyio.CancelScope(shield=True):
                    group.start_soon(_shielded, answer)
                answers = await link.submit(packed("INCR", "k"), 1)
        assert answers == [1]
        assert scope.cancel_called


async def _shielded(work: Callable[[], Any]) -> None:
    with anyio.CancelScope(shield=True):
        await work()


async def test_cancelled_and_without_an_answer_it_is_let_go_soon(fake: FakeRedis, autojump_clock: object) -> None:
    async with opened(timeouts=Timeouts(ping_interval=100, reply=100)) as link:
        await echo(link, "first")
        fake.silent = True
        began = anyio.current_time()
        with anyio.move_on_after(2) as scope:
            await link.submit(packed("INCR", "k"), 1)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(2 + link_module.SETTLE, abs=0.1)


# ---- bounds


async def test_a_bound_of_commands_and_one_of_bytes(fake: FakeRedis, autojump_clock: object) -> None:
    for bounds in (Bounds(commands=3), Bounds(bytes=3 * len(packed("ECHO", "x")))):
        fake.away = True
        async with opened(bounds=bounds) as link:
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(echo, link, f"{number}")
                await anyio.wait_all_tasks_blocked()
                assert link.outbox.waiting == 3
                with pytest.raises(LayerUnreachable, match=r"no room for more commands in time \(1 s\)"):
                    await echo(link, "late", timeout=1)
                fake.away = False
            assert idle(link)


async def test_one_that_is_larger_than_the_bound_goes_alone(fake: FakeRedis) -> None:
    async with opened(bounds=Bounds(commands=2, bytes=10)) as link:
        assert await link.submit(packed("ECHO", "x" * 100) * 5, 5) == [b"x" * 100] * 5
        assert idle(link)


async def test_a_waiter_for_room_that_is_cancelled_lets_others_pass() -> None:
    box = Outbox(1, 1000)
    first = Pending(b"x", 1, open_wake())
    box.put(first)
    entered = []

    async def enter(name: str) -> None:
        await box.room()
        entered.append(name)
        box.put(pending := Pending(b"x", 1, open_wake()))
        pending.finish()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            for name in ("a", "b", "c"):
                group.start_soon(enter, name)
                await soon(lambda: len(box._line) == ord(name) - ord("a") + 1)  # noqa: B023
            scope.cancel()
        first.finish()
    assert entered == ["a", "b", "c"]
    assert (box.under_way, box.bytes, len(box._line)) == (0, 0, 0)
    box.put(blocking := Pending(b"x", 1, open_wake()))
    with anyio.move_on_after(0.01):
        await box.room()
    blocking.finish()
    assert not box.crowded


# ---- what waiting does not change


@pytest.mark.parametrize("answer", ["WRONGPASS invalid pair", "NOAUTH Who are you?", "NOPERM it", "NOPROTO"])
async def test_who_is_not_let_in_is_told_at_once_and_it_is_tried_on(fake: FakeRedis, answer: str) -> None:
    fake.refused[b"HELLO"] = answer
    async with opened(timeouts=Timeouts(reply=60, backoff_first=0.01, backoff_most=0.01)) as link:
        for _ in range(2):
            with anyio.fail_after(5), pytest.raises(LayerRefused, match=answer.partition(" ")[0]):
                await echo(link, "x")
        assert idle(link)
        fake.refused.clear()
        with anyio.fail_after(5):
            while True:
                try:
                    await echo(link, "x")
                    break
                except LayerRefused:
                    await anyio.sleep(0.001)


async def test_who_only_starts_up_is_waited_for(fake: FakeRedis) -> None:
    fake.refused[b"PING"] = "LOADING Redis is loading the dataset in memory"
    async with opened() as link, anyio.create_task_group() as group:
        group.start_soon(echo, link, "x")
        await soon(lambda: link.problem.startswith("LOADING"))
        fake.refused.clear()


# ---- connections that follow each other


async def test_a_connection_that_breaks_at_once_counts_as_none(fake: FakeRedis, autojump_clock: object) -> None:
    fake.told.append(lambda command: fake.cut() if command[0] == b"PING" else None)
    async with opened(timeouts=Timeouts(backoff_first=0.05, backoff_most=2)):
        await anyio.sleep(60)
    assert 25 < fake.connects < 150


async def test_where_it_goes_is_asked_each_time(fake: FakeRedis) -> None:
    places: list[Endpoint | LayerUnreachable] = [LayerUnreachable("s", "nobody knows"), Endpoint("a"), Endpoint("b")]

    async def resolve() -> Endpoint:
        place = places.pop(0) if len(places) > 1 else places[0]
        if isinstance(place, LayerUnreachable):
            raise place
        return place

    link = Link("it", resolve, QUICK, Bounds())
    async with anyio.create_task_group() as group:
        group.start_soon(link.run)
        await echo(link, "x")
        connection: Connection | None = link.connection
        assert connection is not None
        assert connection.endpoint.host == "a"
        link.drop("it has moved")
        await echo(link, "y")
        assert link.connection is not None
        assert link.connection.endpoint.host == "b"
        assert link.generation == 2
        group.cancel_scope.cancel()


async def test_the_end_is_told_to_all_who_wait(fake: FakeRedis) -> None:
    fake.away = True
    seen: list[TrichannelsError] = []

    async def caller(link: Link) -> None:
        try:
            await link.submit(packed("INCR", "k"), 1, 60)
        except TrichannelsError as error:
            seen.append(error)

    async with anyio.create_task_group() as outer, opened() as link:
        for _ in range(3):
            outer.start_soon(caller, link)
        await soon(lambda: link.outbox.waiting == 3)
    assert len(seen) == 3
    assert all(type(error) is LayerUnreachable and "closed" in str(error) for error in seen)
    with anyio.fail_after(1), pytest.raises(LayerUnreachable, match="closed"):
        await echo(link, "late")


async def test_an_outage_is_logged_once_and_so_is_its_end(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    async with opened() as link:
        await echo(link, "first")
        fake.away = True
        fake.cut()
        await anyio.sleep(30)
        fake.away = False
        await echo(link, "after", timeout=30)
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in texts if "nobody is there" in text] == [
        "the server: cannot connect: nobody is there; trying again until it is there"
    ]
    assert texts[-1] == "the server: connected again"


# ---- a dedicated connection, and real servers


@pytest.mark.server
async def test_a_blocking_read_holds_up_nobody() -> None:
    key = fresh_prefix()
    async with open_server(Standalone(endpoint_of(shared_server().url)), Told()) as server:
        got = []

        async def pop() -> None:
            async with server.dedicated(key) as connection:
                got.append(await connection.ask("BLPOP", key, 30, timeout=30))

        async with anyio.create_task_group() as group:
            group.start_soon(pop)
            assert await server.execute("PING") == b"PONG"
            assert await server.execute("RPUSH", key, "v") == 1
        assert got == [[key.encode(), b"v"]]
        assert await server.pipeline([]) == []
        mixed = await server.pipeline([("", ("SET", key, 1)), ("", ("LPUSH", key, 1)), ("", ("GET", key))])
        assert (mixed[0], mixed[2]) == (b"OK", b"1")
        assert isinstance(mixed[1], LayerRefused)
        assert mixed[1].code == "WRONGTYPE"
        with pytest.raises(LayerRefused, match="ERR"):
            await server.execute("NO", "such")
        assert await server.delete_matching(f"{key}*") == 1


@pytest.mark.server
async def test_answers_that_came_before_the_connection_broke_are_told() -> None:
    with Proxy(shared_server().port) as proxy:
        target = Standalone(endpoint_of(f"redis://127.0.0.1:{proxy.port}"))
        async with open_server(target, Told(), timeouts=Timeouts(reply=10)) as server:
            assert await server.execute("PING") == b"PONG"
            answer = b"$10\r\n0123456789\r\n"
            proxy.cut_after(2 * len(answer) + 5)
            found = await server.pipeline([("", ("ECHO", "0123456789"))] * 4)
            assert found[:2] == [b"0123456789"] * 2
            assert [type(each) for each in found[2:]] == [OutcomeUnknown] * 2
            assert await server.execute("PING") == b"PONG"  # it is connected again
            proxy.cut_after(5)
            with pytest.raises(OutcomeUnknown):
                await server.pipeline([("", ("ECHO", "0123456789"))] * 4)


@pytest.mark.server
async def test_a_server_that_is_killed_and_comes_back() -> None:
    with RedisProcess() as process:
        async with opened(endpoint_of(process.url), CALM) as link:
            await echo(link, "first")
            await anyio.to_thread.run_sync(process.kill)
            with anyio.fail_after(5), pytest.raises(LayerUnreachable):
                await echo(link, "x", timeout=0.2)
            await anyio.to_thread.run_sync(process.start)
            await echo(link, "after", timeout=10)
            assert idle(link)
