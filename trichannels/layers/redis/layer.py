"""The Redis layer: the switchboard of this process, and what carries events between it and those of others.

Consumers never touch the wire: one reader for each server puts what comes into one line of deliveries, from which it
goes to bounded inboxes. So whoever is cancelled, here or there, loses no reply and no message.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Literal

import anyio
from anyio.lowlevel import checkpoint

from ...exceptions import (
    InvalidChannelLayerError,
    LayerClosed,
)
from ...inbox import Envelope
from ..base import require_channel_name, require_delay, require_group_name, require_queue_name
from ..boarded import BoardedLayer
from ..history import History, Position, Recovery
from ..postponed import Postponed
from ..presence import require_seconds
from ..queues import JobQueue
from ..serializers import Message, Serializer
from ..switchboard import LOOSE
from .feed import Entrance, GroupFeed
from .hub import Hub
from .names import JOIN, LEAVE, Native, PubSubCompatible
from .options import Buffer, check_files, check_names, escaped, serializer_of, targets_of, wire_of
from .presence import RedisPresence
from .publishing import Publisher
from .queue import CLAIM
from .queues import RedisQueues
from .server import Bounds, Timeouts, open_server

log = logging.getLogger("trichannels.layers.redis")

OPTIONS = (
    "hosts", "url", "prefix", "expiry", "group_expiry", "capacity", "channel_capacity", "symmetric_encryption_keys",
    "serializer_format", "serializer", "history", "wire", "unreachable", "timeout", "timeouts", "bounds",
    "buffer_bytes", "presence_linger", "presence_lease", "queue_claim",
)  # fmt: skip


class RedisChannelLayer(BoardedLayer):
    """A layer for many processes, on Redis 7 or newer: standalone, behind Sentinel, or a Cluster.

    ``hosts``: a list as channels_redis takes it: URLs, ``(host, port)`` pairs or dicts; several share the groups among
    them. Or ``url``: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``.
    ``prefix``, ``expiry``, ``group_expiry``, ``capacity``, ``channel_capacity``, ``symmetric_encryption_keys`` and
    ``serializer_format`` mean what they mean in channels_redis; its ``on_disconnect``, ``on_reconnect`` and
    ``random_prefix_length`` are taken too, the last without effect.

    ``history``: group patterns to :class:`History`. ``unreachable``: ``"fail"``, or a :class:`Buffer` in which
    ``group_send`` keeps events while the server is away. ``timeout``: seconds within which an operation succeeds or
    raises :class:`LayerUnreachable`; ``timeouts`` says more exactly how long each connection waits, and ``bounds`` how
    much may be under way to a server before senders wait. ``queue_claim``: seconds after which a worker that does not
    renew its claims is taken for dead, and its jobs are handed out again. ``wire="channels_redis.pubsub"`` speaks with
    processes that still run ``channels_redis.pubsub`` 4.3: groups and direct sends, without history, presence and work
    queues.
    """

    def __init__(
        self,
        hosts: object = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        symmetric_encryption_keys: Iterable[str | bytes] | None = None,
        random_prefix_length: int = 12,
        serializer_format: str | Serializer = "msgpack",
        on_disconnect: Callable[[], object] | None = None,
        on_reconnect: Callable[[], object] | None = None,
        *,
        url: str | None = None,
        serializer: Serializer | None = None,
        history: Mapping[str, History] | None = None,
        wire: Literal["native", "channels_redis.pubsub"] = "native",
        unreachable: Literal["fail"] | Buffer = "fail",
        timeout: float = 5,
        timeouts: Timeouts | None = None,
        bounds: Bounds | None = None,
        presence_linger: float = 0,
        presence_lease: float = 30,
        queue_claim: float = CLAIM,
        buffer_bytes: int = 64 * 1024 * 1024,
        **unknown: Any,
    ) -> None:
        check_names(OPTIONS, unknown, type(self).__name__)
        super().__init__(
            capacity=capacity,
            channel_capacity=channel_capacity,
            expiry=expiry,
            group_expiry=group_expiry,
            serializer=serializer_of(serializer_format, symmetric_encryption_keys, serializer),
            history=history,
            presence_linger=presence_linger,
            presence_lease=presence_lease,
        )
        if unreachable != "fail" and not isinstance(unreachable, Buffer):
            raise InvalidChannelLayerError(f"unreachable must be 'fail' or a Buffer(…), not {unreachable!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
            raise InvalidChannelLayerError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        for option, whom in (("on_disconnect", on_disconnect), ("on_reconnect", on_reconnect)):
            if whom is not None and not callable(whom):
                raise InvalidChannelLayerError(
                    f"{option} must be a function without arguments, not {whom!r}; consumers are told of what they may "
                    "have missed by `async def layer_resync(self, event)`"
                )
        self.queue_claim = require_seconds("queue_claim", queue_claim, least=0.1)
        self.targets = targets_of(hosts, url)
        self.wire = wire_of(wire, prefix, history)
        self.timeouts = timeouts or Timeouts(connect=timeout, reply=timeout)
        self.bounds = bounds or Bounds()
        self.timeout, self.unreachable, self.buffer_bytes = timeout, unreachable, buffer_bytes
        self._on_disconnect, self._on_reconnect = on_disconnect, on_reconnect
        self._hub: Hub | None = None
        self._publisher: Publisher | None = None
        self._people: RedisPresence | None = None
        self._queues: RedisQueues | None = None
        self._postponed = Postponed(self)

    @classmethod
    def blocking(cls, **options: Any) -> Any:
        """Return a :class:`SyncChannelLayer` with those of the options that matter to it."""
        from .sync import NAMES, SyncChannelLayer

        cls(**options)  # or say what is wrong with them
        return SyncChannelLayer(**{name: value for name, value in options.items() if name in NAMES})

    # ---- lifetime

    async def open(self) -> None:
        """Connect; raises :class:`LayerUnreachable` if that does not succeed within ``timeout``."""
        board = self.set_up_board()
        hub = Hub(
            board, self.wire, self.serializer, self.start_soon, expiry=self.expiry, history_of=self.history_of,
            read_diff=self._read_diff, timeout=self.timeout,
            on_lost=lambda: self._tell(self._on_disconnect), on_restored=self._restored,
        )  # fmt: skip
        opening = Opening()
        try:
            check_files(self.targets)
            self.start_soon(self._hold, hub, opening)
            await opening.over.wait()
            if opening.failure is not None:
                raise opening.failure
            await self._listen(hub)
        except BaseException:
            self.take_down_board()
            raise
        self._hub = hub
        buffer = self.unreachable if isinstance(self.unreachable, Buffer) else None
        self._publisher = Publisher(
            hub, self.history_of, buffer, timeout=self.timeout, pause=self.timeouts.backoff_most
        )
        if self.histories:
            self.start_soon(hub.check_histories)
        self._postponed = Postponed(self)
        if isinstance(self.wire, Native):
            self._queues = RedisQueues(
                self, self.wire, hub.server_of, self.serializer.decode, board.token, claim=self.queue_claim
            )
            self._people = self._presence = RedisPresence(
                hub.server_of, self.wire, token=board.token, serializer=self.serializer, lease=self.presence_lease,
                linger=self.presence_linger, start_soon=self.start_soon, timeout=self.timeout,
            )  # fmt: skip

    async def _hold(self, hub: Hub, opening: "Opening") -> None:
        """Keep the connections for as long as the layer is open."""
        async with AsyncExitStack() as stack:
            try:
                for target in self.targets:
                    opened = open_server(target, hub, timeouts=self.timeouts, bounds=self.bounds)
                    hub.add(await stack.enter_async_context(opened))
            except Exception as error:  # noqa: BLE001 - raised by who opens the layer
                opening.failure = error
                return
            finally:
                opening.over.set()
            await anyio.sleep_forever()

    async def _listen(self, hub: Hub) -> None:
        """Hear what is sent to the channels of this process."""
        token = hub.board.token
        if hub.post is not None:
            await hub.server_of(token).subscribe([hub.post.inbox])
        elif isinstance(self.wire, PubSubCompatible):
            for server in hub.servers:
                await server.subscribe([], patterns=[self.wire.own_channels(token)])

    async def close(self) -> None:
        self._presence = None
        if self._queues is not None:
            self._queues.close()
        try:
            if self._publisher is not None:
                await self._publisher.close()
            if self._people is not None:
                await self._people.close()
        finally:
            self._hub = self._queues = self._publisher = None
            self.take_down_board()

    @property
    def hub(self) -> Hub:
        """What the open layer has; raises :class:`LayerClosed`."""
        board = self.board  # which also says who asks from a wrong thread
        if self._hub is None or self._hub.board is not board:
            raise LayerClosed(type(self).__name__)
        return self._hub

    @property
    def _publishing(self) -> Publisher:
        self.hub  # noqa: B018 - it must be open, and be used by its own thread
        assert self._publisher is not None
        return self._publisher

    def _restored(self) -> None:
        if self._people is not None:
            self._people.restored()
        self._tell(self._on_reconnect)

    def _tell(self, whom: Callable[[], object] | None) -> None:
        if whom is not None and self._hub is not None:  # on closing, connections are not lost
            try:
                whom()
            except Exception:
                log.exception("%r, which was to be told about the connection, failed", whom)

    # ---- messages

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        hub, envelope = self.hub, self.seal(message)
        require_channel_name(channel)
        if self._queues is not None and "!" not in channel:
            await self._queues.put(channel, envelope.payload, require_delay(delay))
        elif delay:
            await checkpoint()
            self.hub  # noqa: B018 - it may have closed
            self._postponed.send(self._post_late, channel, envelope, require_delay(delay))
        elif hub.board.owns(channel):
            await checkpoint()
            self.hub.board.post(channel, envelope)
        else:
            await self._post_away(hub, channel, envelope)

    async def _post_away(self, hub: Hub, channel: str, envelope: Envelope) -> None:
        """Send to a channel of another process."""
        if isinstance(self.wire, PubSubCompatible):
            await hub.server_of(channel).execute("PUBLISH", channel, envelope.payload)
        else:
            assert hub.post is not None
            if not await hub.post.send(channel, envelope.payload):
                self.ledger.undeliverable += 1

    def _post_late(self, channel: str, envelope: Envelope) -> None:
        """Send what was to be sent later: the time has come."""
        hub = self.hub
        if hub.board.owns(channel):
            hub.board.post_late(channel, envelope)
        else:
            self.start_soon(self._post_away, hub, channel, envelope)

    async def receive(self, channel: str) -> Message:
        await checkpoint()
        board = self.hub.board
        require_channel_name(channel)
        if self._queues is not None and "!" not in channel:
            return await self._queues.receive(channel)
        if isinstance(self.wire, PubSubCompatible) and not board.owns(channel):
            # It stays subscribed: whoever receives once will do so again.
            await self.hub.server_of(channel).subscribe([channel])
        return await self.board.take(channel)

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[JobQueue]:
        require_queue_name(channel)
        self.hub  # noqa: B018 - it must be open
        return super().open_queue(channel) if self._queues is None else self._queues.open(channel)

    async def new_channel(self, prefix: str = "specific") -> str:
        return require_channel_name(self.hub.board.name(prefix, LOOSE))

    # ---- groups

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        await checkpoint()
        hub = self.hub
        require_group_name(group)
        require_channel_name(channel)
        if not hub.board.owns(channel):
            return await self._join_elsewhere(hub, group, channel, since)
        if since is not None:
            self.require_newcomer(hub.board, group, channel)
        async with hub.joining(group) as feed:
            return self._enter(hub, feed, channel, await feed.entrance(since))

    def _enter(self, hub: Hub, feed: GroupFeed, channel: str, entrance: Entrance) -> Recovery:
        """Put a channel into a group where its history has brought it. All at once: nothing may come in between."""
        board = self.hub.board
        if not board.follows(feed.group, channel):
            ahead = feed.undelivered or entrance.position != feed.position  # of what has been delivered so far
            board.join(feed.group, channel, entrance.position if ahead else None)
            mailbox = board.mailboxes.get(channel)
            if mailbox is not None and feed.tracker is not None:
                mailbox.enter(feed.group, entrance.events)
        if entrance.outdated and feed.doubt():
            self.start_soon(feed.heal)
        return Recovery(feed.group, entrance.position, entrance.recovered, len(entrance.events))

    async def _join_elsewhere(self, hub: Hub, group: str, channel: str, since: Position | None) -> Recovery:
        if hub.post is None or "!" not in channel:
            raise InvalidChannelLayerError(
                f"group_add({group!r}, {channel!r}): only channels of consumers and subscriptions can be in a group"
                + (", and with wire='channels_redis.pubsub' only those of this process" if hub.post is None else "")
            )
        if since is not None:
            raise InvalidChannelLayerError(f"join({group!r}, since=…): {channel!r} is a channel of another process")
        if not await hub.post.ask(JOIN, group, channel):
            self.ledger.undeliverable += 1
        return Recovery(group, None, True)

    async def group_discard(self, group: str, channel: str) -> None:
        await checkpoint()
        hub = self.hub
        require_group_name(group)
        require_channel_name(channel)
        if hub.board.owns(channel):
            hub.board.leave(group, channel)
        elif hub.post is not None and "!" in channel:
            await hub.post.ask(LEAVE, group, channel)

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        publisher = self._publishing
        require_group_name(group)
        payload = self.encoded(message)
        if not self.histories or self.history_of(group) is None:
            self.require_no_key(group, idempotency_key)
        return await publisher.send(group, payload, idempotency_key)

    async def group_send_many(self, events: Sequence[tuple[str, Message]]) -> list[Position | None]:
        publisher = self._publishing
        for group in {group for group, _ in events}:
            require_group_name(group)
        encoded = self.encoded
        return await publisher.send_many([(group, encoded(message), None) for group, message in events])

    async def flush(self) -> None:
        hub = self.hub
        for server in hub.servers:
            await server.delete_matching(f"{escaped(self.wire.prefix)}:*")
        hub = self.hub
        if self._people is not None:
            self._people.flush()
        groups = list(hub.board.groups)
        hub.board.flush()
        for group in groups:
            hub.release(group)

    def _read_diff(self, group: str, body: bytes) -> Message:
        assert self._people is not None  # a group is subscribed to when the layer is open
        return self._people.decode_diff(group, body)


RedisPubSubChannelLayer = RedisChannelLayer
"""The name that channels_redis gives to its layer on pub/sub: settings survive the rename of the package."""


class Opening:
    """What came of connecting: a task does it, another waits for it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.failure: Exception | None = None
