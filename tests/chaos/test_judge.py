"""The judge of the chaos runs: one that could not condemn would show nothing."""

from collections.abc import Sequence

import pytest

from trichannels.layers.history import Position

from .faults import FAULTS, make_schedule
from .judge import Closed, Event, Findings, Got, Item, Joined, Sent, Told, judge_history, judge_plain


def at(offset: int, epoch: str = "first") -> Position:
    return Position(offset, epoch)


def got(offset: int, epoch: str = "first", number: int | None = None) -> Got:
    return Got(Event("one", number or offset), at(offset, epoch))


def taken(*offsets: int) -> dict[Event, Sent]:
    return {Event("one", offset): Sent("taken", at(offset)) for offset in offsets}


def history(*stream: Item, ledger: dict[Event, Sent] | None = None) -> Findings:
    return judge_history({"member": stream}, ledger if ledger is not None else taken(1, 2, 3, 4, 5), limit=100)


START = Joined(at(0))

GOOD: dict[str, Sequence[Item]] = {
    "all in a row": [START, got(1), got(2), got(3)],
    "back, and nothing missed": [START, got(1), Closed(1006, True), Joined(at(4), True, True, 3), got(2), got(3)],
    "a new history, and told by the join": [START, got(1), Joined(at(0, "next"), False, True), got(1, "next", 9)],
    "a new history, and told": [START, got(1), Told("resync", at(3, "next")), got(4, "next", 9)],
    "told, not where it goes on": [START, got(1), Told(), got(4, "next", 9)],
    "told twice": [START, got(1), Told(), Told("resync", at(3, "next")), got(4, "next", 9)],
    "too late": [START, got(1), Closed(1006, False, 12.0), Joined(at(1), True, True), got(2)],
    "too much to do": [START, got(1), Closed(1013, False), Joined(at(1), True, True), got(2)],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_honest_is_good(name: str) -> None:
    findings = history(*GOOD[name])
    assert findings.good, findings.problems


BAD: dict[str, tuple[str, Sequence[Item]]] = {
    "a hole": ("lost", [START, got(1), got(3)]),
    "a hole behind a join": ("lost", [START, got(1), Joined(at(4), True, True), got(3)]),
    "a hole behind the place that was told": ("lost", [START, Told("resync", at(3, "next")), got(5, "next", 9)]),
    "once more": ("duplicated", [START, got(1), got(2), got(2)]),
    "once more in another place": ("duplicated", [START, got(1), Told(), got(1, "next", 1)]),
    "backwards": ("out of order", [START, got(3), Told("resync", at(1))]),
    "back in an old history": ("out of order", [START, got(1), Told(), got(1, "next", 8), Told(), got(2)]),
    "another history": ("spliced silently", [START, got(1), got(2, "next", 9)]),
    "another history behind a join": (
        "spliced silently",
        [START, got(1), Joined(at(1), True, True), got(2, "next", 9)],
    ),
    "nothing missing": ("told in vain", [START, got(1), Told(), got(2)]),
    "nothing missing, and told by the join": ("told in vain", [START, got(1), Joined(at(1), False, True), got(2)]),
    "cut": ("closed unasked", [START, got(1), Closed(1006, False, 2.0)]),
    "closed": ("closed unasked", [START, got(1), Closed(1011, False)]),
    "no position": ("impossible", [START, Got(Event("one", 1))]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_is_found(name: str) -> None:
    kind, stream = BAD[name]
    findings = history(*stream)
    assert not findings.good
    assert findings.counts[kind], findings


def test_two_see_different_events_in_one_place() -> None:
    streams: dict[str, list[Item]] = {"one": [START, got(1)], "other": [START, got(1, number=7)]}
    assert judge_history(streams, {}, 100).counts["forked"] == 1


def test_who_was_promised_a_place_has_it() -> None:
    assert history(START, got(1, number=7)).counts["forked"] == 1
    promised = {Event("one", 1): Sent("taken", at(1)), Event("two", 1): Sent("taken", at(1))}
    assert history(ledger=promised).counts["forked"] == 1


def test_what_was_not_done_did_not_happen() -> None:
    assert history(START, got(1), ledger={Event("one", 1): Sent("not done")}).counts["impossible"] == 1
    assert judge_plain({"member": [Joined(None), Got(Event("one", 1))]}, {Event("one", 1): Sent("not done")}).counts[
        "impossible"
    ]


def test_with_a_key_it_may_stand_in_two_histories() -> None:
    stream: list[Item] = [START, got(1), Told(), got(1, "next", 1)]
    assert history(*stream, ledger={Event("one", 1): Sent("taken", at(1, "next"), keyed=True)}).good


PLAIN = {Event("one", number): Sent("taken") for number in range(1, 9)} | {Event("one", 3): Sent("unknown")}


def plain(*items: int | Item) -> Findings:
    stream = [Got(Event("one", item)) if isinstance(item, int) else item for item in items]
    return judge_plain({"member": [Joined(None), *stream]}, PLAIN)


def test_without_history_a_gap_must_be_told() -> None:
    assert plain(1, 2, 4).good  # nobody knows whether 3 was sent
    assert plain(1, Told(), 4).good
    assert plain(1, Joined(None), 4).good
    assert plain(1, 4).counts["lost"] == 1
    assert plain(1, Told(), 4, 6).counts["lost"] == 1


def test_without_history_nothing_comes_twice_or_late() -> None:
    assert plain(1, 2, 2).counts["duplicated"] == 1
    assert plain(4, 5, Told(), 2).counts["out of order"] == 1
    late = plain(4, 5, 3)
    assert late.good
    assert late.counts["late, of unknown outcome"] == 1


@pytest.mark.parametrize("topology", FAULTS)
def test_a_seed_makes_one_schedule(topology: str) -> None:
    assert make_schedule(7, 100, topology) == make_schedule(7, 100, topology) != make_schedule(8, 100, topology)
    assert {planned.name for planned in make_schedule(1, 1000, topology)} == set(FAULTS[topology])
