"""Who is in a group: connections, keys and their counting, positions, diffs, leases. Pure: no I/O, no clock, no tasks.

A *connection* is one socket, or one ``layer.track()`` block; a *key* names whoever is there, for instance a user. A key
is present from its first connection to its last: three tabs are one presence. What changes in a group is told as a
*diff*, and each diff moves the group's position by one: so a snapshot and the diffs after it never disagree about who
is there. ``PresenceBoard`` is the seam to where it is kept: ``memory_presence`` and ``redis/presence``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Protocol

from ..exceptions import InvalidChannelLayerError, InvalidName, UnserializableMessage
from .history import Position
from .serializers import Message, Serializer

MAX_KEY_LENGTH = 256
DIFF = "presence.diff"

PACE_EACH, PACE_MOST = 50e-6, 0.5  # seconds between two diffs of a group: for each who is there, and at the most


def require_presence_key(key: object) -> str:
    """Return ``key`` if it may name who is there: text of 1 to 256 characters."""
    if isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and _is_unicode(key):
        return key
    raise InvalidName(
        f"a presence key must be a str of 1 to {MAX_KEY_LENGTH} characters that UTF-8 can encode, not {_shown(key)}: "
        "take what names the user, such as str(user.pk), and put the rest into meta"
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(key: object) -> str:
    return f"one of {len(key)} characters" if isinstance(key, str) and len(key) > MAX_KEY_LENGTH else repr(key)


def require_seconds(name: str, value: object, *, least: float = 0) -> float:
    """Return a layer's presence option if it is a finite number of seconds, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < inf:
        raise InvalidChannelLayerError(
            f"the channel layer's {name} must be a number of seconds, {least:g} or more, not {value!r}"
        )
    return value


def pace(count: int) -> float:
    """Return for how many seconds what happens in a group of ``count`` is gathered into one diff.

    Telling each of 10,000 that each of 10,000 has come is 100 million events: a burst of arrivals is told in few diffs.
    Small groups are told at once.
    """
    return min(PACE_MOST, count * PACE_EACH)


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is in a group: for each key the ``meta`` of its connections, and the position up to which diffs are in it."""

    group: str
    members: dict[str, list[Any]]
    position: Position

    @property
    def count(self) -> int:
        """How many keys are present."""
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Diff:
    """Who has come and who has gone since the diff before it; ``position`` is its own.

    ``joins``: for each key the metadata of its connections. ``leaves``: that of the connection which went last.
    """

    joins: Mapping[str, list[Any]]
    leaves: Mapping[str, list[Any]]
    position: Position

    def event(self, group: str) -> Message:
        """Return the event that the group's members get."""
        return {
            "type": DIFF,
            "group": group,
            "joins": dict(self.joins),
            "leaves": dict(self.leaves),
            "position": {"offset": self.position.offset, "epoch": self.position.epoch},
        }


class Step(Enum):
    """What a diff was to a :class:`Roster`."""

    APPLIED = "it follows: who is in it has come or gone"
    KNOWN = "it is in the snapshot already"
    GAP = "one before it is missing, or all began anew: take a new snapshot"


class Roster:
    """A snapshot that is kept current by the diffs that follow it::

        roster = Roster(await layer.presence(group))
        ...
        if roster.apply(event) is Step.GAP:
            roster = Roster(await layer.presence(group))

    ``members`` maps each key to metadata: what it was in the snapshot or when the key came. Further connections of a
    key are not told in diffs.
    """

    __slots__ = ("members", "position")

    def __init__(self, presence: Presence) -> None:
        self.members = dict(presence.members)
        self.position = presence.position

    def __repr__(self) -> str:
        return f"<Roster of {len(self.members)} at {self.position.offset}>"

    def apply(self, event: Mapping[str, Any]) -> Step:
        """Take a ``presence.diff`` event; on a gap, nothing of it is taken."""
        place = event["position"]
        if place["epoch"] != self.position.epoch or place["offset"] > self.position.offset + 1:
            return Step.GAP
        if place["offset"] <= self.position.offset:
            return Step.KNOWN
        for key in event["leaves"]:
            self.members.pop(key, None)
        self.members.update(event["joins"])
        self.position = Position(place["offset"], place["epoch"])
        return Step.APPLIED


class PresenceBoard(Protocol):
    """Where a layer keeps who is in its groups. Names and keys are checked by who calls."""

    async def enter(self, group: str, connection: str, key: str, meta: Any) -> None:
        """Let a connection be there as ``key``; in force when this returns. Again, it replaces ``meta``.

        Raises :class:`UnserializableMessage`, and what the layer's server fails with. Cancelled, or failed, it has not
        entered: what may have been done is undone.
        """

    def leave(self, group: str, connection: str, key: str) -> None:
        """End that, at once and without waiting; nothing happens if it was not there."""

    def leave_all(self, connection: str) -> None:
        """End all presences of a connection, at once and without waiting."""

    async def snapshot(self, group: str) -> Presence:
        """Return who is in a group. What this process has entered and left before is in it."""

    async def count(self, group: str) -> int:
        """Return how many keys are present in a group; the cost does not depend on how many."""

    @property
    def presences(self) -> int:
        """How many presences this process holds: one for each connection, group and key."""


def seal_entry(serializer: Serializer, key: str, meta: Any) -> bytes:
    """Return what one connection tells about itself as bytes; raises :class:`UnserializableMessage`."""
    try:
        return serializer.encode({"key": key, "meta": meta})
    except UnserializableMessage as error:
        raise UnserializableMessage(error.path.replace("message['meta']", "meta"), error.problem) from error


def open_entries(serializer: Serializer, sealed: Iterable[bytes]) -> dict[str, list[Any]]:
    """Return the metadata of each key; raises :class:`UnreadableMessage`."""
    members: dict[str, list[Any]] = {}
    decode = serializer.decode
    for one in sealed:
        entry = decode(one)
        members.setdefault(entry["key"], []).append(entry["meta"])
    return members


class PresenceState:
    """The presence of one group. Whoever keeps it gives the time, and asks for the diffs.

    ``linger``: seconds for which the leave of a key's last connection is withheld. ``lease``: seconds after which the
    connections of an owner are gone that has neither entered nor renewed.
    """

    __slots__ = ("_by_key", "_by_owner", "_last", "_leases", "_lingering", "_was", "epoch", "lease", "linger", "offset")

    def __init__(self, epoch: str, *, linger: float = 0, lease: float = inf) -> None:
        self.epoch, self.offset = epoch, 0
        self.linger, self.lease = linger, lease
        self._by_key: dict[str, dict[str, tuple[Any, str]]] = {}  # of each key its connections: meta and owner
        self._by_owner: dict[str, set[tuple[str, str]]] = {}  # of each owner its connections, each with its key
        self._leases: dict[str, float] = {}  # until when, the first to run out first
        self._lingering: dict[str, tuple[float, Any]] = {}  # keys without a connection: until when, and the last meta
        self._was: dict[str, bool] = {}  # keys that came or went since the last diff: whether they were present then
        self._last: dict[str, Any] = {}  # and the metadata of the last connection of those that went

    def __repr__(self) -> str:
        return f"<PresenceState of {self.count} at {self.offset}>"

    @property
    def count(self) -> int:
        """How many keys are present."""
        return len(self._by_key) + len(self._lingering)

    @property
    def connections(self) -> int:
        """How many connections there are, each counted once for each of its keys."""
        return sum(map(len, self._by_owner.values()))

    @property
    def position(self) -> Position:
        """That of the newest diff."""
        return Position(self.offset, self.epoch)

    def holds(self, key: str) -> bool:
        """Say whether a key is present."""
        return key in self._by_key or key in self._lingering

    def meta_of(self, connection: str, key: str, default: Any = None) -> Any:
        """Return what a connection has told about itself."""
        entry = self._by_key.get(key, {}).get(connection)
        return default if entry is None else entry[0]

    # ---- what happens

    def enter(self, connection: str, key: str, meta: Any = None, *, owner: str = "", now: float = 0) -> None:
        """Let a connection be there as ``key``; again, it replaces ``meta``. Renews the owner's lease."""
        if not self.holds(key):
            self._was.setdefault(key, False)
        self._lingering.pop(key, None)
        connections = self._by_key.setdefault(key, {})
        before = connections.get(connection)
        if before is not None and before[1] != owner:
            self._disown(before[1], connection, key)
        connections[connection] = meta, owner
        self._by_owner.setdefault(owner, set()).add((connection, key))
        self._renew(owner, now)

    def leave(self, connection: str, key: str, *, now: float = 0) -> bool:
        """Let it go; False if it was not there. With a linger, its key stays for a while if it was the last one."""
        return self._remove(connection, key, now + self.linger if self.linger else None)

    def renew(self, owner: str, now: float) -> bool:
        """Keep an owner's connections for another lease; False if it has none, or no longer."""
        if owner not in self._leases or self._leases[owner] <= now:
            return False
        self._renew(owner, now)
        return True

    def expire(self, now: float) -> None:
        """Let go of owners whose lease has run out, all at once and without linger, and of keys that lingered."""
        while self._leases and next(iter(self._leases.values())) <= now:
            owner = next(iter(self._leases))
            for connection, key in list(self._by_owner.get(owner, ())):
                self._remove(connection, key, None)
            self._leases.pop(owner, None)
        while self._lingering and next(iter(self._lingering.values()))[0] <= now:
            key = next(iter(self._lingering))
            self._gone(key, self._lingering.pop(key)[1])

    @property
    def next_expiry(self) -> float:
        """The earliest time at which ``expire`` may have something to do."""
        lease = next(iter(self._leases.values()), inf)
        return min(lease, next(iter(self._lingering.values()), (inf, None))[0])

    def _renew(self, owner: str, now: float) -> None:
        self._leases.pop(owner, None)
        self._leases[owner] = now + self.lease

    def _remove(self, connection: str, key: str, linger_until: float | None) -> bool:
        connections = self._by_key.get(key, {})
        if connection not in connections:
            return False
        meta, owner = connections.pop(connection)
        self._disown(owner, connection, key)
        if not connections:
            del self._by_key[key]
            if linger_until is None:
                self._gone(key, meta)
            else:
                self._lingering[key] = linger_until, meta
        return True

    def _disown(self, owner: str, connection: str, key: str) -> None:
        owned = self._by_owner[owner]
        owned.discard((connection, key))
        if not owned:
            del self._by_owner[owner]
            del self._leases[owner]

    def _gone(self, key: str, meta: Any) -> None:
        self._was.setdefault(key, True)
        self._last[key] = meta

    # ---- what is told

    @property
    def has_news(self) -> bool:
        """Whether somebody may have come or gone since the last diff."""
        return bool(self._was)

    def take(self) -> Diff | None:
        """Return who has come and gone since the last time, and move the position; None if it comes to nothing."""
        was, last = self._was, self._last
        self._was, self._last = {}, {}
        joins, leaves = {}, {}
        for key, before in was.items():
            now = self.holds(key)
            if now and not before:
                joins[key] = self._metas_of(key)
            elif before and not now:
                leaves[key] = [last[key]]
        if not joins and not leaves:
            return None
        self.offset += 1
        return Diff(joins, leaves, self.position)

    def members(self) -> dict[str, list[Any]]:
        """Return the metadata of each key's connections. It is what ``position`` says while there are no news."""
        return {key: self._metas_of(key) for key in (*self._by_key, *self._lingering)}

    def _metas_of(self, key: str) -> list[Any]:
        if key in self._lingering:
            return [self._lingering[key][1]]
        return [meta for meta, _ in self._by_key[key].values()]
