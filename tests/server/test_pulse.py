"""The pulse of a peer, on a virtual clock: which pong counts, what else shows life, and when none can be expected."""

import pytest
import trio
from websockets.frames import Opcode

from trichannels.server.pulse import Limits, Pulse
from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

from .ends import FakeEnd

pytestmark = pytest.mark.trio_only

LIMITS = Limits(ping_interval=10, pong_timeout=5, close_timeout=1, max_message_size=1)


class Peer:
    """As much of a peer as a pulse sees; notes when it was pinged."""

    def __init__(self) -> None:
        self.ended: tuple[int, str] | None = None
        self.paused = False
        self.pings: list[tuple[float, bytes]] = []
        self.left_behind = 0
        self.on_left_behind = self._count

    def _count(self) -> None:
        self.left_behind += 1

    def send(self, opcode: Opcode, data: bytes) -> None:
        assert opcode is Opcode.PING
        self.pings.append((trio.current_time(), data))


class Kept:
    """A pulse that is kept in a nursery, until its wire is lost."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.peer, self.end, self.counters = Peer(), FakeEnd(), Counters()
        self.wire = Wire(self.end, nursery, self.counters, limit=10, timeout=1)
        self.pulse = Pulse(self.peer, self.wire, LIMITS, self.counters)
        self.lost_at: float | None = None
        self.wire.on_lost = self._lost
        self._began = trio.current_time()
        nursery.start_soon(self.pulse.keep)

    def _lost(self) -> None:
        self.lost_at, self.peer.ended = self.now, (1006, "")

    @property
    def now(self) -> float:
        return trio.current_time() - self._began

    @property
    def pinged_at(self) -> list[float]:
        return [moment - self._began for moment, _ in self.peer.pings]


async def test_the_pong_to_the_last_ping_is_the_one_that_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        kept = Kept(nursery)
        await trio.sleep(10.5)
        kept.pulse.pong(kept.peer.pings[-1][1])
        await trio.sleep(10)
        kept.pulse.pong(kept.peer.pings[0][1])
        kept.pulse.pong(b"unasked")
    assert kept.pinged_at == pytest.approx([10, 20.5])
    assert kept.lost_at == pytest.approx(25.5)
    assert kept.counters.pong_timeouts == 1


async def test_a_long_message_that_still_arrives_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        kept = Kept(nursery)
        for _ in range(19):
            await trio.sleep(2.1)
            kept.pulse.signs_of_life += 1
    assert kept.pinged_at == [10]
    assert kept.lost_at == 45, "at 40 the last piece, of 39.9, still counted"


async def test_no_pong_is_expected_while_nothing_is_read(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        kept = Kept(nursery)
        await trio.sleep(12)
        kept.peer.paused = True
        kept.pulse.answered.set()  # as the peer's reader does before it pauses
        await trio.sleep(100)
        assert kept.lost_at is None
        assert kept.peer.left_behind == 0
        kept.end.left = True
        await trio.sleep(20)
        assert kept.peer.left_behind > 0
        kept.peer.ended = 1006, ""
    assert kept.counters.pong_timeouts == 0


async def test_no_ping_waits_behind_what_the_peer_does_not_take(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        kept = Kept(nursery)
        kept.end.taken = 0
        kept.wire.write_nowait(b"x")
    assert kept.lost_at == 1, "that is the write deadline's"
    assert kept.peer.pings == []
    assert (kept.counters.write_timeouts, kept.counters.pong_timeouts) == (1, 0)
