"""What runs once for all connections of a server outlives the failure of one: it is logged, and the others go on."""

import logging

import pytest
import trio

from trichannels.seam import open_wake
from trichannels.server.deadlines import Deadlines, keep
from trichannels.server.flusher import Flusher

pytestmark = pytest.mark.trio_only


class Broken:
    """A wire that fails in whatever is done with it."""

    flushed = 0

    def flush(self) -> None:
        self.flushed += 1
        raise RuntimeError("as no wire should")

    def lose(self) -> None:
        raise RuntimeError("nor this")


class Sound(Broken):
    def flush(self) -> None:
        self.flushed += 1


async def test_the_flusher_goes_on(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    flusher, broken, sound = Flusher(), Broken(), Sound()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for _ in range(2):
            flusher.add(broken)
            flusher.add(sound)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (broken.flushed, sound.flushed) == (2, 2)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4


async def test_deadlines_go_on(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    acted: list[str] = []

    def act(item: str) -> None:
        acted.append(item)
        if item == "broken":
            raise RuntimeError("as no deadline should")

    bell = open_wake()
    deadlines: Deadlines[str] = Deadlines(5, act, bell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, bell, deadlines)
        for item in ("broken", "sound"):
            deadlines.set(item)
        await trio.sleep(6)
        deadlines.set("later")
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert acted == ["broken", "sound", "later"]
    assert len(caplog.records) == 1
