"""Writing on a virtual clock: what waits, for how long, and what a lost wire forgets."""

from contextlib import suppress

import pytest
import trio

from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

from .ends import FakeEnd

pytestmark = pytest.mark.trio_only


class Case:
    """A wire of 10 bytes and 5 seconds."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.end, self.counters, self.lost = FakeEnd(), Counters(), 0
        self.wire = Wire(self.end, nursery, self.counters, limit=10, timeout=5)
        self.wire.on_lost = self._on_lost

    def _on_lost(self) -> None:
        self.lost += 1


async def test_a_peer_that_takes_a_byte_now_and_then_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.end.taken = 1
        case.wire.write_nowait(b"x" * 30)
        assert case.wire.full
        await case.wire.room()
        assert trio.current_time() >= 9, "nineteen bytes, half a second each"
        await case.wire.flushed()
    assert bytes(case.end.sent) == b"x" * 30
    assert (case.lost, case.counters.write_timeouts) == (0, 0)


async def test_a_peer_that_takes_nothing_is_cut_and_everybody_wakes(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.end.taken = 0
        case.wire.write_nowait(b"x" * 30)
        nursery.start_soon(case.wire.room)
        nursery.start_soon(case.wire.flushed)
        await trio.sleep(4.9)
        assert not case.wire.lost
    assert trio.current_time() == pytest.approx(5, abs=0.01)
    assert (case.lost, case.counters.write_timeouts) == (1, 1)
    assert case.end.aborted
    assert not case.wire.busy


async def test_an_end_that_cannot_be_told_goodbye_is_cut_too(autojump_clock: trio.testing.MockClock) -> None:
    """TLS has a last word to send, and the peer may not take that either."""
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.end.stuck_at_the_end = True
        case.wire.finish()
        case.wire.write_nowait(b"ignored")
        case.wire.finish()
    assert trio.current_time() == pytest.approx(5, abs=0.01)
    assert (case.lost, case.counters.write_timeouts) == (1, 1)
    assert case.end.sent == b""


async def test_a_wire_that_is_cancelled_in_a_frame_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    with suppress(trio.Cancelled):
        async with trio.open_nursery() as nursery:
            case = Case(nursery)
            case.end.taken = 3
            case.wire.write_nowait(b"x" * 30)
            await trio.sleep(1.2)
            nursery.cancel_scope.cancel()
    assert (case.lost, case.counters.write_timeouts) == (1, 0)
    assert 0 < len(case.end.sent) < 30
    assert case.end.aborted
