"""What ``trichannels worker --stats`` shows: a line that is rewritten on a terminal, and a new line elsewhere."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

import trio

from ..exceptions import TrichannelsError
from ..layers.queues import QueueStatistics
from ..worker import Worker, WorkerStatistics

TERMINAL, ELSEWHERE = 1.0, 10.0  # seconds between two lines
ERASE = "\r\x1b[K"  # to the beginning of the line, and forget the rest of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a worker has done up to a time, and how much there still is; None if the queue could not be asked."""

    at: float
    done: WorkerStatistics
    left: Mapping[str, QueueStatistics] | None


def progress(before: Sample, now: Sample) -> str:
    """Return the line: totals since the worker began, rates since the sample before, and what is left."""
    done = now.done
    passed = now.at - before.at
    rate = (done.done - before.done.done) / passed if passed > 0 else 0.0
    parts = [f"{done.done} done ({rate:.1f}/s)", f"{done.running} running"]
    parts += [f"{count} {what}" for what, count in (("retried", done.retried), ("buried", done.buried)) if count]
    return f"{', '.join(parts)}; {_left(now.left)}"


def _left(queues: Mapping[str, QueueStatistics] | None) -> str:
    if queues is None:
        return "the queue does not answer"
    waiting, delayed, dead = (
        sum(getattr(queue, name) for queue in queues.values()) for name in ("waiting", "delayed", "dead")
    )
    return f"{waiting} waiting, {delayed} delayed, {dead} dead"


async def sample(worker: Worker, depth: Callable[[], Awaitable[Mapping[str, QueueStatistics]]]) -> Sample:
    """Look at a worker and its queues."""
    try:
        left = await depth()
    except TrichannelsError:
        left = None
    return Sample(at=trio.current_time(), done=worker.statistics(), left=left)


async def show_progress(worker: Worker, stream: TextIO) -> None:
    """Write lines until cancelled; then one for the whole time."""
    terminal = stream.isatty()
    first = before = Sample(at=trio.current_time(), done=worker.statistics(), left={})
    with _logs_above(terminal, stream):
        try:
            while True:
                await trio.sleep(TERMINAL if terminal else ELSEWHERE)
                now = await sample(worker, worker.depth)
                text = progress(before, now)
                print(f"{ERASE}{text}" if terminal else text, end="" if terminal else "\n", file=stream, flush=True)
                before = now
        finally:
            last = Sample(at=trio.current_time(), done=worker.statistics(), left={})
            total = progress(first, last).partition(";")[0]
            print(f"{ERASE if terminal else ''}{total}", file=stream, flush=True)


@contextmanager
def _logs_above(terminal: bool, stream: TextIO) -> Iterator[None]:
    """Let log records take the place of the line that is rewritten, which then comes anew below."""
    if not terminal:
        yield
        return

    def erase(record: logging.LogRecord) -> bool:
        print(ERASE, end="", file=stream, flush=True)
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(erase)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(erase)
