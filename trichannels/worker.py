"""Work queues to application instances: takes jobs out of named channels, and runs one instance for each.

What a queue promises is in ``layers.queues``; workers beside a server are in ``inhouse``; the command line, its signals
and its display in ``cli`` and ``server``. Where one job stands::

    fetch() ──► runs ──► returned                          ──► done()
                  ├────► raised, retries are left          ──► retry(), after a delay
                  ├────► raised the last time,
                  │      or nobody could ever handle it    ──► bury()
                  └────► was cancelled                     ──► give_back()
"""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from .events import ASGIApp, Event, Receive, Scope
from .exceptions import (
    ConfigError,
    InvalidName,
    LayerRefused,
    LayerUnreachable,
    NoHandler,
    NoRoute,
    OutOfTurn,
    TrichannelsError,
)
from .layers.base import ChannelLayer, require_queue_name
from .layers.queues import RESERVED, Job, JobQueue, QueueStatistics, Retry
from .nursery import collapsed, sort_out
from .seam import being_cancelled

log = logging.getLogger("trichannels.worker")

SETTLE_TIME = 2.0  # seconds in which a cancelled job may be given back, whatever is cancelled around it
PATIENCE = (0.5, 30.0)  # seconds between attempts to tell an absent queue what came of a job: the first, the most
ERROR_LENGTH = 2000  # characters of an error that a dead letter keeps

HOPELESS = (NoRoute, NoHandler)
"""Errors that no retry will mend: nobody here handles such a job."""

Kind: TypeAlias = Literal["started", "done", "retried", "buried", "returned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """What became of a job: it was ``"started"``, then ``"done"``, ``"retried"``, ``"buried"`` or ``"returned"``.

    ``seconds`` it ran, ``error`` says what went wrong, ``delay`` in how many seconds it will be tried again.
    """

    kind: Kind
    job: Job
    seconds: float = 0.0
    error: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatistics:
    """How many jobs run now, and what became of the others since the worker began."""

    running: int
    done: int
    retried: int
    buried: int
    returned: int


OnEvent: TypeAlias = Callable[[JobEvent], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to become of a job that has run, or will not."""

    kind: Kind
    error: str = ""
    delay: float = 0.0
    raised: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The options of a worker, checked."""

    concurrency: int = 10
    retry: Retry = field(default_factory=Retry)
    drain_time: float = 10.0
    alias: str = "default"

    def __post_init__(self) -> None:
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise ConfigError(f"a worker's concurrency is a whole number above 0, not {self.concurrency!r}")
        if not isinstance(self.retry, Retry):
            raise ConfigError(f"a worker's retry is a Retry(retries=…, first=…, most=…), not {self.retry!r}")
        seconds = self.drain_time
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < inf:
            raise ConfigError(f"a worker's drain_time is a number of seconds, 0 or more, not {seconds!r}")


async def run_worker(
    application: ASGIApp,
    layer: ChannelLayer,
    channels: str | Iterable[str],
    *,
    concurrency: int = 10,
    retry: Retry = Retry(),  # noqa: B008 - it is frozen
    drain_time: float = 10.0,
    alias: str = "default",
    on_event: OnEvent = lambda event: None,
    task_status: TaskStatus["Worker"] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Work on the jobs of some channels of an open layer until drained or cancelled.

    For each job, ``application`` is run with a scope of its own: ``{"type": "channel", "channel": name, "job": {"id":
    …, "deliveries": …}, "channel_layers": {alias: layer}}``; it receives the job's message, then ``channel.end``. When
    it returns, the job is done. When it raises, the job is tried again as ``retry`` says, and becomes a dead letter in
    the end; at once, if there is no application or no handler for it, or it cannot be read.

    ``concurrency``: how many jobs *of each channel* may run at once; never more are taken out of the queue.
    ``on_event`` is told of every job; it must not wait. ``task_status.started`` gets the :class:`Worker` once the
    queues are open.

    ``worker.drain()`` takes no more jobs, and gives those that run ``drain_time`` seconds; then they are cancelled.
    Cancelling ``run_worker`` gives them none. A job that was cancelled goes back into its queue at once, and this
    delivery does not count. While the layer's server is away, the worker waits for it.

    Raises :class:`ConfigError` for wrong options, ``LayerClosed``, and ``LayerRefused`` for a refusal that will not go
    away by itself. No error of a job comes out of here, but KeyboardInterrupt.
    """
    rules = Rules(concurrency=concurrency, retry=retry, drain_time=drain_time, alias=alias)
    names = checked_names(channels)
    layer.require_open()
    worker = Worker(application, layer, names, rules, on_event)
    async with collapsed(), anyio.create_task_group() as group:
        for crew in worker.crews:
            await group.start(crew.run)
        task_status.started(worker)


def checked_names(channels: str | Iterable[str]) -> Sequence[str]:
    """Return the names of queues, each once; raises :class:`ConfigError`."""
    names = [channels] if isinstance(channels, str) else list(dict.fromkeys(channels))
    if not names:
        raise ConfigError("a worker needs at least one channel to work on")
    try:
        return [require_queue_name(name) for name in names]
    except InvalidName as error:
        raise ConfigError(f"a worker cannot work on {names!r}: {error}") from error


class Worker:
    """A running worker, as :func:`run_worker` reports it by ``task_status.started``."""

    def __init__(
        self, application: ASGIApp, layer: ChannelLayer, channels: Sequence[str], rules: Rules, on_event: OnEvent
    ) -> None:
        self.channels, self._rules = channels, rules
        self._told = on_event
        self._counts: Counter[Kind] = Counter()
        self.crews = [Crew(application, layer, channel, rules, self._tell) for channel in channels]

    def __repr__(self) -> str:
        draining = " draining" if any(crew.draining for crew in self.crews) else ""
        return f"<Worker on {', '.join(self.channels)}{draining}: {self.statistics()}>"

    def statistics(self) -> WorkerStatistics:
        """Return what runs now and what was done so far."""
        return WorkerStatistics(
            running=sum(len(crew.running) for crew in self.crews),
            done=self._counts["done"],
            retried=self._counts["retried"],
            buried=self._counts["buried"],
            returned=self._counts["returned"],
        )

    async def depth(self) -> dict[str, QueueStatistics]:
        """Return how much there is in each queue, for whomever; raises ``LayerUnreachable``."""
        return {crew.channel: await crew.queue.depth() for crew in self.crews if crew.queue is not None}

    def drain(self, seconds: float | None = None) -> None:
        """Take no more jobs, and end within so many seconds (default: ``drain_time``). Does not wait.

        What still runs then is cancelled, and goes back into its queue. Called again, it can only shorten.
        """
        for crew in self.crews:
            crew.drain(self._rules.drain_time if seconds is None else seconds)

    def _tell(self, event: JobEvent) -> None:
        self._counts[event.kind] += 1
        try:
            self._told(event)
        except Exception:
            log.exception("on_event failed for %s", event)


class Crew:
    """All that works on one channel: who takes jobs out, who runs them, who renews their claims."""

    def __init__(
        self, application: ASGIApp, layer: ChannelLayer, channel: str, rules: Rules, tell: Callable[[JobEvent], None]
    ) -> None:
        self._application, self._layer, self.channel, self._rules, self._tell = application, layer, channel, rules, tell
        self.running: dict[str, Job] = {}  # by receipt
        self.queue: JobQueue | None = None  # while it is open
        self._settling: set[str] = set()
        self._freed = anyio.Event()
        self._fetching, self._patience = CancelScope(), CancelScope()

    @property
    def draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._fetching.cancel_called

    def drain(self, seconds: float) -> None:
        """Take no more jobs; what runs has so many seconds."""
        self._fetching.cancel()
        self._patience.deadline = min(self._patience.deadline, anyio.current_time() + seconds)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Work until drained."""
        async with self._layer.open_queue(self.channel) as queue, collapsed(), anyio.create_task_group() as staff:
            self.queue = queue
            task_status.started()
            staff.start_soon(self._renew, queue)
            with self._fetching:
                await self._take(queue, staff)
            with self._patience:
                while self.running:
                    await self._freed.wait()
            staff.cancel_scope.cancel()

    async def _take(self, queue: JobQueue, staff: TaskGroup) -> None:
        """Fetch jobs for the slots that are free, and no more."""
        while not self.draining:
            while len(self.running) >= self._rules.concurrency:
                await self._freed.wait()
            # No await from here to start_soon: what was fetched must not be forgotten.
            for job in await queue.fetch(self._rules.concurrency - len(self.running)):
                self.running[job.receipt] = job
                staff.start_soon(self._work, queue, job)

    async def _work(self, queue: JobQueue, job: Job) -> None:
        """Run one job, and tell the queue what came of it."""
        try:
            begin = anyio.current_time()
            self._tell(JobEvent(kind="started", job=job))
            verdict, passing = await self._try(job)
            seconds = anyio.current_time() - begin
            self._settling.add(job.receipt)
            await self._settle(queue, job, verdict, seconds)
            if passing is not None:
                raise passing from None
        finally:
            del self.running[job.receipt]
            self._settling.discard(job.receipt)
            self._freed.set()
            self._freed = anyio.Event()

    # ---- running

    async def _try(self, job: Job) -> tuple[Verdict, BaseException | None]:
        """Run the application; return what is to become of the job, and a cancellation that must go on."""
        message = self._message(job)
        if isinstance(message, Verdict):
            return message, None
        try:
            await self._application(self._scope(job), _receiver(message), _nobody)
        except BaseException as raised:
            failures, passing = sift(raised)
            if passing is not None:
                for failure in failures:
                    log.error("%s failed while it was cancelled", described(job), exc_info=failure)
                return Verdict(kind="returned"), passing
            return judge(job, failures, self._rules.retry, random.random()), None  # noqa: S311 - jitter
        return Verdict(kind="done"), None

    def _message(self, job: Job) -> Event | Verdict:
        """Return what the job says, or why nobody shall ever try it."""
        if job.deliveries > self._rules.retry.deliveries:
            return _bury(
                f"it was delivered {job.deliveries - 1} times and never came to an end: "
                "its worker was killed each time, or died of it"
            )
        try:
            message = job.open()
        except Exception as error:  # noqa: BLE001 - it is told, and a serializer may be anybody's
            return _bury(summary(error), error)
        kind = message.get("type")
        if not isinstance(kind, str) or not kind:
            return _bury("it has no 'type' that could name a handler")
        if kind in RESERVED:
            return _bury(f"its type {kind!r} is the worker's own: choose another name")
        return message

    def _scope(self, job: Job) -> Scope:
        return {
            "type": "channel",
            "asgi": {"version": "3.0", "spec_version": "1.0"},
            "channel": job.channel,
            "job": {"id": job.id, "deliveries": job.deliveries},
            "channel_layers": {self._rules.alias: self._layer},
        }

    # ---- telling the queue

    async def _settle(self, queue: JobQueue, job: Job, verdict: Verdict, seconds: float) -> None:
        """Tell the queue, as often as it takes; once cancelled, for a last time and within bounds."""
        told = False
        try:
            await self._persist(queue, job, verdict)
            told = True
        except anyio.get_cancelled_exc_class():
            with CancelScope(shield=True, deadline=anyio.current_time() + SETTLE_TIME):
                try:
                    await WAYS[verdict.kind](queue, job, verdict)
                    told = True
                except TrichannelsError as error:
                    log.warning("%s: %s", described(job), summary(error))
            if not told:
                log.error(
                    "%s: the queue could not be told that it is %s: it will run again", described(job), verdict.kind
                )
            raise
        finally:
            if told:
                self._report(job, verdict, seconds)

    async def _persist(self, queue: JobQueue, job: Job, verdict: Verdict) -> None:
        pause, most = PATIENCE
        while True:
            try:
                await WAYS[verdict.kind](queue, job, verdict)
                return
            except (LayerUnreachable, LayerRefused) as error:
                log.warning(
                    "%s: the queue was not told that it is %s (%s): trying again in %g s",
                    described(job),
                    verdict.kind,
                    summary(error),
                    pause,
                )
            await anyio.sleep(pause)
            pause = min(2 * pause, most)

    def _report(self, job: Job, verdict: Verdict, seconds: float) -> None:
        if verdict.kind == "retried":
            log.warning(
                "%s failed (%s): it is tried again in %.1f s",
                described(job),
                verdict.error,
                verdict.delay,
                exc_info=verdict.raised,
            )
        elif verdict.kind == "buried":
            log.error("%s is a dead letter now: %s", described(job), verdict.error, exc_info=verdict.raised)
        self._tell(JobEvent(kind=verdict.kind, job=job, seconds=seconds, error=verdict.error, delay=verdict.delay))

    async def _renew(self, queue: JobQueue) -> None:
        """Keep the jobs that run from being taken for a dead worker's."""
        pause = queue.claim / 3
        while pause < inf:
            await anyio.sleep(pause)
            try:
                lost = await queue.renew(list(self.running.values())) if self.running else []
            except (LayerUnreachable, LayerRefused) as error:
                log.warning("the claims of %d jobs of %r were not renewed: %s", len(self.running), self.channel, error)
                continue
            for job in lost:
                if job.receipt in self.running and job.receipt not in self._settling:
                    log.warning("%s was given to another worker, or is gone: it may be done twice", described(job))


def sift(raised: BaseException) -> tuple[list[BaseException], BaseException | None]:
    """Take what a job raised apart: its failures, and what must pass on: our own cancellation, or Ctrl-C."""
    failures, passing = sort_out(raised)
    if passing is not None and not being_cancelled():
        stray = RuntimeError("a cancellation came out of something that was awaited, but nobody has cancelled the job")
        stray.__cause__ = passing
        failures, passing = [*failures, stray], None
    for failure in failures:
        if isinstance(failure, KeyboardInterrupt):
            return [other for other in failures if other is not failure], failure
    return failures, passing


def judge(job: Job, failures: Sequence[BaseException], retry: Retry, chance: float) -> Verdict:
    """Return what is to become of a job that raised these; ``chance`` is a random number from 0 to 1."""
    first = next((failure for failure in failures if isinstance(failure, HOPELESS)), failures[0])
    error = "; ".join(map(summary, failures))[:ERROR_LENGTH]
    if isinstance(first, HOPELESS) or not retry.allows(job.deliveries):
        return Verdict(kind="buried", error=error, raised=first)
    return Verdict(kind="retried", error=error, raised=first, delay=retry.delay(job.deliveries, chance))


def _bury(reason: str, raised: BaseException | None = None) -> Verdict:
    return Verdict(kind="buried", error=reason[:ERROR_LENGTH], raised=raised)


def summary(error: BaseException) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def described(job: Job) -> str:
    """Return a job's place and number, for reports."""
    again = f", delivery {job.deliveries}" if job.deliveries > 1 else ""
    return f"job {job.id} of {job.channel!r}{again}"


WAYS: Mapping[Kind, Callable[[JobQueue, Job, Verdict], Awaitable[None]]] = {
    "done": lambda queue, job, verdict: queue.done(job),
    "retried": lambda queue, job, verdict: queue.retry(job, verdict.delay, verdict.error),
    "buried": lambda queue, job, verdict: queue.bury(job, verdict.error),
    "returned": lambda queue, job, verdict: queue.give_back(job),
}


def _receiver(message: Event) -> Receive:
    """Return what gives the message, and then its end, however often it is asked."""
    waiting: list[Any] = [message]

    async def receive() -> Event:
        await checkpoint()
        return waiting.pop() if waiting else {"type": "channel.end"}

    return receive


async def _nobody(event: Event) -> None:
    raise OutOfTurn(f"a job has nobody to send {event.get('type')!r} to: use the channel layer's send or group_send")
