"""A layer with a switchboard: the half of it that is this process's own, whatever carries events between processes."""

from collections.abc import Mapping
from threading import get_ident
from typing import Any

from anyio.lowlevel import checkpoint

from ..exceptions import InvalidChannelLayerError, LayerClosed
from ..inbox import Mailbox
from .base import ChannelLayer, LayerStatistics
from .presence import PresenceBoard
from .switchboard import Switchboard


class BoardedLayer(ChannelLayer):
    """What the memory and the Redis layer have in common: instances, channels and memberships of one event loop."""

    buffer_bytes: int
    _board: Switchboard | None = None
    _presence: PresenceBoard | None = None
    _thread = 0

    def set_up_board(self) -> Switchboard:
        """Begin with an empty switchboard, of the running loop; on opening."""
        self._thread = get_ident()
        self._board = Switchboard(self, self.ledger, buffer_bytes=self.buffer_bytes)
        return self._board

    def take_down_board(self) -> None:
        """Forget all, and wake whoever waits; on closing."""
        board, self._board = self._board, None
        if board is not None:
            board.close()

    @property
    def board(self) -> Switchboard:
        """The switchboard of the open layer."""
        if self._board is None:
            raise LayerClosed(type(self).__name__)
        if get_ident() != self._thread:  # asgiref's async_to_sync runs a loop of its own in the calling thread
            raise InvalidChannelLayerError(
                f"{type(self).__name__} was used from a thread that does not run its event loop: "
                "from a blocking handler, call it by trichannels.bridge.async_to_sync"
            )
        return self._board

    def attach(self, mailbox: Mailbox, prefix: str = "specific") -> str:
        return self.board.attach(mailbox, prefix)

    def detach(self, channel: str) -> None:
        if self._board is not None:  # a layer that closed before its last instance has forgotten it already
            self._board.detach(channel)
        if self._presence is not None:
            self._presence.leave_all(channel)

    @property
    def presence_board(self) -> PresenceBoard | None:
        return self._presence

    def need_presence(self) -> PresenceBoard:
        self.board  # noqa: B018 - which says who asks from a wrong thread
        return super().need_presence()

    async def enter_presence(self, group: str, channel: str, key: str, meta: Any = None) -> None:
        if self.board.is_gone(channel):  # an instance that has ended is nowhere
            await checkpoint()
            self.ledger.undeliverable += 1
        else:
            await super().enter_presence(group, channel, key, meta)

    def groups_of(self, channel: str) -> tuple[str, ...]:
        return tuple(sorted(self._board.memberships.get(channel, ()))) if self._board else ()

    def members(self) -> Mapping[str, int]:
        return {group: len(members) for group, members in self._board.groups.items()} if self._board else {}

    def statistics(self) -> LayerStatistics:
        board, ledger = self._board, self.ledger
        waiting = [mailbox.waiting for mailbox in list(board.mailboxes.values())] if board else []
        return LayerStatistics(
            instances=self._instances,
            channels=len(board.mailboxes) + len(board.buffers) + len(board.queues) if board else 0,
            groups=len(board.groups) if board else 0,
            memberships=sum(map(len, list(board.memberships.values()))) if board else 0,
            presences=self._presence.presences if self._presence is not None else 0,
            waiting_messages=sum(messages for messages, _ in waiting) + (board.buffered_messages if board else 0),
            waiting_bytes=sum(size for _, size in waiting) + (board.buffered_bytes if board else 0),
            delivered=ledger.delivered,
            dropped=ledger.dropped,
            dropped_bytes=ledger.dropped_bytes,
            conflated=ledger.conflated,
            expired=ledger.expired,
            undeliverable=ledger.undeliverable,
        )
