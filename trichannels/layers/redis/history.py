"""The histories of groups in Redis: one script appends and publishes, one reads. Each is one round trip in one slot."""

import secrets
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from weakref import WeakKeyDictionary

from ...exceptions import LayerRefused, TrichannelsError, UnreadableMessage
from ...inbox import Envelope
from ..history import History, Position
from ..recovery import Missed
from .names import Native
from .scripts import Script
from .server import Command, RedisServer
from .turns import Turns

APPEND, READ = Script.from_file("history_append"), Script.from_file("history_read")

PAGE = 250  # events that one reading brings
MOST_BYTES = 16 * 1024 * 1024  # of one recovery; who has missed more reads the state afresh
READS_AT_ONCE = 16  # of one node
DAY = 86_400  # seconds; a history's number and name are kept for at least so long


class RedisHistory:
    """The histories of the groups of one server. ``read`` makes an event of what is kept; it may raise.

    Only so many are read at once (see ``turn``): after an outage all may want to, and each answer is much work.
    """

    def __init__(
        self, server: RedisServer, names: Native, read: Callable[[str, bytes, Position], Envelope], timeout: float
    ) -> None:
        self.server, self._names, self._read, self._timeout = server, names, read, timeout
        self._turns: WeakKeyDictionary[Hashable, Turns] = WeakKeyDictionary()  # by node

    def __repr__(self) -> str:
        return f"<RedisHistory at {self.server.label}>"

    def turn(self, group: str) -> AbstractAsyncContextManager[None]:
        """Hold one of the places of those who may read of the group's node, for the block; see :class:`Turns`."""
        node = self.server.node_of(self._names.events(group))
        turns = self._turns.get(node)
        if turns is None:
            turns = self._turns[node] = Turns(READS_AT_ONCE, self.server.label, self._timeout)
        return turns.turn()

    async def append(self, group: str, sealed: bytes, history: History, key: str | None) -> Position:
        """Give an event its position and publish it; of several with one key, only the first."""
        arguments = append_arguments(sealed, history, self._names.events(group), self.server.publish_command, key)
        answer = await self.server.run(APPEND, append_keys(self._names, group, key), arguments)
        return position_of(answer)

    async def append_many(
        self, events: Sequence[tuple[str, bytes, str | None]], history_of: Callable[[str], History | None]
    ) -> list[Position | TrichannelsError]:
        """The same for ``(group, sealed event, idempotency key)`` triples, in order and in one round trip.

        Returns the position of each, or what it failed with; raises as :meth:`RedisServer.pipeline` does.
        """
        histories: dict[str, History] = {}  # found once for each group
        commands: list[tuple[str, Command]] = []
        for group, sealed, key in events:
            keys = append_keys(self._names, group, key)
            # The text makes the script known to the server of the group, should it have forgotten it.
            call = ("EVALSHA", APPEND.sha1) if group in histories else ("EVAL", APPEND.text)
            history = histories.get(group) or history_of(group)
            assert history is not None
            histories[group] = history
            arguments = append_arguments(sealed, history, self._names.events(group), self.server.publish_command, key)
            commands.append((keys[0], (*call, len(keys), *keys, *arguments)))
        positions: list[Position | TrichannelsError] = []
        for event, answer in zip(events, await self.server.pipeline(commands), strict=True):
            if isinstance(answer, LayerRefused) and answer.code == "NOSCRIPT":  # forgotten in between
                positions.append(await self._append_late(event, histories[event[0]]))
            else:
                positions.append(answer if isinstance(answer, TrichannelsError) else position_of(answer))
        return positions

    async def _append_late(self, event: tuple[str, bytes, str | None], history: History) -> Position | TrichannelsError:
        group, sealed, key = event
        try:
            return await self.append(group, sealed, history, key)
        except TrichannelsError as error:
            return error

    async def after(self, group: str, history: History, since: Position | None) -> Missed[Envelope]:
        """Return what came after ``since``, a page at a time, and the top; without ``since`` the top alone.

        Not whole where that is more than a recovery may bring, or cannot be read. What is sent meanwhile comes on top.
        """
        events: list[Envelope] = []
        size, reached = 0, since
        while True:
            top, page = await self._page(group, history, reached, history.limit)
            if since is None or reached is None or top.epoch != reached.epoch:
                return Missed(top, whole=since is None)
            for position, sealed in page:
                size += len(sealed)
                try:
                    events.append(self._read(group, sealed, position))
                except UnreadableMessage:
                    return Missed(top, whole=False)
            if not page or page[-1][0].offset >= top.offset:
                return Missed(top, events)
            if size > MOST_BYTES or len(events) > 2 * history.limit:
                return Missed(top, whole=False)
            reached = page[-1][0]

    async def _page(
        self, group: str, history: History, since: Position | None, most: int
    ) -> tuple[Position, list[tuple[Position, bytes]]]:
        epoch, offset = (since.epoch, since.offset) if since is not None else ("", 0)
        arguments = [secrets.token_hex(8), _memory_of(history), epoch, offset, most, min(PAGE, max(most, 1))]
        answer = await self.server.run(READ, self._keys(group), arguments)
        top, flat = position_of(answer), answer[2]
        return top, [(Position(flat[at], top.epoch), flat[at + 1]) for at in range(0, len(flat), 2)]

    def _keys(self, group: str) -> list[str]:
        return [self._names.key(group, "meta"), self._names.key(group, "log")]


def _memory_of(history: History) -> int:
    return max(DAY, int(2 * history.seconds))


def position_of(answer: Any) -> Position:
    """Return the position with which both scripts begin their answers."""
    return Position(int(answer[0]), answer[1].decode())


def append_keys(names: Native, group: str, key: str | None) -> list[str]:
    """Return the keys of the script that appends."""
    meta, log = names.key(group, "meta"), names.key(group, "log")
    return [meta, log, meta if key is None else names.key(group, f"once:{key}")]


def append_arguments(sealed: bytes, history: History, channel: str, publish_command: str, key: str | None) -> list[Any]:
    """Return the arguments of the script that appends."""
    return [
        sealed, history.size, int(history.seconds * 1000) or 1, _memory_of(history), secrets.token_hex(8),
        channel, publish_command, "0" if key is None else "1",
    ]  # fmt: skip
