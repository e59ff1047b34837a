"""Work queues on Redis: a stream with a consumer group for each, a sorted set for what is delayed, one of the dead.

What a queue promises is in ``layers.queues``; each step is one script (``lua/queue_*.lua``), so that a job is in one
place at any moment. At least once holds within what Redis' own persistence keeps. Nothing is taken out of the wire by a
read that blocks: such a read only tells that something has come (``queue_bell``), and scripts hand it out.

How a dead worker is told from a slow one: a worker renews its claims; what was not renewed for ``claim`` seconds is
handed out again. How often a job was delivered is counted by the stream, over its retries by the job's field ``n``.
"""

import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf

import anyio
from anyio import CancelScope

from ...backoff import Backoff
from ...exceptions import LayerClosed, LayerRefused, LayerUnreachable
from ...nursery import collapsed
from ..queues import DeadLetter, Job, QueueStatistics
from ..serializers import Message
from .names import Native
from .queue_bell import Bell
from .refusals import passing
from .scripts import Script
from .server import RedisServer

log = logging.getLogger("trichannels.layers.redis")

PUT, FETCH, DONE, AGAIN, RELEASE, BURY, RENEW, DEAD, DEPTH = (
    Script.from_file(f"queue_{name}")
    for name in ("put", "fetch", "done", "again", "release", "bury", "renew", "dead", "depth")
)

CLAIM = 30.0  # seconds without renewal after which a worker is taken for dead
POLL = 1.0  # seconds; how late a retry, a reclaim or a short delay may be noticed, where nothing else wakes the worker
DEAD_LETTERS = 10_000  # kept of each queue; beyond, the oldest are forgotten
BACKOFF = (0.1, 5.0)  # seconds between attempts while the server is away: at most, first and last
RELEASE_TIME = 2.0  # seconds in which a worker that ends gives back what it has, whatever is cancelled around it
BATCH = 100  # dead letters that one script moves

_ENTRY = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a queue's keys are called. They share a hash tag, and so a cluster's node."""

    jobs: str
    delayed: str
    dead: str

    @classmethod
    def of(cls, names: Native, channel: str) -> "Keys":
        return cls(names.key(channel, "jobs"), names.key(channel, "delayed"), names.key(channel, "dead"))


def put_keys(names: Native, channel: str) -> list[str]:
    """Return the keys of the script ``PUT``, for whoever runs it."""
    keys = Keys.of(names, channel)
    return [keys.jobs, keys.delayed]


def put_arguments(
    payload: bytes, delay: float, capacity: int | None, job: str | None = None
) -> list[str | int | bytes]:
    """Return the arguments of ``PUT``: a new job, or one that has an id. It returns 0 if the queue is full."""
    return [job or secrets.token_hex(8), "" if capacity is None else capacity, _milliseconds(delay), payload]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


class RedisQueue:
    """One worker's view of one queue; see :class:`~trichannels.layers.queues.JobQueue`.

    ``consumer`` names the worker; no two that live may share one. Several tasks may use one view.
    """

    def __init__(
        self,
        server: RedisServer,
        names: Native,
        channel: str,
        *,
        decode: Callable[[bytes], Message],
        consumer: str | None = None,
        claim: float = CLAIM,
        poll: float = POLL,
        dead_letters: int = DEAD_LETTERS,
    ) -> None:
        self.channel, self.claim, self.poll = channel, claim, poll
        self.consumer = consumer or secrets.token_hex(6)
        self.keys = Keys.of(names, channel)
        self.bell = Bell(server, self.keys.jobs)
        self._server, self._decode, self._dead_letters = server, decode, dead_letters
        self._held: dict[str, Job] = {}  # by entry
        self._turn = anyio.Lock()  # one script at a time: what another has just been handed would look lost
        self._doubtful = True  # there may be jobs in our name that we don't know of
        self._cursor = "0-0"
        self._away = False
        self._closed = ""

    def __repr__(self) -> str:
        return f"<RedisQueue {self.channel!r} at {self._server.label}, {len(self._held)} jobs in hand>"

    # ---- fetching

    async def fetch(self, most: int) -> list[Job]:
        """Wait for jobs; see :meth:`JobQueue.fetch`."""
        backoff = Backoff(*BACKOFF)
        while True:
            if self._closed:
                raise LayerClosed(self._closed)
            try:
                async with self._turn:
                    jobs, newest, seconds = await self._claim_jobs(most)
            except (LayerUnreachable, LayerRefused) as error:
                if isinstance(error, LayerRefused) and not passing(error):
                    raise
                self._tell_away(error)
                await anyio.sleep(backoff.next())
                continue
            self._tell_back()
            backoff.reset()
            if jobs:  # without an await in between: they are claimed
                return jobs
            await self.bell.wait(newest, min(seconds, self.poll))

    async def _claim_jobs(self, most: int) -> tuple[list[Job], str, float]:
        """Return jobs; and if there are none, the newest entry that anybody got, and how long to wait for another."""
        own = self._doubtful
        self._doubtful = True  # until the answer is here
        answer = await self._server.run(
            FETCH,
            [self.keys.jobs, self.keys.delayed],
            [self.consumer, most, _milliseconds(self.claim), self._cursor, int(own), *(self._held if own else ())],
        )
        self._doubtful = False
        entries, cursor, wait, newest = answer
        self._cursor = cursor.decode()
        # What is here already can be handed out once more: our loop stood still, and did not renew its claim.
        new = [entry for entry in entries if entry[0].decode() not in self._held]
        jobs = [self._job(entry, deliveries, fields) for entry, deliveries, fields in new]
        self._held.update((job.receipt, job) for job in jobs)
        return jobs, newest.decode(), inf if wait < 0 else wait / 1000

    def _job(self, entry: bytes, deliveries: int, flat: Sequence[bytes]) -> Job:
        """Make a job of an entry; of one that is not ours, a job that cannot be read."""
        receipt = entry.decode()
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Job(
            channel=self.channel,
            id=fields.get(b"id", entry).decode(errors="replace"),
            payload=fields.get(b"p", b""),
            deliveries=deliveries + _number(fields, b"n", 0),
            enqueued_at=_number(fields, b"at", int(receipt.partition("-")[0])) / 1000,
            receipt=receipt,
            decode=self._decode,
        )

    def _tell_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning("no jobs of %r can be fetched for now: %s", self.channel, error)

    def _tell_back(self) -> None:
        if self._away:
            self._away = False
            log.info("jobs of %r are fetched again", self.channel)

    def close(self, what: str) -> None:
        """The layer has closed, or the queue's block has ended: whoever waits for jobs gets :class:`LayerClosed`."""
        self._closed = what
        self.bell.ring()

    # ---- settling

    async def done(self, job: Job) -> None:
        """The job is gone; see :meth:`JobQueue.done`."""
        await self._server.run(DONE, [self.keys.jobs], [job.receipt])
        self._held.pop(job.receipt, None)

    async def retry(self, job: Job, delay: float, error: str) -> None:
        """Hand it out again later; see :meth:`JobQueue.retry`."""
        await self._again(job, job.deliveries, delay)

    async def give_back(self, job: Job) -> None:
        """Hand it out again, uncounted; see :meth:`JobQueue.give_back`."""
        await self._again(job, job.deliveries - 1, 0)

    async def _again(self, job: Job, deliveries: int, delay: float) -> bool:
        keys, arguments = [self.keys.jobs, self.keys.delayed], [self.consumer, job.receipt, deliveries]
        told = await self._server.run(AGAIN, keys, [*arguments, _milliseconds(delay)])
        self._held.pop(job.receipt, None)
        return bool(told)

    async def bury(self, job: Job, error: str) -> None:
        """Make it a dead letter; see :meth:`JobQueue.bury`."""
        reason = error.encode(errors="backslashreplace")
        arguments = [self.consumer, job.receipt, job.deliveries, reason, self._dead_letters]
        _, forgotten = await self._server.run(BURY, [self.keys.jobs, self.keys.dead], arguments)
        self._held.pop(job.receipt, None)
        if forgotten:
            log.error("queue %r has too many dead letters: the oldest %d are forgotten", self.channel, forgotten)

    async def renew(self, jobs: Iterable[Job]) -> list[Job]:
        """Claim them for longer; see :meth:`JobQueue.renew`."""
        renewed = {job.receipt: job for job in jobs}
        lost = await self._server.run(RENEW, [self.keys.jobs], [self.consumer, *renewed])
        return [renewed[entry.decode()] for entry in lost]

    async def restore(self, job: Job) -> None:
        """Nobody got this job, whether it is done already or not: hand it out again."""
        if not await self._again(job, job.deliveries - 1, 0):
            keys, arguments = [self.keys.jobs, self.keys.delayed], put_arguments(job.payload, 0, None, job.id)
            await self._server.run(PUT, keys, arguments)

    async def release(self, *, leaving: bool = False) -> None:
        """Give back what is claimed in our name and not known here; leaving, all of it."""
        async with self._turn:
            known = [] if leaving else list(self._held)
            released = BATCH
            while released >= BATCH:
                arguments = [self.consumer, int(leaving), *known]
                released = await self._server.run(RELEASE, [self.keys.jobs], arguments)

    async def leave(self) -> None:
        """Give everything back, also under cancellation, and within bounds."""
        with CancelScope(shield=True, deadline=anyio.current_time() + RELEASE_TIME) as wall:
            try:
                await self.release(leaving=True)
                return
            except (LayerUnreachable, LayerRefused) as error:
                problem = str(error)
        if wall.cancelled_caught:
            problem = f"no answer in {RELEASE_TIME:g} s"
        if self._held:
            log.warning(
                "%d jobs of %r were not given back (%s): they are handed out again after %g s",
                len(self._held),
                self.channel,
                problem,
                self.claim,
            )

    # ---- dead letters

    async def dead(self, most: int, after: str = "") -> list[DeadLetter]:
        """List them; see :meth:`JobQueue.dead`."""
        start = f"({after}" if _ENTRY.fullmatch(after) else "-"
        entries = await self._server.execute(
            "XRANGE", self.keys.dead, start, "+", "COUNT", most, key=self.keys.dead
        )  # fmt: skip
        return [self._letter(entry, fields) for entry, fields in entries]

    def _letter(self, entry: bytes, flat: Sequence[bytes]) -> DeadLetter:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return DeadLetter(
            id=entry.decode(),
            job=self._job(entry, 0, flat),
            error=fields.get(b"error", b"").decode(errors="replace"),
            buried_at=int(entry.partition(b"-")[0]) / 1000,
        )

    async def requeue(self, ids: Iterable[str] | None = None) -> int:
        """Let them wait again; see :meth:`JobQueue.requeue`."""
        return await self._move("requeue", ids)

    async def discard(self, ids: Iterable[str] | None = None) -> int:
        """Forget them; see :meth:`JobQueue.discard`."""
        return await self._move("discard", ids)

    async def _move(self, how: str, ids: Iterable[str] | None) -> int:
        keys, moved = [self.keys.dead, self.keys.jobs], 0
        if ids is not None:
            these = [entry for entry in ids if _ENTRY.fullmatch(entry)]
            for start in range(0, len(these), BATCH):
                moved += await self._server.run(DEAD, keys, [how, "these", *these[start : start + BATCH]])
            return moved
        last = await self._server.execute("XREVRANGE", self.keys.dead, "+", "-", "COUNT", 1, key=self.keys.dead)
        count = BATCH if last else 0  # what dies meanwhile is not moved: it might die for ever
        while count >= BATCH:
            count = await self._server.run(DEAD, keys, [how, "up to", last[0][0]])
            moved += count
        return moved

    async def depth(self) -> QueueStatistics:
        """Return how much there is in the queue."""
        keys = [self.keys.jobs, self.keys.delayed, self.keys.dead]
        stream, running, delayed, dead = await self._server.run(DEPTH, keys, [])
        return QueueStatistics(waiting=stream - running, running=running, delayed=delayed, dead=dead)


def _number(fields: Mapping[bytes, bytes], name: bytes, default: int) -> int:
    value = fields.get(name, b"")
    return int(value) if value.isdigit() else default


@asynccontextmanager
async def open_redis_queue(queue: RedisQueue) -> AsyncIterator[RedisQueue]:
    """Work on a queue for this block; what is fetched and not settled when it ends goes back at once."""
    async with collapsed(), anyio.create_task_group() as nursery:
        nursery.start_soon(queue.bell.run)
        try:
            yield queue
        finally:
            queue.close("this queue")
            nursery.cancel_scope.cancel()
            await queue.leave()
