"""Do something at every point where a program can be interrupted, one point a run.

On trio the points are the ends of task steps: whenever a task has yielded to the scheduler. On asyncio they are the
iterations of the loop. ``suspended_lines`` tells which lines of chosen files the tasks stood on at that point.
"""

import ast
import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import trio

from .conftest import VirtualClockLoop

Line = tuple[str, int]


class AtStep(trio.abc.Instrument):
    """Calls ``action`` once, after the ``number``-th step of any task."""

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        self.number, self.action = number, action
        self.steps = 0
        self.done = False
        self.lines: set[Line] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.number:
            self.done = True
            self.lines = set(suspended_lines(trio.lowlevel.current_root_task()))
            self.action()


def suspended_lines(root: trio.lowlevel.Task | None) -> Iterator[Line]:
    """Yield the lines that a task and all tasks below it stand on, at every depth of their awaits."""
    tasks = [root] if root else []
    while tasks:
        task = tasks.pop()
        for nursery in task.child_nurseries:
            tasks += nursery.child_tasks
        yield from _awaiting(task.coro)


def _awaiting(coro: Any) -> Iterator[Line]:
    while coro is not None:
        frame: FrameType | None = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            yield Path(frame.f_code.co_filename).name, frame.f_lineno
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None)


def awaits_in(file: Path) -> set[Line]:
    """Return the lines of ``file`` on which a task may be suspended.

    Not those of ``checkpoint_if_cancelled``, which suspends only a task that has been cancelled while it ran.
    """
    found: set[Line] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Await) and "checkpoint_if_cancelled" in ast.dump(node):
            continue
        if isinstance(node, ast.AsyncWith | ast.AsyncFor | ast.Await):
            found.add((file.name, node.lineno))
    return found


def every_step(
    program: Callable[[Any], Awaitable[None]],
    make: Callable[[], Any],
    *,
    seed: int = 0,
    clock: Callable[[], trio.abc.Clock] | None = None,
) -> Iterator[AtStep]:
    """Run ``program(run)`` once for each step it has, and call ``run.interrupt()`` there; yield each finished run.

    ``make`` gives the fresh ``run`` object, ``clock`` a fresh clock; the schedule repeats by ``seed``.
    """
    number = 1
    while True:
        run = make()
        instrument = AtStep(number, run.interrupt)
        trio._core._run._r = random.Random(seed)  # the order in which ready tasks run
        trio.run(program, run, clock=clock() if clock else None, instruments=[instrument])
        if not instrument.done:
            return
        yield instrument
        number += 1


def every_iteration(
    program: Callable[[Any], Awaitable[None]], make: Callable[[], Any], *, times: int = 1
) -> Iterator[None]:
    """The same on asyncio: ``run.interrupt()`` at an iteration of the event loop, and at the ``times - 1`` after it."""
    number, reached = 1, True
    while reached:
        run = make()
        loop = VirtualClockLoop()
        steps = Steps(range(number, number + times), run.interrupt)
        loop.each_iteration = steps.step
        with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:  # type: ignore[misc]
            runner.run(program(run))  # type: ignore[arg-type]
        reached = steps.count >= number
        if reached:
            yield
        number += 1


class Steps:
    """Counts iterations, and acts at some of them."""

    def __init__(self, when: range, action: Callable[[], object]) -> None:
        self.when, self.action, self.count = when, action, 0

    def step(self) -> None:
        self.count += 1
        if self.count in self.when:
            self.action()
