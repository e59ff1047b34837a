"""Work queues inside one process: what they promise is in ``queues``, to the end of the process.

A named channel becomes a queue here with its first worker, or its first delayed message. While no worker has had it,
its messages expire and are received as those of any channel; from its first worker on, they are jobs, which don't.
"""

import logging
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import ChannelFull, LayerClosed
from ..inbox import Envelope, Ledger
from .postponed import Postponed
from .queues import DeadLetter, Job, QueueStatistics
from .serializers import Message, Serializer

log = logging.getLogger("trichannels.layers")

DEAD_LETTERS, DEAD_BYTES = 1000, 16 * 1024 * 1024  # kept of each queue; beyond, the oldest are forgotten


class Limits(Protocol):
    """What is asked of the layer."""

    expiry: float
    serializer: Serializer

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``."""


class Board(Protocol):
    """What is asked of the switchboard: the account of all that waits in channels, and where it finds queues."""

    buffer_bytes: int
    buffered_bytes: int
    buffered_messages: int
    ledger: Ledger

    def adopt(self, channel: str, queue: "MemoryQueue") -> list[Envelope]:
        """Hand a named channel over to its queue, with the messages that wait there."""

    def abandon(self, channel: str) -> None:
        """Take the channel back: its queue is empty."""


class Record:
    """One job, wherever in its queue it is."""

    __slots__ = ("deliveries", "enqueued_at", "envelope", "id", "until")

    def __init__(self, envelope: Envelope) -> None:
        self.id = secrets.token_hex(8)
        self.envelope, self.until = envelope, envelope.until
        self.deliveries, self.enqueued_at = 0, time.time()

    def as_job(self, channel: str, decode: Callable[[bytes], Message]) -> Job:
        """Return the job as it is now."""
        return Job(
            channel=channel,
            id=self.id,
            payload=self.envelope.payload,
            deliveries=self.deliveries,
            enqueued_at=self.enqueued_at,
            receipt=self.id,
            decode=decode,
        )


class MemoryQueue:
    """The jobs of one channel. Nothing here waits but ``take`` and ``arrived``."""

    def __init__(self, channel: str, limits: Limits, board: Board, postponed: Postponed) -> None:
        self.channel, self._limits, self._board, self._postponed = channel, limits, board, postponed
        self.worked = False  # there has been a worker: messages are jobs
        self.closed = False
        self._readers = 0
        self._arrival = anyio.Event()
        self._running: dict[str, Record] = {}
        self._delayed: dict[str, Record] = {}
        self._dead: OrderedDict[str, tuple[DeadLetter, Record]] = OrderedDict()
        self._dead_bytes = 0
        self._waiting = deque(Record(envelope) for envelope in board.adopt(channel, self))

    def __repr__(self) -> str:
        return f"<MemoryQueue {self.channel!r}: {self.depth()}>"

    def depth(self) -> QueueStatistics:
        """Return what the queue holds."""
        return QueueStatistics(
            waiting=len(self._waiting), running=len(self._running), delayed=len(self._delayed), dead=len(self._dead)
        )

    def job_of(self, record: Record) -> Job:
        """Return what a worker is given."""
        return record.as_job(self.channel, self._limits.serializer.decode)

    # ---- in

    def put(self, envelope: Envelope, delay: float = 0) -> None:
        """Take a message; raises :class:`ChannelFull`. What is being worked on counts, and so does what is delayed."""
        self._expire()
        capacity = self._limits.get_capacity(self.channel)
        held = len(self._waiting) + len(self._running) + len(self._delayed)
        if held >= capacity or self._board.buffered_bytes + envelope.size > self._board.buffer_bytes:
            raise ChannelFull(self.channel, capacity)
        self._count(envelope, 1)
        self._board.ledger.delivered += 1
        envelope.until = anyio.current_time() + delay + self._limits.expiry
        self.wait(Record(envelope), delay)

    def wait(self, record: Record, delay: float = 0) -> None:
        """Let a job of the queue wait for a worker, ``delay`` seconds from now."""
        if delay > 0:
            self._delayed[record.id] = record
            self._postponed.call_at(anyio.current_time() + delay, partial(self._ripen, record))
        else:
            self._waiting.append(record)
            self._ring()

    def _ripen(self, record: Record) -> None:
        if self._delayed.get(record.id) is record:  # else the queue was flushed
            del self._delayed[record.id]
            self.wait(record)

    def _ring(self) -> None:
        self._arrival.set()
        self._arrival = anyio.Event()

    # ---- out

    def claim(self, most: int) -> list[Record]:
        """Return jobs to work on, at most so many."""
        claimed = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        for record in claimed:
            record.deliveries += 1
            self._running[record.id] = record
        return claimed

    async def arrived(self) -> None:
        """Wait until there may be something; raises :class:`LayerClosed`."""
        if not self.closed:
            await self._arrival.wait()
        if self.closed:
            raise LayerClosed(type(self._limits).__name__)

    async def take(self) -> Message:
        """Wait for the next message, for somebody who is no worker. A cancelled wait has taken nothing."""
        self._readers += 1
        try:
            while True:
                self._expire()
                if self._waiting:
                    record = self._waiting.popleft()
                    self._count(record.envelope, -1)
                    return record.envelope.open()
                await self.arrived()
        finally:
            self._readers -= 1
            self.abandon_if_empty()

    def let_go(self, record: Record) -> bool:
        """Forget a job that was worked on; False if it is not the queue's any more."""
        if not self.hand_over(record):
            return False
        self._count(record.envelope, -1)
        return True

    def is_running(self, record: Record | None) -> bool:
        """Say whether a job is being worked on, and has not been forgotten meanwhile."""
        return record is not None and self._running.get(record.id) is record

    def hand_over(self, record: Record) -> bool:
        """Return whether a job is being worked on; if so, the caller says where it belongs from now on."""
        running = self.is_running(record)
        if running:
            del self._running[record.id]
        return running

    def put_back(self, record: Record) -> None:
        """Give back a job that was not carried out, to be the next one."""
        if self.hand_over(record):
            record.deliveries -= 1
            self._waiting.appendleft(record)
            self._ring()

    # ---- dead letters

    def bury(self, record: Record, error: str) -> None:
        """Keep a job, which was handed over, with the reason why it is not tried again."""
        self._count(record.envelope, -1)
        letter = DeadLetter(id=record.id, job=self.job_of(record), error=error, buried_at=time.time())
        self._dead[letter.id] = letter, record
        self._dead_bytes += record.envelope.size
        while len(self._dead) > DEAD_LETTERS or self._dead_bytes > DEAD_BYTES:
            forgotten = next(iter(self._dead))
            self.exhume(forgotten)
            log.error("queue %r has too many dead letters: %s is forgotten", self.channel, forgotten)

    def exhume(self, letter: str) -> Record | None:
        """Forget a dead letter, and return its job."""
        found = self._dead.pop(letter, None)
        if found is None:
            return None
        self._dead_bytes -= found[1].envelope.size
        return found[1]

    def revive(self, record: Record) -> None:
        """Let a job that was dead wait for a worker, as if new."""
        record.deliveries = 0
        self._count(record.envelope, 1)
        self.wait(record)

    @property
    def letters(self) -> list[DeadLetter]:
        """The dead letters, the oldest first."""
        return [letter for letter, _ in self._dead.values()]

    # ---- bounds, and the end

    def _count(self, envelope: Envelope, sign: int) -> None:
        self._board.buffered_messages += sign
        self._board.buffered_bytes += sign * envelope.size

    def _expire(self) -> None:
        """Forget what is too old, as any channel does; jobs don't grow old."""
        now = anyio.current_time()
        while not self.worked and self._waiting and self._waiting[0].until <= now:
            self._count(self._waiting.popleft().envelope, -1)
            self._board.ledger.expired += 1

    def abandon_if_empty(self) -> None:
        """Be an ordinary channel again, if nobody would notice."""
        busy = self._readers or self._waiting or self._running or self._delayed or self._dead
        if not self.worked and not busy:
            self._board.abandon(self.channel)

    def flush(self) -> None:
        """Forget all jobs, those that are being worked on included."""
        for records in (self._waiting, self._running.values(), self._delayed.values()):
            for record in records:
                self._count(record.envelope, -1)
        self._waiting.clear()
        self._running.clear()
        self._delayed.clear()
        self._dead.clear()
        self._dead_bytes = 0
        self.abandon_if_empty()

    def close(self) -> None:
        """Wake whoever waits: the layer has closed."""
        self.closed = True
        self._arrival.set()


class MemoryJobQueue:
    """One worker's view of a queue. Each call acts after its last checkpoint: cancelled, it has done nothing."""

    claim = inf

    def __init__(self, queue: MemoryQueue) -> None:
        self.channel, self._queue = queue.channel, queue
        self._mine: dict[str, Record] = {}
        self._left = False

    def __repr__(self) -> str:
        return f"<MemoryJobQueue with {len(self._mine)} jobs of {self._queue!r}>"

    async def fetch(self, most: int) -> list[Job]:
        await checkpoint()
        if self._left:
            raise LayerClosed("this queue")
        while not (claimed := self._queue.claim(most)):
            await self._queue.arrived()
        self._mine.update((record.id, record) for record in claimed)
        return [self._queue.job_of(record) for record in claimed]

    async def done(self, job: Job) -> None:
        await self._settle(job, self._queue.let_go)

    async def retry(self, job: Job, delay: float, error: str) -> None:
        def retry(record: Record) -> None:
            if self._queue.hand_over(record):
                self._queue.wait(record, delay)

        await self._settle(job, retry)

    async def give_back(self, job: Job) -> None:
        await self._settle(job, self._queue.put_back)

    async def bury(self, job: Job, error: str) -> None:
        def bury(record: Record) -> None:
            if self._queue.hand_over(record):
                self._queue.bury(record, error)

        await self._settle(job, bury)

    async def _settle(self, job: Job, settle: Callable[[Record], object]) -> None:
        await checkpoint()
        record = self._mine.pop(job.id, None)
        if record is not None:
            settle(record)

    async def renew(self, jobs: Iterable[Job]) -> list[Job]:
        await checkpoint()
        return [job for job in jobs if not self._queue.is_running(self._mine.get(job.id))]

    async def dead(self, most: int, after: str = "") -> list[DeadLetter]:
        await checkpoint()
        letters = self._queue.letters
        known = [letter.id for letter in letters]
        start = known.index(after) + 1 if after in known else 0
        return letters[start : start + most]

    async def requeue(self, ids: Iterable[str] | None = None) -> int:
        records = await self._exhumed(ids)
        for record in records:
            self._queue.revive(record)
        return len(records)

    async def discard(self, ids: Iterable[str] | None = None) -> int:
        return len(await self._exhumed(ids))

    async def _exhumed(self, ids: Iterable[str] | None) -> list[Record]:
        await checkpoint()
        wanted = [letter.id for letter in self._queue.letters] if ids is None else ids
        return [record for record in map(self._queue.exhume, wanted) if record is not None]

    async def depth(self) -> QueueStatistics:
        await checkpoint()
        return self._queue.depth()

    def leave(self) -> None:
        """Give back whatever was not settled, and take no more."""
        self._left = True
        for record in reversed(self._mine.values()):
            self._queue.put_back(record)
        self._mine.clear()


@asynccontextmanager
async def open_memory_queue(queue: MemoryQueue) -> AsyncIterator[MemoryJobQueue]:
    """Work on a queue for this block; what is fetched and not settled when it ends goes back."""
    queue.worked = True
    view = MemoryJobQueue(queue)
    try:
        yield view
    finally:
        view.leave()
