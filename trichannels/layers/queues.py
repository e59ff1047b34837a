"""What a work queue is: its jobs, when a failed one is tried again, and what becomes of one that is not.

Types and rules only: no I/O, no clock, no dice. Queues in memory are in ``memory_queue``, those on Redis in
``redis.queue``; who takes jobs out of a queue and runs them is the worker.

A queue is a channel whose name has no ``!``. Each of its jobs is in one of these states::

    send() ──► waiting ──fetch()──► running ──done()──► gone
                  ▲ ▲                 │ │ └──bury()──► dead ──discard()──► gone
       send(delay)│ └──give_back()────┘ │               │
                delayed ◄────retry()────┘               └──requeue()──► waiting

A job is handed out at least once: one whose worker has died, or did not :meth:`~JobQueue.renew` its claim, is handed
out again. Only ``done`` and ``discard`` let a job go. Jobs do not expire. A queue that is full refuses new ones.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from ..exceptions import InvalidChannelLayerError
from .serializers import Message

RESERVED = ("channel.end", "channel.disconnect")
"""Types of events that a worker itself sends to a job's application; no message may have one of them."""

MOST_DOUBLINGS = 64  # 2.0 ** 64 times any delay is past every ``most``; beyond 1023, it would be an OverflowError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One message of a queue, handed out to be worked on.

    ``id`` stays the same however often the job is delivered: use it to recognise work that was done already.
    ``deliveries`` counts from 1 and includes this one. ``enqueued_at``: when it was sent, in seconds since 1970, by the
    clock of whoever keeps the queue. ``receipt`` is the queue's own name for this delivery.
    """

    channel: str
    id: str
    payload: bytes = field(repr=False)
    deliveries: int
    enqueued_at: float
    receipt: str = field(default="", repr=False)
    decode: Callable[[bytes], Message] = field(repr=False, compare=False)

    def open(self) -> Message:
        """Return the message, a copy of the caller's own; raises ``UnreadableMessage``."""
        return self.decode(self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that nobody will try again by himself. ``id`` names it in its queue's dead letters, ``error`` says why.

    ``buried_at``: when that was, in seconds since 1970.
    """

    id: str
    job: Job
    error: str
    buried_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatistics:
    """How many jobs of a queue wait, are being worked on by anybody, wait for their time to come, and are dead."""

    waiting: int
    running: int
    delayed: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a job that failed is tried again: ``retries`` times, after growing and random delays.

    The delay before the n-th retry is a random part (*full jitter*) of ``first`` · 2ⁿ⁻¹ seconds, at most of ``most``.
    What counts is how often a job was delivered, not how often it raised: a job may kill its process.
    """

    retries: int = 5
    first: float = 1.0
    most: float = 300.0

    def __post_init__(self) -> None:
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise InvalidChannelLayerError(f"Retry(retries=…) must be a whole number, 0 or more, not {self.retries!r}")
        for name in ("first", "most"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
                raise InvalidChannelLayerError(f"Retry({name}=…) must be a number of seconds, 0 or more, not {value!r}")

    @property
    def deliveries(self) -> int:
        """How often a job is delivered at most: once, and once for each retry."""
        return 1 + self.retries

    def allows(self, deliveries: int) -> bool:
        """Say whether a job that failed at this delivery, counted from 1, is tried again."""
        return deliveries < self.deliveries

    def delay(self, deliveries: int, chance: float) -> float:
        """Return the seconds to wait after this delivery has failed; ``chance`` is a random number from 0 to 1."""
        doublings = min(max(deliveries - 1, 0), MOST_DOUBLINGS)
        return min(self.most, self.first * 2.0**doublings) * chance


class JobQueue(Protocol):
    """One worker's view of one queue, as :meth:`ChannelLayer.open_queue` yields it.

    What is fetched here and neither done, retried, buried nor given back when the block ends goes back by itself. A
    call that is cancelled may be repeated. All but ``fetch`` raise ``LayerUnreachable`` if they could not be carried
    out, ``LayerRefused`` for a refusal.
    """

    channel: str
    claim: float
    """Seconds after which a job that was not renewed is somebody else's; ``inf`` where nobody else can have it."""

    async def fetch(self, most: int) -> list[Job]:
        """Wait for jobs, and return at least one and at most so many. Cancelled, it has taken none.

        While the server behind the queue is away, it waits, and tries again. Raises ``LayerClosed``, and
        ``LayerRefused`` for a refusal that will not go away by itself.
        """

    async def done(self, job: Job) -> None:
        """The job has been carried out: it is gone. Doing this twice is doing it once."""

    async def retry(self, job: Job, delay: float, error: str) -> None:
        """The job failed for the reason ``error``: hand it out again, ``delay`` seconds from now."""

    async def give_back(self, job: Job) -> None:
        """The job was not carried out, through no fault of its own: hand it out again; this delivery does not count."""

    async def bury(self, job: Job, error: str) -> None:
        """The job is not to be tried again: it becomes a dead letter, with the reason ``error``."""

    async def renew(self, jobs: Iterable[Job]) -> list[Job]:
        """Claim the jobs for another ``claim`` seconds; returns those that are somebody else's by now, or gone."""

    async def dead(self, most: int, after: str = "") -> list[DeadLetter]:
        """Return so many dead letters at most, the oldest first, from behind the one with the id ``after``."""

    async def requeue(self, ids: Iterable[str] | None = None) -> int:
        """Let these dead letters, or all of them, wait to be worked on again, as if new; returns how many there were.

        It is done whether or not the queue is full.
        """

    async def discard(self, ids: Iterable[str] | None = None) -> int:
        """Forget these dead letters, or all of them; returns how many there were."""

    async def depth(self) -> QueueStatistics:
        """Return how much there is in the queue."""
