"""The histories of groups in Redis: one script appends and publishes, one reads. Each is one round trip in one slot."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ...exceptions import LayerRefused, LayerUnreachable, UnreadableMessage
from ...inbox import Envelope
from ..history import History, Position
from ..recovery import Missed
from .names import Native
from .scripts import Script
from .server import Command, RedisServer

APPEND, READ = Script.from_file("history_append"), Script.from_file("history_read")

PAGE = 250  # events that one reading brings
MOST_BYTES = 16 * 1024 * 1024  # of one recovery; who has missed more reads the state afresh
READS_AT_ONCE = 16  # of one server
DAY = 86_400  # seconds; a history's number and name are kept for at least so long


class RedisHistory:
    """The histories of the groups of one server. ``read`` makes an event of what is kept; it may raise.

    Only so many are read at once (see ``turn``): after an outage all may want to, and each answer is much work.
    """

    def __init__(
        self, server: RedisServer, names: Native, read: Callable[[str, bytes, Position], Envelope], timeout: float
    ) -> None:
        self.server, self._names, self._read, self._timeout = server, names, read, timeout
        self._free = anyio.Semaphore(READS_AT_ONCE)
        self._reads = 0  # that are over

    def __repr__(self) -> str:
        return f"<RedisHistory at {self.server.label}>"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold one of the places of those who may read, for the block.

        Raises :class:`LayerUnreachable` if for ``timeout`` seconds none of those before has come to an end.
        """
        await self._come_in()
        try:
            yield
        finally:
            self._reads += 1
            self._free.release()

    async def _come_in(self) -> None:
        while True:
            reads = self._reads
            with anyio.move_on_after(self._timeout):
                return await self._free.acquire()
            if self._reads == reads:
                problem = f"no history could be read within {self._timeout:g} s"
                raise LayerUnreachable(self.server.label, problem)

    async def append(self, group: str, sealed: bytes, history: History, key: str | None) -> Position:
        """Give an event its position and publish it; of several with one key, only the first."""
        arguments = append_arguments(sealed, history, self._names.events(group), self.server.publish_command, key)
        answer = await self.server.run(APPEND, append_keys(self._names, group, key), arguments)
        return position_of(answer)

    async def append_many(self, events: Sequence[tuple[str, bytes, History]]) -> list[Position]:
        """The same for ``(group, sealed event, history)`` triples, in order and in one round trip.

        Raises the first error among the answers; the others may have been appended.
        """
        groups: set[str] = set()
        commands: list[tuple[str, Command]] = []
        for group, sealed, history in events:
            keys = append_keys(self._names, group, None)
            arguments = append_arguments(sealed, history, self._names.events(group), self.server.publish_command, None)
            # The text makes the script known to the server of the group, should it have forgotten it.
            call = ("EVALSHA", APPEND.sha1) if group in groups else ("EVAL", APPEND.text)
            groups.add(group)
            commands.append((keys[0], (*call, len(keys), *keys, *arguments)))
        positions = []
        for event, answer in zip(events, await self.server.pipeline(commands), strict=True):
            if isinstance(answer, LayerRefused) and answer.code == "NOSCRIPT":  # forgotten in between
                positions.append(await self.append(*event, None))
            elif isinstance(answer, Exception):
                raise answer
            else:
                positions.append(position_of(answer))
        return positions

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
