"""The bridge: so many lanes, handed out one call at a time, or to a block that wants several calls on one thread."""

import logging
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial, wraps
from time import monotonic
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar, checkpoint_if_cancelled

from ..exceptions import BridgeClosed, BridgeSaturated, ConfigError
from ..seam import of_this_loop, on_loop
from .ending import Ending, at_loop_end, forget
from .home import blocks_too
from .hooks import Hooks
from .lane import Call, Lane, frame_of, held_by, here
from .lent import lent_threads
from .only import or_only

log = logging.getLogger("trichannels.bridge")

P = ParamSpec("P")
T = TypeVar("T")


LAST_WORDS = 1.0  # seconds in which threads that have nothing to do end


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatistics:
    """How many calls and leases have threads (``abandoned`` ones included), how many wait, and the limit.

    ``holders``: what holds the threads, the longest first: name and seconds of each.
    """

    limit: int
    running: int
    waiting: int
    abandoned: int
    holders: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class StuckCall:
    """A call that was still in its thread when its bridge ended: since how many seconds, and where it stands."""

    name: str
    seconds: float
    stack: str


class Bridge:
    """Runs blocking calls in at most ``limit`` threads, its *lanes*: each is made when it is needed, and kept.

    Who comes when all are busy waits, in order, at most ``acquire_timeout`` seconds, then gets
    :class:`BridgeSaturated`, which names the holders. A call whose caller was cancelled is told so (``checkpoint()``
    and ``call()`` raise in its thread); after ``interrupt_after`` seconds, and again each time, what it waits for is
    interrupted, where ``hooks`` can do that. Used as a block, the bridge ends with it, as ``drain`` says; otherwise,
    when its event loop does.
    """

    def __init__(
        self,
        limit: int = 10,
        *,
        name: str = "bridge",
        acquire_timeout: float = 30.0,
        interrupt_after: float = 5.0,
        hooks: Callable[[], Hooks] = Hooks,
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"Bridge(limit=…) must be an int of at least 1, not {limit!r}")
        for option, value in (("acquire_timeout", acquire_timeout), ("interrupt_after", interrupt_after)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"Bridge({option}=…) must be a number of seconds above 0, not {value!r}")
        self.limit, self.name = limit, name
        self._acquire_timeout, self._interrupt_after, self._make_hooks = acquire_timeout, interrupt_after, hooks
        self._begin()

    def _begin(self) -> None:
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []  # the one that was used last comes first: its caches are warm
        self._places: anyio.Semaphore | None = None
        self._waiting = self._abandoned = self._made = 0
        self._closed = False
        self._end: Ending | None = None

    def __repr__(self) -> str:
        return f"<Bridge {self.name}: {self.statistics()}>"

    # ---- running

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``func`` in a thread and return its result; raises what it raises.

        Waiting for a free thread is cancellable at once. A call that runs is told of a cancellation and waited for, and
        then the cancellation goes on, even if the call was done: what it has done stays done. Context variables are
        copied in, not back. Called from what a blocking call has asked for, or from the task of a lease, it runs in
        the thread that stands still for it.
        """
        return await self._run(partial(func, *args, **kwargs), name_of(func), abandon=False)

    async def run_or_abandon(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``run``, but cancelled, return at once, and leave the call behind.

        It keeps its thread until it ends; its result is dropped, its error logged. What it asks for by ``call()``
        raises :class:`LaneCancelled`.
        """
        return await self._run(partial(func, *args, **kwargs), name_of(func), abandon=True)

    async def _run(self, work: Callable[[], T], name: str, *, abandon: bool) -> T:
        if (only := or_only(self)) is not self:
            return await only._run(work, name, abandon=abandon)
        frame = frame_of(self)
        result: T
        if frame is not None:  # never abandoned: who is above it needs the thread
            await checkpoint_if_cancelled()
            on = frame.lane.host(Call(name, work), self) if frame.lease is None else frame.lease.do(name, work)
            result = await on
            return result
        lane = await self._acquire(name)
        call = Call(name, partial(_surrounded, lane, work))
        try:
            result = await lane.host(call, self, abandon=abandon)
        finally:
            self._release_after(lane, call)
        return result

    @asynccontextmanager
    async def lease(self, *, atomic: bool = False, using: str | None = None) -> AsyncIterator["Lease"]:
        """Hold one lane for a block: all that it runs is done in one thread, on one connection.

        ``atomic``: in a transaction of the database ``using``, which is rolled back if the block fails or is cancelled.
        What the task of the block runs on the bridge itself is done there too; tasks that it starts use the lease.
        """
        if (only := or_only(self)) is not self:
            async with only.lease(atomic=atomic, using=using) as lease:
                yield lease
            return
        name = "a lease" if not atomic else "a lease with a transaction"
        lane = await self._acquire(name)
        lease = Lease(lane, self)
        try:
            await lease.do(f"the beginning of {name}", partial(lease._begin, atomic, using))
            with held_by(lane, self, lease):
                yield lease
        except BaseException as error:
            await lease._end(error)
            raise
        else:
            await lease._end(None)
        finally:
            self._release_after(lane, lease._last)

    async def _acquire(self, name: str) -> Lane:
        if self._closed:
            raise BridgeClosed(repr(self.name))
        if self._places is None:
            self._places = anyio.Semaphore(self.limit)
            self._end = at_loop_end(self._loop_ended)
        await checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait(self._places)
        if self._closed:
            self._places.release()
            raise BridgeClosed(repr(self.name))
        lane = self._free.pop() if self._free else self._new_lane(self._places)
        lane.holder, lane.since = name, monotonic()
        return lane

    def _new_lane(self, places: anyio.Semaphore) -> Lane:
        self._made += 1
        try:
            lane = Lane(f"{self.name} lane {self._made}", self._make_hooks, self._interrupt_after)
        except BaseException:  # the system has no more threads for us
            places.release()
            raise
        self._lanes.append(lane)
        return lane

    async def _wait(self, places: anyio.Semaphore) -> None:
        self._waiting += 1
        try:
            with anyio.move_on_after(self._acquire_timeout):
                await places.acquire()
                return
        finally:
            self._waiting -= 1
        raise BridgeSaturated(self.limit, self._acquire_timeout, self._holders())

    def _release_after(self, lane: Lane, call: Call | None) -> None:
        """Let others have a lane, as soon as the call in it is over."""
        if call is None or call.over:
            self._release(lane)
        else:
            self._abandoned += 1
            call.then = partial(self._release_late, lane)

    def _release_late(self, lane: Lane) -> None:
        if lane in self._lanes:
            self._abandoned -= 1
        self._release(lane)

    def _release(self, lane: Lane) -> None:
        lane.holder = ""
        if lane not in self._lanes:  # the bridge has ended since, and begun anew
            lane.end()
            return
        if self._closed:
            lane.end()
        else:
            self._free.append(lane)
        assert self._places is not None
        self._places.release()

    # ---- looking at it

    def _holders(self) -> tuple[tuple[str, float], ...]:
        now = monotonic()
        held = sorted((lane.since, lane.holder) for lane in self._lanes if lane.holder)
        return tuple((name, now - since) for since, name in held)

    def statistics(self) -> BridgeStatistics:
        """Return what runs and what waits now."""
        holders = self._holders()
        return BridgeStatistics(
            limit=self.limit,
            running=len(holders),
            waiting=self._waiting,
            abandoned=self._abandoned,
            holders=holders,
        )

    # ---- the end

    def end(self) -> None:
        """Let its threads end once they have nothing to do, and wait for those that have nothing; for tests."""
        self._closed = True
        self._loop_ended()

    def _loop_ended(self) -> None:
        """The event loop ends: so do the threads. Another loop may begin with new ones."""
        for lane in self._lanes:
            lane.end()
        _join([lane.thread for lane in self._free], LAST_WORDS)
        if not self._closed:
            self._begin()

    async def __aenter__(self) -> Self:
        if self._closed:
            self._begin()
        return self

    async def __aexit__(self, *raised: object) -> None:
        for stuck in await self.drain():
            log.error("%s has not ended since %.1f s, and is left behind:\n%s", stuck.name, stuck.seconds, stuck.stack)

    async def drain(self, grace: float = 10.0) -> list[StuckCall]:
        """Take no more calls, and end the threads; returns the calls that are still in theirs after ``grace`` seconds.

        Those get a last interrupt. Their threads are daemons, which do not keep the process from ending.
        """
        self._closed = True
        with anyio.CancelScope(shield=True):
            for lane in self._free:
                lane.end()
            await to_thread.run_sync(_join, [lane.thread for lane in self._lanes], grace)
            stuck = [lane for lane in self._lanes if lane.thread.is_alive() and lane.calls]
            for lane in stuck:
                call = lane.calls[0]
                call.leave()
                call.interrupted = True
                await to_thread.run_sync(lane.interrupt, call)
                lane.end()
            await to_thread.run_sync(_join, [lane.thread for lane in stuck], LAST_WORDS)
            if self._end is not None:
                await forget(self._end)
        return [_stuck(lane) for lane in stuck if lane.thread.is_alive()]


class Lease:
    """A lane for several calls, one after the other. Any task of the block may use it."""

    def __init__(self, lane: Lane, bridge: Bridge) -> None:
        self._lane, self._bridge = lane, bridge
        self._lock = anyio.Lock()
        self._transaction: AbstractContextManager[object] | None = None
        self._last: Call | None = None

    def __repr__(self) -> str:
        return f"<Lease of {self._lane!r}>"

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``func`` in the lease's thread; as :meth:`Bridge.run` otherwise."""
        result: T = await self.do(name_of(func), partial(func, *args, **kwargs))
        return result

    async def do(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a function without arguments; ``name`` is for reports."""
        frame = frame_of(self._bridge)
        if frame is not None and frame.lane is self._lane and frame.lease is None:  # a call of it stands still for us
            return await self._lane.host(Call(name, work), self._bridge)
        async with self._lock:
            call = self._last = Call(name, work)
            return await self._lane.host(call, self._bridge)

    def _begin(self, atomic: bool, using: str | None) -> None:
        hooks = self._lane.with_hooks()
        hooks.before()
        if atomic:
            transaction = hooks.transaction(using)
            transaction.__enter__()
            self._transaction = transaction

    async def _end(self, error: BaseException | None) -> None:
        """End it in its thread, whatever is cancelled."""
        with anyio.CancelScope(shield=True):
            await self.do("the end of a lease", partial(self._finish, error))

    def _finish(self, error: BaseException | None) -> None:
        transaction, self._transaction = self._transaction, None
        try:
            if transaction is not None:
                transaction.__exit__(type(error) if error is not None else None, error, None)
        finally:
            _after(self._lane)


def _surrounded(lane: Lane, work: Callable[[], T]) -> T:
    """Do ``work`` between the hooks of the lane, whose thread this is."""
    lane.with_hooks().before()
    try:
        return work()
    finally:
        _after(lane)


def _after(lane: Lane) -> None:
    try:
        if lane.hooks is not None:
            lane.hooks.after()
    except Exception:
        log.exception("what is done after a call in %s failed", lane.name)


def _join(threads: list[Any], seconds: float) -> None:
    until = monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))


def _stuck(lane: Lane) -> StuckCall:
    frame = sys._current_frames().get(lane.thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    return StuckCall(lane.holder, monotonic() - lane.since, stack)


def name_of(func: Callable[..., object]) -> str:
    """Return what a function is called in reports."""
    while isinstance(func, partial):
        func = func.func
    return getattr(func, "__qualname__", None) or repr(func)


# ---- the loop's own bridge, and what blocking code calls

_OWN: list[tuple[Callable[[], Hooks], int]] = [(Hooks, 10)]  # hooks and limit of loops' own bridges: the last counts


def surround_with(hooks: Callable[[], Hooks], limit: int = 10) -> None:
    """Let the bridges that loops make for themselves have these hooks, from now on. ``trichannels.db`` does that."""
    _OWN.append((hooks, limit))


_BRIDGE: RunVar[Bridge] = RunVar("trichannels_bridge")


def _own_bridge() -> Bridge:
    hooks, limit = _OWN[-1]
    return Bridge(limit, name="trichannels", hooks=hooks)


def current_bridge() -> Bridge:
    """Return the running loop's bridge, made on first use."""
    return of_this_loop(_BRIDGE, _own_bridge)


def use_bridge(bridge: Bridge) -> None:
    """Make it the running loop's: for blocking consumers, ``sync_to_async`` and ``database_sync_to_async``."""
    _BRIDGE.set(bridge)


def call(func: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
    """In a thread of a bridge: run ``await func(*args, **kwargs)`` in the task that waits for us, and block for it.

    Raises :class:`LaneCancelled` if that task was cancelled, and RuntimeError outside of such a thread.
    """
    result: T = here().have_done(partial(func, *args, **kwargs))
    return result


def call_soon(func: Callable[..., T], /, *args: Any) -> T:
    """In a thread of a bridge: run a plain function on the loop's thread, and block for it."""

    async def on_the_loop() -> T:
        return func(*args)

    return call(on_the_loop)


@overload
def sync_to_async(func: Callable[P, T], *, thread_sensitive: bool = ...) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def sync_to_async(
    func: None = None, *, thread_sensitive: bool = ...
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]: ...
def sync_to_async(func: Callable[P, T] | None = None, *, thread_sensitive: bool = True) -> Any:
    """Make a blocking function awaitable: it runs in a thread of the running loop's bridge. As a decorator, too.

    ``thread_sensitive`` is asgiref's, and makes no difference: calls that must share a thread go through
    ``Bridge.lease()``.
    """
    return sync_to_async if func is None else awaitable_on(current_bridge, func)


def awaitable_on(bridge: Callable[[], Bridge], func: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return an async function that runs ``func`` on whichever bridge there is when it is called."""

    @wraps(func)
    async def awaitable(*args: P.args, **kwargs: P.kwargs) -> T:
        if (lent := lent_threads()) is None:
            return await bridge().run(func, *args, **kwargs)
        return await lent.run(partial(func, *args, **kwargs), lambda: bridge().run(func, *args, **kwargs))

    return awaitable


def async_to_sync(func: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async function callable from a thread of the bridge; it runs on the loop, and the thread blocks.

    A method of the layer that ``get_channel_layer()`` finds may be called so in any thread, as it may without this.
    """

    @wraps(func)
    def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
        if blocks_too(func) and not on_loop():
            return cast(T, func(*args, **kwargs))
        return call(func, *args, **kwargs)

    return blocking
