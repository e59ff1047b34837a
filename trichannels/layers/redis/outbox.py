"""Commands on their way: they wait to be written, then for their answers. Bounded in number and bytes. No I/O."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import hiredis

from ...exceptions import OutcomeUnknown, TrichannelsError
from ...seam import Wake, open_wake

CHUNK = 256 * 1024  # bytes that are written at once


class OutOfStep(Exception):
    """The server has sent what cannot be: nothing that follows on this connection can be trusted."""


class Stage(Enum):
    """How far a command has come."""

    QUEUED = "not written yet: it may be withdrawn, or go to another connection"
    WRITTEN = "it may have been carried out"
    OVER = "answered, broken, or withdrawn"


class Pending:
    """Commands that were handed over together, and what came back.

    They take up room in their outbox until they are over, even if nobody waits for them any more: what was written
    is answered all the same.
    """

    __slots__ = ("answers", "box", "count", "data", "error", "stage", "wake")

    def __init__(self, data: bytes, count: int, wake: Wake | None = None) -> None:
        self.data, self.count, self.wake = data, count, wake
        self.box: Outbox | None = None
        self.answers: list[Any] = []
        self.stage = Stage.QUEUED
        self.error: TrichannelsError | None = None

    def take(self, answer: Any) -> bool:
        """Take an answer; True if it was the last. Raises :class:`OutOfStep` for one that cannot be."""
        self.answers.append(answer)
        return len(self.answers) == self.count

    def finish(self, error: TrichannelsError | None = None) -> None:
        """It is over; wake who waits."""
        self.stage, self.error = Stage.OVER, error
        if self.box is not None:
            self.box.left(self)
        if self.wake is not None:
            self.wake.ring()


class Outbox:
    """What has not been written yet. It outlives connections: what one could not write, the next one does."""

    def __init__(self, commands: int, size: int) -> None:
        self._most, self._most_bytes = commands, size
        self._queue: OrderedDict[Pending, None] = OrderedDict()  # what is withdrawn goes at once, out of the middle
        self.wake = open_wake()
        self.under_way = self.bytes = 0  # handed over and not over yet
        self._line: deque[Wake] = deque()

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

    @property
    def crowded(self) -> bool:
        """Whether who comes has to wait, if only because others came before."""
        return bool(self._line) or self.full

    async def room(self) -> None:
        """Wait until there is room, in the order of coming. Who then awaits anything before ``put`` loses it."""
        wake = open_wake()
        self._line.append(wake)
        try:
            while self.full or self._line[0] is not wake:
                await wake.sleep()
        finally:
            self._line.remove(wake)
            self._call()

    def _call(self) -> None:
        if self._line and not self.full:
            self._line[0].ring()

    def put(self, pending: Pending) -> None:
        """Queue commands. The caller has seen to it that there is room."""
        pending.box = self
        self._queue[pending] = None
        self.under_way += pending.count
        self.bytes += len(pending.data)
        self.wake.ring()

    def withdraw(self, pending: Pending) -> bool:
        """Take back what is not written yet; False if it is too late."""
        if pending.stage is not Stage.QUEUED:
            return False
        pending.stage = Stage.OVER
        if self._queue.pop(pending, self) is None:
            self.left(pending)
        return True

    def left(self, pending: Pending) -> None:
        """It is over: there is room for others. ``Pending.finish`` calls it."""
        self.under_way -= pending.count
        self.bytes -= len(pending.data)
        pending.box = None
        self._call()

    def take(self) -> list[Pending]:
        """Return what is to be written next; from now on its outcome is open."""
        taken: list[Pending] = []
        size = 0
        while self._queue and size < CHUNK:
            pending, _ = self._queue.popitem(last=False)
            pending.stage = Stage.WRITTEN
            size += len(pending.data)
            taken.append(pending)
        return taken

    def drop(self) -> list[Pending]:
        """Take out all that waits; the caller finishes them."""
        dropped = list(self._queue)
        self._queue.clear()
        return dropped


class Due(deque[Pending]):
    """What was written to one connection and waits for its answers, in order."""

    def answer(self, answer: Any) -> None:
        """Give an answer to whose turn it is. Raises :class:`OutOfStep` if nobody has asked."""
        if not self:
            raise OutOfStep("an answer that nobody had asked for")
        first = self[0]
        if type(first) is not Pending:
            over = first.take(answer)
        else:  # a call less, for each answer
            first.answers.append(answer)
            over = len(first.answers) == first.count
        if over:
            self.popleft().finish()

    def fail(self, label: str, problem: str) -> None:
        """No more answers will come."""
        while self:
            self.popleft().finish(OutcomeUnknown(label, f"{problem}; whether it was carried out is unknown"))


def packed(*command: str | bytes | int | float) -> bytes:
    """Return a command as it is written."""
    data: bytes = hiredis.pack_command(command)  # type: ignore[arg-type, unused-ignore]
    return data


def packed_all(commands: Sequence[Sequence[str | bytes | int | float]]) -> bytes:
    """Return commands as they are written, one behind the other."""
    pack = hiredis.pack_command
    return b"".join([pack(tuple(command)) for command in commands])  # type: ignore[arg-type, unused-ignore]


def packed_head(*words: str) -> bytes:
    """Return the beginning of a command that has one more argument, which follows as a RESP bulk string."""
    return packed(*words, "").replace(b"$0\r\n\r\n", b"")
