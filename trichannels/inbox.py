"""The bounded queue of one application instance: two sides under one order of arrival.

*Client side*: what the socket brought. Never dropped; the reader asks for room first (backpressure).
*Layer side*: what other instances sent. Never waits; when it is full, the overflow policy decides, and what is dropped,
or waits for longer than the layer's ``expiry``, is counted and told in one reserved slot.

``Inbox`` is the setting, ``Mailbox`` the queue. Nothing here knows ASGI or a layer.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf
from typing import Any, Literal, Protocol, TypeAlias

from .events import Event, Serializer
from .exceptions import InvalidChannelLayerError
from .seam import Wake, loop_clock, open_wake

Message: TypeAlias = dict[str, Any]

OVERHEAD = 64  # bytes that a message of the client counts beside its own
POLICIES = ("disconnect", "drop_newest", "drop_oldest", "latest")


class Place(Protocol):
    """Where an event stands in its group's history: ``layers.history.Position``, of which nothing here knows more."""

    @property
    def offset(self) -> int:
        """The event's number, from 1."""

    @property
    def epoch(self) -> str:
        """The name of the history."""


@dataclass(frozen=True, slots=True)
class Latest:
    """Overflow policy: of the events of a group with the same type and the same ``key`` field, keep the newest.

    A newer event takes the place of the older one in the queue. Without ``key``, type and group alone decide.
    """

    key: str | None = None

    def of(self, envelope: "Envelope") -> Hashable:
        """Return what makes two events replace each other."""
        value = envelope.peek().get(self.key) if self.key else None
        try:
            hash(value)
        except TypeError:  # a tuple may say that it is hashable, and hold a list
            value = (type(value).__name__, repr(value))
        return envelope.group, envelope.type, value


Policy: TypeAlias = Literal["disconnect", "drop_newest", "drop_oldest", "latest"] | Latest


@dataclass(slots=True)
class Ledger:
    """Running totals of a layer, to which its mailboxes add; they outlive each mailbox."""

    delivered: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    conflated: int = 0
    expired: int = 0
    undeliverable: int = 0


class Envelope:
    """One event on its way to many: encoded once, opened by each reader for itself."""

    __slots__ = ("_decode", "_seen", "_sent", "frames", "group", "payload", "position", "size", "type", "until")

    def __init__(
        self,
        payload: bytes,
        decode: Callable[[bytes], Message],
        *,
        kind: str = "",
        group: str | None = None,
        until: float = inf,
        position: Place | None = None,
    ) -> None:
        self.payload, self.size, self.type, self.group = payload, len(payload), kind, group
        self.position = position  # where in its group's history it stands, if that has one
        self.until = until  # the loop's time at which it is too old to be read
        self._decode = decode
        self._seen: Message | None = None
        self.frames: dict[Hashable, bytes] = {}  # as a server puts it on the wire, by how it is made
        self._sent: dict[Serializer, Event] = {}

    def __repr__(self) -> str:
        return f"<Envelope {self.type!r} to {self.group or 'a channel'}, {self.size} bytes>"

    def open(self) -> Message:
        """Return the message, a copy of the caller's own."""
        return self._decode(self.payload)

    def peek(self) -> Message:
        """Return the message to look at, shared by all who peek."""
        if self._seen is None:
            self._seen = self._decode(self.payload)
        return self._seen

    def sent_as(self, serializer: Serializer) -> Event:
        """Return what ``serializer`` makes of the message, made once for all who ask; not to be changed."""
        event = self._sent.get(serializer)
        if event is None:
            event = self._sent[serializer] = serializer(self.peek())
        return event


class Received:
    """One event from the socket."""

    __slots__ = ("event", "size")
    type = "client"
    position = None

    def __init__(self, event: MutableMapping[str, Any], size: int) -> None:
        self.event, self.size = event, size

    def open(self) -> MutableMapping[str, Any]:
        """Return the event as the server gave it."""
        return self.event


class Dropped:
    """The reserved slot that tells what overflowed since it was last read."""

    __slots__ = ("bytes", "count", "groups")
    type = "layer.dropped"
    position = None

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.groups: set[str] = set()

    def open(self) -> Message:
        """Return ``{"type": "layer.dropped", "count": …, "bytes": …, "groups": [names]}``."""
        return {"type": self.type, "count": self.count, "bytes": self.bytes, "groups": sorted(self.groups)}


class Resync:
    """Tells, in line, that events of a group may be missing and cannot be had again. ``position``: where it goes on."""

    __slots__ = ("group", "position")
    type = "layer.resync"

    def __init__(self, group: str, position: Place | None = None) -> None:
        self.group, self.position = group, position

    def open(self) -> Message:
        """Return ``{"type": "layer.resync", "group": …, "recovered": False}``."""
        return {"type": self.type, "group": self.group, "recovered": False}


class Lapsed:
    """Tells the reader of a subscription that its room was too small: what it missed is to be read from the history."""

    __slots__ = ("group",)
    type = "layer.lapsed"
    position = None

    def __init__(self, group: str) -> None:
        self.group = group

    def open(self) -> Message:
        """Return what it comes to for a reader who cannot read histories."""
        return {"type": Resync.type, "group": self.group, "recovered": False}


class Replay:
    """Events of a history, in line where they belong. They are read one by one, and count for no bound of the inbox:
    who comes back would else overrun it, be sent away, and come back to the same.
    """

    __slots__ = ("envelopes",)

    def __init__(self, envelopes: Iterable[Envelope]) -> None:
        self.envelopes = deque(envelopes)


Item: TypeAlias = Envelope | Received | Dropped | Resync | Lapsed


@lru_cache(maxsize=4096)
def _policy_for(rules: tuple[tuple[str, Policy], ...], group: str) -> Policy:
    for pattern, policy in rules:
        if fnmatchcase(group, pattern):
            return policy
    return "drop_newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """The bounds of an instance's inbox.

    ``messages``: events waiting on the layer side; None takes the layer's capacity for the channel.
    ``bytes``: their encoded bytes. ``overflow``: what happens beyond: ``"drop_newest"``, ``"drop_oldest"``,
    ``"latest"`` (or ``Latest(key)``), ``"disconnect"`` (the socket closes with 1013), or a dict of group patterns
    (``fnmatch``; the first that fits) to policies. Direct sends to a channel match as the group ``""``. An event pushes
    out only events whose own policy is ``"drop_oldest"`` or ``"latest"``; if none of these waits, it is dropped itself.
    For groups with history the policy is always ``"disconnect"``: their events are recovered, never dropped.
    ``client_messages``, ``client_bytes``: the client side; beyond them the socket is not read.
    """

    messages: int | None = None
    bytes: int = 1024 * 1024
    overflow: Policy | Mapping[str, Policy] = "drop_newest"
    client_messages: int = 64
    client_bytes: int = 1024 * 1024
    rules: tuple[tuple[str, Policy], ...] = field(init=False, repr=False)
    replaces_nothing: bool = field(init=False, repr=False)
    """Whether no event ever takes the place of another, so that one for which there is room is simply queued."""

    def __post_init__(self) -> None:
        given = self.overflow
        rules = tuple(given.items()) if isinstance(given, Mapping) else (("*", given),)
        for pattern, policy in rules:
            if policy not in POLICIES and not isinstance(policy, Latest):
                raise InvalidChannelLayerError(
                    f"Inbox(overflow=…): {policy!r} for {pattern!r} is no policy; "
                    f"choose from {', '.join(POLICIES)} or Latest(key)"
                )
        for name in ("messages", "bytes", "client_messages", "client_bytes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidChannelLayerError(f"Inbox({name}=…) must be an int of at least 1, not {value!r}")
        object.__setattr__(self, "rules", rules)
        replacing = any(policy == "latest" or isinstance(policy, Latest) for _, policy in rules)
        object.__setattr__(self, "replaces_nothing", not replacing)

    def policy_for(self, group: str | None) -> Policy:
        """Return the overflow policy for events of ``group``; None for direct sends."""
        if len(self.rules) == 1 and self.rules[0][0] == "*":
            return self.rules[0][1]
        return _policy_for(self.rules, group or "")


DEFAULT_INBOX = Inbox()


def _yields(policy: Policy) -> bool:
    """Say whether an event that waits under this policy may be dropped to make room for a newer one."""
    return policy in ("drop_oldest", "latest") or isinstance(policy, Latest)


def _key_of(policy: Policy, envelope: Envelope) -> Hashable | None:
    """Return what an event replaces others by, or None under policies that replace nothing."""
    if policy == "latest":
        policy = Latest()
    return policy.of(envelope) if isinstance(policy, Latest) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxStatistics:
    """What waits in an inbox now, and what it has dropped so far."""

    client_messages: int
    client_bytes: int
    layer_messages: int
    layer_bytes: int
    dropped: int
    conflated: int


class Mailbox:
    """The queue itself. One task reads (``get``), one asks for room (``client_room``), anybody delivers."""

    __slots__ = (
        "_client_bytes",
        "_client_count",
        "_client_open",
        "_dropped",
        "_items",
        "_lapsed",
        "_latest",
        "_layer_bytes",
        "_layer_count",
        "_layer_open",
        "_notice",
        "_now",
        "_paused",
        "_plain",
        "_reader",
        "_resyncs",
        "_room",
        "_special",
        "conflated",
        "direct",
        "ledger",
        "limits",
        "messages",
        "overrun",
        "passed",
        "resume",
    )

    def __init__(
        self, limits: Inbox = DEFAULT_INBOX, *, capacity: int = 100, overrun: Callable[[], None] | None = None
    ) -> None:
        self.limits = limits
        self.messages = limits.messages or capacity
        self.overrun = overrun
        self.ledger = Ledger()
        self.conflated = 0
        self.direct: Callable[[Envelope], bool] | None = None  # tried first, while no event of the layer waits
        self.passed = 0  # events that ``direct`` took
        self.resume: Callable[[], None] | None = None  # called when there is room again after ``take`` said no
        self._items: deque[Item | Replay] = deque()
        self._client_count = self._client_bytes = self._layer_count = self._layer_bytes = 0
        self._client_open = self._layer_open = True
        self._dropped = 0
        self._notice: Dropped | None = None
        self._resyncs: dict[str, Resync] = {}  # of groups of which nothing has come since
        self._lapsed: set[str] = set()  # groups with history that wait for their reader to catch up
        self._special = 0  # notices, and parts of histories, that wait: nothing may overtake them
        self._latest: dict[Hashable, Envelope] = {}
        self._now = loop_clock()
        self._reader = open_wake()
        self._room: Wake | None = None
        self._plain = limits.replaces_nothing
        self._paused = False  # ``take`` has said that there is no room

    def __repr__(self) -> str:
        return f"<Mailbox {self._client_count} from the client, {self._layer_count} from the layer>"

    # ---- the client side

    @property
    def client_full(self) -> bool:
        """True while the client side is at its bound; one message always fits into an empty side."""
        limits = self.limits
        return self._client_count >= limits.client_messages or (self._client_bytes >= limits.client_bytes)

    def client_waiting(self) -> tuple[int, int]:
        """Return how many messages of the client wait, and the bytes of their own."""
        return self._client_count, self._client_bytes - OVERHEAD * self._client_count

    async def client_room(self) -> None:
        """Wait until the client side has room, or takes nothing more. Only one task may wait."""
        while self.client_full and self._client_open:
            self._room = self._room or open_wake()
            await self._room.sleep()

    def put(self, event: MutableMapping[str, Any], size: int) -> None:
        """Queue an event of the socket, of ``size`` bytes; the caller has seen to it that there is room."""
        if not self._client_open:
            return
        self._items.append(Received(event, size))
        self._client_count += 1
        self._client_bytes += size
        self._reader.ring()

    def take(self, event: MutableMapping[str, Any], size: int) -> bool:
        """Queue a message of ``size`` bytes; returns whether there is room for another. If not, ``resume`` follows."""
        if not self._client_open:
            return True
        size += OVERHEAD
        self._items.append(Received(event, size))
        self._client_count += 1
        self._client_bytes += size
        self._reader.ring()
        self._paused = self.client_full
        return not self._paused

    def _tell_of_room(self) -> None:
        if self._room is not None:
            self._room.ring()
        if self._paused and self.resume is not None and not (self.client_full and self._client_open):
            self._paused = False
            self.resume()

    # ---- the layer side

    def deliver(self, envelope: Envelope) -> bool:
        """Queue an event of the layer without waiting; False if it was not queued."""
        if not self._layer_open:
            self.ledger.undeliverable += 1
            return False
        if self.direct is not None and not self._layer_count and not self._special and self.direct(envelope):
            self.ledger.delivered += 1
            self.passed += 1
            return True
        if self._lapsed and envelope.group in self._lapsed and envelope.position is not None:
            return False  # its reader will find it in the history
        if self._plain and self._layer_count < self.messages and self._layer_bytes + envelope.size <= self.limits.bytes:
            self._queue(envelope)  # nearly always; below, it would come to the same
            return True
        if envelope.position is not None:
            return self._deliver_positioned(envelope)
        policy = self.limits.policy_for(envelope.group)
        key = _key_of(policy, envelope)
        if key is not None and self._replace(key, envelope):
            return True
        if not self._fits(envelope) and not self._make_room(policy, envelope):
            return False
        if key is not None:
            self._latest[key] = envelope
        self._queue(envelope)
        return True

    def _deliver_positioned(self, envelope: Envelope) -> bool:
        """Queue an event of a group with history. Nothing of it is ever dropped by itself: a full inbox ends the
        instance, whose client then recovers; a subscription reads from the history what does not fit.
        """
        if not self._fits(envelope):
            self._expire()
        if self._fits(envelope):
            self._queue(envelope)
            return True
        if self.overrun is not None:
            self._count_drop(envelope)
            self.overrun()
        elif envelope.group is not None:
            self._lapsed.add(envelope.group)
            self._append_special(Lapsed(envelope.group))
        return False

    def enter(self, group: str, events: Iterable[Envelope] = ()) -> None:
        """The owner has entered a group with history: what it missed comes first, in line and outside of all bounds."""
        self._lapsed.discard(group)
        self._resyncs.pop(group, None)
        replay = Replay(events)
        if replay.envelopes and self._layer_open:
            self.ledger.delivered += len(replay.envelopes)
            self._append_special(replay)

    def has_lapsed(self, group: str) -> bool:
        """Say whether events of ``group`` are no longer queued, until the reader has caught up."""
        return group in self._lapsed

    def resync(self, group: str, position: Place | None = None) -> None:
        """Tell, in line, that events of ``group`` may be missing; once, however often, until one has come again."""
        if not self._layer_open:
            return
        waiting = self._resyncs.get(group)
        if waiting is None:
            waiting = self._resyncs[group] = Resync(group)
            self._append_special(waiting)
        waiting.position = position

    def _append_special(self, item: "Resync | Lapsed | Replay | Dropped") -> None:
        self._items.append(item)
        self._special += 1
        self._reader.ring()

    def put_back(self, lapsed: Lapsed) -> None:
        """Give back what was read, to be read again next."""
        if self._layer_open:
            self._items.appendleft(lapsed)
            self._special += 1
            self._reader.ring()

    def _queue(self, envelope: Envelope) -> None:
        if self._resyncs and envelope.group is not None:
            self._resyncs.pop(envelope.group, None)
        self._items.append(envelope)
        self._layer_count += 1
        self._layer_bytes += envelope.size
        self.ledger.delivered += 1
        self._reader.ring()

    def _expire(self) -> None:
        """Drop what has waited for too long; the oldest comes first."""
        now = self._now()
        while oldest := next((item for item in self._items if isinstance(item, Envelope)), None):
            if oldest.until > now:
                return
            self._items.remove(oldest)
            self._taken(oldest)
            self._count_expired(oldest)

    def _fits(self, envelope: Envelope) -> bool:
        return self._layer_count < self.messages and self._layer_bytes + envelope.size <= self.limits.bytes

    def _replace(self, key: Hashable, envelope: Envelope) -> bool:
        """Let ``envelope`` take the place of a waiting one of its key, if there is one."""
        older = self._latest.get(key)
        # A larger one may break the byte bound: then it goes the ordinary way, and the older one stays.
        if older is None or self._layer_bytes - older.size + envelope.size > self.limits.bytes:
            return False
        self._items[self._items.index(older)] = envelope
        self._layer_bytes += envelope.size - older.size
        self._latest[key] = envelope
        self.conflated += 1
        self.ledger.conflated += 1
        return True

    def _make_room(self, policy: Policy, envelope: Envelope) -> bool:
        """Apply the overflow policy; True if ``envelope`` may now be queued."""
        self._expire()
        if self._fits(envelope):
            return True
        if _yields(policy) and envelope.size <= self.limits.bytes:
            while not self._fits(envelope) and self._drop_oldest():
                pass
            if self._fits(envelope):
                return True
        self._count_drop(envelope)
        if policy == "disconnect" and self.overrun is not None:
            self.overrun()
        return False

    def _drop_oldest(self) -> bool:
        """Drop the oldest event whose own policy lets it go; False if none does."""
        for index, item in enumerate(self._items):
            if not isinstance(item, Envelope) or item.position is not None:
                continue
            if _yields(self.limits.policy_for(item.group)):
                del self._items[index]
                self._taken(item)
                self._count_drop(item)
                return True
        return False

    def _count_drop(self, envelope: Envelope) -> None:
        self.ledger.dropped += 1
        self.ledger.dropped_bytes += envelope.size
        self._tell(envelope)

    def _count_expired(self, envelope: Envelope) -> None:
        self.ledger.expired += 1
        self._tell(envelope)

    def _tell(self, envelope: Envelope) -> None:
        """Note in the reserved slot that the reader will not see ``envelope``."""
        self._dropped += 1
        if self._notice is None:
            self._notice = Dropped()
            self._append_special(self._notice)
        self._notice.count += 1
        self._notice.bytes += envelope.size
        if envelope.group is not None:
            self._notice.groups.add(envelope.group)

    # ---- reading

    @property
    def over(self) -> bool:
        """Whether no more can come, on either side."""
        return not (self._client_open or self._layer_open)

    def wait(self) -> Awaitable[None]:
        """Wait until there may be something to read, or the end. Only one task may wait."""
        return self._reader.sleep()

    async def get(self) -> Item | None:
        """Wait for the next item in order of arrival; None when all is read and no more can come."""
        while (item := self.get_nowait()) is None:
            if self.over:
                return None
            await self._reader.sleep()
        return item

    def get_nowait(self) -> Item | None:
        """Return the next item if there is one."""
        while self._items:
            item = self._items.popleft()
            if type(item) is Received:  # what comes most often, first
                self._client_count -= 1
                self._client_bytes -= item.size
                if self._paused or self._room is not None:
                    self._tell_of_room()
                return item
            if isinstance(item, Replay):
                return self._next_of(item)
            self._taken(item)
            if type(item) is not Envelope or item.until > self._now():
                return item
            self._count_expired(item)
        return None

    def _next_of(self, replay: Replay) -> Envelope:
        envelope = replay.envelopes.popleft()
        if replay.envelopes:
            self._items.appendleft(replay)
        else:
            self._special -= 1
        return envelope

    def _taken(self, item: "Item | Replay") -> None:
        if isinstance(item, Envelope):
            self._layer_count -= 1
            self._layer_bytes -= item.size
            if self._latest:
                key = _key_of(self.limits.policy_for(item.group), item)
                if self._latest.get(key) is item:
                    del self._latest[key]
            return
        self._special -= 1
        if isinstance(item, Resync):
            if self._resyncs.get(item.group) is item:
                del self._resyncs[item.group]
        elif isinstance(item, Dropped):
            self._notice = None

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events of the layer wait, and their bytes."""
        return self._layer_count, self._layer_bytes

    # ---- the end

    def close_layer_side(self) -> None:
        """Take nothing more from the layer and forget what waits; what the client handed over stays readable."""
        self._layer_open = False
        self.forget_layer_events()
        self._reader.ring()

    def forget_layer_events(self) -> None:
        """Forget what waits on the layer side, uncounted; more may come."""
        self._items = deque(item for item in self._items if isinstance(item, Received))
        self._layer_count = self._layer_bytes = 0
        self._latest = {}
        self._notice, self._special = None, 0
        self._resyncs.clear()

    def finish(self) -> None:
        """No more will come from the client: ``get`` returns None after the last item."""
        self._client_open = False
        self._reader.ring()
        self._tell_of_room()

    def close(self) -> int:
        """Forget all and take nothing more; returns how many messages of the client were never handled."""
        unread = self._client_count
        self.close_layer_side()
        self._items.clear()
        self._client_count = self._client_bytes = 0
        self.finish()
        return unread

    def let_go(self) -> None:
        """Forget who reads: references in a circle would keep all of them until the garbage collector comes."""
        self.overrun = self.direct = self.resume = None

    def statistics(self) -> InboxStatistics:
        """Return the present depth of both sides and the totals so far."""
        return InboxStatistics(
            client_messages=self._client_count,
            client_bytes=self._client_bytes,
            layer_messages=self._layer_count,
            layer_bytes=self._layer_bytes,
            dropped=self._dropped,
            conflated=self.conflated,
        )
