"""asgiref within our threads: its ``async_to_sync`` runs on an island, its ``sync_to_async`` in lanes, on trio as well.

What asgiref has no public way for; where its own names change, it does what it does elsewhere: a loop for each call,
and one thread for all.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import anyio
import trio
from anyio.abc import TaskGroup
from asgiref.sync import AsyncToSync, SyncToAsync, async_to_sync

from ..seam import loop_caller, on_loop
from .bridge import Bridge, call
from .home import this_loop
from .island import AsyncioIsland, current_island
from .lane import in_lane, when_cancelled
from .lent import lending

P = ParamSpec("P")
T = TypeVar("T")

MARKS = ("main_event_loop", "main_event_loop_pid")


class Tasks:
    """The tasks of an island that a lane waits for, one within the other."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled = False

    def add(self, task: "asyncio.Task[Any]") -> None:
        """It has begun."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._cancelled:
            _cancel_soon(task)

    def cancel(self) -> None:
        """Cancel them, and those to come. In the island's thread."""
        self._cancelled = True
        for task in list(self._tasks):
            _cancel_soon(task)


def _cancel_soon(task: "asyncio.Task[Any]") -> None:
    """Cancel a task once it has begun: before that it would end without telling the thread that waits for it."""
    task.get_loop().call_soon(task.cancel)


_TASKS: ContextVar[Tasks | None] = ContextVar("trichannels_island_tasks", default=None)


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> "asyncio.Task[Any]":
    """Make a task of the island. One that a lane waits for is noted, to be cancelled with it.

    asgiref passes a cancellation on from task to task, but loses it on one that has not quite begun.
    """
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
    tasks = _TASKS.get()
    if tasks is not None and getattr(coroutine, "__qualname__", "") == "AsyncToSync.main_wrap":
        tasks.add(task)
    return task


@contextmanager
def adopted(island: AsyncioIsland) -> Iterator[None]:
    """In a lane, for the block: what asgiref's ``async_to_sync`` is given runs on the island.

    If whoever waits for the lane is cancelled, so is that.
    """
    marks, loop, tasks = getattr(SyncToAsync, "threadlocal", None), island.loop, Tasks()
    if marks is None:
        yield
        return
    if loop.get_task_factory() is not _make_task:
        loop.set_task_factory(_make_task)
    token = _TASKS.set(tasks)
    with when_cancelled(partial(loop.call_soon_threadsafe, tasks.cancel)), lending(loop, as_asgiref):
        for name, value in zip(MARKS, (loop, os.getpid()), strict=True):
            setattr(marks, name, value)
        try:
            yield
        finally:
            for name in MARKS:
                delattr(marks, name)
            _TASKS.reset(token)


def put_before(kind: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """From now on, let ``around(theirs)`` be what a call of asgiref's ``kind`` does; once, however often asked."""
    theirs = kind.__call__
    if not getattr(theirs, "is_ours", False):
        ours = wraps(theirs)(around(theirs))
        ours.is_ours = True  # type: ignore[attr-defined]
        kind.__call__ = ours


async def as_asgiref(work: Callable[[], T]) -> T:
    """Run it where asgiref's own ``sync_to_async`` does: in the thread that waits, or by :func:`in_lanes`."""
    return await SyncToAsync(work, thread_sensitive=True)()


def adopt_lanes() -> None:
    """From now on, what asgiref's ``async_to_sync`` is given in any lane runs on the island of the lane's loop.

    Else it makes a loop, and a thread, for each call, which no cancellation reaches.
    """

    def on_island(theirs: Callable[..., Any]) -> Callable[..., Any]:
        def blocking(self: Any, *args: Any, **kwargs: Any) -> Any:
            there_already = hasattr(getattr(SyncToAsync, "threadlocal", None), MARKS[0])
            if there_already or not in_lane() or on_loop():
                return theirs(self, *args, **kwargs)
            with adopted(call(current_island)):
                return theirs(self, *args, **kwargs)

        return blocking

    put_before(AsyncToSync, on_island)


def adopt_trio(run: Callable[..., Awaitable[Any]]) -> None:
    """From now on, let asgiref's ``sync_to_async`` work in tasks of trio: by ``run(func, *args, **kwargs)``.

    So do Django's own async methods, which are made of it. On asyncio it is asgiref's as ever.
    """

    def on_trio(theirs: Callable[..., Any]) -> Callable[..., Any]:
        async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
            in_task = trio.lowlevel.in_trio_task()
            return await (run(self.func, *args, **kwargs) if in_task else theirs(self, *args, **kwargs))

        return awaited

    put_before(SyncToAsync, on_trio)


class LaneExecutor(Executor):
    """Runs what is submitted, from any thread, in the lanes of a bridge, by tasks of ``group``.

    Once that is cancelled, what is still submitted belongs to somebody's cleaning up, who waits for it: it is done,
    until ``close``. What is left behind after that gets no lane.
    """

    def __init__(self, bridge: Bridge, group: TaskGroup) -> None:
        self._bridge, self._group, self._on_loop, self._home = bridge, group, loop_caller(), this_loop()
        self._closed = False

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        self._on_loop(partial(self._start, future, partial(fn, *args, **kwargs)))
        return future

    def _start(self, future: "Future[Any]", work: Callable[[], Any]) -> None:
        try:
            if self._closed:
                raise RuntimeError("the request is over")
            if self._group.cancel_scope.cancel_called:
                self._home.start_soon(self._run, future, work)
            else:
                self._group.start_soon(self._run, future, work)
        except RuntimeError as error:  # the request is over, and with it the group: what is left behind gets no lane
            future.set_exception(error)

    async def _run(self, future: "Future[Any]", work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = await self._bridge.run(work)
        except anyio.get_cancelled_exc_class():
            future.set_exception(RuntimeError("whoever waited for this was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)


@contextmanager
def in_lanes(executor: LaneExecutor) -> Iterator[None]:
    """In a task of an island, for the block: what asgiref's ``sync_to_async`` is given runs in lanes."""
    executors = getattr(AsyncToSync, "executors", None)
    if executors is None:
        yield
        return
    executors.current = executor
    try:
        with lending(asyncio.get_running_loop(), as_asgiref):
            yield
    finally:
        executors.current = None


def changed_since(before: Context) -> dict[ContextVar[Any], Any]:
    """In a lane: what Django and the view have set, such as the language, as it is to be set on the island.

    asgiref's own variables name the thread that they are for, so it is asked to bring them there.
    """

    async def there() -> Context:
        return copy_context()

    changed = [variable for variable, value in copy_context().items() if before.get(variable) is not value]
    brought = async_to_sync(there)()
    return {variable: brought[variable] for variable in changed if variable in brought}


@contextmanager
def as_left(variables: dict[ContextVar[Any], Any], executor: LaneExecutor) -> Iterator[None]:
    """In a task of the island that ends with the block: let these be set, and ``sync_to_async`` run in lanes."""
    for variable, value in variables.items():
        variable.set(value)
    with in_lanes(executor):
        yield
