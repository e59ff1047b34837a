"""The loop that blocking code, and code on an island, was called from: how to have something done there.

A context variable says which it is, so it passes into lanes and onto islands, and to loops that asgiref makes.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar

from ..exceptions import BridgeClosed
from ..seam import loop_caller, loop_spawner, of_this_loop, on_loop

log = logging.getLogger("trichannels.bridge")

LOOK = 1.0  # seconds after which one looks whether the other loop is still there

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


async def contained(func: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Do something for which nobody waits; an error is logged."""
    try:
        await func(*args)
    except Exception:
        log.exception("%s, for which nobody waits, has failed", getattr(func, "__qualname__", func))


class Home:
    """A running loop, for other threads. ``kept``: what is there for all of its tasks, by name."""

    def __init__(self) -> None:
        self._on_loop, self._spawn = loop_caller(), loop_spawner()
        self.kept: dict[str, Any] = {}

    def call_soon(self, func: Callable[[], object]) -> None:
        """From any thread: have a plain function called on this loop, soon; nothing is done if the loop is over."""
        with suppress(RuntimeError):
            self._on_loop(func)

    def start_soon(self, func: Callable[..., Awaitable[object]], *args: Any) -> None:
        """From any thread: have something done on this loop, for which nobody waits. An error is logged."""
        with suppress(RuntimeError):
            self._spawn(Errand(lambda: contained(func, *args), lambda: None).run)

    async def run(self, func: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """From another loop: run ``await func(*args)`` on this one and return its result; raises what it raises.

        Cancelled, it cancels that, and returns when it has ended. Raises :class:`BridgeClosed` if the loop is over.
        """
        over, there = anyio.Event(), loop_caller()
        errand = Errand(lambda: func(*args), lambda: there(over.set))
        self._start(errand)
        try:
            await self._until(over)
        except anyio.get_cancelled_exc_class():
            self.call_soon(errand.cancel)
            with anyio.CancelScope(shield=True), suppress(BridgeClosed):
                await self._until(over)
            raise
        return cast(T, errand.outcome())

    def block(self, func: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """From a thread without a loop: the same, and block for it."""
        over = threading.Event()
        errand = Errand(lambda: func(*args), over.set)
        self._start(errand)
        while not over.wait(LOOK):
            self._require_running()
        return cast(T, errand.outcome())

    async def _until(self, over: anyio.Event) -> None:
        while not over.is_set():
            with anyio.move_on_after(LOOK):
                await over.wait()
            self._require_running()

    def _require_running(self) -> None:
        """Raise :class:`BridgeClosed` if the loop is over: asyncio's takes what it will not do any more."""
        self._reached(self._on_loop, lambda: None)

    def _start(self, errand: "Errand") -> None:
        self._reached(self._spawn, errand.run)

    def _reached(self, way: Callable[[Any], object], work: Callable[[], object]) -> None:
        try:
            way(work)
        except RuntimeError as error:
            raise BridgeClosed("the event loop that this was called from") from error


class Errand:
    """Something that one loop does for a thread or another loop; ``tell`` is called once it is over."""

    def __init__(self, work: Callable[[], Awaitable[Any]], tell: Callable[[], object]) -> None:
        self._work, self._tell = work, tell
        self._result: Any = None
        self._error: BaseException | None = None
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    async def run(self) -> None:
        """Do it."""
        self._error = BridgeClosed("what has asked for this, or the event loop that it was asked of,")
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:  # before it had begun
                    self._scope.cancel()
                self._result = await self._work()
                self._error = None
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            self._error = error
        finally:
            with suppress(RuntimeError):  # who has asked is gone
                self._tell()

    def cancel(self) -> None:
        """Let it end, and not begin."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def outcome(self) -> Any:
        """Return its result, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result


_HERE: RunVar[Home] = RunVar("trichannels_home")
_HOME: ContextVar[Home | None] = ContextVar("trichannels_home", default=None)


def this_loop() -> Home:
    """Return the running loop."""
    return of_this_loop(_HERE, Home)


def home() -> Home | None:
    """Return the loop that the calling thread, or the running island, was called from; None if from none.

    On a loop that was called from nowhere, that loop.
    """
    return _HOME.get() or (this_loop() if on_loop() else None)


@contextmanager
def at_home(loop: Home) -> Iterator[None]:
    """For the block, in a thread: be as if called from that loop."""
    before = _HOME.set(loop)
    try:
        yield
    finally:
        _HOME.reset(before)


def leave_from_home() -> None:
    """Before something is run elsewhere in a copy of the caller's context: let it know where it came from.

    A loop that keeps something is the one; any other leads back to where it was called from itself.
    """
    known, here = _HOME.get(), this_loop()
    if known is not here and (known is None or here.kept):
        _HOME.set(here)


def blocks_too(func: Callable[..., object]) -> bool:
    """Say whether a function was marked by :func:`awaitable_too`."""
    return getattr(func, "_blocks_too", False)


def awaitable_too(func: F) -> F:
    """Mark a plain function that returns an awaitable on a loop, and blocks in a thread: ``async_to_sync`` takes it.

    asgiref's wants to see a coroutine function, ours a mark of our own.
    """
    func._blocks_too = True  # type: ignore[attr-defined]
    func._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", True)  # type: ignore[attr-defined]
    with suppress(ImportError):  # Python 3.12 and newer
        from inspect import markcoroutinefunction  # type: ignore[attr-defined, unused-ignore]

        markcoroutinefunction(func)
    return func
