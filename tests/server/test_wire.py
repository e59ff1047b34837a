"""Writing on a virtual clock: what waits, for how long, and what a lost wire forgets."""

from contextlib import suppress

import pytest
import trio

from trichannels.server.flusher import SLICE, Flusher
from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

from .ends import FakeEnd

pytestmark = pytest.mark.trio_only


class Case:
    """A wire of 10 bytes and 5 seconds."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.end, self.counters, self.flusher = FakeEnd(), Counters(), Flusher()
        self.lost = self.rooms = 0
        self.wire = Wire(self.end, nursery, self.counters, self.flusher, limit=10, timeout=5)
        self.wire.on_lost, self.wire.on_room = self._on_lost, self._on_room

    def _on_lost(self) -> None:
        self.lost += 1

    def _on_room(self) -> None:
        self.rooms += 1


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


async def test_what_is_posted_in_one_turn_is_written_together(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        nursery.start_soon(case.flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        for data in (b"one ", b"two ", b"three "):
            case.wire.post(data)
        assert (case.end.writes, case.wire.busy, case.wire.full) == (0, True, True)
        await trio.testing.wait_all_tasks_blocked()
        assert (case.end.writes, bytes(case.end.sent), case.wire.busy) == (1, b"one two three ", False)
        assert case.rooms == 1
        case.wire.post(b"four")
        await trio.testing.wait_all_tasks_blocked()
        assert case.end.sent.endswith(b"four")
        nursery.cancel_scope.cancel()


async def test_a_write_takes_along_what_was_posted_before_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.wire.post(b"posted ")
        case.wire.write_nowait(b"written")
        assert (case.end.writes, bytes(case.end.sent)) == (1, b"posted written")
        nursery.start_soon(case.flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert case.end.writes == 1
        nursery.cancel_scope.cancel()


async def test_what_is_posted_to_a_peer_that_does_not_take_it_has_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.end.taken = 3
        nursery.start_soon(case.flusher.run)
        case.wire.post(b"0123456789")
        await trio.testing.wait_all_tasks_blocked()
        case.end.taken = 0
        case.wire.post(b"behind")
        await trio.sleep(10)
        assert (case.lost, case.counters.write_timeouts, case.wire.busy) == (1, 1, False)
        case.wire.post(b"ignored")
        assert not case.wire.busy
        nursery.cancel_scope.cancel()


async def test_what_is_posted_goes_before_the_last_byte(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery)
        case.wire.post(b"last")
        case.wire.finish()
        case.wire.post(b"ignored")
    assert bytes(case.end.sent) == b"last"
    assert case.end.finished


async def test_many_posts_leave_turns_to_others(autojump_clock: trio.testing.MockClock) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while cases[-1].wire.busy:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        flusher, cases = Flusher(), [Case(nursery) for _ in range(5 * SLICE)]
        for case in cases:
            case.wire = Wire(case.end, nursery, case.counters, flusher, limit=10, timeout=5)
            case.wire.post(b"x")
        nursery.start_soon(flusher.run)
        await other()
        nursery.cancel_scope.cancel()
    assert turns >= 5
