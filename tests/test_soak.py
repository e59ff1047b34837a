"""Clients that vanish in every way leave nothing behind: a smaller soak than ``make soak``, which runs it whole.

Counts are as exact as there; memory has less time to settle here, and is held to a looser bound.
"""

import logging
from collections.abc import Iterator

import pytest
import trio

from benchmarks.soak import FIRST, Plan, soak
from benchmarks.soaking import app
from benchmarks.soaking.census import Reports
from benchmarks.soaking.mix import MIX
from benchmarks.soaking.verdict import MEBIBYTE, Growth, astray, changed, faults, table

SMALL = Plan(connects=1800, every=600, patient=False, growth=Growth(size=12 * MEBIBYTE, part=0))


@pytest.mark.server
@pytest.mark.once
@pytest.mark.trio_only
async def test_nothing_remains(descriptors: None) -> None:
    with trio.fail_after(150):
        result = await soak(SMALL)
    assert not result.faults, str(result)
    assert sum(result.crowd.values()) == SMALL.connects
    # It has been what it says: sockets were opened, applications failed, and the server cut off whom it should.
    counted = result.tally["server"]
    assert counted["accepted"] == SMALL.connects + len(FIRST)
    assert counted["websockets_accepted"] > SMALL.connects / 2
    assert counted["failures"] == result.tally["failures"] > 0
    shares = {part.name: part.share for part in MIX if part.slow}
    assert counted["close_timeouts"] >= shares["ignores the close"]
    # On a busy machine, a ping may be on its way to a client before the server has filled its window.
    assert counted["write_timeouts"] + counted["pong_timeouts"] >= shares["stall in flood"] + shares["answers no ping"]


def test_half_of_the_clients_vanish_in_the_middle() -> None:
    shares = [part.share for part in MIX if part.kind in ("mid-handshake", "mid-handler", "mid-send")]
    assert sum(shares) * 2 == sum(part.share for part in MIX) == 1000


# ---- the judge: a soak that could not fail would show nothing

START = {"tasks": 8, "groups": 0, "blocks": 170_000, "rss": 40 * MEBIBYTE, "seconds": 0}


def test_a_number_that_does_not_come_back_is_a_fault() -> None:
    now = {**START, "groups": 1, "rss": 41 * MEBIBYTE, "seconds": 9}
    assert astray(START, now) == {"groups": (0, 1)}
    assert faults(START, [dict(START), now], Growth(), 100) == ["after round 2: groups is 1, was 0"]


def test_a_number_below_the_start_is_a_fault_too() -> None:
    assert astray(START, {**START, "tasks": 7}) == {"tasks": (8, 7)}


@pytest.mark.parametrize(("last", "grown"), [(52, False), (53, True)])
def test_memory_is_compared_from_the_second_round_on(last: int, grown: bool) -> None:
    rounds = [{**START, "rss": size * MEBIBYTE} for size in (45, 50, 70, last)]
    found = faults(START, rounds, Growth(size=2 * MEBIBYTE, part=0.03), 100)
    assert found == (["resident memory grew by 3.0 MiB over the last 200 clients"] if grown else [])


def test_much_memory_may_grow_by_a_part() -> None:
    before, after = ({**START, "rss": size * MEBIBYTE} for size in (100, 103))
    assert Growth(size=2 * MEBIBYTE, part=0.03).faults(before, after, 100) == []


def test_a_block_for_each_client_is_a_leak_however_small() -> None:
    rounds = [{**START, "blocks": blocks} for blocks in (170_000, 171_000, 171_000 + 1_000)]
    found = faults(START, rounds, Growth(), 1_000)
    assert found == ["1000 more blocks of memory are in use after the last 1000 clients"]


def test_what_has_changed_is_named() -> None:
    before, after = {"tasks": {"serve": 1, "pump": 2}}, {"tasks": {"serve": 1, "pump": 3, "writer": 1}}
    assert changed(before, after) == {"tasks": {"pump": 1, "writer": 1}}


def test_the_table_has_a_row_for_each_round() -> None:
    numbers = dict.fromkeys(
        ("tasks", "connections", "instances", "channels", "groups", "memberships", "waiting", "calls", "goodbyes"), 0
    )
    numbers |= {"descriptors": 11, "threads": 1, "objects": 142, "blocks": 170_000, "seconds": 3}
    numbers |= {"rss": 40 * MEBIBYTE, "rss_untrimmed": 45 * MEBIBYTE}
    lines = table(numbers, [numbers], 500).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 0", "| 500"]
    assert lines[3].endswith("| 11 | 1 | 142 | 170000 | 40.0 | 45.0 | 3 |")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    monkeypatch.setattr(app, "TALLY", tally := app.Tally())
    monkeypatch.setattr("benchmarks.soaking.census.TALLY", tally)
    handler, logger = Reports(), logging.getLogger("soaked")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def report(error: BaseException) -> None:
    try:
        raise error
    except BaseException:
        logging.getLogger("soaked").exception("failed")


def test_each_planned_failure_is_reported_once(reports: Reports) -> None:
    report(app.Planned())
    report(BaseExceptionGroup("", [app.Planned()]))
    assert reports.complaints() == []


def test_a_failure_that_nobody_reports_is_a_fault(reports: Reports) -> None:
    report(app.Planned())
    app.Planned()
    assert reports.complaints() == ["1 of 2 failures of the application were not reported"]


def test_a_failure_that_is_reported_twice_is_a_fault(reports: Reports) -> None:
    error = app.Planned()
    report(error)
    report(error)
    assert reports.complaints() == ["1 of 1 failures were reported more than once"]


def test_any_other_report_is_a_fault(reports: Reports) -> None:
    for number in range(3):
        report(OSError(f"socket {number}"))
    logging.getLogger("soaked").warning("odd")
    first, second = reports.complaints()
    assert first.startswith("logged 3 times: failed\nTraceback")
    assert second == "logged 1 times: odd"
