"""A lane: a thread that runs blocking calls, one at a time, each for a task that waits for it.

The task that waits hosts the call: what the call asks for by :func:`call` runs in that very task, in its context and
its cancel scopes. If that again runs something blocking, it runs in the thread that is waiting anyway. So however deep
the two worlds are nested, one lane is enough, and nobody can wait for a lane that waits for him.
"""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from ..exceptions import ConnectionClosed
from ..seam import loop_caller, open_wake
from .context import come_home
from .home import leave_from_home
from .hooks import Hooks

log = logging.getLogger("trichannels.bridge")

T = TypeVar("T")

_HERE = threading.local()  # .lane: the one whose thread this is
_FRAME: ContextVar["Frame | None"] = ContextVar("trichannels_frame", default=None)


class LaneCancelled(BaseException):
    """Raised in a thread by :func:`call` and :func:`checkpoint`: whoever waited for the call was cancelled.

    It is to a thread what a backend's own cancellation is to a task: clean up, and let it pass.
    """


ENDS = (LaneCancelled, ConnectionClosed)  # how a call may end that nobody waits for any more


class Frame:
    """Says to a task, and those that it starts, which lane of a bridge stands still for it.

    With ``lease``, it is held for that one task alone, and used through the lease.
    """

    __slots__ = ("bridge", "lane", "lease", "open", "parent", "task")

    def __init__(self, lane: "Lane", bridge: object, lease: Any = None) -> None:
        self.lane, self.bridge, self.lease = lane, bridge, lease
        self.task = anyio.get_current_task().id if lease is not None else None
        self.parent = _FRAME.get()
        self.open = True


def frame_of(bridge: object) -> Frame | None:
    """Return what the calling task has of a bridge already; None if nothing."""
    frame = _FRAME.get()
    while frame is not None:
        if frame.open and frame.bridge is bridge and frame.task in (None, anyio.get_current_task().id):
            return frame
        frame = frame.parent
    return None


class held_by:
    """For a block, ``lane`` stands still for the calling task: what it runs on the bridge runs there."""

    def __init__(self, lane: "Lane", bridge: object, lease: Any = None) -> None:
        self._frame = Frame(lane, bridge, lease)

    def __enter__(self) -> None:
        self._token = _FRAME.set(self._frame)

    def __exit__(self, *raised: object) -> None:
        self._frame.open = False
        _FRAME.reset(self._token)


class Request:
    """What a call asks its task to do, and what came of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class Call:
    """One blocking call. The loop's side and the thread's share it; who leaves first is settled under a lock."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name, self._work = name, work
        self.wake = open_wake()
        self.over = self.left = self.interrupted = False
        self.then: Callable[[], object] | None = None  # done on the loop, once it is over
        leave_from_home()
        self._context, self._on_loop, self._lock = copy_context(), loop_caller(), threading.Lock()
        self._request: Request | None = None
        self._when_left: list[Callable[[], object]] = []
        self._result: Any = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Call of {self.name}{', over' if self.over else ', left' if self.left else ''}>"

    # ---- in the thread

    def execute(self) -> None:
        """Do it, and tell the loop."""
        if not self.left:
            try:
                self._result = self._context.run(come_home, self._work)
            except BaseException as error:  # noqa: BLE001 - raised by who waits
                self._error = error
        with self._lock:
            self.over = True
            left = self.left
        if left:
            self._report()
        try:
            self._on_loop(self._settle)
        except RuntimeError:
            log.debug("%s ended after its loop", self.name)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Have it called when nobody waits any more; raises :class:`LaneCancelled` if that is so already."""
        with self._lock:
            if self.left:
                raise LaneCancelled(self.name)
            self._when_left.append(callback)

    def remove_callback(self, callback: Callable[[], object]) -> None:
        """Undo it."""
        with self._lock:
            self._when_left.remove(callback)

    def ask(self, work: Callable[[], Awaitable[Any]]) -> Request:
        """Have the task do something; raises :class:`LaneCancelled` if it does not wait any more."""
        with self._lock:
            if self.left:
                raise LaneCancelled(self.name)
            request = self._request = Request(work)
        try:
            self._on_loop(self.wake.ring)
        except RuntimeError:
            raise LaneCancelled(f"{self.name}: its loop has ended") from None
        return request

    # ---- on the loop

    def _settle(self) -> None:
        self.wake.ring()
        if self.then is not None:
            self.then()

    def asked(self) -> Request | None:
        """Return what is to be done now."""
        with self._lock:
            request, self._request = self._request, None
        return request

    def leave(self) -> Request | None:
        """Wait for it no longer; returns what it has asked for, and nobody will do. What has not begun, will not."""
        with self._lock:
            self.left, over = True, self.over
            request, self._request = self._request, None
            callbacks = list(self._when_left)
        if over:
            self._report()
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("what was to be called when %s is cancelled failed", self.name)
        return request

    def _report(self) -> None:
        """Log an error that nobody will see: by whichever side comes second."""
        error, self._error = self._error, None
        if error is not None and not self.interrupted and not isinstance(error, ENDS):
            log.error("%s, which was cancelled while it ran, has failed", self.name, exc_info=error)

    def outcome(self) -> Any:
        """Return its result, or raise its error."""
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # its traceback leads to us


class Lane:
    """One thread. It begins with the first call, and ends when it is told to ``end``.

    With ``thread``, that one is to call ``serve``, which returns then.
    """

    def __init__(
        self,
        name: str,
        make_hooks: Callable[[], Hooks],
        interrupt_after: float,
        thread: threading.Thread | None = None,
    ) -> None:
        self.name, self._interrupt_after = name, interrupt_after
        self.calls: list[Call] = []  # that are under way: each of them asked for the next
        self.holder, self.since = "", 0.0
        self.hooks: Hooks | None = None
        self._make_hooks = make_hooks
        self._line: SimpleQueue[Call | None] = SimpleQueue()
        self._ending = False
        self.thread = thread or threading.Thread(target=self.serve, name=name, daemon=True)
        if thread is None:
            self.thread.start()

    def __repr__(self) -> str:
        return f"<Lane {self.name}, {f'held by {self.holder}' if self.holder else 'free'}>"

    # ---- in the thread

    def serve(self) -> None:
        """Run what comes, until it is to end."""
        _HERE.lane = self
        while not self._ending:
            self._take_one()
        try:
            if self.hooks is not None:
                self.hooks.close()
        except Exception:
            log.exception("%s could not be closed", self.name)
        _HERE.lane = None

    def with_hooks(self) -> Hooks:
        """Return the hooks of this thread, made by the first call, which raises what that raises."""
        if self.hooks is None:
            self.hooks = self._make_hooks()
        return self.hooks

    def _take_one(self) -> None:
        call = self._line.get()
        if call is not None:
            self.calls.append(call)
            try:
                call.execute()
            finally:
                self.calls.pop()
                del call

    def have_done(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Have the task of the present call do something; its blocking parts are done here meanwhile."""
        request = self.calls[-1].ask(work)
        while not request.done:
            self._take_one()
        if request.error is not None:
            raise request.error
        return request.result

    def check(self) -> None:
        """Raise :class:`LaneCancelled` if whoever waits for the present call was cancelled."""
        if self.calls and self.calls[-1].left:
            raise LaneCancelled(self.calls[-1].name)

    # ---- on the loop

    async def host(self, call: Call, bridge: object, *, abandon: bool = False) -> Any:
        """Have a call run, do what it asks for, and return what it returns.

        Cancelled, it is told so, and waited for until it is over, unless it is to be abandoned.
        """
        self._line.put(call)
        try:
            while not call.over:
                await call.wake.sleep()
                if (request := call.asked()) is not None:
                    await self._serve(request, bridge)
        except anyio.get_cancelled_exc_class():
            if (request := call.leave()) is not None:
                self._answer(request, error=LaneCancelled(call.name))
            if not abandon:
                await self._wait_out(call)
            raise
        return call.outcome()

    async def _serve(self, request: Request, bridge: object) -> None:
        try:
            with held_by(self, bridge):
                result = await request.work()
        except anyio.get_cancelled_exc_class():
            self._answer(request, error=LaneCancelled("the task that did it was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - raised in the thread
            self._answer(request, error=error)
        else:
            self._answer(request, result)

    def _answer(self, request: Request, result: Any = None, error: BaseException | None = None) -> None:
        request.result, request.error, request.done = result, error, True
        self._line.put(None)  # wake it

    async def _wait_out(self, call: Call) -> None:
        """Wait until a call is over that was told to end; interrupt what it waits for, again and again."""
        with anyio.CancelScope(shield=True):
            while not call.over:
                with anyio.move_on_after(self._interrupt_after):
                    while not call.over:
                        await call.wake.sleep()
                if not call.over and self.hooks is not None:
                    call.interrupted = True
                    await to_thread.run_sync(self.interrupt, call)

    def interrupt(self, call: Call) -> None:
        """Have what a call waits for end, where that is possible. From any thread but its own."""
        try:
            if self.hooks is not None and not call.over:
                self.hooks.interrupt()
        except Exception:
            log.exception("%s could not be interrupted", call.name)

    def end(self) -> None:
        """Let the thread end when it has nothing to do."""
        self._ending = True
        self._line.put(None)


def in_lane() -> bool:
    """Say whether this thread is a lane that runs something: whether ``call()`` works."""
    lane: Lane | None = getattr(_HERE, "lane", None)
    return lane is not None and bool(lane.calls)


def here() -> Lane:
    """Return the lane whose thread this is; RuntimeError elsewhere."""
    lane: Lane | None = getattr(_HERE, "lane", None)
    if lane is None or not lane.calls:
        raise RuntimeError(
            "call() is for blocking code that a bridge runs in a thread: in async code await it, "
            "and elsewhere run it with anyio.run()"
        )
    return lane


def checkpoint() -> None:
    """In a thread of a bridge: raise :class:`LaneCancelled` if whoever waits for this was cancelled. Else, nothing."""
    lane: Lane | None = getattr(_HERE, "lane", None)
    if lane is not None:
        lane.check()


@contextmanager
def when_cancelled(callback: Callable[[], object]) -> Iterator[None]:
    """In a thread of a bridge: for the block, have ``callback`` called if whoever waits for this is cancelled.

    It is called in the loop's thread, must not block or raise, and is what ends something that the thread waits for.
    Raises :class:`LaneCancelled` if that has happened already.
    """
    call = here().calls[-1]
    call.add_callback(callback)
    try:
        yield
    finally:
        call.remove_callback(callback)
