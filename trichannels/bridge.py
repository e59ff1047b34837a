"""Threads and the loop: blocking code runs in a bounded number of worker threads, and calls back into its loop.

No Django here. This is the plain bridge: a limit, order within an instance, honest accounting under cancellation.
"""

import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio import RunFinishedError, from_thread, to_thread
from anyio.lowlevel import RunVar

from .exceptions import ConnectionClosed
from .seam import loop_caller

log = logging.getLogger("trichannels.bridge")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatistics:
    """How many calls run in threads (``abandoned`` ones included), how many wait, and the limit."""

    limit: int
    running: int
    waiting: int
    abandoned: int


class Bridge:
    """Runs blocking calls in at most ``limit`` threads at a time."""

    def __init__(self, limit: int = 10) -> None:
        self.limit = limit
        self._limiter = anyio.CapacityLimiter(limit)
        self._threads = anyio.CapacityLimiter(float("inf"))
        self._abandoned = 0

    def __repr__(self) -> str:
        return f"<Bridge {self.statistics()}>"

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``func`` in a thread and return its result; raises what it raises.

        Waiting for a free thread is cancellable at once. A call that runs cannot be stopped: cancellation returns at
        once and leaves it behind; it keeps its place under the limit until its thread ends, its result is dropped, its
        error logged. Context variables are copied in, not back.
        """
        job = _Job(partial(func, *args, **kwargs), self._over)
        await self._limiter.acquire_on_behalf_of(job)
        try:
            return await to_thread.run_sync(job.work, abandon_on_cancel=True, limiter=self._threads)
        finally:
            if job.leave():
                self._limiter.release_on_behalf_of(job)
            else:
                self._abandoned += 1

    def _over(self, job: object) -> None:
        self._abandoned -= 1
        self._limiter.release_on_behalf_of(job)

    def statistics(self) -> BridgeStatistics:
        """Return what runs and what waits now."""
        limiter = self._limiter.statistics()
        return BridgeStatistics(
            limit=self.limit,
            running=limiter.borrowed_tokens,
            waiting=limiter.tasks_waiting,
            abandoned=self._abandoned,
        )


class _Job:
    """One call in a thread, and who of thread and caller was first to let go of it."""

    def __init__(self, call: Callable[[], Any], over: Callable[["_Job"], None]) -> None:
        self._call, self._over = call, over
        self._call_on_loop = loop_caller()
        # How an abandoned call ends when it calls back: no failure of its own.
        self._ends = (ConnectionClosed, RunFinishedError, CancelledError, anyio.get_cancelled_exc_class())
        self._lock = threading.Lock()
        self._started = self._finished = self._left = False

    def work(self) -> Any:
        """Run in the thread."""
        with self._lock:
            if self._left:  # before we began: nobody counts us any more
                return None
            self._started = True
        failure: BaseException | None = None
        try:
            return self._call()
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._lock:
                self._finished = True
            if self._left:
                self._tell(failure)

    def _tell(self, failure: BaseException | None) -> None:
        if failure is not None and not isinstance(failure, self._ends):
            log.error("a call that was cancelled while it ran has failed", exc_info=failure)
        try:
            self._call_on_loop(partial(self._over, self))
        except RuntimeError:  # the loop has ended, and its limiter with it
            log.debug("an abandoned call ended after its loop")

    def leave(self) -> bool:
        """The caller goes on; True if the call is over or will never begin, False if it is left behind."""
        with self._lock:
            self._left = not self._finished
            return not self._left or not self._started


_BRIDGE: RunVar[Bridge] = RunVar("trichannels_bridge")


def current_bridge() -> Bridge:
    """Return the running loop's bridge, made on first use."""
    try:
        return _BRIDGE.get()
    except LookupError:
        bridge = Bridge()
        _BRIDGE.set(bridge)
        return bridge


def call(func: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> T:
    """In a thread of the bridge: run ``await func(*args, **kwargs)`` on the loop that waits for us, and block for it.

    RuntimeError outside of such a thread.
    """
    return from_thread.run(partial(func, *args, **kwargs))


def call_soon(func: Callable[..., T], /, *args: Any) -> T:
    """In a thread of the bridge: run a plain function on the loop's thread, and block for it."""
    return from_thread.run_sync(func, *args)


def sync_to_async(func: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Make a blocking function awaitable: it runs in a thread of the running loop's bridge."""

    @wraps(func)
    async def awaitable(*args: P.args, **kwargs: P.kwargs) -> T:
        return await current_bridge().run(func, *args, **kwargs)

    return awaitable


def async_to_sync(func: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async function callable from a thread of the bridge; it runs on the loop, and the thread blocks."""

    @wraps(func)
    def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
        return call(func, *args, **kwargs)

    return blocking
