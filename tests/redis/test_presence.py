"""Presence on a real Redis: between processes that die, connections that break, and servers that forget."""

import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from trichannels.exceptions import LayerClosed, LayerUnreachable, OutcomeUnknown, UnreadableMessage
from trichannels.layers.presence import PresenceState, Roster, Step
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.names import Native
from trichannels.layers.redis.presence import PRESENCE
from trichannels.layers.serializers import Encrypted, MsgpackSerializer

from ..proxy import Proxy
from .presence_nodes import PATIENCE, QUICK, Node, followed, node
from .servers import RedisProcess, fresh_prefix, shared_server

pytestmark = [pytest.mark.server, pytest.mark.once]

LEASE, SLACK = 1.0, 3.0  # seconds; the slack is for a busy machine
LONG = 600.0  # a lease of which nothing runs out in a test
# For crowds: one loop runs all of them, and is busy for longer than a ping or a reply may take elsewhere.
CALM = replace(QUICK, reply=PATIENCE, ping=PATIENCE)


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two processes on the server that tests share."""
    url, prefix = shared_server().url, fresh_prefix()
    async with node(url, prefix, **options) as one, node(url, prefix, **options) as other:
        yield one, other


@asynccontextmanager
async def process(url: str, prefix: str, *keys: str, lease: float = LEASE) -> AsyncIterator[Process]:
    """A process of its own that is present in the group "room"; killed at the end if it still lives."""
    command = [sys.executable, "-m", "tests.redis.presence_process", url, prefix, str(lease), "room", *keys]
    async with await anyio.open_process(command, cwd=Path(__file__).parents[2], stderr=None) as started:
        try:
            assert started.stdout is not None
            with anyio.fail_after(PATIENCE):
                assert (await started.stdout.receive()).startswith(b"present")
            yield started
        finally:
            with suppress(ProcessLookupError):
                started.kill()


def keys_of(server: RedisProcess, prefix: str) -> dict[str, str]:
    """Return the keys of the group "room" by what they are; that of a process is called "of"."""
    found = server.admin("KEYS", f"{prefix}:{{room}}:presence*")
    short = {key.rpartition(":presence")[2].removeprefix(":") or "board": key for key in found}
    return {name if name in ("board", "owners", "lingering") else "of": key for name, key in short.items()}


# ---- who dies


@pytest.mark.parametrize("others_are_there", [False, True])
async def test_a_process_that_is_killed_is_gone_within_its_lease(others_are_there: bool) -> None:
    url, prefix = shared_server().url, fresh_prefix()
    async with node(url, prefix, lease=LEASE) as here:
        await here.follow("room")
        roster = Roster(await here.board.snapshot("room"))
        if others_are_there:
            await here.board.enter("room", "c", "ada", 0)
        async with process(url, prefix, "ada", "bob", "cy") as started:
            await here.hear(lambda heard: sum(len(event["joins"]) for event in heard) == 3)
            assert await here.board.count("room") == 3
            started.kill()
            killed = monotonic()
            await here.hear(lambda heard: "bob" in heard[-1]["leaves"])
            assert monotonic() - killed < LEASE + SLACK
        there = {"ada"} if others_are_there else set()
        assert followed(roster, here.heard) == there
        assert set(here.heard[-1]["leaves"]) == {"ada", "bob", "cy"} - there  # one diff
        assert set((await here.board.snapshot("room")).members) == there


async def test_many_who_died_unseen_are_found_gone_in_parts() -> None:
    url, prefix = shared_server().url, fresh_prefix()
    async with (
        node(url, prefix, lease=0.5, dies=True, timeout=PATIENCE, timeouts=CALM) as dead,
        anyio.create_task_group() as crowd,
    ):
        for number in range(1200):
            crowd.start_soon(dead.board.enter, "room", f"c{number}", f"user{number}", number)
        await dead.sees("room", *(f"user{number}" for number in range(1200)))
    async with node(url, prefix, lease=LONG, timeout=PATIENCE, timeouts=CALM) as here:
        await here.follow("room")
        await here.sees("room")
        await here.hear(lambda heard: sum(len(event["leaves"]) for event in heard) == 1200)
        assert len(here.heard) > 1
        assert followed(Roster(await here.board.snapshot("room")), here.heard) == set()


async def test_who_stood_still_for_too_long_comes_back() -> None:
    url, prefix = shared_server().url, fresh_prefix()
    server = shared_server()
    with Proxy(server.port) as proxy:
        async with (
            node(url, prefix, lease=LEASE) as here,
            node(f"redis://127.0.0.1:{proxy.port}", prefix, lease=LEASE) as cut_off,
        ):
            await here.follow("room")
            await cut_off.board.enter("room", "c1", "ada", 1)
            await cut_off.board.enter("room", "c2", "bob", 2)
            await here.sees("room", "ada", "bob")
            proxy.pause()
            await here.sees("room", within=LEASE + SLACK)
            cut_off.board.leave_all("c2")
            proxy.resume()
            presence = await here.sees("room", "ada")
            assert presence.members == {"ada": [1]}
            assert cut_off.board.presences == 1


async def test_a_process_that_ends_says_so() -> None:
    url, prefix = shared_server().url, fresh_prefix()
    async with node(url, prefix, lease=LONG) as here:
        await here.follow("a", "b")
        async with node(url, prefix, lease=LONG) as ends:
            for group in ("a", "b"):
                await ends.board.enter(group, "c1", "ada", None)
            waiting = ends.board
        await here.hear(lambda heard: sum(len(event["leaves"]) for event in heard) == 2)
        assert waiting.presences == 0
        with pytest.raises(LayerClosed):
            await waiting.enter("a", "c1", "ada", None)
        with pytest.raises(LayerClosed):
            await waiting.snapshot("a")


# ---- linger


async def test_a_reload_that_comes_back_to_another_process_is_no_flap() -> None:
    async with two(linger=1.5, lease=LONG) as (here, other):
        await here.follow("room")
        await other.board.enter("room", "tab", "ada", 1)
        other.board.leave_all("tab")
        assert (await here.board.snapshot("room")).members == {"ada": [1]}
        assert await other.board.count("room") == 1
        await here.board.enter("room", "tab", "ada", 2)
        assert (await other.board.snapshot("room")).members == {"ada": [2]}
        here.board.leave_all("tab")
        begun = monotonic()
        await here.hear(lambda heard: len(heard) == 2)
        assert monotonic() - begun > 1.4
        assert [(event["joins"], event["leaves"]) for event in here.heard] == [({"ada": [1]}, {}), ({}, {"ada": [2]})]
        assert await other.board.count("room") == 0


async def test_who_lingers_goes_even_if_their_process_died() -> None:
    url, prefix = shared_server().url, fresh_prefix()
    async with node(url, prefix, linger=0.3, lease=LEASE) as here:
        await here.follow("room")
        async with node(url, prefix, linger=0.3, lease=LEASE, dies=True) as dead:
            await dead.board.enter("room", "tab", "ada", 1)
            dead.board.leave_all("tab")
            assert (await dead.board.snapshot("room")).members == {"ada": [1]}
        await here.hear(lambda heard: "ada" in heard[-1]["leaves"])


# ---- the server forgets


async def test_who_is_there_comes_back_after_a_flush_in_another_epoch() -> None:
    prefix = fresh_prefix()
    with RedisProcess() as server:
        url = server.url
        async with node(url, prefix, lease=LEASE) as here, node(url, prefix, lease=LEASE) as other:
            await here.follow("room")
            await here.board.enter("room", "c1", "ada", 1)
            await other.board.enter("room", "c1", "ada", 2)
            await other.board.enter("room", "c2", "bob", 3)
            roster = Roster(await here.board.snapshot("room"))
            server.admin("FLUSHALL")
            await here.shows("room", {"ada": [1, 2], "bob": [3]})
            await here.hear(lambda heard: heard[-1]["position"]["epoch"] != roster.position.epoch)
            assert roster.apply(here.heard[-1]) is Step.GAP
            other.board.leave_all("c1")
            assert (await other.board.snapshot("room")).members == {"ada": [1], "bob": [3]}


async def test_a_server_that_is_killed_and_comes_back_empty_is_told_at_once() -> None:
    prefix = fresh_prefix()
    with RedisProcess() as server:
        async with node(server.url, prefix, lease=LONG) as here, node(server.url, prefix, lease=LONG) as other:
            for one in (here, other):
                await one.follow("room")
            await here.board.enter("room", "c1", "ada", 1)
            await other.board.enter("room", "c2", "bob", 2)
            before = (await here.board.snapshot("room")).position
            server.kill()
            here.board.leave_all("c1")
            with pytest.raises(LayerUnreachable):
                await other.board.enter("room", "c3", "cy", 3)
            server.start()
            presence = await here.sees("room", "bob")
            assert presence.position.epoch != before.epoch
            assert (here.board.presences, other.board.presences) == (0, 1)


async def test_a_server_that_goes_back_to_an_old_snapshot_begins_another_epoch() -> None:
    prefix = fresh_prefix()
    with RedisProcess() as server:
        async with node(server.url, prefix, lease=LONG) as here:
            await here.follow("room")
            await here.board.enter("room", "c1", "ada", 1)
            server.admin("SAVE")
            await here.board.enter("room", "c2", "bob", 1)
            here.board.leave_all("c1")
            before = (await here.board.snapshot("room")).position
            server.restart()
            presence = await here.sees("room", "bob")
            assert presence.position.epoch != before.epoch
            assert await here.board.count("room") == 1


@pytest.mark.parametrize("lost", ["board", "owners", "lingering", "of"])
async def test_what_is_lost_in_part_is_found_and_entered_again(lost: str) -> None:
    server, prefix = shared_server(), fresh_prefix()
    async with (
        node(server.url, prefix, lease=0.6, linger=0.05) as here,
        node(server.url, prefix, lease=0.6, linger=30) as gone,
    ):
        await here.board.enter("room", "c1", "ada", 1)
        await here.board.enter("room", "c2", "ada", 2)
        await gone.board.enter("room", "c3", "eve", 3)
        gone.board.leave_all("c3")
        await here.sees("room", "ada", "eve")
        for _ in range(2):
            found = keys_of(server, prefix)
            server.admin("DEL", found.get(lost, found["board"]))
            await here.finds("room", lambda members: sorted(members.get("ada", [])) == [1, 2], PATIENCE)
        here.board.leave_all("c1")
        assert (await here.board.snapshot("room")).members["ada"] == [2]
        here.board.leave_all("c2")
        await here.finds("room", lambda members: "ada" not in members, PATIENCE)


# ---- what comes too late


def late(prefix: str, one: Node, sequence: int, *changes: Any) -> tuple[list[str], list[Any]]:
    board = Native(prefix).key("room", "presence")
    keys = [board, f"{board}:owners", f"{board}:lingering", f"{board}:{one.token}"]
    settings = (60_000, 0, 600_000, "PUBLISH", one.names.events("room"))
    return keys, ["change", "epoch", one.token, *settings, sequence, *changes]


async def test_a_change_that_is_overtaken_is_void() -> None:
    async with two(lease=LONG) as (here, other):
        await here.board.enter("room", "c1", "ada", 1)
        here.board.leave_all("c1")
        assert await here.board.count("room") == 0
        keys, arguments = late(here.names.prefix, here, 1, "c1\nada", b"=late")
        assert await other.server.run(PRESENCE, keys, arguments) == []
        assert await here.board.count("room") == 0


async def test_a_stray_is_found_at_the_next_beat() -> None:
    async with two(lease=0.4) as (here, other):
        await here.board.enter("room", "c1", "ada", 1)
        stray = b"=" + MsgpackSerializer().encode({"key": "eve", "meta": None})
        keys, arguments = late(here.names.prefix, here, 999, "c9\neve", stray)
        await other.server.run(PRESENCE, keys, arguments)
        await here.follow("room")
        here.board._sequence = 1000  # the one that sent it
        await other.sees("room", "ada", within=LEASE + SLACK)


# ---- connections break


async def test_away_it_fails_in_time_and_nothing_is_left() -> None:
    server, prefix = shared_server(), fresh_prefix()
    with Proxy(server.port) as proxy:
        async with (
            node(f"redis://127.0.0.1:{proxy.port}", prefix, lease=LEASE, timeout=0.5) as here,
            node(server.url, prefix, lease=LEASE) as other,
        ):
            await here.board.enter("room", "c1", "ada", 1)
            await here.board.enter("room", "c1", "bob", 1)
            proxy.refuse()
            begun = monotonic()
            with pytest.raises(LayerUnreachable):
                await here.board.enter("room", "c2", "cy", 2)
            with pytest.raises(LayerUnreachable):
                await here.board.enter("room", "c1", "ada", 2)
            for ask in (here.board.snapshot, here.board.count):
                with pytest.raises(LayerUnreachable):
                    await ask("room")
            assert monotonic() - begun < 4 * 0.5 + SLACK
            assert here.board.presences == 2
            here.board.leave("room", "c1", "bob")
            proxy.resume()
            presence = await other.sees("room", "ada")
            assert presence.members == {"ada": [1]}


async def test_a_leave_that_could_not_be_told_is_told_as_soon_as_it_can_be() -> None:
    """Long before the next beat, and though no subscription was lost whose return would tell."""
    server, prefix = shared_server(), fresh_prefix()
    with Proxy(server.port) as proxy:
        async with (
            node(f"redis://127.0.0.1:{proxy.port}", prefix, lease=10 * LONG, timeout=0.5) as here,
            node(server.url, prefix, lease=10 * LONG) as other,
        ):
            await here.board.enter("room", "c1", "ada", 1)
            proxy.refuse()
            here.board.leave_all("c1")
            with pytest.raises(LayerUnreachable):
                await here.board.snapshot("room")
            proxy.resume()
            await other.sees("room")


async def test_an_answer_that_is_lost_undoes_what_was_done() -> None:
    server, prefix = shared_server(), fresh_prefix()
    with Proxy(server.port) as proxy:
        async with (
            node(f"redis://127.0.0.1:{proxy.port}", prefix, lease=LONG) as here,
            node(server.url, prefix, lease=LONG) as other,
        ):
            await here.follow("room")
            await other.follow("room")
            await here.board.enter("room", "c1", "ada", 1)
            for meta in range(5):
                proxy.cut_after(1)
                with suppress(OutcomeUnknown):  # a ping may have come first
                    await here.board.enter("room", "c2", "bob", meta)
                    here.board.leave("room", "c2", "bob")
                proxy.resume()
                presence = await here.sees("room", "ada")
                assert presence.members == {"ada": [1]}
            assert (await other.board.snapshot("room")).members == {"ada": [1]}
            assert here.board.presences == 1


async def test_native_cancellation_and_any_other_undo_it_as_well() -> None:
    async with two(lease=LONG) as (here, other):
        await here.board.enter("room", "c1", "ada", "first")
        for delay in range(40):
            with anyio.move_on_after(delay * 0.00005) as scope:
                await here.board.enter("room", "c1", "ada", delay)
            expected = "first" if scope.cancelled_caught else delay
            assert (await here.board.snapshot("room")).members == {"ada": [expected]}
            await here.board.enter("room", "c1", "ada", "first")
            with anyio.move_on_after(delay * 0.00005) as scope:
                await here.board.enter("room", "c2", "bob", delay)
            here.board.leave_all("c2")
            assert await here.board.count("room") == 1
            with anyio.move_on_after(delay * 0.00005):
                await here.board.snapshot("room")
        await other.sees("room", "ada")


# ---- many


async def test_a_burst_of_arrivals_is_told_in_few_diffs() -> None:
    async with two(lease=LONG, timeout=PATIENCE, timeouts=CALM) as (here, other):
        await other.follow("room")
        roster = Roster(await other.board.snapshot("room"))
        async with anyio.create_task_group() as crowd:
            for number in range(2000):
                crowd.start_soon(here.board.enter, "room", f"c{number}", f"user{number % 1500}", number)
        assert await here.board.count("room") == 1500
        presence = await other.board.snapshot("room")
        assert Counter(len(metas) for metas in presence.members.values()) == {1: 1000, 2: 500}
        await other.hear(lambda heard: sum(len(event["joins"]) for event in heard) == 1500)
        assert len(other.heard) < 50
        assert followed(roster, other.heard) == set(presence.members)


async def test_the_script_does_what_the_state_does() -> None:
    """Random batches of two processes; each diff is what the pure state says, and so is the snapshot."""
    dice = random.Random(7)
    async with two(lease=LONG) as (here, other):
        await here.follow("room")
        state = PresenceState((await here.board.snapshot("room")).position.epoch)
        expected: list[Any] = []
        for number in range(150):
            who = dice.choice((here, other))
            async with anyio.create_task_group() as batch:
                for field in dice.sample(range(12), dice.randint(1, 6)):
                    connection, key = f"{who.token}{field % 4}", f"key{field // 4}"
                    if dice.random() < 0.5:
                        state.enter(connection, key, number, owner=who.token)
                        batch.start_soon(who.board.enter, "room", connection, key, number)
                    else:
                        state.leave(connection, key)
                        who.board.leave("room", connection, key)
            presence = await who.board.snapshot("room")
            diff = state.take()
            expected += [] if diff is None else [diff]
            told = {key: Counter(metas) for key, metas in presence.members.items()}
            assert told == {key: Counter(metas) for key, metas in state.members().items()}
            assert presence.position == state.position
            assert await here.board.count("room") == state.count
        await here.hear(lambda heard: len(heard) == len(expected))
        for event, diff in zip(here.heard, expected, strict=True):
            assert event["position"] == {"offset": diff.position.offset, "epoch": diff.position.epoch}
            assert {key: Counter(metas) for key, metas in event["joins"].items()} == {
                key: Counter(metas) for key, metas in diff.joins.items()
            }
            assert set(event["leaves"]) == set(diff.leaves)


async def test_groups_where_nobody_is_are_forgotten() -> None:
    async with two(lease=0.2) as (here, other):
        for number in range(50):
            await here.board.snapshot(f"group{number}")
            await here.board.enter(f"group{number}", "c1", "ada", None)
        here.board.leave_all("c1")
        assert len(here.board._rooms) >= 50
        with anyio.fail_after(PATIENCE):
            while here.board._rooms:
                await anyio.sleep(0.02)
        assert not here.board._idle
        assert repr(here.board) == "<RedisPresence of 0 connections in 0 groups>"
        assert repr(other.board) == "<RedisPresence of 0 connections in 0 groups>"


async def test_what_is_watched_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichannels.layers.redis.presence.MOST_SEEN", 10)
    async with two(lease=LONG) as (here, other):
        for number in range(30):
            await other.board.enter(f"group{number}", "c1", "ada", None)
            assert (await here.board.snapshot(f"group{number}")).count == 1
        assert len(here.board._rooms) <= 11
        assert len(other.board._rooms) == 30


async def test_every_key_goes_by_itself_once_nobody_cares() -> None:
    server, prefix = shared_server(), fresh_prefix()
    async with node(server.url, prefix, lease=LEASE, linger=LEASE) as here:
        await here.board.enter("room", "c1", "ada", None)
        await here.board.enter("room", "c1", "bob", None)
        here.board.leave("room", "c1", "bob")
        await here.board.snapshot("room")
        found = keys_of(server, prefix)
        assert set(found) == {"board", "owners", "lingering", "of"}
        for key in found.values():
            assert LEASE < server.admin("PTTL", key) / 1000 <= 11 * LEASE


# ---- encryption


async def test_with_keys_nothing_can_be_read_in_redis() -> None:
    server, prefix = shared_server(), fresh_prefix()
    sealed = Encrypted(MsgpackSerializer(), ["secret"])
    other_keys = Encrypted(MsgpackSerializer(), ["another"])
    async with (
        node(server.url, prefix, lease=LONG, linger=LONG, serializer=sealed) as here,
        node(server.url, prefix, lease=LONG, serializer=Encrypted(MsgpackSerializer(), ["secret"])) as other,
        node(server.url, prefix, lease=LONG, serializer=other_keys) as stranger,
    ):
        await other.follow("room")
        await here.board.enter("room", "c1", "adalovelace", {"name": "adalovelace"})
        await here.board.enter("room", "c2", "gracehopper", None)
        await other.board.enter("room", "c1", "adalovelace", 2)
        here.board.leave_all("c2")
        presence = await other.board.snapshot("room")
        assert set(presence.members) == {"adalovelace", "gracehopper"}
        assert len(presence.members["adalovelace"]) == 2
        assert await here.board.count("room") == 2
        await other.hear(lambda heard: "adalovelace" in heard[0]["joins"])
        for name, key in keys_of(server, prefix).items():
            stored = str(server.admin(*("ZRANGE", key, 0, -1) if name in ("owners", "lingering") else ("HGETALL", key)))
            assert "lovelace" not in stored
            assert "hopper" not in stored
        with pytest.raises(UnreadableMessage, match="symmetric_encryption_keys"):
            await stranger.board.snapshot("room")


# ---- all of it


class World:
    """Processes that live, die and are cut off at random; what is true of them, and whoever looks on."""

    def __init__(self, server: RedisProcess, proxy: Proxy, prefix: str, dice: random.Random) -> None:
        self.server, self.proxy, self.prefix, self.dice = server, proxy, prefix, dice
        self.alive: dict[Node, anyio.Event] = {}
        self.truth: set[tuple[str, str, str]] = set()  # processes, their connections, and keys
        self.busy: set[tuple[str, str, str]] = set()

    @property
    def keys(self) -> set[str]:
        return {key for _, _, key in self.truth}

    async def live(self, born: anyio.Event) -> None:
        url = f"redis://127.0.0.1:{self.proxy.port}"
        async with node(url, self.prefix, lease=LEASE, dies=True) as one:
            end = self.alive[one] = anyio.Event()
            born.set()
            await end.wait()

    def kill(self, one: Node) -> None:
        self.alive.pop(one).set()
        self.truth = {place for place in self.truth if place[0] != one.token}

    async def act(self, one: Node) -> None:
        connection, key = f"c{self.dice.randrange(3)}", f"user{self.dice.randrange(5)}"
        place = (one.token, connection, key)
        if place in self.truth:
            self.truth.remove(place)
            one.board.leave("room", connection, key)
        elif place not in self.busy:
            self.busy.add(place)
            with suppress(LayerUnreachable):
                await one.board.enter("room", connection, key, connection)
                if one in self.alive:
                    self.truth.add(place)
            self.busy.remove(place)

    async def fault(self) -> None:
        match self.dice.randrange(6):
            case 0:
                self.proxy.cut()
            case 1:
                self.proxy.pause()
                await anyio.sleep(self.dice.choice([0.05, 0.4, 1.2]))
                self.proxy.resume()
            case 2:
                self.proxy.cut_after(self.dice.randrange(200))
            case 3:
                self.server.admin("FLUSHALL")
            case 4:
                self.server.admin("SCRIPT", "FLUSH")
            case 5:
                await anyio.to_thread.run_sync(self.server.restart)
                self.proxy.cut()


@pytest.mark.once
@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_it_comes_to_the_truth_within_a_lease(seed: int) -> None:
    dice, prefix = random.Random(seed), fresh_prefix()
    with RedisProcess() as server, Proxy(server.port) as proxy:
        world = World(server, proxy, prefix, dice)
        async with node(server.url, prefix, lease=LEASE) as here, anyio.create_task_group() as processes:
            for _ in range(8):
                while len(world.alive) < 3:
                    born = anyio.Event()
                    processes.start_soon(world.live, born)
                    await born.wait()
                for _ in range(dice.randrange(3)):
                    async with anyio.create_task_group() as acts:
                        for one in world.alive:
                            acts.start_soon(world.act, one)
                async with anyio.create_task_group() as at_once:
                    at_once.start_soon(world.fault)
                    for one in list(world.alive):
                        at_once.start_soon(world.act, one)
                proxy.resume()
                if dice.random() < 0.5:
                    world.kill(dice.choice(list(world.alive)))
                await here.sees("room", *world.keys, within=LEASE + SLACK)
                await anyio.sleep(LEASE / 4)
                assert set((await here.board.snapshot("room")).members) == world.keys
                assert await here.board.count("room") == len(world.keys)
            for end in world.alive.values():
                end.set()


async def test_one_server_that_hangs_delays_nothing_on_another() -> None:
    """While all groups are visited, somebody's linger ends where the server answers."""
    with RedisProcess() as other:
        layer = RedisChannelLayer(
            hosts=[shared_server().url, other.url], prefix=fresh_prefix(), timeout=30, presence_linger=0.2
        )
        async with layer:
            hub, people = layer.hub, layer._people
            assert people is not None
            groups = [f"room{number}" for number in range(200)]
            here = next(group for group in groups if hub.server_of(group) is hub.servers[0])
            away = [group for group in groups if hub.server_of(group) is hub.servers[1]]
            async with layer.subscribe(here) as events:
                for group in away[:40]:
                    await people.enter(group, "c", "bob", None)
                try:
                    async with layer.track(here, "ada"):
                        assert list((await events.receive())["joins"]) == ["ada"]
                        other.stop()
                        people.restored()  # all are to be visited
                        await anyio.wait_all_tasks_blocked()
                    with anyio.fail_after(5):
                        assert list((await events.receive())["leaves"]) == ["ada"]
                finally:
                    other.cont()
