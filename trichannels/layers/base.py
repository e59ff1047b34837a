"""The contract of a channel layer, its name rules, and what all layers share: subscriptions, the wait for instances.

A layer carries events *between* application instances. The rules, in prose:

- A layer is an async context manager. It closes only when its last instance has ended, or after ``close_timeout``.
- A message is a dict that survives the serializer; it is encoded once, when it is sent. Each reader gets its own copy.
- Joining returns when the membership is in force: what is sent afterwards is received. Leaving is local and immediate.
- Order is kept per sender and group. Delivery is at most once. What a bound drops is counted and told.
- ``ChannelFull`` is raised where the sender can know: for direct sends to a channel of this process.
- Types that begin with ``layer.`` belong to the layer; nobody can send them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, ClassVar, Self

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import BadEvent, InvalidChannelLayerError, InvalidName, LayerClosed
from ..inbox import DEFAULT_INBOX, Envelope, Inbox, InboxStatistics, Ledger, Mailbox
from .serializers import Message, MsgpackSerializer, Serializer

MAX_NAME_LENGTH = 100
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


def _require(kind: str, pattern: re.Pattern[str], name: object) -> str:
    if isinstance(name, str) and 0 < len(name) < MAX_NAME_LENGTH and pattern.fullmatch(name):
        return name
    raise InvalidName(
        f"{kind} name must be a valid unicode string with length < {MAX_NAME_LENGTH} "
        f"containing only ASCII alphanumerics, hyphens, underscores, or periods, not {name!r}"
    )


@dataclass(frozen=True, slots=True)
class Position:
    """Where a group's history stands: ``offset`` counts its events from 1, ``epoch`` names the history."""

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """What a layer holds now, and its totals since it was opened."""

    instances: int
    channels: int
    groups: int
    memberships: int
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
    says so in its place. Iterating after the layer has closed raises :class:`LayerClosed`.
    """

    def __init__(self, mailbox: Mailbox, layer: str, groups: tuple[str, ...]) -> None:
        self._mailbox, self._layer, self.groups = mailbox, layer, groups

    def __repr__(self) -> str:
        return f"<Subscription to {', '.join(self.groups)}: {self._mailbox!r}>"

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        await checkpoint()  # events that wait already must not let a reader run on for ever
        item = await self._mailbox.get()
        if item is None:
            raise LayerClosed(self._layer)
        return dict(item.open())

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


class ChannelLayer(ABC):
    """What every layer offers. ``capacity`` counts messages, ``expiry`` and ``group_expiry`` are seconds.

    ``channel_capacity`` maps channel patterns (``fnmatch``, or compiled regular expressions) to capacities.
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
    ) -> None:
        self.capacity = int(_positive("capacity", capacity))
        self.expiry = _positive("expiry", expiry)
        self.group_expiry = _positive("group_expiry", group_expiry)
        self.channel_capacity = [
            (pattern, int(_positive(f"channel_capacity[{pattern!r}]", limit)))
            for pattern, limit in (channel_capacity or {}).items()
        ]
        self.serializer: Serializer = serializer or MsgpackSerializer()
        self.ledger = Ledger()
        self._instances = 0
        self._idle: anyio.Event | None = None
        self._opened = False

    def __repr__(self) -> str:
        state = f"open, {self._instances} instances" if self._opened else "closed"
        return f"<{type(self).__name__} {state}>"

    # ---- lifetime

    @property
    def opened(self) -> bool:
        """True inside the layer's block."""
        return self._opened

    async def __aenter__(self) -> Self:
        if self._opened:
            raise InvalidChannelLayerError(f"{self!r} is open already: a layer is opened once, by one owner")
        self.ledger = Ledger()
        await self.open()
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
            await self.close()

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
    async def send(self, channel: str, message: Message) -> None:
        """Send to one channel. Raises ``ChannelFull``, ``UnserializableMessage``, ``InvalidName``, ``BadEvent``.

        Cancelled, it has sent nothing.
        """

    @abstractmethod
    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel that no instance owns. Cancelled, it has taken nothing."""

    @abstractmethod
    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a new channel name of this process, to ``receive`` from."""

    @abstractmethod
    async def group_add(self, group: str, channel: str) -> None:
        """Put a channel into a group; in force when this returns. Adding twice is adding once."""

    @abstractmethod
    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group, if it is in it."""

    @abstractmethod
    async def group_send(self, group: str, message: Message) -> Position | None:
        """Send to every member of a group. Full members drop it by their policy; nothing is raised for them.

        Returns the event's position where the group has history. Cancelled, it has sent nothing.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Forget all groups, and all messages but those that instances and subscriptions hold already."""

    # ---- instances

    @abstractmethod
    def attach(self, mailbox: Mailbox, prefix: str = "specific") -> str:
        """Give a mailbox a channel of its own and return its name. At once; the owner must ``detach``."""

    @abstractmethod
    def detach(self, channel: str) -> None:
        """Forget a mailbox, its channel and its memberships, at once and without waiting."""

    @abstractmethod
    def groups_of(self, channel: str) -> tuple[str, ...]:
        """Return the groups that a channel of this process is in."""

    @abstractmethod
    def statistics(self) -> LayerStatistics:
        """Return what the layer holds and has counted."""

    def subscribe(self, *groups: str, inbox: Inbox = DEFAULT_INBOX) -> AbstractAsyncContextManager[Subscription]:
        """Receive the events of some groups inside a block::

            async with layer.subscribe("chat.lobby", "prices") as events:
                async for event in events: ...

        Inside the block the memberships are in force; leaving it ends them. ``inbox`` bounds what waits; its policy
        cannot be ``"disconnect"``, for there is no socket to close.
        """
        if any(policy == "disconnect" for _, policy in inbox.rules):
            raise InvalidChannelLayerError(
                "subscribe(inbox=…): a subscription has no socket to disconnect; "
                "choose drop_newest, drop_oldest or latest, and look for 'layer.dropped' events"
            )
        return self._subscribed(groups, inbox)

    @asynccontextmanager
    async def _subscribed(self, groups: tuple[str, ...], inbox: Inbox) -> AsyncIterator[Subscription]:
        self.require_open()
        for group in groups:
            require_group_name(group)
        mailbox = Mailbox(inbox, capacity=self.capacity)
        mailbox.finish()  # it has no client side
        channel = self.attach(mailbox, "subscription")
        try:
            for group in groups:
                await self.group_add(group, channel)
            yield Subscription(mailbox, type(self).__name__, groups)
        finally:
            self.detach(channel)

    # ---- for the layers themselves

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``: the first pattern that fits, else ``capacity``."""
        for pattern, limit in self.channel_capacity:
            fits = pattern.match(channel) if isinstance(pattern, re.Pattern) else fnmatchcase(channel, pattern)
            if fits:
                return limit
        return self.capacity

    def seal(self, message: Message, group: str | None = None) -> Envelope:
        """Encode a message; raises what :meth:`send` promises for a bad one."""
        payload = self.serializer.encode(message)
        kind = message.get("type", "")
        if not isinstance(kind, str):
            raise BadEvent(f"a message's 'type' must be a str, not {kind!r}")
        if kind.startswith("layer.") or kind in _RESERVED:
            raise BadEvent(f"{kind!r}: types that begin with 'layer.' come from the layer itself; choose another name")
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
