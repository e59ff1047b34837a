"""What a process holds and what the server has come to the same, whatever is lost in between. Without a server."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.exceptions import LayerUnreachable, OutcomeUnknown, UnreadableMessage
from trichannels.layers.history import Position
from trichannels.layers.presence import seal_entry
from trichannels.layers.redis.presence_answers import MARK, Answer, read_diff, read_entries
from trichannels.layers.redis.presence_room import Entry, Room, Sent
from trichannels.layers.redis.waiter import Waiter
from trichannels.layers.serializers import MsgpackSerializer

FIELDS = ["a\nada", "b\nada", "c\nbob"]
LOST, UNKNOWN = LayerUnreachable("redis", "gone"), OutcomeUnknown("redis", "no answer")


def room() -> Room:
    return Room("g", cast(Any, None))


class Server:
    """What the server would hold: fields to entries."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.lost = False

    def apply(self, batch: Sent) -> None:
        for entry, sent, _ in batch:
            if sent is None:
                self.held.pop(entry.field, None)
            else:
                self.held[entry.field] = sent

    def forget(self) -> None:
        self.held.clear()
        self.lost = True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(FIELDS), st.sampled_from([None, b"1", b"2"])),
        st.tuples(st.sampled_from(["send", "refuse", "lose answer", "lose request", "forget", "beat"])),
    ),
    max_size=40,
)


@pytest.mark.once
@given(steps=STEPS, most=st.sampled_from([1, 2, 256]))
@settings(max_examples=300, deadline=None)
def test_the_server_comes_to_hold_what_is_wanted(steps: list[tuple[Any, ...]], most: int) -> None:
    here, server, wanted = room(), Server(), dict[str, bytes]()
    for name, *details in steps:
        if name == "want":
            field, sealed = details
            here.want(field, sealed)
            wanted.pop(field, None)
            if sealed is not None:
                wanted[field] = sealed
        elif name == "forget":
            server.forget()
        elif name == "beat":
            if server.lost:
                here.doubt()
        elif batch := here.take(most):
            assert not here.quiet
            if name == "send":
                server.apply(batch)
                here.confirm(batch, all_lost=server.lost)
                server.lost = False
            elif name == "refuse":
                here.fail(batch, LOST)
            else:
                if name == "lose answer":
                    server.apply(batch)
                here.fail(batch, UNKNOWN)
    if server.lost:
        here.doubt()
    while batch := here.take(most):
        server.apply(batch)
        here.confirm(batch, all_lost=False)
    assert server.held == wanted
    assert set(here.entries) == set(wanted)
    assert here.quiet
    assert all(entry.done for entry in here.entries.values())


async def test_who_waits_is_told_what_became_of_it() -> None:
    here = room()
    first, second = Waiter(), Waiter()
    here.want(FIELDS[0], b"1").waiters.append(first)
    batch = here.take(256)
    here.want(FIELDS[1], b"1").waiters.append(second)
    barrier = here.barrier()
    assert barrier is not None
    here.confirm(batch, all_lost=False)
    assert first.done.is_set()
    assert not second.done.is_set()
    here.fail(here.take(256), UNKNOWN)
    for waiter in (second, barrier):
        with pytest.raises(OutcomeUnknown) as caught:
            await waiter.outcome()
        assert caught.value is not UNKNOWN


async def test_a_barrier_waits_for_what_is_under_way_too() -> None:
    here = room()
    assert here.barrier() is None
    here.want(FIELDS[0], b"1")
    here.confirm(here.take(256), all_lost=False)
    here.want(FIELDS[0], None)
    here.want(FIELDS[1], None)  # which need not be sent
    before = here.barrier()
    batch = here.take(256)
    under_way = here.barrier()
    assert before is not None
    assert under_way is not None
    assert not before.done.is_set()
    here.confirm(batch, all_lost=False)
    assert before.done.is_set()
    assert under_way.done.is_set()
    here.want(FIELDS[2], None)
    nothing = here.barrier()
    assert nothing is not None
    assert here.take(256) == []
    assert nothing.done.is_set()
    assert here.idle


async def test_all_who_wait_are_told_of_a_failure() -> None:
    here = room()
    later = Waiter()
    here.want(FIELDS[0], b"1")
    here.want(FIELDS[1], b"1").waiters.append(later)
    here.fail(here.take(1), LOST)
    assert later.error is LOST
    assert list(here.dirty) == [FIELDS[1], FIELDS[0]]
    late = Waiter()
    here.entries[FIELDS[0]].waiters.append(late)
    here.give_up(UNKNOWN)
    assert late.error is UNKNOWN
    assert here.idle


@pytest.mark.parametrize("answered", [True, False])
async def test_what_is_forgotten_while_it_is_under_way_does_not_come_back(answered: bool) -> None:
    here = room()
    here.want(FIELDS[0], b"1")
    batch = here.take(256)
    here.give_up(None)
    if answered:
        here.confirm(batch, all_lost=True)
    else:
        here.fail(batch, UNKNOWN)
    assert here.idle
    assert here.quiet


async def test_a_stray_is_sent_away() -> None:
    here = room()
    here.want(FIELDS[0], b"1")
    here.confirm(here.take(256), all_lost=False)
    here.compare({FIELDS[0], FIELDS[1]})
    batch = here.take(256)
    assert sorted((entry.field, sent) for entry, sent, _ in batch) == [(FIELDS[0], b"1"), (FIELDS[1], None)]
    assert repr(here) == "<Room g: 2 held, 0 to send>"
    assert "to send" in repr(batch[0][0])
    here.confirm(batch, all_lost=False)
    assert list(here.entries) == [FIELDS[0]]
    assert repr(Entry("x")) == "<Entry 'x', as wanted>"


def frame(joins: list[bytes], leaves: list[bytes]) -> bytes:
    parts = [MARK + entry for entry in (*joins, *leaves)]
    return b"7 e1 %d %d\n" % (len(joins), len(leaves)) + b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def test_a_diff_is_read() -> None:
    serializer = MsgpackSerializer()
    ada, bob = seal_entry(serializer, "ada", {"n": 1}), seal_entry(serializer, "bob", None)
    diff = read_diff(frame([ada, ada], [bob]), serializer)
    assert (diff.joins, diff.leaves) == ({"ada": [{"n": 1}] * 2}, {"bob": [None]})
    assert diff.position == Position(7, "e1")


def test_a_broken_diff_is_found_out() -> None:
    serializer = MsgpackSerializer()
    whole = frame([seal_entry(serializer, "ada", 1)], [seal_entry(serializer, "bob", 2)])
    for end in range(len(whole)):
        with pytest.raises(UnreadableMessage):
            read_diff(whole[:end], serializer)
    for broken in (frame([b"\xff"], []), b"7 e1 -1 1\n", b"x e1 0 0\n", b"7 \xff 0 0\n"):
        with pytest.raises(UnreadableMessage):
            read_diff(broken, serializer)


def test_answers_are_read() -> None:
    raw: list[Any] = [1, 2, 3, -1, 4, b"e1", [b"=a", b"e1:7", b"=b"], [b"=c"]]
    assert Answer.of(raw) == Answer(True, 2, 3, -0.001, Position(4, "e1"))
    assert read_entries(raw) == [b"a", b"b", b"c"]
