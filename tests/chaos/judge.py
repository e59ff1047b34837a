"""What publishers were told and what members got, compared: is anything lost, twice, out of order, or silently spliced?

Pure. A ledger has one entry for each send, a stream has what one client saw, over all its sockets, in order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from trichannels.layers.history import Position

Outcome: TypeAlias = Literal["taken", "not done", "unknown"]
"""``not done``: the layer said that nothing was sent. ``unknown``: it said so, or whoever sent was killed."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a publisher sends: its own name, and a number that it counts from 1 for this group."""

    sender: str
    number: int

    def __str__(self) -> str:
        return f"{self.sender}#{self.number}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one send."""

    outcome: Outcome
    position: Position | None = None
    keyed: bool = False  # with an idempotency key, and tried until it was taken


Ledger: TypeAlias = Mapping[Event, Sent]


@dataclass(frozen=True, slots=True)
class Joined:
    """A socket of a client is in the group. ``asked``: it came with the position that it had reached."""

    position: Position | None
    recovered: bool = True
    asked: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """An event came."""

    event: Event
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """``layer.resync``, or ``layer.dropped``, came. ``position``: where it goes on, if that was told."""

    what: Literal["resync", "dropped"] = "resync"
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """A socket has ended. ``excused``: its process was killed, or the client has closed it itself.

    ``late``: by how many seconds the client was behind with its reading.
    """

    code: int
    excused: bool
    late: float = 0.0


Item: TypeAlias = Joined | Got | Told | Closed
Streams: TypeAlias = Mapping[str, Sequence[Item]]

LATE = 10.0  # seconds; a server cuts who has not read for twenty, as on a machine that has too much to do
NEARLY = 0.9
MUST_BE_ZERO = (
    "lost", "duplicated", "out of order", "spliced silently", "forked", "impossible", "closed unasked", "told in vain",
)  # fmt: skip


@dataclass
class Findings:
    """Numbers by name; ``problems`` describes the first of each kind that must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def blame(self, what: str, description: str, number: int = 1) -> None:
        self.count(what, number)
        if len(self.problems) < 50:
            self.problems.append(f"{what}: {description}")

    @property
    def good(self) -> bool:
        return not any(self.counts[what] for what in MUST_BE_ZERO) and not self.problems


def judge_history(streams: Streams, ledger: Ledger, limit: int, *, two_masters: bool = False) -> Findings:
    """Judge the members of one group with history, of which ``limit`` events can be recovered at most.

    ``two_masters``: there may have been two at once, each with a history that goes on, and members went to and fro.
    """
    findings = Findings()
    places: dict[Position, Event] = {}
    for name, stream in streams.items():
        _Member(name, ledger, limit, findings, places, two_masters).read(stream)
    _compare(places, ledger, findings)
    return findings


class _Member:
    """One client on its way through a history."""

    def __init__(
        self, name: str, ledger: Ledger, limit: int, findings: Findings, places: dict[Position, Event],
        two_masters: bool,
    ) -> None:  # fmt: skip
        self.two_masters = two_masters
        self.name, self.ledger, self.limit, self.findings, self.places = name, ledger, limit, findings, places
        self.taken = {sent.position for sent in ledger.values() if sent.position is not None}
        self.reached: Position | None = None
        self.doubtful = True  # a gap was told, or nothing is known yet: the next event may stand anywhere ahead
        self.refused: tuple[Position, str] | None = None  # where a gap was told, if nothing came since
        self.left: set[str] = set()  # epochs
        self.seen: dict[Event, Position] = {}

    def read(self, stream: Iterable[Item]) -> None:
        for index, item in enumerate(stream):
            where = f"{self.name}, item {index}"
            if isinstance(item, Joined):
                self._joined(item, where)
            elif isinstance(item, Told):
                self._told(item, where)
            elif isinstance(item, Got):
                self._got(item, where)
            else:
                _closed(item, where, self.findings)

    def _told(self, item: Told, where: str) -> None:
        self.findings.count(f"{item.what} told")
        self._refuse(f"{where}: layer.{item.what}")
        self.doubtful = item.position is None
        if item.position is not None:
            self._move_on(item.position, where)

    def _refuse(self, what: str) -> None:
        if self.refused is None and self.reached is not None:
            self.refused = self.reached, what

    def _joined(self, item: Joined, where: str) -> None:
        findings, position = self.findings, item.position
        assert position is not None
        findings.count("joined")
        if item.asked and item.recovered:
            findings.count("recovered silently")
            findings.count("events recovered at joins", item.count)
            self.doubtful = False
            return  # it goes on from where it was
        if item.asked:
            findings.count("recovered=False told")
            self._refuse(f"{where}: recovered=False")
        self._move_on(position, where)
        self.doubtful = False

    def _got(self, item: Got, where: str) -> None:
        findings, position, event = self.findings, item.position, item.event
        findings.count("events")
        if position is None:
            findings.blame("impossible", f"{where}: {event} has no position")
            return
        if self.places.setdefault(position, event) != event:
            findings.blame("forked", f"{where}: {event} at {position}, where others saw {self.places[position]}")
        before = self.reached
        if self._again(event, position, where) and before is not None and position.epoch == before.epoch:
            self.reached = max(before, position, key=lambda place: place.offset)
            return
        if self.refused is not None:
            # Only now: of a new history, the group may not have been told yet where the join has seen it.
            self._needed(*self.refused, position)
        if self.doubtful:
            pass
        elif before is None or position.epoch != before.epoch:
            findings.blame("spliced silently", f"{where}: {event} at {position}, after {before}")
        elif position.offset > before.offset + 1:
            between = range(before.offset + 1, position.offset)
            known = sum(Position(offset, before.epoch) in self.taken for offset in between)
            findings.blame(
                "lost", f"{where}: {event} at {position}, after {before}; {known} of these were taken", len(between)
            )
        self._move_on(position, where)
        self.doubtful, self.refused = False, None

    def _again(self, event: Event, position: Position, where: str) -> bool:
        """Say whether it was here before, which it may be only with a key, and in another history."""
        earlier = self.seen.get(event)
        self.seen[event] = position
        if earlier is None:
            return False
        sent = self.ledger.get(event)
        if earlier.epoch != position.epoch and sent is not None and sent.keyed:
            self.findings.count("sent again into a new history")
            return False
        self.findings.blame("duplicated", f"{where}: {event} at {position}, and before at {earlier}")
        return True

    def _move_on(self, position: Position, where: str) -> None:
        before = self.reached
        if before is not None and position.epoch == before.epoch and position.offset < before.offset:
            self.findings.blame("out of order", f"{where}: {position} after {before}")
        if before is not None and position.epoch != before.epoch:
            self.findings.count("new histories seen")
            self.left.add(before.epoch)
            if position.epoch in self.left and self.two_masters:
                self.findings.count("back in the history of another master")
            elif position.epoch in self.left:
                self.findings.blame("out of order", f"{where}: back in the history {position.epoch}")
        self.reached = position

    def _needed(self, before: Position, what: str, position: Position) -> None:
        """A gap was told: was there one that the history could not close?"""
        missed = position.offset - before.offset
        if before.epoch == position.epoch and missed <= self.limit * NEARLY:  # more may have come while it was read
            self.findings.blame("told in vain", f"{what} between {before} and {position}")


def _closed(item: Closed, where: str, findings: Findings) -> None:
    if item.excused:
        findings.count("sockets that ended with their process")
    elif item.code == 1013:
        findings.count("overrun (1013)")
    elif item.code == 1006 and item.late > LATE:
        findings.count("cut, for their client was too late with its reading")
    else:
        findings.blame("closed unasked", f"{where}: with {item.code}")


def _compare(places: Mapping[Position, Event], ledger: Ledger, findings: Findings) -> None:
    """Does what was seen anywhere fit to what the publishers were told?"""
    seen_at: dict[Event, list[Position]] = {}
    for position, event in places.items():
        seen_at.setdefault(event, []).append(position)
    promised: dict[Position, Event] = {}
    for event, sent in ledger.items():
        findings.count(sent.outcome)
        seen = seen_at.get(event, [])
        if sent.outcome == "not done" and seen:
            findings.blame("impossible", f"{event} was not done, and stands at {seen[0]}")
        if sent.outcome == "unknown":
            findings.count("unknown, and was sent" if seen else "unknown, and was not seen")
        if len(seen) > len({position.epoch for position in seen}):
            findings.blame("duplicated", f"{event} stands at {seen}")
        if sent.position is None:
            continue
        if promised.setdefault(sent.position, event) != event:
            findings.blame("forked", f"{event} and {promised[sent.position]} were both promised {sent.position}")
        if places.get(sent.position, event) != event:
            findings.blame("forked", f"{event} was promised {sent.position}, where {places[sent.position]} was seen")
    findings.count("histories", len({position.epoch for position in (*places, *promised)}))


def judge_plain(streams: Streams, ledger: Ledger, *, late: int = 0) -> Findings:
    """Judge the members of one group without history: what is missing must have been told where it is missing.

    ``late``: after how many more things at the latest, if not just there.
    """
    findings = Findings()
    taken: dict[str, set[int]] = {}
    for event, sent in ledger.items():
        findings.count(sent.outcome)
        if sent.outcome == "taken":
            taken.setdefault(event.sender, set()).add(event.number)
    for name, stream in streams.items():
        _PlainMember(name, ledger, taken, late, findings).read(stream)
    return findings


class _PlainMember:
    """One client on its way through events without positions."""

    def __init__(self, name: str, ledger: Ledger, taken: Mapping[str, set[int]], late: int, findings: Findings) -> None:
        self.name, self.ledger, self.taken, self.late, self.findings = name, ledger, taken, late, findings
        self.last: dict[str, int] = {}  # by sender
        self.certain: set[str] = set()  # senders of whom nothing may be missing since their last event
        self.seen: set[Event] = set()
        self.untold: list[tuple[int, str, int]] = []  # at which item, what, how many

    def read(self, stream: Sequence[Item]) -> None:
        for index, item in enumerate(stream):
            self._give_up(index - self.late)
            where = f"{self.name}, item {index}"
            if isinstance(item, Joined):
                self.findings.count("joined")
                # A member of its own: what was sent before it came may still be on its way to its process.
                self._told("told by a new entrance")
                self.seen.clear()
                self.last.clear()
            elif isinstance(item, Told):
                self.findings.count(f"{item.what} told")
                self._told("missing, and told late")
            elif isinstance(item, Closed):
                _closed(item, where, self.findings)
            else:
                self._got(item.event, index, where)
        self._give_up(len(stream))

    def _told(self, how: str) -> None:
        self.certain.clear()
        for _, _, count in self.untold:
            self.findings.count(how, count)
        self.untold.clear()

    def _give_up(self, index: int) -> None:
        while self.untold and self.untold[0][0] <= index:
            _, what, count = self.untold.pop(0)
            self.findings.blame("lost", what, count)

    def _got(self, event: Event, index: int, where: str) -> None:
        findings = self.findings
        findings.count("events")
        sent = self.ledger.get(event, Sent("unknown"))
        if sent.outcome == "not done":
            findings.blame("impossible", f"{where}: {event} was not done, and came")
        before = self.last.get(event.sender, 0)
        if event in self.seen:
            findings.blame("duplicated", f"{where}: {event} once more")
        elif event.number < before:
            if sent.outcome == "unknown":
                findings.count("late, of unknown outcome")  # it was on its way when its connection was given up
            else:
                findings.blame("out of order", f"{where}: {event} after {before}")
        else:
            if before:
                self._look_between(before, event, index, where)
            self.last[event.sender] = event.number
            self.certain.add(event.sender)
        self.seen.add(event)

    def _look_between(self, before: int, event: Event, index: int, where: str) -> None:
        missing = sorted(self.taken.get(event.sender, set()).intersection(range(before + 1, event.number)))
        if missing and event.sender in self.certain:
            self.untold.append((index, f"{where}: {missing[:5]} before {event}, untold", len(missing)))
        elif missing:
            self.findings.count("missing, and told", len(missing))
