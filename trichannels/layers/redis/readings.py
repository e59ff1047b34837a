"""Newcomers to a group who missed something read its history together: after an outage, all come back at once."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from ...exceptions import TrichannelsError
from ...inbox import Envelope
from ..history import Position
from ..recovery import PENDING, Missed
from .waiter import Waiter


class Reading:
    """One reading, and what was delivered to the group since it began; ``broken`` if that cannot be used.

    ``since``: from where it reads, the position of who has missed most. ``begun``: that cannot be changed any more.
    ``alone``: it is for one, and nobody joins it.
    """

    def __init__(self, since: Position, *, alone: bool = False) -> None:
        self.since, self.alone, self.begun = since, alone, False
        self.events: list[Envelope] = []
        self.broken = False
        self.readers = 0
        self.needed = anyio.CancelScope()  # cancelled when nobody waits for it any more
        self._found = Waiter()

    def __repr__(self) -> str:
        return f"<Reading since {self.since.offset} for {self.readers}{', over' if self.is_over else ''}>"

    @property
    def is_over(self) -> bool:
        return self._found.done.is_set()

    def collect(self, event: Envelope | None) -> None:
        """Take what was delivered; None for what stands for a gap."""
        if not self.begun:
            return
        if event is None or len(self.events) >= PENDING:
            self.events.clear()
            self.broken = True
        elif not self.broken:
            self.events.append(event)

    async def read(
        self, turn: AbstractAsyncContextManager[object], history: Callable[[Position], Awaitable[Missed[Envelope]]]
    ) -> None:
        """Do it when the ``turn`` has come, for all who wait."""
        with self.needed, self._found.settling():
            async with turn:
                await checkpoint_if_cancelled()
                self.begun = True
                self._found.answer = await history(self.since)

    def fail(self, error: TrichannelsError) -> None:
        """It cannot be done: tell those who wait."""
        self._found.settle(error)

    async def missed(self, since: Position) -> Missed[Envelope]:
        """Return what it has found after ``since``; raises what it has failed with."""
        found: Missed[Envelope] = await self._found.outcome()
        after = [each for each in found.events if each.position is not None and each.position.offset > since.offset]
        return Missed(found.top, after, found.whole)


class Readings:
    """The readings of one group's history that newcomers wait for, or have not taken their part of yet.

    ``start`` is given each new one, and sees to it that :meth:`Reading.read` is run.
    """

    def __init__(self, start: Callable[[Reading], object]) -> None:
        self._start = start
        self._open: list[Reading] = []

    def __repr__(self) -> str:
        return f"<Readings {self._open}>"

    def collect(self, event: Envelope | None) -> None:
        """Pass on what is delivered to the group."""
        for reading in self._open:
            reading.collect(event)

    @contextmanager
    def joined(self, since: Position, *, alone: bool) -> Iterator[Reading]:
        """Take part in a reading for the block: in one that is there, if it brings what is wanted, or in a new one."""
        reading = None if alone else next((each for each in self._open if _fits(each, since)), None)
        if reading is None:
            reading = Reading(since, alone=alone)
            self._open.append(reading)
            self._start(reading)
        elif since.offset < reading.since.offset:
            reading.since = since
        reading.readers += 1
        try:
            yield reading
        finally:
            reading.readers -= 1
            if not reading.readers:
                reading.needed.cancel()
                self._open.remove(reading)


def _fits(reading: Reading, since: Position) -> bool:
    if reading.alone or reading.since.epoch != since.epoch or reading.is_over:
        return False
    return not reading.begun or since.offset >= reading.since.offset
