"""What ``trichannels worker`` and ``trichannels dead`` do once their command line is understood.

They need no extra beyond what the layer needs: nothing here imports hypercorn.
"""

import difflib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeAlias

import trio

from ..exceptions import ConfigError, InvalidName, StartupFailed, TrichannelsError
from ..layers.base import ChannelLayer, require_queue_name
from ..layers.queues import DeadLetter, JobQueue, Retry
from ..routing import ChannelNameRouter, ProtocolTypeRouter
from ..worker import Rules, Worker, run_worker
from .exits import CLEAN, run_alone
from .load import is_in_memory, load_app, parts_of
from .progress import show_progress
from .signals import interrupts_kill
from .watchdog import obeyed_at_last

LOG = logging.getLogger("trichannels.worker")

Move: TypeAlias = Callable[[Iterable[str] | None], Awaitable[int]]

PAGE = 100  # dead letters that are listed at once
LONGEST = 300  # characters of a message that are shown


@dataclass(frozen=True, kw_only=True)
class QueueCommand:
    """What both commands begin with. All of it raises :class:`ConfigError` and :class:`StartupFailed`, in one line."""

    target: str
    layer: str = "default"
    app_dir: str = "."

    def router(self) -> ProtocolTypeRouter:
        """Import the application, and return the router in it that has the layers."""
        app = load_app(self.target, self.app_dir)
        found = next((part for part in parts_of(app) if isinstance(part, ProtocolTypeRouter)), None)
        if found is None:
            raise ConfigError(
                f"{self.target} has no channel layers: name a ProtocolTypeRouter(..., layers={{'default': layer}})"
            )
        return found

    def layer_of(self, router: ProtocolTypeRouter, cure: str) -> ChannelLayer:
        """Return the layer with our alias, if another process can work on its queues."""
        layer = router.layers.get(self.layer)
        if layer is None:
            known = ", ".join(map(repr, router.layers)) or "none"
            raise ConfigError(f"{self.target} has no layer {self.layer!r}; its layers: {known}")
        if is_in_memory(layer):
            raise ConfigError(f"layer {self.layer!r} of {self.target} is in memory, and ends at its process: {cure}")
        return layer


@dataclass(frozen=True, kw_only=True)
class WorkCommand(QueueCommand):
    """``trichannels worker``."""

    channels: Sequence[str]
    concurrency: int = 10
    retries: int = 5
    drain_time: float = 10.0
    stats: bool = False

    def __post_init__(self) -> None:
        check_channels(self.channels)
        self.rules  # noqa: B018 - it raises for wrong options

    @property
    def rules(self) -> Rules:
        """The worker's options; raises :class:`ConfigError`."""
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ConfigError(f"--retries takes a whole number, 0 or more, not {self.retries!r}")
        try:
            return Rules(
                concurrency=self.concurrency,
                retry=Retry(retries=self.retries),
                drain_time=self.drain_time,
                alias=self.layer,
            )
        except ConfigError as error:
            raise ConfigError(str(error).replace("a worker's ", "--").replace("drain_time", "drain-time")) from error

    def run(self) -> int:
        """Work until told to stop; returns the exit code."""
        router = self.router()
        layer = self.layer_of(router, "let the server work on it, by ProtocolTypeRouter(..., workers=[…])")
        self._require_applications(router)
        with _in_one_line():
            run_alone(partial(self._work, router, layer))
        interrupts_kill()
        return CLEAN

    def _require_applications(self, router: ProtocolTypeRouter) -> None:
        """Raise if nothing is mapped to a channel: all its jobs would be dead letters."""
        app = router.application_mapping.get("channel")
        if app is None:
            raise ConfigError(
                f"{self.target} maps nothing to 'channel': "
                "add ProtocolTypeRouter({'channel': ChannelNameRouter({'NAME': consumer})})"
            )
        routers = [part for part in parts_of(app) if isinstance(part, ChannelNameRouter)]
        known = sorted({name for found in routers for name in found.application_mapping})
        for channel in self.channels:
            if routers and channel not in known:
                close = difflib.get_close_matches(channel, known, 1)
                cure = f"did you mean {close[0]!r}?" if close else "route it in its ChannelNameRouter"
                names = ", ".join(map(repr, known)) or "none"
                raise ConfigError(f"{self.target} has no application for channel {channel!r}: {cure} (it has {names})")

    async def _work(self, router: ProtocolTypeRouter, layer: ChannelLayer) -> None:
        rules = self.rules
        with trio.CancelScope() as scope:
            workers: list[Worker] = []

            def stop(seconds: float) -> None:
                for worker in workers:
                    worker.drain(seconds)
                if not workers:
                    scope.cancel()

            start = partial(
                run_worker,
                router,
                layer,
                self.channels,
                concurrency=rules.concurrency,
                retry=rules.retry,
                drain_time=rules.drain_time,
                alias=rules.alias,
            )
            with obeyed_at_last(stop, rules.drain_time):
                async with router.opened(workers=False), trio.open_nursery() as aside:
                    async with trio.open_nursery() as nursery:
                        worker: Worker = await nursery.start(start)
                        workers.append(worker)
                        names = ", ".join(map(repr, self.channels))
                        LOG.info("working on %s, %d jobs of each at once", names, rules.concurrency)
                        if self.stats:
                            aside.start_soon(show_progress, worker, sys.stdout)
                    aside.cancel_scope.cancel()


@dataclass(frozen=True, kw_only=True)
class DeadCommand(QueueCommand):
    """``trichannels dead``."""

    channel: str
    requeue: Sequence[str] = ()
    discard: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_channels([self.channel])
        if self.requeue and self.discard:
            raise ConfigError("--requeue and --discard cannot be given both: do one after the other")
        for flag, ids in (("--requeue", self.requeue), ("--discard", self.discard)):
            if "all" in ids and len(ids) > 1:
                raise ConfigError(f"{flag} takes either all, or the ids of dead letters, not both")

    def run(self) -> int:
        """List dead letters, or do something about them; returns the exit code."""
        router = self.router()
        layer = self.layer_of(router, "its dead letters cannot be seen from here")
        with _in_one_line():
            run_alone(partial(self._work, router, layer))
        return CLEAN

    async def _work(self, router: ProtocolTypeRouter, layer: ChannelLayer) -> None:
        async with router.opened(workers=False), layer.open_queue(self.channel) as queue:
            if self.requeue:
                await self._move(queue.requeue, self.requeue, "waiting again")
            elif self.discard:
                await self._move(queue.discard, self.discard, "discarded")
            else:
                await self._list(queue)

    async def _move(self, move: Move, ids: Sequence[str], became: str) -> None:
        these = None if list(ids) == ["all"] else sorted(set(ids))
        moved = await move(these)
        _say(f"{moved} {'dead letter is' if moved == 1 else 'dead letters are'} {became}")
        if these is not None and moved < len(these):
            raise StartupFailed(
                f"{len(these) - moved} of the {len(these)} ids are none of a dead letter in {self.channel!r}: "
                "list them without --requeue and --discard"
            )

    async def _list(self, queue: JobQueue) -> None:
        count, last = 0, ""
        while page := await queue.dead(PAGE, last):
            for letter in page:
                _say(described(letter))
            count, last = count + len(page), page[-1].id
        if not count:
            _say(f"there are no dead letters in {self.channel!r}")


def described(letter: DeadLetter) -> str:
    """Return a dead letter in two lines: its id, when and why it died; and what it says."""
    when = datetime.fromtimestamp(letter.buried_at).astimezone().isoformat(" ", "seconds")
    job = letter.job
    try:
        message = repr(job.open())
    except TrichannelsError as problem:
        message = str(problem)
    if len(message) > LONGEST:
        message = message[:LONGEST] + "…"
    error = " ".join(letter.error.split())
    return f"{letter.id}  {when}  job {job.id}, delivered {job.deliveries} times: {error}\n    {message}"


def _say(text: str) -> None:
    print(text)  # noqa: T201


def check_channels(channels: Iterable[str]) -> None:
    """Raise :class:`ConfigError` for a name that no queue can have."""
    for channel in channels:
        try:
            require_queue_name(channel)
        except InvalidName as error:
            raise ConfigError(f"{channel!r} cannot be a queue: {error}") from error


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Let what the layer raises be the one line that the user sees: Redis is not there, refuses, ..."""
    try:
        yield
    except (ConfigError, StartupFailed):
        raise
    except TrichannelsError as error:
        raise StartupFailed(str(error)) from error
