"""Task groups: the nursery that a consumer is given, and errors taken out of the groups they travel in."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Literal, NoReturn

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from .exceptions import ConnectionClosed


def _nobody() -> None:
    """Nobody wants to know that a nursery was cancelled."""


class Nursery:
    """The nursery of an instance: what is started here ends with the socket. It counts its tasks.

    It is opened by the first who uses it, in a task that ``spawn`` starts, and lives until ``end()``. ``failed`` is
    told at once of what a task raised, and returns the cancellation in it, which goes on; ``ended`` is called if
    somebody else has cancelled it.

    An error in a task ends the instance as an error in a handler does. While the nursery ends, to start a task raises
    :class:`ConnectionClosed`, which is a normal end; once it has ended, in ``disconnect()``, RuntimeError.
    """

    __slots__ = ("_ended", "_failed", "_group", "_open", "_over", "_scope", "_spawn", "_waiting", "state", "tasks")

    def __init__(
        self,
        spawn: Callable[..., object],
        failed: Callable[[BaseException], BaseException | None] | None = None,
        ended: Callable[[], None] = _nobody,
    ) -> None:
        self._spawn, self._failed, self._ended, self.tasks = spawn, failed, ended, 0
        self.state: Literal["open", "ending", "over"] = "open"
        self._group: TaskGroup | None = None
        self._scope: CancelScope | None = None
        self._open: anyio.Event | None = None
        self._over: anyio.Event | None = None  # set when the task that holds the group is done
        self._waiting: list[Callable[[TaskGroup], object]] = []  # what was started before the group was there

    def __repr__(self) -> str:
        return f"<Nursery of {self.tasks} tasks>"

    @property
    def cancel_scope(self) -> CancelScope:
        """The scope of all its tasks; cancelling it also ends the socket, as ``StopConsumer`` does."""
        return self._opened()[0]

    def start_soon(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> None:
        """Start ``func(*args)`` as a task that ends with the socket."""
        self._require_open()
        self._opened()
        if self._group is not None:
            self._group.start_soon(self._counted, func, args, name=name or func)
        else:
            context = copy_context()  # the task has the variables of whoever started it

            def start(group: TaskGroup) -> None:
                group.start_soon(self._counted, func, args, name=name or func)

            self._waiting.append(lambda group: context.run(start, group))
        self.tasks += 1

    async def start(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> Any:
        """Start ``func(*args, task_status=…)`` and wait until it calls ``task_status.started(value)``."""
        self._require_open()
        await self._opened()[1].wait()
        self._require_open()
        assert self._group is not None
        return await self._group.start(self._counted_start, func, args, name=name or func)

    def end(self) -> None:
        """Cancel what runs, and let nothing start any more."""
        self.state = "ending"
        if self._scope is not None:
            self._scope.cancel()

    def let_go(self) -> None:
        """Forget whom to tell, once all is over: references in a circle would live on until they are collected."""
        self._failed, self._ended = None, _nobody

    def _opened(self) -> tuple[CancelScope, anyio.Event]:
        """See to it that there is a group, soon; return its scope, and what tells that it is open."""
        if self._scope is None or self._open is None:
            self._scope, self._open = CancelScope(), anyio.Event()
            if self.state == "open":
                self._over = anyio.Event()
                self._spawn(self._host, self._scope, self._open, self._over, name="nursery")
        return self._scope, self._open

    async def over(self) -> None:
        """Wait until all tasks have ended. Cannot be cancelled: call ``end()`` first."""
        if self._over is not None:
            with CancelScope(shield=True):
                await self._over.wait()

    async def _host(self, scope: CancelScope, opened: anyio.Event, over: anyio.Event) -> None:
        """Hold the group until the scope is cancelled."""
        stopped = False
        try:
            with scope:
                async with collapsed(), anyio.create_task_group() as self._group:
                    opened.set()
                    for start in self._waiting:
                        start(self._group)
                    self._waiting.clear()
                    try:
                        await anyio.sleep_forever()
                    finally:  # once its body is over, a group may refuse new tasks at any moment
                        stopped = self.state == "open"
                        self.state = "ending"
        except BaseException as raised:
            left = raised if self._failed is None else self._failed(raised)
            if left is raised:
                raise
            if left is not None:
                raise left from None
        finally:
            over.set()
        if stopped:
            self._ended()

    def _require_open(self) -> None:
        if self.state == "ending":  # a task group's own error would be reported as a failure
            raise ConnectionClosed(1001, "its nursery is ending")
        if self.state == "over":
            raise RuntimeError("the nursery has ended before disconnect() began: await the work there instead")

    async def _counted(self, func: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            with self._telling():
                await func(*args)
        finally:
            self.tasks -= 1

    async def _counted_start(
        self, func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], *, task_status: Any
    ) -> None:
        status = _Status(task_status)
        self.tasks += 1
        try:
            with self._telling(lambda: status.reported):  # until then, an error is start()'s
                await func(*args, task_status=status)
        finally:
            self.tasks -= 1

    @contextmanager
    def _telling(self, when: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Tell of a failure at once: a task group would keep it until the last of its tasks has ended."""
        try:
            yield
        except BaseException as raised:
            if self._failed is None or not when():
                raise
            left = self._failed(raised)
            if left is raised:
                raise
            if self._scope is not None:
                self._scope.cancel()
            if left is not None:
                raise left from None


class _Status:
    """A ``task_status`` that knows whether it has been reported to."""

    def __init__(self, status: Any) -> None:
        self._status, self.reported = status, False

    def started(self, value: Any = None) -> None:
        self._status.started(value)
        self.reported = True


def sort_out(raised: BaseException) -> tuple[list[BaseException], BaseException | None]:
    """Take an error, or a group of any depth, apart: the failures in it, and a cancellation if one is in it."""
    if isinstance(raised, anyio.get_cancelled_exc_class()):
        return [], raised
    if not isinstance(raised, BaseExceptionGroup):
        return [raised], None
    failures: list[BaseException] = []
    cancelled: BaseException | None = None
    for inner in raised.exceptions:
        below, stop = sort_out(inner)
        failures += below
        cancelled = cancelled or stop
    return failures, cancelled


class collapsed:
    """Let no group of a single error out, nor one of cancellations. The error keeps its own cause and context.

    ``async with collapsed(), anyio.create_task_group() as group: ...``
    """

    __slots__ = ()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, group: BaseException | None, trace: object) -> None:
        if not isinstance(group, BaseExceptionGroup):
            return
        failures, cancelled = sort_out(group)
        if not failures and cancelled is not None:
            raise cancelled from None
        if len(failures) == 1 and cancelled is None:
            raise_as_it_was(failures[0])


def raise_as_it_was(error: BaseException) -> NoReturn:
    """Raise ``error`` with the cause and the context that it has, whatever is being handled now."""
    cause, context, hidden = error.__cause__, error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        error.__cause__, error.__context__, error.__suppress_context__ = cause, context, hidden
        del error, cause, context  # no cycle through this frame
