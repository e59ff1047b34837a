"""Where trio and asyncio are named: waking a task, reaching a loop, a task that no nursery owns. The rest is anyio.

A bare reschedule costs a fifth of a stream between two tasks, and an inbox is woken for every event: hence ``Wake``.
"""

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import trio
from sniffio import AsyncLibraryNotFoundError, current_async_library  # trio brings it along

__all__ = [
    "HostTask",
    "Wake",
    "as_plain_code",
    "backend",
    "being_cancelled",
    "breathe",
    "loop_caller",
    "loop_clock",
    "loop_spawner",
    "of_this_loop",
    "on_loop",
    "open_wake",
    "spawn_host",
]

T = TypeVar("T")


def backend() -> str:
    """Return ``"trio"`` or ``"asyncio"``, whichever runs the calling task; RuntimeError outside of both."""
    try:
        return current_async_library()
    except AsyncLibraryNotFoundError:
        raise RuntimeError("this needs a running event loop: call it from a task on trio or asyncio") from None


def of_this_loop(variable: "anyio.lowlevel.RunVar[T]", make: Callable[[], T]) -> T:
    """Return what the running loop has of ``variable``, made on first use."""
    try:
        return variable.get()
    except LookupError:
        made = make()
        variable.set(made)
        return made


def on_loop() -> bool:
    """Say whether the caller is a task, and so must not block.

    The thread is asked, not the context, as ``backend()`` does: contexts are copied into threads.
    """
    return trio.lowlevel.in_trio_task() or asyncio._get_running_loop() is not None


@contextmanager
def as_plain_code() -> Iterator[None]:
    """For the block, let the calling thread look as if no asyncio loop ran in it: for what is kept by thread.

    asgiref's ``Local`` keeps other values for tasks of asyncio than for the thread that they run in.
    """
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


def loop_caller() -> Callable[[Callable[[], object]], object]:
    """Return a function with which any thread may have something called soon on the running loop, without waiting.

    Once the loop is over, it raises RuntimeError.
    """
    if backend() == "trio":
        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


def loop_spawner() -> Callable[[Callable[[], Coroutine[object, object, None]]], object]:
    """Return a function with which any thread may start a task on the running loop, outside every nursery.

    The task must end by itself, and raise nothing. Once the loop is over, it raises RuntimeError.
    """
    if backend() == "trio":
        token = trio.lowlevel.current_trio_token()
        return lambda work: token.run_sync_soon(trio.lowlevel.spawn_system_task, work)
    loop = asyncio.get_running_loop()
    return lambda work: loop.call_soon_threadsafe(lambda: _keep(loop.create_task(work())))


def being_cancelled() -> bool:
    """Say whether a cancellation that the calling task has just caught was meant for it.

    On asyncio, to await a task or future that somebody else has cancelled raises the same CancelledError.
    """
    if backend() == "trio" or anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def loop_clock() -> Callable[[], float]:
    """Return the running loop's clock, in seconds: what ``anyio.current_time`` tells, for a fifth of its price."""
    return trio.current_time if backend() == "trio" else asyncio.get_running_loop().time


class Wake(Protocol):
    """A doorbell for one sleeper. It remembers one ring; who wakes looks for himself what there is to do."""

    def ring(self) -> None:
        """Wake the sleeper, or let its next ``sleep`` return at once."""

    async def sleep(self) -> None:
        """Wait for a ring; RuntimeError if another task waits already.

        Cancellation loses nothing: the state that was rung about is still there.
        """


SECOND_SLEEPER = "two tasks read from one inbox or subscription: let one read, or open one for each"


class TrioWake:
    """The doorbell on trio: the sleeper is rescheduled directly."""

    __slots__ = ("_rung", "_sleeper")

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: trio.lowlevel.Task | None = None

    def ring(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None:
            self._rung = True
        else:
            trio.lowlevel.reschedule(sleeper)

    async def sleep(self) -> None:
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint()
            return
        if self._sleeper is not None:
            raise RuntimeError(SECOND_SLEEPER)
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abandon)

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


class AsyncioWake:
    """The doorbell on asyncio: a future for each sleep."""

    __slots__ = ("_rung", "_sleeper")

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None or sleeper.done():
            self._rung = True
        else:
            sleeper.set_result(None)

    async def sleep(self) -> None:
        if self._rung:
            self._rung = False
            await anyio.lowlevel.checkpoint()
            return
        if self._sleeper is not None:
            raise RuntimeError(SECOND_SLEEPER)
        self._sleeper = asyncio.get_running_loop().create_future()
        try:
            await self._sleeper
        finally:
            self._sleeper = None


async def breathe() -> None:
    """Let others run, in the middle of work that must not be left half done. On asyncio, whose own ``cancel()`` no
    shield stops, others have to wait instead."""
    if backend() == "trio":
        await trio.lowlevel.cancel_shielded_checkpoint()


def open_wake() -> Wake:
    """Return a doorbell for the running backend."""
    return TrioWake() if backend() == "trio" else AsyncioWake()


class HostTask:
    """A task that no nursery owns: the last resort where ASGI gives us no lifetime to hang it on.

    Its outcome is kept for whoever waits: ``error`` is what it raised, never lost and never fatal to the loop.
    """

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work = work
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<HostTask {self._work!r} {'over' if self._over.is_set() else 'running'}>"

    @property
    def over(self) -> bool:
        """True once the task has ended."""
        return self._over.is_set()

    def cancel(self) -> None:
        """Ask the task to end; ``wait`` returns when it has."""
        self._scope.cancel()

    async def wait(self) -> None:
        """Wait until the task has ended, however it ended; look at ``error`` then."""
        await self._over.wait()

    async def run(self) -> None:
        """Run the work to its end; for the spawner only."""
        try:
            with self._scope:
                await self._work()
        except anyio.get_cancelled_exc_class():
            raise  # the loop itself is ending
        except BaseException as error:  # noqa: BLE001 - kept in .error
            self.error = error
        finally:
            self._over.set()


# asyncio keeps only weak references to its tasks
_KEPT: set[asyncio.Task[None]] = set()


def _keep(task: "asyncio.Task[None]") -> None:
    _KEPT.add(task)
    task.add_done_callback(_KEPT.discard)


def spawn_host(work: Callable[[], Awaitable[object]], name: str) -> HostTask:
    """Start ``work`` outside every nursery, with a copy of the caller's context; the caller must end it."""
    host = HostTask(work)
    if backend() == "trio":
        trio.lowlevel.spawn_system_task(host.run, name=name, context=contextvars.copy_context())
    else:
        _keep(asyncio.get_running_loop().create_task(host.run(), name=name))
    return host
