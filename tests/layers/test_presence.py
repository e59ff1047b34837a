"""Presence without any wire: the state of a group against a naive model, diffs, the roster, names, the memory board."""

from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trichannels.exceptions import InvalidChannelLayerError, InvalidName, UnserializableMessage
from trichannels.layers.history import Position
from trichannels.layers.presence import (
    PACE_MOST,
    Diff,
    Presence,
    PresenceState,
    Roster,
    Step,
    open_entries,
    pace,
    require_presence_key,
    require_seconds,
    seal_entry,
)
from trichannels.layers.serializers import JsonSerializer, MsgpackSerializer, Serializer

pytestmark = pytest.mark.once

CONNECTIONS, KEYS, OWNERS = [f"c{n}" for n in range(5)], ["ada", "bob", "cy"], ["p", "q", "r"]


class Model:
    """What presence is, said as simply as can be: a list of who is connected, scanned for every question."""

    def __init__(self, linger: float, lease: float) -> None:
        self.linger, self.lease = linger, lease
        self.connected: list[tuple[str, str, Any, str]] = []
        self.renewed: dict[str, float] = {}
        self.left: dict[str, tuple[float, Any]] = {}

    def enter(self, connection: str, key: str, meta: Any, owner: str, now: float) -> None:
        place = [at for at, one in enumerate(self.connected) if one[:2] == (connection, key)]
        if place:
            self.connected[place[0]] = (connection, key, meta, owner)
        else:
            self.connected.append((connection, key, meta, owner))
        self.renewed[owner] = now
        self.left.pop(key, None)

    def leave(self, connection: str, key: str, now: float) -> bool:
        found = [one for one in self.connected if one[:2] == (connection, key)]
        self.connected = [one for one in self.connected if one[:2] != (connection, key)]
        if found and self.linger and key not in self.keys_connected():
            self.left[key] = (now + self.linger, found[0][2])
        return bool(found)

    def renew(self, owner: str, now: float) -> bool:
        known = any(one[3] == owner for one in self.connected) and self.renewed[owner] + self.lease > now
        if known:
            self.renewed[owner] = now
        return known

    def expire(self, now: float) -> None:
        self.connected = [one for one in self.connected if self.renewed[one[3]] + self.lease > now]
        self.left = {key: (until, meta) for key, (until, meta) in self.left.items() if until > now}

    def keys_connected(self) -> set[str]:
        return {one[1] for one in self.connected}

    def members(self) -> dict[str, list[Any]]:
        there = {key: [one[2] for one in self.connected if one[1] == key] for key in self.keys_connected()}
        return there | {key: [meta] for key, (_, meta) in self.left.items()}


def alike(members: dict[str, list[Any]]) -> dict[str, Counter[Any]]:
    return {key: Counter(metas) for key, metas in members.items()}


class PresenceMachine(RuleBasedStateMachine):
    """Anything may happen in any order; whoever took a snapshot and follows the diffs knows who is there."""

    linger, lease = 0.0, inf

    def __init__(self) -> None:
        super().__init__()
        self.now, self.count = 0.0, 0
        self.state = PresenceState("e1", linger=self.linger, lease=self.lease)
        self.model = Model(self.linger, self.lease)
        self.rosters = [self.snapshot()]
        self.diffs: list[Diff] = []

    def snapshot(self) -> Roster:
        return Roster(Presence("g", self.state.members(), self.state.position))

    @rule(connection=st.sampled_from(CONNECTIONS), key=st.sampled_from(KEYS), owner=st.sampled_from(OWNERS))
    def enter(self, connection: str, key: str, owner: str) -> None:
        self.count += 1
        self.state.enter(connection, key, self.count, owner=owner, now=self.now)
        self.model.enter(connection, key, self.count, owner, self.now)
        assert self.state.meta_of(connection, key) == self.count

    @rule(connection=st.sampled_from(CONNECTIONS), key=st.sampled_from(KEYS))
    def leave(self, connection: str, key: str) -> None:
        assert self.state.leave(connection, key, now=self.now) == self.model.leave(connection, key, self.now)

    @rule(owner=st.sampled_from(OWNERS))
    def renew(self, owner: str) -> None:
        assert self.state.renew(owner, self.now) == self.model.renew(owner, self.now)

    @rule(seconds=st.sampled_from([1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.state.expire(self.now)
        self.model.expire(self.now)
        assert self.state.next_expiry > self.now

    @rule()
    def take(self) -> None:
        before = self.state.position
        diff = self.state.take()
        assert not self.state.has_news
        if diff is None:
            assert self.state.position == before
            return
        assert diff.position == self.state.position == Position(before.offset + 1, before.epoch)
        assert diff.joins or diff.leaves
        assert not set(diff.joins) & set(diff.leaves)
        event = diff.event("g")
        for roster in self.rosters:
            assert roster.apply(event) is Step.APPLIED
            assert roster.apply(event) is Step.KNOWN
        self.diffs.append(diff)

    @precondition(lambda self: not self.state.has_news)
    @rule()
    def follow_from_here(self) -> None:
        self.rosters.append(self.snapshot())

    @invariant()
    def who_is_there(self) -> None:
        members = self.state.members()
        assert alike(members) == alike(self.model.members())
        assert self.state.count == len(members)
        assert self.state.connections == len(self.model.connected)
        assert all(self.state.holds(key) == (key in members) for key in KEYS)

    @invariant()
    def rosters_know(self) -> None:
        if not self.state.has_news:
            there = set(self.state.members())
            assert all(set(roster.members) == there for roster in self.rosters)


class LingeringMachine(PresenceMachine):
    linger = 4.0


class LeasedMachine(PresenceMachine):
    lease = 9.0


class LingeringLeasedMachine(PresenceMachine):
    linger, lease = 2.0, 5.0


SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPresence = PresenceMachine.TestCase
TestLingering = LingeringMachine.TestCase
TestLeased = LeasedMachine.TestCase
TestLingeringLeased = LingeringLeasedMachine.TestCase
for _case in (TestPresence, TestLingering, TestLeased, TestLingeringLeased):
    _case.settings = SETTINGS
del _case


def test_three_tabs_are_one_presence() -> None:
    state = PresenceState("e1")
    for tab in ("a", "b", "c"):
        state.enter(tab, "ada", {"tab": tab})
    assert (state.count, state.connections) == (1, 3)
    diff = state.take()
    assert diff is not None
    assert diff.event("g") == {
        "type": "presence.diff",
        "group": "g",
        "joins": {"ada": [{"tab": "a"}, {"tab": "b"}, {"tab": "c"}]},
        "leaves": {},
        "position": {"offset": 1, "epoch": "e1"},
    }
    state.leave("a", "ada")
    state.leave("b", "ada")
    assert not state.has_news
    assert state.members() == {"ada": [{"tab": "c"}]}
    state.leave("c", "ada")
    assert state.take() == Diff({}, {"ada": [{"tab": "c"}]}, Position(2, "e1"))
    assert state.count == 0


def test_who_comes_and_goes_between_two_diffs_is_not_told() -> None:
    state = PresenceState("e1")
    state.enter("a", "ada")
    state.leave("a", "ada")
    assert state.take() is None
    state.enter("a", "ada")
    state.take()
    state.leave("a", "ada")
    state.enter("b", "ada")
    assert state.take() is None
    assert state.offset == 1


def test_a_reload_within_the_linger_is_no_flap() -> None:
    state = PresenceState("e1", linger=5)
    state.enter("a", "ada", 1, now=0)
    state.take()
    state.leave("a", "ada", now=10)
    assert (state.take(), state.count, state.next_expiry, state.members()) == (None, 1, 15, {"ada": [1]})
    state.enter("b", "ada", 2, now=14)
    state.expire(100)
    assert (state.take(), state.members()) == (None, {"ada": [2]})
    state.leave("b", "ada", now=100)
    state.expire(105)
    assert state.take() == Diff({}, {"ada": [2]}, Position(2, "e1"))


def test_a_dead_owner_leaves_with_one_diff() -> None:
    state = PresenceState("e1", lease=30, linger=60)
    for tab in range(5):
        state.enter(f"t{tab}", f"user{tab}", owner="dead", now=0)
    state.enter("x", "user0", owner="alive", now=0)
    state.take()
    assert state.renew("alive", 20)
    state.expire(30)
    diff = state.take()
    assert diff is not None
    assert (diff.joins, sorted(diff.leaves)) == ({}, ["user1", "user2", "user3", "user4"])
    assert not state.renew("dead", 30)


def test_a_roster_says_what_it_misses() -> None:
    roster = Roster(Presence("g", {"ada": [1]}, Position(3, "e1")))
    assert roster.apply(Diff({"bob": [2]}, {}, Position(5, "e1")).event("g")) is Step.GAP
    assert roster.apply(Diff({"bob": [2]}, {}, Position(4, "e2")).event("g")) is Step.GAP
    assert roster.apply(Diff({"bob": [2]}, {}, Position(3, "e1")).event("g")) is Step.KNOWN
    assert roster.members == {"ada": [1]}
    assert roster.apply(Diff({"bob": [2]}, {"ada": [1]}, Position(4, "e1")).event("g")) is Step.APPLIED
    assert roster.members == {"bob": [2]}
    assert repr(roster) == "<Roster of 1 at 4>"


@pytest.mark.parametrize("key", ["a", "x" * 256, "user 7\n", "é😀"])
def test_keys(key: str) -> None:
    assert require_presence_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 257, b"ada", 7, None, "\ud800"])
def test_bad_keys(key: object) -> None:
    with pytest.raises(InvalidName, match="presence key must be a str of 1 to 256 characters") as caught:
        require_presence_key(key)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [-1, True, "5", None, inf])
def test_bad_seconds(value: object) -> None:
    with pytest.raises(InvalidChannelLayerError, match="presence_linger must be a number of seconds"):
        require_seconds("presence_linger", value)


def test_seconds() -> None:
    assert require_seconds("presence_lease", 1, least=0.5) == 1
    with pytest.raises(InvalidChannelLayerError, match=r"0\.5 or more"):
        require_seconds("presence_lease", 0.1, least=0.5)


def test_the_pace_of_diffs_goes_by_the_size_of_the_group() -> None:
    assert pace(1) < 0.0002
    assert pace(1000) == pytest.approx(0.05)
    assert pace(1_000_000) == PACE_MOST


@pytest.mark.parametrize("serializer", [MsgpackSerializer(), JsonSerializer()])
@given(entries=st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(-9, 9) | st.text(max_size=3))))
def test_entries_come_back(serializer: Serializer, entries: list[tuple[str, Any]]) -> None:
    members = open_entries(serializer, [seal_entry(serializer, key, meta) for key, meta in entries])
    assert members == {key: [meta for k, meta in entries if k == key] for key, _ in entries}


def test_metadata_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(UnserializableMessage, match=r"meta\['tags'\]"):
        seal_entry(MsgpackSerializer(), "ada", {"tags": {1, 2}})
