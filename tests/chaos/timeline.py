"""When which fault was in force: for whoever has to judge something by its time, or to explain it."""

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import inf

import trio

TICK, LATE = 0.02, 0.05  # seconds


class Timeline:
    """What has happened in a run. ``told``: whether a terminal is told as it happens."""

    def __init__(self, told: bool = False) -> None:
        self._told, self._began = told, time.monotonic()
        self._notes: list[tuple[float, str]] = []
        self._busy: list[tuple[float, float, str]] = []
        self._faults: list[tuple[float, float, str]] = []  # from, until, name; inf while it is in force

    def note(self, what: str) -> None:
        self._notes.append((trio.current_time(), what))
        if self._told:
            sys.stderr.write(f"{time.monotonic() - self._began:7.2f} s  {what}\n")

    @contextmanager
    def fault(self, name: str, described: str) -> Iterator[None]:
        """It is in force for the block."""
        began, index = trio.current_time(), len(self._faults)
        self._faults.append((began, inf, name))
        self.note(f"{described} begins")
        try:
            yield
        finally:
            self._faults[index] = (began, trio.current_time(), name)
            self.note(f"{described} is over")

    async def watch_the_machine(self) -> None:
        """Write down when it is too busy to run us in time: nobody is blamed for that."""
        while True:
            before = trio.current_time()
            await trio.sleep(TICK)
            now = trio.current_time()
            if now - before >= TICK + LATE:
                if self._busy and before - self._busy[-1][1] < 2 * TICK:
                    before = self._busy.pop()[0]
                self._busy.append((before, now, "the machine is busy"))

    def quiet(self, since: float, until: float, apart: Collection[str] = ()) -> float:
        """Return for how many seconds of that time no fault was in force, but for those named ``apart``, and the
        machine ran us in time.
        """
        quiet, reached = 0.0, since
        busy = [each for each in self._busy if each[1] > since]
        for began, ended, name in sorted([*self._faults, *busy]):
            if name not in apart and ended > reached:
                quiet += max(0.0, min(began, until) - reached)
                reached = max(reached, ended)
        return quiet + max(0.0, until - reached)

    def between(self, since: float, until: float) -> list[tuple[float, str]]:
        """Return what has happened in that time."""
        return [(when, what) for when, what in self._notes if since <= when <= until]

    def recent(self, seconds: float = 6.0) -> str:
        """Return what has happened in the last seconds."""
        now = trio.current_time()
        return ", ".join(f"{when - now:+.2f} s {what}" for when, what in self.between(now - seconds, now))
