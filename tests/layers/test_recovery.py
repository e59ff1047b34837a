"""The merge of history and live events, against a reference log: nothing twice, nothing out of order, no gap unseen."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichannels.layers.history import Position
from trichannels.layers.recovery import PENDING, Missed, Tracker, Verdict, is_whole, merge


@dataclass(frozen=True)
class Told:
    """An event as the wire brings it."""

    position: Position


def told(*offsets: int, epoch: str = "e") -> list[Told]:
    return [Told(Position(offset, epoch)) for offset in offsets]


def offsets(events: list[Told] | None) -> list[int] | None:
    return None if events is None else [event.position.offset for event in events]


def at(offset: int, epoch: str = "e") -> Position:
    return Position(offset, epoch)


@pytest.mark.parametrize(
    ("since", "missed", "whole"),
    [
        (at(3), Missed(at(3)), True),
        (at(3), Missed(at(5), told(4, 5)), True),
        (at(0), Missed(at(2), told(1, 2)), True),
        (at(3), Missed(at(5), told(5)), False),  # the history is shorter than the absence
        (at(3), Missed(at(5), told(4)), False),  # its newest is missing
        (at(3), Missed(at(5)), False),  # it has expired
        (at(3), Missed(at(2)), False),  # the log has lost what was seen
        (at(0), Missed(at(2**62), told(1)), False),  # as somebody claims, who must not cost as much as that
        (at(3), Missed(at(3, "f")), False),  # another history, as long by chance
        (at(3), Missed(at(5), told(4, 5), whole=False), False),
        (at(2), Missed(at(5), told(3, 5, 4)), False),
    ],
)
def test_whole_or_not(since: Position, missed: Missed[Told], whole: bool) -> None:
    assert is_whole(since, missed) is whole


def test_merge_takes_each_event_once() -> None:
    assert offsets(merge(at(3), Missed(at(5), told(4, 5)), told(4, 5, 6, 7))) == [4, 5, 6, 7]


@pytest.mark.parametrize("live", [told(7), told(6, epoch="f"), told(6, 8)])
def test_merge_gives_up_rather_than_hide_a_gap(live: list[Told]) -> None:
    assert merge(at(3), Missed(at(5), told(4, 5)), live) is None


@given(st.data())
def test_merge_is_the_reference_log_or_nothing(data: st.DataObject) -> None:
    """The log as one who never left saw it; the history keeps a part of it, the wire loses some."""
    length = data.draw(st.integers(0, 20))
    since = data.draw(st.integers(0, length))
    top = data.draw(st.integers(since, length))
    kept = data.draw(st.integers(0, 20))
    history = list(range(max(1, top - kept + 1), top + 1))
    answered = [offset for offset in history if offset > since]
    live = [n for n in range(data.draw(st.integers(since, top)) + 1, length + 1) if data.draw(st.integers(0, 9))]
    merged = offsets(merge(at(since), Missed(at(top), told(*answered)), told(*live)))
    if merged is not None:
        assert merged == list(range(since + 1, since + 1 + len(merged)))
        assert len(merged) >= max([top, *live]) - since
    elif top - since <= kept:  # the history was whole: so it is the wire that has lost something
        assert any(n not in live for n in range(top + 1, max(live, default=0)))


@given(st.data())
def test_a_tracker_gives_the_reference_log_or_tells(data: st.DataObject) -> None:
    """Random losses, repetitions, swaps and new histories: what it delivers has no hole that it has not told."""
    log, epoch = 0, 0
    tracker: Tracker[Told] = Tracker()
    seen: list[tuple[int, int] | str] = []
    kept: list[Told] = []

    def read() -> Missed[Told]:
        since = tracker.top
        events = [] if since is None else [event for event in kept if event.position.offset > since.offset]
        return Missed(at(log, str(epoch)), events)

    def deliver(events: list[Told]) -> None:
        seen.extend((int(event.position.epoch), event.position.offset) for event in events)

    def heal() -> None:
        while True:
            events, recovered = tracker.heal(read())
            if not recovered:
                seen.append("resync")
            deliver(events)
            while ready := tracker.settle():
                deliver(ready)
            if ready is not None:
                return

    heal()
    start = (epoch, log)
    for _ in range(data.draw(st.integers(0, 30))):
        act = data.draw(st.sampled_from(["send", "send", "send", "lose", "again", "wipe", "doubt"]))
        if act in ("send", "lose"):
            log += 1
            event = Told(at(log, str(epoch)))
            kept = [*kept, event][-5:]
        elif act == "wipe":
            log, epoch, kept = 0, epoch + 1, []
            continue
        elif act == "doubt":
            tracker.doubt()
            heal()
            continue
        elif not kept:
            continue
        if act == "lose":
            continue
        verdict = tracker.arrive(kept[-1])
        if verdict is Verdict.DELIVER:
            deliver([kept[-1]])
        elif verdict is Verdict.HEAL:
            heal()
    tracker.doubt()
    heal()
    where = start
    resynced = False
    for item in seen:
        if isinstance(item, str):
            resynced = True
            continue
        follows = item == (where[0], where[1] + 1)
        assert follows or (resynced and item > where), seen
        where, resynced = item, False
    assert where == (epoch, log) or resynced or (tracker.top == at(log, str(epoch)))


def test_events_that_come_during_a_reading_wait() -> None:
    tracker: Tracker[Told] = Tracker()
    assert tracker.arrive(told(3)[0]) is Verdict.WAIT
    assert tracker.heal(Missed(at(2), ())) == ([], True)
    assert not tracker.live
    assert offsets(tracker.settle()) == [3]
    assert tracker.settle() == []
    assert tracker.live
    assert tracker.arrive(told(3)[0]) is Verdict.IGNORE
    assert tracker.arrive(told(4)[0]) is Verdict.DELIVER
    assert tracker.arrive(told(6)[0]) is Verdict.HEAL
    assert not tracker.doubt()  # while a history is read: that reading may have been too early
    assert tracker.heal(Missed(at(6), told(5, 6))) == (told(5, 6), True)
    assert tracker.settle() is None
    assert tracker.heal(Missed(at(7), told(7))) == (told(7), True)
    assert tracker.settle() == []


def test_more_than_can_wait_is_read_once_more() -> None:
    tracker: Tracker[Told] = Tracker()
    for offset in range(1, PENDING + 2):
        assert tracker.arrive(told(offset)[0]) is Verdict.WAIT
    tracker.heal(Missed(at(0)))
    assert tracker.settle() is None
    tracker.heal(Missed(at(PENDING + 1), told(*range(1, PENDING + 2))))
    assert tracker.settle() == []
    assert "live" in repr(tracker)
