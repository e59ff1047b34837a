"""The pulse of a peer, on a virtual clock: which pong counts, what else shows life, and when none can be expected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trichannels.seam import open_wake
from trichannels.server.deadlines import SLICE, Deadlines, keep
from trichannels.server.flusher import Flusher
from trichannels.server.frames import PING
from trichannels.server.pulse import Limits, Pulse
from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

from .ends import FakeEnd

pytestmark = pytest.mark.trio_only

LIMITS = Limits(ping_interval=10, pong_timeout=5, close_timeout=1, max_message_size=1)


class Peer:
    """As much of a peer as a pulse sees; notes when it was pinged."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ended: tuple[int, str] | None = None
        self.paused = self.alive = self.closed_in_turn = False
        self.expected = b""
        self.pings: list[tuple[float, bytes]] = []
        self.times_left_behind = 0
        self.end, self.counters = FakeEnd(), Counters()
        self.wire = Wire(self.end, nursery, self.counters, Flusher(), limit=10, timeout=1)
        self.wire.on_lost = self._lost
        self.pulse = Pulse(LIMITS, self.counters)
        self.lost_at: float | None = None
        self._began = trio.current_time()

    def left_behind(self) -> None:
        self.times_left_behind += 1

    def send(self, opcode: int, data: bytes) -> None:
        assert opcode == PING
        self.pings.append((self.now, data))

    def _lost(self) -> None:
        self.lost_at, self.ended = self.now, (1006, "")

    @property
    def now(self) -> float:
        return trio.current_time() - self._began

    @property
    def pinged_at(self) -> list[float]:
        return [moment for moment, _ in self.pings]


@asynccontextmanager
async def pinged() -> AsyncIterator[Peer]:
    """A peer with a pulse; at the end it is waited for 100 seconds more."""
    async with trio.open_nursery() as nursery:
        peer = Peer(nursery)
        nursery.start_soon(peer.pulse.run)
        peer.pulse.begin(peer)
        yield peer
        await trio.sleep(100)
        nursery.cancel_scope.cancel()


async def test_the_pong_to_the_last_ping_is_the_one_that_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        await trio.sleep(10.5)
        peer.pulse.pong(peer, peer.pings[-1][1])
        await trio.sleep(10)
        peer.pulse.pong(peer, peer.pings[0][1])
        peer.pulse.pong(peer, b"unasked")
    assert peer.pinged_at == pytest.approx([10, 20.5])
    assert peer.lost_at == pytest.approx(25.5)
    assert peer.counters.pong_timeouts == 1


async def test_a_long_message_that_still_arrives_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        for _ in range(19):
            await trio.sleep(2.1)
            peer.alive = True
    assert peer.pinged_at == [10]
    assert peer.lost_at == 45, "at 40 the last piece, of 39.9, still counted"


async def test_no_pong_is_expected_while_nothing_is_read(autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        await trio.sleep(12)
        peer.paused = True
        await trio.sleep(100)
        assert peer.lost_at is None
        assert len(peer.pings) > 5, "though it is still pinged: routers on the way forget silent connections"
        assert peer.times_left_behind == 0
        peer.end.left = True
        await trio.sleep(20)
        assert peer.times_left_behind > 0
        peer.ended = 1006, ""
    assert peer.counters.pong_timeouts == 0


async def test_no_ping_waits_behind_what_the_peer_does_not_take(autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        peer.end.taken = 0
        peer.wire.write_nowait(b"x")
    assert peer.lost_at == 1, "that is the write deadline's"
    assert peer.pings == []
    assert (peer.counters.write_timeouts, peer.counters.pong_timeouts) == (1, 0)


async def test_a_peer_that_reads_slowly_is_not_cut_for_a_pong(autojump_clock: trio.testing.MockClock) -> None:
    """A ping goes out, then more than the peer takes in time for its pong."""
    async with pinged() as peer:
        await trio.sleep(10.5)
        peer.end.taken = 1  # a byte in half a second
        peer.wire.write_nowait(b"x" * 40)
        await trio.sleep(19)
        assert peer.lost_at is None
        assert peer.wire.busy
        peer.pulse.pong(peer, peer.pings[0][1])
    assert peer.pinged_at == pytest.approx([10, 39.5])
    assert peer.lost_at == pytest.approx(44.5), "this time it was read, and not answered"


@pytest.mark.parametrize("in_turn", [True, False])
async def test_a_peer_that_does_not_leave_is_cut(in_turn: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        peer.closed_in_turn = in_turn
        await trio.sleep(2)
        peer.pulse.leave(peer)
    assert peer.lost_at == 3
    assert peer.counters.close_timeouts == (not in_turn)


async def test_a_peer_that_has_left_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with pinged() as peer:
        peer.pulse.leave(peer)
        peer.pulse.end(peer)
    assert (peer.lost_at, peer.pings) == (None, [])


async def test_deadlines_are_kept_in_order_and_leave_turns_to_others(autojump_clock: trio.testing.MockClock) -> None:
    acted: list[tuple[int, float]] = []
    bell = open_wake()
    deadlines = Deadlines[int](5, lambda item: acted.append((item, trio.current_time() - began)), bell)
    began, turns = trio.current_time(), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, bell, deadlines)
        for item in range(3 * SLICE):
            deadlines.set(item)
        await trio.sleep(1)
        deadlines.set(0)
        deadlines.clear(1)
        await trio.sleep(4)
        while len(deadlines) > 1:
            turns += 1
            await trio.lowlevel.checkpoint()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [item for item, _ in acted] == [*range(2, 3 * SLICE), 0]
    assert acted[0][1] == 5
    assert acted[-1][1] == 6
    assert turns >= 2
