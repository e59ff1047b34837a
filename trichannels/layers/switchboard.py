"""Who in this process is in which group, and what waits for whom. No waiting but for a message; no wire.

Two kinds of channels: *attached* ones belong to an instance or a subscription and deliver into its mailbox; all
others are *loose*: a bounded buffer that comes with the first message and goes when it is empty or expired.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import anyio

from ..exceptions import ChannelFull, LayerClosed
from ..inbox import Envelope, Ledger, Mailbox, Place
from ..seam import breathe
from .history import Position
from .serializers import Message

# The first letter after the "!" says what a channel of this process is: an instance's, or one from new_channel().
CHUNK = 512  # members of a group that are served before others get a turn
ATTACHED, LOOSE = "i", "n"


class Deliverable(Protocol):
    """Whatever can be a member of a group."""

    def deliver(self, envelope: Envelope) -> bool:
        """Take an event without waiting; False if it was not queued."""


class Buffer:
    """The messages of one loose channel, in order, each with the time at which it expires."""

    __slots__ = ("arrival", "items", "readers")

    def __init__(self) -> None:
        self.items: deque[tuple[float, Envelope]] = deque()
        self.arrival = anyio.Event()
        self.readers = 0


class LooseMember:
    """A loose channel's membership of a group, which ends by itself after ``group_expiry``."""

    __slots__ = ("board", "channel", "until")

    def __init__(self, board: "Switchboard", channel: str, until: float) -> None:
        self.board, self.channel, self.until = board, channel, until

    def deliver(self, envelope: Envelope) -> bool:
        """Queue into the channel's buffer; a full one drops the event, counted."""
        if anyio.current_time() >= self.until:
            self.board.leave(envelope.group or "", self.channel)
            return False
        try:
            self.board.queue(self.channel, envelope)
        except ChannelFull:
            self.board.ledger.dropped += 1
            self.board.ledger.dropped_bytes += envelope.size
            return False
        return True


class Newcomer:
    """A member that has all events of a group's history up to ``after`` already: those that come again are skipped."""

    __slots__ = ("after", "member")

    def __init__(self, member: Deliverable, after: Position) -> None:
        self.member, self.after = member, after

    def has(self, position: Place | None) -> bool:
        """Say whether the member came in behind that place."""
        return position is not None and position.epoch == self.after.epoch and position.offset <= self.after.offset

    def deliver(self, envelope: Envelope) -> bool:
        """Pass on what is newer."""
        return not self.has(envelope.position) and self.member.deliver(envelope)


class Queue(Protocol):
    """A work queue, which has taken a named channel over (``memory_queue``)."""

    def put(self, envelope: Envelope) -> None:
        """Take a message; raises :class:`ChannelFull`."""

    async def take(self) -> Message:
        """Wait for the next message. A cancelled wait has taken nothing."""

    def flush(self) -> None:
        """Forget all messages."""

    def close(self) -> None:
        """Wake whoever waits."""


class Limits(Protocol):
    """What the switchboard asks of its layer."""

    expiry: float
    group_expiry: float

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``."""


class Switchboard:
    """The local half of a layer. ``limits`` is the layer itself; every method but ``take`` is done at once."""

    def __init__(self, limits: Limits, ledger: Ledger, *, buffer_bytes: int) -> None:
        self.limits, self.ledger, self.buffer_bytes = limits, ledger, buffer_bytes
        self.token = secrets.token_hex(6)
        self.mailboxes: dict[str, Mailbox] = {}
        self.memberships: dict[str, set[str]] = {}
        self.groups: dict[str, dict[str, Deliverable]] = {}
        self.loose: OrderedDict[tuple[str, str], LooseMember] = OrderedDict()  # by group and channel, oldest first
        self.buffers: OrderedDict[str, Buffer] = OrderedDict()
        self.queues: dict[str, Queue] = {}
        self.buffered_messages = self.buffered_bytes = 0
        self.served = 0  # members to whom something was delivered, since whoever counts this has looked
        self.closed = False
        self.emptied: Callable[[str], object] | None = None  # told of each group whose last member has left

    # ---- channels

    def name(self, prefix: str, kind: str) -> str:
        """Return a new, unguessable channel name of this process."""
        return f"{prefix}.{self.token}!{kind}{secrets.token_hex(8)}"

    def attach(self, mailbox: Mailbox, prefix: str) -> str:
        """Give the mailbox a channel and return its name."""
        channel = self.name(prefix, ATTACHED)
        mailbox.ledger = self.ledger
        self.mailboxes[channel] = mailbox
        return channel

    def detach(self, channel: str) -> None:
        """Forget a mailbox and its memberships."""
        if self.mailboxes.pop(channel, None) is not None:
            for group in list(self.memberships.get(channel, ())):
                self.leave(group, channel)

    def owns(self, channel: str) -> bool:
        """Say whether a channel with a ``!`` in its name is one of this process."""
        return f".{self.token}!" in channel

    def is_gone(self, channel: str) -> bool:
        """True for the channel of an instance that has ended."""
        return f".{self.token}!{ATTACHED}" in channel and channel not in self.mailboxes

    # ---- groups

    def join(self, group: str, channel: str, after: Position | None = None) -> None:
        """Put a channel into a group. An instance that has ended joins nothing. What stands up to ``after`` in the
        group's history is kept from it, should it still come.
        """
        if self.is_gone(channel):
            self.ledger.undeliverable += 1
            return
        member: Deliverable | None = self.mailboxes.get(channel)
        if member is None:
            member = self._loose_member(group, channel)
        if after is not None:
            member = Newcomer(member, after)
        self.groups.setdefault(group, {})[channel] = member
        self.memberships.setdefault(channel, set()).add(group)

    def _loose_member(self, group: str, channel: str) -> LooseMember:
        """Return a new membership, and forget the expired ones: perhaps nobody ever sends to their groups."""
        now = anyio.current_time()
        for place, oldest in list(islice(self.loose.items(), 8)):
            if oldest.until <= now:
                self.leave(*place)
        member = self.loose[group, channel] = LooseMember(self, channel, now + self.limits.group_expiry)
        self.loose.move_to_end((group, channel))
        return member

    def follows(self, group: str, channel: str) -> bool:
        """Say whether a channel is in a group, and gets all that is sent to it: it has not lapsed."""
        mailbox = self.mailboxes.get(channel)
        return channel in self.groups.get(group, ()) and not (mailbox is not None and mailbox.has_lapsed(group))

    def leave(self, group: str, channel: str) -> None:
        """Take a channel out of a group, and forget the group with its last member."""
        self.loose.pop((group, channel), None)
        members = self.groups.get(group)
        if members is None or members.pop(channel, None) is None:
            return
        if not members:
            del self.groups[group]
            if self.emptied is not None:
                self.emptied(group)
        joined = self.memberships[channel]
        joined.discard(group)
        if not joined:
            del self.memberships[channel]

    async def fan_out(self, group: str, envelope: Envelope) -> None:
        """Deliver to every member, with a breath for others after each ``CHUNK``; it cannot be cancelled half way."""
        members = self.groups.get(group, {})
        self.served += len(members)
        # A copy: an overrun member leaves while we go through them, and in a pause anybody may.
        for count, (channel, member) in enumerate(tuple(members.items()), 1):
            if members.get(channel) is member:
                member.deliver(envelope)
            if not count % CHUNK:
                await breathe()

    # ---- direct sends

    def post(self, channel: str, envelope: Envelope) -> None:
        """Deliver to one channel; raises :class:`ChannelFull`."""
        mailbox = self.mailboxes.get(channel)
        if mailbox is not None:
            if not mailbox.deliver(envelope):
                raise ChannelFull(channel, mailbox.messages)
        elif self.is_gone(channel):
            self.ledger.undeliverable += 1
        else:
            self.queue(channel, envelope)

    def post_late(self, channel: str, envelope: Envelope) -> None:
        """Deliver what was sent with a delay. There is no sender any more who could be told: a drop is counted."""
        try:
            self.post(channel, envelope)
        except ChannelFull:
            if channel not in self.mailboxes:  # a mailbox has counted it, and tells its reader
                self.ledger.dropped += 1
                self.ledger.dropped_bytes += envelope.size

    def queue(self, channel: str, envelope: Envelope) -> None:
        """Keep a message for a loose channel; raises :class:`ChannelFull`."""
        if channel in self.queues:
            self.queues[channel].put(envelope)
            return
        now = anyio.current_time()
        self._sweep(now)
        buffer = self.buffers.get(channel)
        capacity = self.limits.get_capacity(channel)
        full = buffer is not None and len(buffer.items) >= capacity
        if full or self.buffered_bytes + envelope.size > self.buffer_bytes:
            raise ChannelFull(channel, capacity)
        if buffer is None:
            buffer = self.buffers[channel] = Buffer()
        self.buffers.move_to_end(channel)
        buffer.items.append((now + self.limits.expiry, envelope))
        self._count(envelope, 1)
        self.ledger.delivered += 1
        buffer.arrival.set()
        buffer.arrival = anyio.Event()

    async def take(self, channel: str) -> Message:
        """Wait for the next message of a loose channel. A cancelled wait has taken nothing."""
        if channel in self.queues:
            return await self.queues[channel].take()
        buffer = self.buffers.setdefault(channel, Buffer())
        buffer.readers += 1
        try:
            while True:
                self._expire(buffer, anyio.current_time())
                if buffer.items:
                    envelope = buffer.items.popleft()[1]
                    self._count(envelope, -1)
                    return envelope.open()
                await buffer.arrival.wait()
                if self.closed:
                    raise LayerClosed(type(self.limits).__name__)
                if channel in self.queues:
                    return await self.queues[channel].take()
        finally:
            buffer.readers -= 1
            self._forget_if_empty(channel, buffer)

    def _count(self, envelope: Envelope, sign: int) -> None:
        self.buffered_messages += sign
        self.buffered_bytes += sign * envelope.size

    def _expire(self, buffer: Buffer, now: float) -> None:
        while buffer.items and buffer.items[0][0] <= now:
            self._count(buffer.items.popleft()[1], -1)
            self.ledger.expired += 1

    def _forget_if_empty(self, channel: str, buffer: Buffer) -> None:
        if not buffer.items and not buffer.readers and self.buffers.get(channel) is buffer:
            del self.buffers[channel]

    def _sweep(self, now: float) -> None:
        """Forget the channels whose newest message has expired; they stand at the front, oldest first."""
        for channel, buffer in list(islice(self.buffers.items(), 8)):
            self._expire(buffer, now)
            self._forget_if_empty(channel, buffer)
            if buffer.readers:
                self.buffers.move_to_end(channel)

    # ---- work queues

    def adopt(self, channel: str, queue: Queue) -> list[Envelope]:
        """Hand a named channel over to its queue, and return the messages that wait there; they stay counted."""
        self.queues[channel] = queue
        buffer = self.buffers.pop(channel, None)
        if buffer is None:
            return []
        self._expire(buffer, anyio.current_time())
        buffer.arrival.set()
        envelopes = [envelope for _, envelope in buffer.items]
        buffer.items.clear()
        return envelopes

    def abandon(self, channel: str) -> None:
        """Take a channel back: its queue is empty."""
        del self.queues[channel]

    # ---- the end

    def flush(self) -> None:
        """Forget the loose channels' messages, and groups; mailboxes stay attached and keep what they hold."""
        for queue in list(self.queues.values()):
            queue.flush()
        self.groups.clear()
        self.memberships.clear()
        self.loose.clear()
        for channel, buffer in list(self.buffers.items()):
            buffer.items.clear()
            self._forget_if_empty(channel, buffer)
        self.buffered_messages = self.buffered_bytes = 0

    def close(self) -> None:
        """Forget everything and wake whoever waits."""
        self.closed = True
        self.flush()
        for mailbox in self.mailboxes.values():
            mailbox.close_layer_side()
        self.mailboxes.clear()
        for buffer in self.buffers.values():
            buffer.arrival.set()
        for queue in self.queues.values():
            queue.close()
