"""What one process holds of a group's presence, and whether the server has it. No I/O, no clock.

What is *wanted* is written down first; the difference to what the server is *known* to have is what is to be sent. So
it makes no difference how often something is sent, or whether an answer was lost: it is sent until it is known.
"""

from typing import TypeAlias

from ...exceptions import TrichannelsError
from .refusals import not_sent
from .server import RedisServer
from .waiter import Waiter


class Entry:
    """One connection under one key."""

    __slots__ = ("field", "flying", "known", "settled", "sure", "waiters", "wanted")

    def __init__(self, field: str) -> None:
        self.field = field
        self.wanted: bytes | None = None
        self.settled: bytes | None = None  # what was wanted last and has been confirmed
        self.known: bytes | None = None
        self.sure = True  # of ``known``
        self.flying = False  # it has been sent, and not been answered
        self.waiters: list[Waiter] = []

    def __repr__(self) -> str:
        return f"<Entry {self.field!r}, {'as wanted' if self.done else 'to send'}>"

    @property
    def done(self) -> bool:
        """Whether there is nothing to be sent."""
        return self.sure and not self.flying and self.known == self.wanted


Sent: TypeAlias = list[tuple[Entry, bytes | None, list[Waiter]]]


class Room:
    """One group."""

    __slots__ = (
        "askers",
        "changes",
        "dirty",
        "entries",
        "failures",
        "flight",
        "group",
        "not_before",
        "reading",
        "server",
        "writing",
    )

    def __init__(self, group: str, server: RedisServer) -> None:
        self.group, self.server = group, server
        self.entries: dict[str, Entry] = {}
        self.dirty: dict[str, None] = {}  # fields of the entries that are to be sent, in order
        self.flight: list[Waiter] | None = None  # who waits for the batch that is under way
        self.changes = 0  # batches that were sent
        self.failures = 0  # of the last ones, in a row
        self.askers: list[Waiter] = []  # who wants to know who is there
        self.writing = self.reading = False  # there is a task that does
        self.not_before = 0.0  # when the next batch may go

    def __repr__(self) -> str:
        return f"<Room {self.group}: {len(self.entries)} held, {len(self.dirty)} to send>"

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be sent, and nothing under way."""
        return not self.dirty and self.flight is None

    @property
    def idle(self) -> bool:
        """Whether this process holds nothing in it and does nothing for it."""
        return not (self.entries or self.writing or self.reading or self.askers)

    def want(self, field: str, sealed: bytes | None) -> Entry:
        """Write down what is wanted."""
        entry = self.entries.get(field)
        if entry is None:
            entry = self.entries[field] = Entry(field)
        entry.wanted = sealed
        self.dirty[field] = None
        return entry

    def barrier(self) -> Waiter | None:
        """Return one who waits until all is sent that is to be sent now; None if that is nothing."""
        waiter = Waiter()
        if self.dirty:
            self.entries[next(reversed(self.dirty))].waiters.append(waiter)
        elif self.flight is not None:
            self.flight.append(waiter)
        else:
            return None
        return waiter

    # ---- sending

    def take(self, most: int) -> Sent:
        """Return the next batch, which is then under way; empty if there is none."""
        batch: Sent = []
        early: list[Waiter] = []  # of what needs not be sent; but what is before it, does
        while self.dirty and len(batch) < most:
            field = next(iter(self.dirty))
            del self.dirty[field]
            entry = self.entries[field]
            waiters, entry.waiters = entry.waiters, []
            if entry.done:
                early += waiters
                self._conclude(entry)
            else:
                entry.flying = True
                batch.append((entry, entry.wanted, waiters))
        if batch:
            self.changes += 1
            self.flight = early
        else:
            self._settle(early, None)
        return batch

    def confirm(self, batch: Sent, *, all_lost: bool) -> None:
        """The server has it; if all was lost, it has nothing else."""
        for entry, sent, waiters in batch:
            entry.known, entry.sure, entry.flying = sent, True, False
            entry.settled = sent if entry.wanted is not None else None
            self._settle(waiters, None)
            self._conclude(entry)
        self._land(None)
        if all_lost:
            self.doubt({entry.field for entry, _, _ in batch})

    def fail(self, batch: Sent, error: TrichannelsError) -> None:
        """It has not, or nobody knows; it is to be sent again. All who wait are told, also for what was to follow."""
        nothing_done = not_sent(error)
        for entry, _, waiters in batch:
            entry.flying, entry.sure = False, entry.sure and nothing_done
            self._settle(waiters, error)
            if self.entries.get(entry.field) is entry:
                self.dirty[entry.field] = None
                self._conclude(entry)
        for field in self.dirty:
            waiters, self.entries[field].waiters = self.entries[field].waiters, []
            self._settle(waiters, error)
        self._land(error)

    def doubt(self, but: "set[str] | frozenset[str]" = frozenset()) -> None:
        """The server may have lost all: it is to be sent again."""
        for field, entry in self.entries.items():
            if field not in but:
                entry.sure = False
                self.dirty[field] = None

    def compare(self, fields: "set[str]") -> None:
        """The server has these, and they should be what is held."""
        for field in fields - set(self.entries):
            self.entries[field] = Entry(field)
        self.doubt()

    def give_up(self, error: TrichannelsError | None) -> None:
        """Forget all; who waits is told."""
        for entry in self.entries.values():
            self._settle(entry.waiters, error)
        self._settle(self.askers, error)
        self._land(error)
        self.entries.clear()
        self.dirty.clear()
        self.askers = []

    def _conclude(self, entry: Entry) -> None:
        if entry.done and entry.wanted is None and not entry.waiters and self.entries.get(entry.field) is entry:
            del self.entries[entry.field]
            self.dirty.pop(entry.field, None)

    def _land(self, error: TrichannelsError | None) -> None:
        flight, self.flight = self.flight, None
        self._settle(flight or (), error)

    def _settle(self, waiters: "list[Waiter] | tuple[Waiter, ...]", error: TrichannelsError | None) -> None:
        for waiter in waiters:
            waiter.settle(error)
