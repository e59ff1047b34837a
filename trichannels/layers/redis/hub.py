"""The open half of a Redis layer: its servers, its groups' feeds, and the line in which all that came is delivered."""

import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from functools import partial
from math import inf
from typing import Any, TypeAlias

import anyio

from ...exceptions import ChannelFull, TrichannelsError, UnreadableMessage
from ...inbox import Envelope, Place
from ...seam import loop_clock
from ..base import is_reserved
from ..history import History, Position
from ..serializers import Encrypted, Message, Serializer
from ..switchboard import Newcomer, Switchboard
from .feed import GAP, Delivery, Gap, GroupFeed, Unreadable
from .history import RedisHistory
from .names import (
    ANSWER,
    JOIN,
    LEAVE,
    MANY,
    MESSAGE,
    NUMBERED,
    PRESENCE,
    Letter,
    Native,
    PubSubCompatible,
    read_letter,
    read_many,
    shard_of,
)
from .post import PostOffice
from .server import RedisServer

log = logging.getLogger("trichannels.layers.redis")

CHECK_EVERY = 40.0  # seconds, after which each history is compared with what came: the tail has nothing behind it
CHECKS_AT_ONCE = 16
COMPLAIN_EVERY = 60.0  # seconds between two reports of messages that cannot be read

Post: TypeAlias = tuple[str, Envelope]  # a channel, and what is for it


class Hub:
    """Everything that an open Redis layer has beside its switchboard. ``start_soon`` starts a task of the layer."""

    def __init__(
        self,
        board: Switchboard,
        wire: Native | PubSubCompatible,
        serializer: Serializer,
        start_soon: Callable[..., bool],
        *,
        expiry: float,
        history_of: Callable[[str], History | None],
        read_diff: Callable[[str, bytes], Message],
        timeout: float,
        on_lost: Callable[[], object],
        on_restored: Callable[[], object],
    ) -> None:
        self.board, self.wire, self.start_soon = board, wire, start_soon
        self._serializer = serializer
        inner = serializer.inner if isinstance(serializer, Encrypted) else serializer
        self._decrypt = serializer.decrypt if isinstance(serializer, Encrypted) else None
        self._encode, self._decode = inner.encode, inner.decode
        self._expiry, self._history_of, self._read_diff = expiry, history_of, read_diff
        self._on_lost, self._on_restored, self._timeout = on_lost, on_restored, timeout
        self.servers: list[RedisServer] = []
        self._records: list[RedisHistory] = []
        self.feeds: dict[str, GroupFeed] = {}
        self._feeds_by_channel: dict[str, GroupFeed] = {}
        self.post = PostOffice(board.token, wire, self.server_of, timeout) if isinstance(wire, Native) else None
        self._line: deque[tuple[GroupFeed | None, Delivery | Post]] = deque()
        self._delivering = anyio.Lock()
        self._now = loop_clock()
        self._complained = -inf
        self._numbers = itertools.count(1)
        board.emptied = self.release

    def __repr__(self) -> str:
        return f"<Hub of {len(self.feeds)} groups on {', '.join(server.label for server in self.servers)}>"

    def add(self, server: RedisServer) -> None:
        """Take a server into use, in the order of the option ``hosts``."""
        self.servers.append(server)
        if isinstance(self.wire, Native):
            self._records.append(RedisHistory(server, self.wire, self.opened, self._timeout))

    def server_of(self, name: str) -> RedisServer:
        """Return the server that a group, a queue or a process is on."""
        return self.servers[shard_of(name, len(self.servers))]

    def records_of(self, group: str) -> RedisHistory:
        """Return the histories of the server that a group is on."""
        return self._records[shard_of(group, len(self.servers))]

    def name_to_hash(self, group: str) -> str:
        """Return by what channels_redis finds a group's server; we go by the group itself."""
        return group if isinstance(self.wire, Native) else self.wire.events(group)

    def framing(self, server: RedisServer) -> Callable[[bytes], bytes]:
        """Return what makes a frame of a sealed event without a position, for that server."""
        return self._numbered if server.publish_command == "SPUBLISH" else self.wire.event

    def _numbered(self, sealed: bytes) -> bytes:
        if not isinstance(self.wire, Native):
            return self.wire.event(sealed)
        return self.wire.numbered(self.board.token, next(self._numbers), sealed)

    # ---- groups

    def feed(self, group: str) -> GroupFeed:
        """Return the feed of a group, and begin it if need be. It stays while it has joiners or members."""
        feed = self.feeds.get(group)
        if feed is None or feed.failed:
            if feed is not None:
                self._forget(feed)
            history = self._history_of(group)
            records = self.records_of(group) if history is not None else None
            channel = self.wire.events(group)
            feed = GroupFeed(group, channel, self.server_of(self.name_to_hash(group)), self, history, records)
            self.feeds[group] = self._feeds_by_channel[channel] = feed
            self.start_soon(feed.begin)
        return feed

    def release(self, group: str) -> None:
        """Let the feed of a group go if nobody needs it any more; at once, the wire follows."""
        feed = self.feeds.get(group)
        if feed is not None and not feed.joiners and group not in self.board.groups:
            self._forget(feed)

    def _forget(self, feed: GroupFeed) -> None:
        feed.over = True
        if self.feeds.get(feed.group) is feed:
            del self.feeds[feed.group], self._feeds_by_channel[feed.channel]
        feed.server.unsubscribe([feed.channel])

    def abandoned(self, feed: GroupFeed) -> None:
        """A feed has begun that nobody wants any more: end its subscription, unless the group has another one."""
        if feed.channel not in self._feeds_by_channel:
            feed.server.unsubscribe([feed.channel])

    # ---- what the servers tell

    def message(self, channel: str, payload: bytes) -> None:
        """Take what was published: into the line of deliveries, which is worked off when the reading pauses."""
        feed = self._feeds_by_channel.get(channel)
        try:
            if feed is not None:
                self._to_group(feed, payload)
            elif self.post is not None and channel == self.post.inbox:
                self._letter(read_letter(payload))
            elif self.post is None and self.wire.group_of(channel) is None:
                self._line.append((None, (channel, self.opened(None, payload, None))))
        except UnreadableMessage as error:
            self._complain(channel, error)
            if feed is not None:
                feed.put(GAP)

    def _to_group(self, feed: GroupFeed, payload: bytes) -> None:
        event = self.wire.read_event(payload)
        if event.kind == MANY:
            for sealed in read_many(event.body):
                try:
                    feed.put(self.opened(feed.group, sealed, None))
                except UnreadableMessage as error:
                    self._complain(feed.channel, error)
                    feed.put(GAP)
            return
        if event.kind == NUMBERED and feed.is_stale(event.sender, event.number):
            feed.put(GAP)  # perhaps it was not here yet
            return
        if event.kind == PRESENCE:
            envelope = self._sealed_here(feed.group, self._read_diff(feed.group, event.body))
        else:
            try:
                envelope = self.opened(feed.group, event.body, event.position)
            except UnreadableMessage as error:
                if event.position is None:
                    raise
                self._complain(feed.channel, error)
                envelope = Unreadable(feed.group, event.position)
        if feed.arrive(envelope):
            self.start_soon(feed.heal)

    def _sealed_here(self, group: str, message: Message) -> Envelope:
        until = self._now() + self._expiry
        return Envelope(self._encode(message), self._decode, kind=message["type"], group=group, until=until)

    def opened(self, group: str | None, sealed: bytes, position: Position | None) -> Envelope:
        """Make an event of what was published or kept: decrypted once, looked at once. Raises UnreadableMessage."""
        plain = self._decrypt(sealed) if self._decrypt is not None else sealed
        until = inf if position is not None else self._now() + self._expiry
        envelope = Envelope(plain, self._decode, group=group, until=until, position=position)
        kind = envelope.peek().get("type", "")
        if not isinstance(kind, str) or is_reserved(kind):
            raise UnreadableMessage(f"its type is {kind!r}, which is not an application's to send")
        envelope.type = kind
        return envelope

    def _complain(self, channel: str, error: UnreadableMessage) -> None:
        self.board.ledger.undeliverable += 1
        if self._now() >= self._complained + COMPLAIN_EVERY:
            self._complained = self._now()
            log.error("a message that came on %s was thrown away (more may follow, untold): %s", channel, error)

    def _letter(self, letter: Letter) -> None:
        if letter.kind == MESSAGE:
            self._line.append((None, (letter.channel, self.opened(None, letter.body, None))))
        elif letter.kind in (JOIN, LEAVE):
            self.start_soon(self._obey, letter)
        elif letter.kind == ANSWER and self.post is not None:
            self.post.answered(letter)

    async def _obey(self, letter: Letter) -> None:
        assert self.post is not None
        failure: TrichannelsError | None = None
        try:
            if letter.kind == JOIN:
                await self.join_here(letter.group, letter.channel)
            else:
                self.board.leave(letter.group, letter.channel)
        except TrichannelsError as error:
            failure = error
        await self.post.answer(letter, failure)

    async def join_here(self, group: str, channel: str) -> None:
        """Put a channel of this process into a group; in force when this returns."""
        async with self.joining(group):
            if channel not in self.board.groups.get(group, ()):
                self.board.join(group, channel)

    def joining(self, group: str) -> "Joining":
        """Hold a group's feed, in force, for the block; it stays if there is a member at its end."""
        return Joining(self, group)

    async def settle(self) -> None:
        """After each part that was read: deliver it. The reader waits for that, and so does the server behind it."""
        await self.drain()

    def lost(self, channels: Collection[str]) -> None:
        """Subscriptions are not in force. Groups without history are told now, and again when they are back."""
        self._on_lost()
        for feed in self._concerned(channels):
            if feed.tracker is None:
                feed.put(GAP)
        self.start_soon(self.drain)

    def restored(self, channels: Collection[str]) -> None:
        """They are in force again: what came in between is read from the history, or told to be missing."""
        self._on_restored()
        for feed in self._concerned(channels):
            if feed.doubt():
                self.start_soon(feed.heal)
        self.start_soon(self.drain)

    def _concerned(self, channels: Collection[str]) -> list[GroupFeed]:
        found = (self._feeds_by_channel.get(channel) for channel in channels)
        return [feed for feed in found if feed is not None and not feed.failed]

    # ---- the line of deliveries

    def enqueue(self, feed: GroupFeed, delivery: Delivery) -> None:
        """Put something for a group at the end of the line; ``drain`` follows."""
        self._line.append((feed, delivery))

    async def drain(self) -> None:
        """Deliver what is in the line; returns when all of it has been, whoever did it."""
        if not self._line and not self._delivering.locked():
            return
        async with self._delivering:
            while self._line:
                feed, delivery = self._line.popleft()
                try:
                    await self._deliver(feed, delivery)
                except Exception:
                    log.exception("delivering %r failed", delivery)
                finally:
                    if feed is not None:
                        feed.undelivered -= 1

    async def _deliver(self, feed: GroupFeed | None, delivery: "Delivery | Post") -> None:
        if isinstance(delivery, tuple):
            self._post(*delivery)
        elif feed is None or feed.over:
            return
        elif isinstance(delivery, Gap | Unreadable):
            self._tell_of_gap(feed.group, delivery.position)
        else:
            await self.board.fan_out(feed.group, delivery)

    def _post(self, channel: str, envelope: Envelope) -> None:
        try:
            self.board.post(channel, envelope)
        except ChannelFull:
            if channel not in self.board.mailboxes:  # a mailbox has counted it
                self.board.ledger.dropped += 1
                self.board.ledger.dropped_bytes += envelope.size

    def _tell_of_gap(self, group: str, position: Place | None) -> None:
        for channel, member in tuple(self.board.groups.get(group, {}).items()):
            mailbox = self.board.mailboxes.get(channel)
            if mailbox is not None and not (isinstance(member, Newcomer) and member.has(position)):
                mailbox.resync(group, position)

    # ---- the tail of histories

    async def check_histories(self) -> None:
        """Compare each history with what came, every now and then. A task of the layer runs it for ever."""
        checking: set[Hashable] = set()  # each node by itself: one that is away holds up no other
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(CHECK_EVERY)
                by_node: dict[Hashable, list[GroupFeed]] = {}
                for feed in self.feeds.values():
                    if feed.tracker is not None:
                        by_node.setdefault(feed.node, []).append(feed)
                for node in by_node.keys() - checking:
                    checking.add(node)
                    group.start_soon(_then, partial(self._check, by_node[node]), partial(checking.discard, node))

    async def _check(self, feeds: Sequence[GroupFeed]) -> None:
        limiter = anyio.Semaphore(CHECKS_AT_ONCE)
        async with anyio.create_task_group() as group:
            for feed in feeds:
                await limiter.acquire()
                if not feed.over and feed.doubt():
                    group.start_soon(_then, feed.heal, limiter.release)
                else:
                    limiter.release()


async def _then(work: Callable[[], Awaitable[object]], after: Callable[[], object]) -> None:
    try:
        await work()
    finally:
        after()


class Joining:
    """A block in which a group's feed is held, in force."""

    __slots__ = ("_feed", "_group", "_hub")

    def __init__(self, hub: Hub, group: str) -> None:
        self._hub, self._group = hub, group
        self._feed: GroupFeed | None = None

    async def __aenter__(self) -> GroupFeed:
        feed = self._feed = self._hub.feed(self._group)
        feed.joiners += 1
        try:
            await feed.confirmed()
        except BaseException:
            await self.__aexit__()
            raise
        return feed

    async def __aexit__(self, *raised: Any) -> None:
        assert self._feed is not None
        self._feed.joiners -= 1
        self._hub.release(self._group)
