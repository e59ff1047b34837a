"""Pure: is what history answers all that was missed, and where do live events join it? No I/O, no clock, no tasks.

The scheme is Centrifugo's: every event of a group with history has a position. A gap is seen when offsets jump or the
epoch changes; it is closed from the history if that proves to be whole, and told as a gap if not. Never in part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from ..inbox import Place
from .history import Position

PENDING = 4096  # live events that wait for a history to be read; beyond, they are forgotten and read once more


class Positioned(Protocol):
    """An event that knows where in its group's history it stands."""

    @property
    def position(self) -> Place | None:
        """Its position."""


E = TypeVar("E", bound=Positioned)


@dataclass(frozen=True, slots=True)
class Missed(Generic[E]):
    """What the history answered: the events after the position that was asked about, in order, and its top.

    ``whole`` is False where the reader itself gave up, because they were too many or too large.
    """

    top: Position
    events: Sequence[E] = ()
    whole: bool = True


class Verdict(Enum):
    """What to do with a live event."""

    DELIVER = "it follows the last one"
    IGNORE = "it was delivered already"
    WAIT = "a history is being read: it comes after that"
    HEAL = "something is missing before it: read the history, and keep it meanwhile"


def is_whole(since: Position, missed: Missed[E]) -> bool:
    """Say whether ``missed`` is provably everything between ``since`` and its top."""
    if not missed.whole or since.epoch != missed.top.epoch:
        return False
    offsets = [event.position.offset for event in missed.events if event.position is not None]
    many = missed.top.offset - since.offset  # as a client claims: nothing may be as large as that before it is checked
    return len(offsets) == many and offsets == list(range(since.offset + 1, missed.top.offset + 1))


class Tracker(Generic[E]):
    """What one process has delivered of one group: nothing twice, nothing out of order, no gap unseen.

    It begins in waiting: the subscription is there, the top is not known yet. ``heal`` takes what the history answered.
    Events that it returns must be delivered before ``settle`` is asked, which ends the waiting if nothing came since.
    """

    __slots__ = ("_forgotten", "_waiting", "top")

    def __init__(self) -> None:
        self.top: Position | None = None
        self._waiting: list[E] | None = []
        self._forgotten = False

    def __repr__(self) -> str:
        state = "live" if self._waiting is None else f"{len(self._waiting)} waiting"
        return f"<Tracker at {self.top}, {state}>"

    @property
    def live(self) -> bool:
        """Whether events are delivered as they come."""
        return self._waiting is None

    def arrive(self, event: E) -> Verdict:
        """Take a live event; say what is to be done with it."""
        if self._waiting is not None:
            self._keep(event)
            return Verdict.WAIT
        assert self.top is not None
        assert event.position is not None
        step = self._step(event.position)
        if step == 1:
            self.top = _as_position(event.position)
            return Verdict.DELIVER
        if step is not None and step < 1:
            return Verdict.IGNORE
        self._waiting = []
        self._keep(event)
        return Verdict.HEAL

    def doubt(self) -> bool:
        """Something may be missing: events wait until the history is read. False if they do already: then it is read
        once more, for what is missing now may have come after the reading that is under way.
        """
        if self._waiting is not None:
            self._forgotten = True
            return False
        self._waiting = []
        return True

    def heal(self, missed: Missed[E]) -> tuple[list[E], bool]:
        """Take what the history has after ``top``; return what is to be delivered now, and whether nothing is missing.

        At the beginning there is no ``top``: the history's own is where we stand, and nothing is missing.
        """
        recovered = self.top is None or is_whole(self.top, missed)
        events = list(missed.events) if recovered and self.top is not None else []
        self.top = missed.top
        return events, recovered

    def settle(self) -> list[E] | None:
        """Return what came meanwhile and follows, to be delivered; None if the history must be read once more.

        An empty list means that all is delivered: from now on events are live again.
        """
        if self._waiting is None:
            return []
        if self._forgotten:
            self._waiting, self._forgotten = [], False
            return None
        ready: list[E] = []
        while self._waiting:
            assert self.top is not None
            event = self._waiting[0]
            assert event.position is not None
            step = self._step(event.position)
            if step is None or step > 1:
                return ready or None
            if step == 1:
                self.top = _as_position(event.position)
                ready.append(event)
            del self._waiting[0]
        if not ready:
            self._waiting = None
        return ready

    def _step(self, position: Place) -> int | None:
        """How far ``position`` is from the top; None in another history."""
        assert self.top is not None
        return position.offset - self.top.offset if position.epoch == self.top.epoch else None

    def _keep(self, event: E) -> None:
        assert self._waiting is not None
        if len(self._waiting) >= PENDING:
            self._waiting.clear()
            self._forgotten = True
        elif not self._forgotten:
            self._waiting.append(event)


def merge(since: Position, missed: Missed[E], live: Sequence[E]) -> list[E] | None:
    """Return all events after ``since``, in order and once: the history's, then the live ones; None if some lack.

    ``live`` is what came while the history was read.
    """
    if not is_whole(since, missed):
        return None
    merged, top = list(missed.events), missed.top
    for event in live:
        position = event.position
        if position is None:
            merged.append(event)
            continue
        if position.epoch != top.epoch or position.offset > top.offset + 1:
            return None
        if position.offset == top.offset + 1:
            merged.append(event)
            top = _as_position(position)
    return merged


def _as_position(place: Place) -> Position:
    return place if isinstance(place, Position) else Position(place.offset, place.epoch)
