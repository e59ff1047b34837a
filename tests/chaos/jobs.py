"""Work queues under faults: workers are killed in the middle of jobs, and every job that was taken must be done.

Redis writes each command to its disk before it answers: a queue promises what Redis itself keeps, and no more. So the
faults are those that lose nothing of it.
"""

import os
import random
import secrets
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import trio

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.queues import QueueStatistics

from .faults import Planned, make_faults, make_schedule
from .field import Alone, Field, Working, environment
from .layers import DONE, WORK, make_layer, make_sync_layer, settings
from .timeline import Timeline

KEEP = ("--appendonly", "yes", "--appendfsync", "always")
WORKERS = 2
LEAST = 1000  # jobs
DRAIN = 60.0  # seconds, after the last fault, in which all that is left must be done
LOOK = 0.2


@dataclass
class JobResult:
    """What became of the jobs."""

    seed: int
    version: str
    schedule: list[Planned]
    outcomes: dict[int, str] = field(default_factory=dict)
    done: Counter[int] = field(default_factory=Counter)
    left: QueueStatistics | None = None
    seconds: float = 0.0
    drained: float = 0.0
    logs: list[str] = field(default_factory=list)

    @property
    def lost(self) -> list[int]:
        return [number for number, outcome in self.outcomes.items() if outcome == "taken" and not self.done[number]]

    @property
    def invented(self) -> list[int]:
        return [number for number in self.done if self.outcomes.get(number) in (None, "not done")]

    @property
    def good(self) -> bool:
        left = self.left
        idle = left is not None and not (left.waiting or left.running or left.delayed or left.dead)
        return idle and not self.lost and not self.invented

    def __str__(self) -> str:
        kinds = Counter(planned.name for planned in self.schedule)
        outcomes = Counter(self.outcomes.values())
        again = sum(count - 1 for count in self.done.values())
        lines = [
            f"chaos --seed {self.seed} --faults {len(self.schedule)} --redis {self.version} --group worker: "
            f"{len(self.schedule)} faults in {self.seconds:.0f} s",
            "  " + ", ".join(f"{name} {count}" for name, count in kinds.most_common()),
            f"  {len(self.outcomes)} jobs: {dict(outcomes)}",
            f"  {len(self.done)} done, {again} of these once more; all {self.drained:.1f} s after the last fault",
            f"  left: {self.left}",
        ]
        if not self.good:
            lines += [f"  LOST {self.lost}", f"  INVENTED {self.invented}", *self.logs[-60:]]
        return "\n".join([*lines, "  good" if self.good else "  BAD"])


class Jobs:
    """A run."""

    def __init__(self, ground: Field, result: JobResult, done: Path, least: int) -> None:
        self.field, self.result, self._done, self._read, self._least = ground, result, done, 0, least
        self._random = random.Random(f"jobs {result.seed}")

    async def go(self) -> None:
        began = trio.current_time()
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after_workers)
            async with trio.open_nursery() as sending:
                sending.start_soon(self._send, over)
                await make_faults(self.result.schedule, self.field, "jobs", Timeline())
                over.set()
            await trio.to_thread.run_sync(self.field.topology.heal)
            healed = trio.current_time()
            async with make_layer() as layer, layer.open_queue(WORK) as queue:
                with trio.move_on_after(DRAIN):
                    while True:
                        self._count()
                        self.result.left = await queue.depth()
                        if self.result.good:
                            break
                        await trio.sleep(LOOK)
            self.result.drained = trio.current_time() - healed
            nursery.cancel_scope.cancel()
        self.result.seconds = trio.current_time() - began

    async def _look_after_workers(self) -> None:
        """Start again whoever has ended: while Redis is away, a worker does not start."""
        while True:
            for working in self.field.workings:
                async with self.field.lock(id(working)):
                    await trio.to_thread.run_sync(working.start)
            await trio.sleep(LOOK)

    async def _send(self, over: trio.Event) -> None:
        """Send jobs, through the layer and through its blocking twin, while there are faults."""
        with make_sync_layer() as twin:
            async with make_layer() as layer:
                while not over.is_set() or len(self.result.outcomes) < self._least:
                    number = len(self.result.outcomes)
                    job = {"type": "chaos.job", "number": number, "seconds": self._random.uniform(0, 0.02)}
                    try:
                        if self._random.random() < 0.8:
                            await layer.send(WORK, job)
                        else:
                            await trio.to_thread.run_sync(partial(twin.send, WORK, job))
                        outcome = "taken"
                    except OutcomeUnknown:
                        outcome = "unknown"
                    except (LayerUnreachable, LayerRefused):
                        outcome = "not done"
                    self.result.outcomes[number] = outcome
                    await trio.sleep(self._random.uniform(0, 0.02))

    def _count(self) -> None:
        """Read what the workers have written down since the last time; a line that is not whole is left."""
        with self._done.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole + newline)
        self.result.done.update(map(int, whole.split()))


async def chaos_jobs(seed: int, faults: int, version: str = "7", rest: float = 0.25, least: int = LEAST) -> JobResult:
    """Run it, with so many jobs at the least; what it comes to is in the result, good or bad."""
    result = JobResult(seed, version, make_schedule(seed, faults, "jobs", rest))
    prefix = f"chaos{secrets.token_hex(3)}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        done = folder / "done"
        done.touch()
        redises = Alone(stack, version, WORKERS + 1, *KEEP)
        ground = Field(redises, [], folder, prefix)
        for number in range(WORKERS):
            working = Working(number, {**environment(redises.url(number), prefix), DONE: str(done)}, folder)
            stack.callback(working.kill)
            ground.workings.append(working)
        stack.enter_context(mock.patch.dict(os.environ, settings(redises.url(WORKERS), prefix)))
        await Jobs(ground, result, done, least).go()
        result.logs = [line for working in ground.workings for line in working.log.read_text().splitlines()[-30:]]
    return result
