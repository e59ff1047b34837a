"""Commands on their way: they wait to be written, then for their answers. Bounded in number and bytes. No I/O."""

import secrets
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import anyio
import hiredis

from ...exceptions import OutcomeUnknown, TrichannelsError
from ...seam import Wake, open_wake

CHUNK = 256 * 1024  # bytes that are written at once


RUN_MARK = secrets.token_hex(20).encode()  # as long as a run id, so that it can be put in its place in what is packed


class Stage(Enum):
    """How far a command has come."""

    QUEUED = "not written yet: it may be withdrawn, or go to another connection"
    WRITTEN = "it may have been carried out"
    OVER = "answered, broken, or withdrawn"


class Pending:
    """Commands that were handed over together, and what came back."""

    __slots__ = ("answers", "count", "data", "error", "marked", "stage", "until", "wake")

    def __init__(
        self, data: bytes, count: int, wake: Wake | None = None, until: bytes | None = None, marked: bool = False
    ) -> None:
        self.data, self.count, self.wake = data, count, wake
        self.marked = marked  # has RUN_MARK in it, for the run id of the server that it will be written to
        self.until = until  # ends with this very answer, however many errors come before it
        self.answers: list[Any] = []
        self.stage = Stage.QUEUED
        self.error: TrichannelsError | None = None

    def take(self, answer: Any) -> bool:
        """Take an answer; True if it was the last."""
        self.answers.append(answer)
        if self.until is not None:
            return bool(answer == self.until)
        return len(self.answers) == self.count

    def finish(self, error: TrichannelsError | None = None) -> None:
        """It is over; wake who waits."""
        self.stage, self.error = Stage.OVER, error
        if self.wake is not None:
            self.wake.ring()


class Outbox:
    """What has not been written yet. It outlives connections: what one could not write, the next one does."""

    def __init__(self, commands: int, size: int) -> None:
        self._most, self._most_bytes = commands, size
        self._queue: deque[Pending] = deque()
        self.wake = open_wake()
        self.under_way = self.bytes = 0  # handed over and not over yet
        self._room: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Outbox of {len(self._queue)} to be written, {self.under_way} under way>"

    @property
    def waiting(self) -> int:
        """How many are not written yet."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether who comes has to wait. One command always fits into an empty box."""
        return bool(self.under_way) and (self.under_way >= self._most or self.bytes >= self._most_bytes)

    async def room(self) -> None:
        """Wait until there is room."""
        while self.full:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    def put(self, pending: Pending) -> None:
        """Queue commands. The caller has seen to it that there is room, and calls ``done`` when they are over."""
        self._queue.append(pending)
        self.under_way += pending.count
        self.bytes += len(pending.data)
        self.wake.ring()

    def withdraw(self, pending: Pending) -> bool:
        """Take back what is not written yet; False if it is too late."""
        if pending.stage is not Stage.QUEUED:
            return False
        pending.stage = Stage.OVER  # it is passed over when its turn comes
        return True

    def done(self, pending: Pending) -> None:
        """Its caller has gone: there is room for others."""
        self.under_way -= pending.count
        self.bytes -= len(pending.data)
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def take(self) -> list[Pending]:
        """Return what is to be written next; from now on its outcome is open."""
        taken: list[Pending] = []
        size = 0
        while self._queue and size < CHUNK:
            pending = self._queue.popleft()
            if pending.stage is Stage.QUEUED:
                pending.stage = Stage.WRITTEN
                size += len(pending.data)
                taken.append(pending)
        return taken

    def drop(self) -> list[Pending]:
        """Take out all that waits; return what its callers have not withdrawn."""
        dropped = [pending for pending in self._queue if pending.stage is Stage.QUEUED]
        self._queue.clear()
        return dropped


class Due:
    """What was written to one connection and waits for its answers, in order."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[Pending] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, written: Sequence[Pending]) -> None:
        """These have been written, in this order."""
        self._queue.extend(written)

    def answer(self, answer: Any) -> bool:
        """Give an answer to whose turn it is; False if nobody has asked."""
        if not self._queue:
            return False
        if self._queue[0].take(answer):
            self._queue.popleft().finish()
        return True

    def fail(self, label: str, problem: str) -> None:
        """No more answers will come."""
        while self._queue:
            self._queue.popleft().finish(OutcomeUnknown(label, f"{problem}; whether it was carried out is unknown"))


def packed(*command: str | bytes | int | float) -> bytes:
    """Return a command as it is written."""
    data: bytes = hiredis.pack_command(command)  # type: ignore[arg-type, unused-ignore]
    return data
