"""The reference layer: everything inside one process and one event loop. It has the semantics, and no wire."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..inbox import Envelope
from ..seam import breathe
from .base import require_channel_name, require_delay, require_group_name, require_queue_name
from .boarded import BoardedLayer
from .group_log import GroupLog, GroupLogs
from .history import History, Position, Recovery
from .memory_presence import MemoryPresence
from .memory_queue import MemoryQueue, open_memory_queue
from .postponed import Postponed
from .queues import JobQueue
from .recovery import is_whole
from .serializers import Message, Serializer
from .switchboard import LOOSE, Switchboard

SENDS, SERVED = 16, 2048  # sends to groups, and deliveries, after which others get a turn


class InMemoryChannelLayer(BoardedLayer):
    """A layer for one process: development, tests, and deployments that need no second one.

    Options as Channels': ``capacity`` messages a channel, ``channel_capacity`` by pattern, ``expiry`` and
    ``group_expiry`` in seconds. ``buffer_bytes`` bounds what waits in all channels that no instance owns.
    ``history={"chat.*": History(size=1000, seconds=3600)}`` keeps the last events of such groups, for recovery.
    Messages are encoded when they are sent, so that what passes here passes on Redis.
    """

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
        buffer_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__(
            capacity=capacity,
            channel_capacity=channel_capacity,
            expiry=expiry,
            group_expiry=group_expiry,
            serializer=serializer,
            history=history,
            presence_linger=presence_linger,
            presence_lease=presence_lease,
        )
        self.buffer_bytes = buffer_bytes
        self._logs = GroupLogs()
        self._postponed = Postponed(self)
        self._people: MemoryPresence | None = None
        self._sends = 0  # to groups, since others had a turn

    async def open(self) -> None:
        self._logs = GroupLogs()
        self._postponed = Postponed(self)
        self.set_up_board()
        self._people = self._presence = MemoryPresence(
            linger=self.presence_linger, serializer=self.serializer, tell=self._tell, start_soon=self.start_soon
        )

    async def close(self) -> None:
        self._postponed.forget()
        self._presence, people = None, self._people
        if people is not None:
            people.close()
        self.take_down_board()

    # Each of these acts after its last checkpoint: cancelled, also by asyncio's own cancel(), it has done nothing.

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        await checkpoint()
        board, envelope = self.board, self.seal(message)
        require_channel_name(channel)
        if not delay:
            board.post(channel, envelope)
        elif "!" in channel:
            self._postponed.send(board.post_late, channel, envelope, require_delay(delay))
        else:
            self._queue(board, channel).put(envelope, require_delay(delay))

    async def receive(self, channel: str) -> Message:
        await checkpoint()
        return await self.board.take(require_channel_name(channel))

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[JobQueue]:
        return open_memory_queue(self._queue(self.board, require_queue_name(channel)))

    def _queue(self, board: Switchboard, channel: str) -> MemoryQueue:
        """Return the queue that a named channel is from now on."""
        queue = board.queues.get(channel)
        return queue if isinstance(queue, MemoryQueue) else MemoryQueue(channel, self, board, self._postponed)

    async def new_channel(self, prefix: str = "specific") -> str:
        return require_channel_name(self.board.name(prefix, LOOSE))

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        await checkpoint()
        board = self.board
        require_group_name(group)
        require_channel_name(channel)
        history = self.history_of(group)
        if since is not None:
            self.require_newcomer(board, group, channel)
        if history is None:
            board.join(group, channel)
            return Recovery(group, None, since is None)
        return self._join_with_history(board, group, channel, since, history)

    def _join_with_history(
        self, board: Switchboard, group: str, channel: str, since: Position | None, history: History
    ) -> Recovery:
        now = anyio.current_time()
        log = self._logs.of(group, history, now)
        known = board.follows(group, channel)
        missed = log.after(since, now) if since is not None else None
        recovered = missed is None or since is None or is_whole(since, missed)
        if not known:
            board.join(group, channel, log.position if log.sent != log.offset else None)
        events = missed.events if missed is not None and recovered else ()
        mailbox = board.mailboxes.get(channel)
        if mailbox is not None and not known:
            mailbox.enter(group, events)
        return Recovery(group, log.position, recovered, len(events))

    async def group_discard(self, group: str, channel: str) -> None:
        await checkpoint()
        self.board.leave(require_group_name(group), require_channel_name(channel))

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        await self._turn()
        board, envelope = self.board, self.seal(message, require_group_name(group))
        history = self.history_of(group) if self.histories else None
        if history is None:
            self.require_no_key(group, idempotency_key)
            await board.fan_out(group, envelope)
            return None
        return await self._send_with_history(board, group, envelope, history, idempotency_key)

    async def _send_with_history(
        self, board: Switchboard, group: str, envelope: Envelope, history: History, key: str | None
    ) -> Position:
        now = anyio.current_time()
        log = self._logs.of(group, history, now)
        sent_before = log.known(key, now)
        if sent_before is not None:
            return sent_before
        position = log.append(envelope, key, now)
        await self._fan_out_in_turn(board, log, envelope, position.offset)
        return position

    async def _fan_out_in_turn(self, board: Switchboard, log: GroupLog, envelope: Envelope, offset: int) -> None:
        """Deliver after all that came before it in its group: a large group is served in parts."""
        while log.sent < offset - 1:
            await breathe()
        try:
            await board.fan_out(envelope.group or "", envelope)
        finally:
            log.sent = offset

    async def _tell(self, group: str, event: Message) -> None:
        """Send a diff of the presence, which has no place in the group's history."""
        if self._board is not None:
            await self._board.fan_out(group, self.seal(event, group))

    async def _turn(self) -> None:
        """See a cancellation, and let others run every now and then: what is sent within a turn may be joined."""
        self._sends += 1
        if self._sends < SENDS and self._board is not None and self._board.served < SERVED:
            await checkpoint_if_cancelled()
            return
        await checkpoint()
        self._sends = 0
        if self._board is not None:
            self._board.served = 0

    async def flush(self) -> None:
        await checkpoint()
        self._postponed.forget()
        self.board.flush()
        self._logs = GroupLogs()
        if self._people is not None:
            self._people.flush()
