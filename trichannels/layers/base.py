"""The contract of a channel layer, its name rules, and what all layers share: subscriptions, the wait for instances.

A layer carries events *between* application instances. The rules, in prose:

- A layer is an async context manager. It closes only when its last instance has ended, or after ``close_timeout``.
- A message is a dict that survives the serializer; it is encoded once, when it is sent. Each reader gets its own copy.
- Joining returns when the membership is in force: what is sent afterwards is received. Leaving is local and immediate.
- Order is kept per sender and group. Delivery is at most once. What a bound drops is counted and told.
- A group with history gives each event a position. A gap in it is closed from the history, or told: never hidden.
- ``ChannelFull`` is raised where the sender can know: for direct sends to a channel of this process.
- Types that begin with ``layer.`` belong to the layer; nobody can send them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf
from secrets import token_hex
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import BadEvent, InvalidChannelLayerError, InvalidName, LayerClosed
from ..inbox import DEFAULT_INBOX, Envelope, Inbox, InboxStatistics, Lapsed, Ledger, Mailbox
from .background import Background
from .history import History, Position, Recovery, checked_histories, history_of
from .presence import Presence, PresenceBoard, require_presence_key, require_seconds
from .queues import JobQueue
from .serializers import Message, MsgpackSerializer, Serializer

MAX_NAME_LENGTH = 100
KNOWN_HISTORIES = 4096  # groups for which the pattern that fits is remembered
_CHANNEL_NAME = re.compile(r"[a-zA-Z\d\-_.]+(![\d\w\-_.]*)?", re.ASCII)
_GROUP_NAME = re.compile(r"[a-zA-Z\d\-_.]+", re.ASCII)
_RESERVED = ("layer_dropped", "layer_resync")


def require_group_name(name: object) -> str:
    """Return ``name`` if it may name a group: ASCII letters, digits, ``-``, ``_``, ``.``; fewer than 100 of them."""
    return _require("Group", _GROUP_NAME, name)


def require_channel_name(name: object, *, receive: bool = False) -> str:
    """Return ``name`` if it may name a channel: as a group, with at most one ``!`` before its process-local part."""
    checked = _require("Channel", _CHANNEL_NAME, name)
    if receive and "!" in checked and not checked.endswith("!"):
        raise InvalidName("Specific channel names in receive() must end at the !")
    return checked


def require_queue_name(name: object) -> str:
    """Return ``name`` if it may name a work queue: a channel without ``!``, which any process may read."""
    checked = require_channel_name(name)
    if "!" in checked:
        raise InvalidName(f"{checked!r} is a channel of one process, no work queue: leave out the '!'")
    return checked


def require_delay(delay: object) -> float:
    """Return ``delay`` if it is a number of seconds, 0 or more."""
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < inf:
        raise BadEvent(f"send(delay=…) must be a number of seconds, 0 or more, not {delay!r}")
    return delay


@lru_cache(1024)  # asked of each event that is sent, and of each that comes
def is_reserved(kind: str) -> bool:
    """Say whether events of this type come from the layer itself, and from nobody else."""
    return kind.startswith("layer.") or kind in _RESERVED


def type_of(message: Message) -> str:
    """Return a message's type, "" if it has none; raises :class:`BadEvent` for one that nobody may send."""
    kind = message.get("type", "")
    if not isinstance(kind, str):
        raise BadEvent(f"a message's 'type' must be a str, not {kind!r}")
    if is_reserved(kind):
        raise BadEvent(f"{kind!r}: types that begin with 'layer.' come from the layer itself; choose another name")
    return kind


def checked_capacities(given: Mapping[Any, int] | None) -> list[tuple[Any, int]]:
    """Return the option ``channel_capacity`` as pairs; raises :class:`InvalidChannelLayerError`."""
    return [
        (pattern, int(_positive(f"channel_capacity[{pattern!r}]", limit))) for pattern, limit in (given or {}).items()
    ]


def capacity_for(channel: str, capacities: Sequence[tuple[Any, int]], otherwise: int) -> int:
    """Return the capacity of the first pattern that fits a channel."""
    for pattern, limit in capacities:
        fits = pattern.match(channel) if isinstance(pattern, re.Pattern) else fnmatchcase(channel, pattern)
        if fits:
            return limit
    return otherwise


def _require(kind: str, pattern: re.Pattern[str], name: object) -> str:
    if isinstance(name, str) and 0 < len(name) < MAX_NAME_LENGTH and pattern.fullmatch(name):
        return name
    raise InvalidName(
        f"{kind} name must be a valid unicode string with length < {MAX_NAME_LENGTH} "
        f"containing only ASCII alphanumerics, hyphens, underscores, or periods, not {name!r}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """What a layer holds now, and its totals since it was opened."""

    instances: int
    channels: int
    groups: int
    memberships: int
    presences: int
    waiting_messages: int
    waiting_bytes: int
    delivered: int
    dropped: int
    dropped_bytes: int
    conflated: int
    expired: int
    undeliverable: int


class Subscription:
    """The events of some groups, one message dict after the other; what ``subscribe`` yields.

    Cancelling a wait loses nothing. When events were dropped for want of room, a ``{"type": "layer.dropped"}`` event
    says so in its place; of a group with history nothing is dropped: what did not fit is read from the history when its
    turn comes. What cannot be had again is told by ``{"type": "layer.resync", "group": …, "recovered": False}``.
    Iterating after the layer has closed raises :class:`LayerClosed`.

    ``positions``: where the subscription stands in each group with history. ``recoveries``: what entering the groups
    came to, by group.
    """

    def __init__(self, mailbox: Mailbox, layer: "ChannelLayer", channel: str, groups: tuple[str, ...]) -> None:
        self._mailbox, self._layer, self._channel, self.groups = mailbox, layer, channel, groups
        self.positions: dict[str, Position] = {}
        self.recoveries: dict[str, Recovery] = {}

    def __repr__(self) -> str:
        return f"<Subscription to {', '.join(self.groups)}: {self._mailbox!r}>"

    async def _enter(self, group: str, since: Position | None) -> None:
        recovery = await self._layer.join(group, self._channel, since)
        self.recoveries[group] = recovery
        if recovery.position is not None:
            self.positions[group] = since if since is not None and recovery.recovered else recovery.position

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        await checkpoint()  # events that wait already must not let a reader run on for ever
        while True:
            item = await self._mailbox.get()
            if item is None:
                raise LayerClosed(type(self._layer).__name__)
            if isinstance(item, Lapsed):
                await self._catch_up(item)
                continue
            if item.position is not None and item.group is not None:
                self.positions[item.group] = Position(item.position.offset, item.position.epoch)
            return dict(item.open())

    async def _catch_up(self, lapsed: Lapsed) -> None:
        """Read from the history what there was no room for; if that fails, it is tried again by the next reader."""
        try:
            recovery = await self._layer.join(lapsed.group, self._channel, self.positions.get(lapsed.group))
        except BaseException:
            self._mailbox.put_back(lapsed)
            raise
        if not recovery.recovered:
            self._mailbox.resync(lapsed.group, recovery.position)

    async def receive(self) -> Message:
        """Wait for the next event."""
        return await self.__anext__()

    def statistics(self) -> InboxStatistics:
        """Return what waits to be read and what was dropped."""
        return self._mailbox.statistics()


class InUse:
    """Counts an instance of a layer for as long as the block lasts; the layer closes after the last one."""

    __slots__ = ("_layer",)

    def __init__(self, layer: "ChannelLayer") -> None:
        self._layer = layer

    def __enter__(self) -> None:
        self._layer._instances += 1

    def __exit__(self, *raised: object) -> None:
        layer = self._layer
        layer._instances -= 1
        if not layer._instances and layer._idle is not None:
            layer._idle.set()


class Follows(Protocol):
    """The part of a switchboard that tells who is where."""

    def follows(self, group: str, channel: str) -> bool:
        """Say whether a channel is in a group, and gets all that is sent to it."""


class ChannelLayer(ABC):
    """What every layer offers. ``capacity`` counts messages, ``expiry`` and ``group_expiry`` are seconds.

    ``channel_capacity`` maps channel patterns (``fnmatch``, or compiled regular expressions) to capacities.
    ``history`` maps group patterns (``fnmatch``; the first that fits) to what is kept of such groups' events.
    ``presence_linger``: seconds for which it is not told that a key's last connection has left a group's presence.
    ``presence_lease``: seconds after which the presences of a process that died without a word are gone.
    """

    extensions: ClassVar[tuple[str, ...]] = ("groups", "flush")
    close_timeout = 10.0

    def __init__(
        self,
        *,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        expiry: float = 60,
        group_expiry: float = 86400,
        serializer: Serializer | None = None,
        history: Mapping[str, History] | None = None,
        presence_linger: float = 0,
        presence_lease: float = 30,
    ) -> None:
        self.histories = checked_histories(history)
        self.presence_linger = require_seconds("presence_linger", presence_linger)
        self.presence_lease = require_seconds("presence_lease", presence_lease, least=0.1)
        self.capacity = int(_positive("capacity", capacity))
        self.expiry = _positive("expiry", expiry)
        self.group_expiry = _positive("group_expiry", group_expiry)
        self.channel_capacity = checked_capacities(channel_capacity)
        self.serializer: Serializer = serializer or MsgpackSerializer()
        self.ledger = Ledger()
        self._known_histories: dict[str, History | None] = {}
        self._instances = 0
        self._idle: anyio.Event | None = None
        self._opened = False
        self._background = Background(type(self).__name__)

    def __repr__(self) -> str:
        state = f"open, {self._instances} instances" if self._opened else "closed"
        return f"<{type(self).__name__} {state}>"

    @classmethod
    def blocking(cls, **options: Any) -> Any:
        """Return what sends to such a layer without an event loop: see ``SyncChannelLayer``. ``options``: the layer's.

        Raises :class:`InvalidChannelLayerError` where there is no such thing.
        """
        raise InvalidChannelLayerError(
            f"an {cls.__name__} can be used by the process that has it open alone, from a consumer, a view, or what "
            "these call; from elsewhere events are sent through trichannels.layers.redis.RedisChannelLayer; "
            "a blocking test opens it with trichannels.testing.opened_layers()"
        )

    # ---- lifetime

    @property
    def opened(self) -> bool:
        """True inside the layer's block."""
        return self._opened

    async def __aenter__(self) -> Self:
        if self._opened:
            raise InvalidChannelLayerError(f"{self!r} is open already: a layer is opened once, by one owner")
        self.ledger = Ledger()
        self._background = Background(type(self).__name__)
        self._known_histories.clear()
        try:
            await self.open()
        except BaseException:
            await self._background.close()
            raise
        self._opened = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An instance that says goodbye may still publish, also while everything around it is cancelled.
        try:
            if self._instances:
                self._idle = anyio.Event()
                with anyio.move_on_after(self.close_timeout, shield=True):
                    await self._idle.wait()
        finally:  # no shield stops asyncio's own task.cancel()
            self._idle = None
            self._opened = False
            await self._let_go()

    async def _let_go(self) -> None:
        try:
            await self.close()
        finally:
            await self._background.close()

    def start_soon(self, func: Callable[..., Awaitable[object]], *args: Any) -> bool:
        """For the layers themselves: run ``func(*args)`` until the layer closes, whatever is cancelled around it.

        False if it has closed: then it is not run.
        """
        return self._background.start_soon(func, *args)

    def in_use(self) -> "InUse":
        """Keep the layer open for one instance; an instance holds this block for its whole life."""
        return InUse(self)

    def require_open(self) -> None:
        """Raise :class:`LayerClosed` outside the layer's block."""
        if not self._opened:
            raise LayerClosed(type(self).__name__)

    @abstractmethod
    async def open(self) -> None:
        """Acquire what the layer needs; called on entering its block."""

    @abstractmethod
    async def close(self) -> None:
        """Let everything go, without waiting; called on leaving the block, also under cancellation."""

    # ---- messages

    @abstractmethod
    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        """Send to one channel, ``delay`` seconds from now.

        Raises ``ChannelFull``, ``UnserializableMessage``, ``InvalidName``, ``BadEvent``. Cancelled, nothing is sent.
        """

    @abstractmethod
    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel that no instance owns. Cancelled, it has taken nothing."""

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[JobQueue]:
        """Work on a named channel's messages as jobs, for a block: for workers, and whoever looks after dead letters.

        Raises :class:`InvalidChannelLayerError` where the layer has no work queues.
        """
        raise InvalidChannelLayerError(
            f"{type(self).__name__} has no work queues: it cannot feed a worker of {channel!r}"
        )

    @abstractmethod
    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a new channel name of this process, to ``receive`` from."""

    @abstractmethod
    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        """Put a channel into a group; in force when this returns. Joining twice is joining once.

        With ``since``, a channel of this process first gets all events of the group's history after that position, in
        order and before anything newer; if these cannot be proven to be all, it gets none of them, and the answer says
        ``recovered=False``. Cancelled, it has joined nothing.
        """

    async def group_add(self, group: str, channel: str) -> None:
        """Put a channel into a group; in force when this returns. Adding twice is adding once."""
        await self.join(group, channel)

    @abstractmethod
    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group, if it is in it."""

    @abstractmethod
    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        """Send to every member of a group. Full members drop it by their policy; nothing is raised for them.

        Returns the event's position where the group has history. There, of several sends with one ``idempotency_key``
        only the first is sent, for as long as the history is kept: all return its position. Cancelled, nothing is sent.
        """

    async def group_send_many(self, events: Sequence[tuple[str, Message]]) -> list[Position | None]:
        """Send ``(group, message)`` pairs, in order for each group; returns what :meth:`group_send` would for each.

        Where a wire is between, it takes them together, for a fraction of the price of as many calls. When it raises,
        or is cancelled, some may have been sent.
        """
        return [await self.group_send(group, message) for group, message in events]

    @abstractmethod
    async def flush(self) -> None:
        """Forget all groups, and all messages but those that instances and subscriptions hold already."""

    # ---- presence

    def track(self, group: str, key: str, meta: Any = None) -> AbstractAsyncContextManager[None]:
        """Let ``key`` be present in a group for the block; in a consumer, use its own ``track``.

        In force inside the block, and told to the group's members by a ``presence.diff`` event if the key was not
        present before; nobody has to be a member to be present. ``meta`` is anything that a message may hold. Raises
        :class:`InvalidName`, :class:`UnserializableMessage`, and what the layer's server fails with. Cancelled while
        it enters, it has not entered.
        """
        return self._tracked(require_group_name(group), require_presence_key(key), meta)

    @asynccontextmanager
    async def _tracked(self, group: str, key: str, meta: Any) -> AsyncIterator[None]:
        connection = f"track.{token_hex(8)}"
        await self.enter_presence(group, connection, key, meta)
        try:
            yield
        finally:
            self.leave_presence(group, connection, key)

    async def presence(self, group: str) -> Presence:
        """Return who is present in a group, and the position from which diffs go on. It costs as much as there are."""
        return await self.need_presence().snapshot(require_group_name(group))

    async def presence_count(self, group: str) -> int:
        """Return how many keys are present in a group, at a cost that does not depend on how many."""
        return await self.need_presence().count(require_group_name(group))

    @property
    def presence_board(self) -> PresenceBoard | None:
        """For the layers themselves: where the open layer keeps who is in its groups; None if it does not."""
        return None

    def need_presence(self) -> PresenceBoard:
        """For the layers themselves: return that; raises :class:`LayerClosed`, :class:`InvalidChannelLayerError`."""
        self.require_open()
        board = self.presence_board
        if board is None:
            raise InvalidChannelLayerError(f"{self!r} keeps no presence: nobody can be tracked, or looked for, in it")
        return board

    async def enter_presence(self, group: str, channel: str, key: str, meta: Any = None) -> None:
        """Let an instance be present as ``key``; in force when this returns. Again, it replaces ``meta``."""
        require_group_name(group)
        await self.need_presence().enter(group, channel, require_presence_key(key), meta)

    def leave_presence(self, group: str, channel: str, key: str) -> None:
        """End that, at once and without waiting. ``detach`` ends all presences of a channel."""
        if self.presence_board is not None:
            self.presence_board.leave(group, channel, key)

    # ---- instances

    @abstractmethod
    def attach(self, mailbox: Mailbox, prefix: str = "specific") -> str:
        """Give a mailbox a channel of its own and return its name. At once; the owner must ``detach``."""

    @abstractmethod
    def detach(self, channel: str) -> None:
        """Forget a mailbox, its channel, its memberships and presences, at once and without waiting."""

    @abstractmethod
    def groups_of(self, channel: str) -> tuple[str, ...]:
        """Return the groups that a channel of this process is in."""

    def members(self) -> Mapping[str, int]:
        """Return how many channels of this process are in each group, for those who look at it."""
        return {}

    @abstractmethod
    def statistics(self) -> LayerStatistics:
        """Return what the layer holds and has counted."""

    def subscribe(
        self, *groups: str, inbox: Inbox = DEFAULT_INBOX, since: Mapping[str, Position] | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Receive the events of some groups inside a block::

            async with layer.subscribe("chat.lobby", "prices") as events:
                async for event in events: ...

        Inside the block the memberships are in force; leaving it ends them. ``inbox`` bounds what waits; its policy
        cannot be ``"disconnect"``, for there is no socket to close. ``since`` says, by group, where to go on:
        ``events.recoveries[group].recovered`` tells whether that could be done.
        """
        if any(policy == "disconnect" for _, policy in inbox.rules):
            raise InvalidChannelLayerError(
                "subscribe(inbox=…): a subscription has no socket to disconnect; "
                "choose drop_newest, drop_oldest or latest, and look for 'layer.dropped' events"
            )
        return self._subscribed(groups, inbox, since or {})

    @asynccontextmanager
    async def _subscribed(
        self, groups: tuple[str, ...], inbox: Inbox, since: Mapping[str, Position]
    ) -> AsyncIterator[Subscription]:
        self.require_open()
        for group in groups:
            require_group_name(group)
        if unknown := set(since) - set(groups):
            raise InvalidChannelLayerError(f"subscribe(since=…) names {sorted(unknown)}, which are not subscribed to")
        mailbox = Mailbox(inbox, capacity=self.capacity)
        mailbox.finish()  # it has no client side
        channel = self.attach(mailbox, "subscription")
        try:
            events = Subscription(mailbox, self, channel, groups)
            for group in groups:
                await events._enter(group, since.get(group))
            yield events
        finally:
            self.detach(channel)

    # ---- for the layers themselves

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``: the first pattern that fits, else ``capacity``."""
        return capacity_for(channel, self.channel_capacity, self.capacity)

    def history_of(self, group: str) -> History | None:
        """Return what is kept of a group's events, or None."""
        if not self.histories:
            return None
        known = self._known_histories
        if group not in known:
            if len(known) >= KNOWN_HISTORIES:
                known.clear()
            known[group] = history_of(self.histories, group)
        return known[group]

    def require_no_key(self, group: str, idempotency_key: str | None) -> None:
        """Raise :class:`InvalidChannelLayerError` for a key that nobody would remember."""
        if idempotency_key is not None:
            raise InvalidChannelLayerError(
                f"group_send({group!r}, idempotency_key=…): the group has no history that could remember the key; "
                "give the layer a history={pattern: History(…)} that fits"
            )

    def require_newcomer(self, board: "Follows", group: str, channel: str) -> None:
        """Raise :class:`InvalidChannelLayerError` for a ``since`` that could not be honoured."""
        if board.follows(group, channel):
            raise InvalidChannelLayerError(
                f"join({group!r}, since=…): {channel!r} is in the group already and would get events twice: leave first"
            )

    def encoded(self, message: Message) -> bytes:
        """Return a message as bytes for others to read; raises what :meth:`send` promises for a bad one."""
        payload = self.serializer.encode(message)
        type_of(message)
        return payload

    def seal(self, message: Message, group: str | None = None) -> Envelope:
        """Encode a message for readers of this process; raises what :meth:`send` promises for a bad one."""
        payload = self.serializer.encode(message)
        kind = type_of(message)
        until = anyio.current_time() + self.expiry
        return Envelope(payload, self.serializer.decode, kind=kind, group=group, until=until)

    # ---- Channels' names

    def valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """Return True, or raise :class:`InvalidName` (a TypeError)."""
        return bool(require_channel_name(name, receive=receive))

    def valid_group_name(self, name: object) -> bool:
        """Return True, or raise :class:`InvalidName` (a TypeError)."""
        return bool(require_group_name(name))

    require_valid_channel_name = valid_channel_name
    require_valid_group_name = valid_group_name


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InvalidChannelLayerError(f"the channel layer's {name} must be a number above 0, not {value!r}")
    return value
