"""Task groups: the nursery that a consumer is given, and errors taken out of the groups they travel in."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, NoReturn

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from .exceptions import ConnectionClosed


class Nursery:
    """The nursery of an instance: what is started here ends with the socket. It counts its tasks.

    ``failed`` is told at once of what a task raised, and returns the cancellation in it, which goes on.

    An error in a task ends the instance as an error in a handler does. While the nursery ends, to start a task raises
    :class:`ConnectionClosed`, which is a normal end; once it has ended, in ``disconnect()``, RuntimeError.
    """

    __slots__ = ("_failed", "_group", "state", "tasks")

    def __init__(self, group: TaskGroup, failed: Callable[[BaseException], BaseException | None] | None = None) -> None:
        self._group, self._failed, self.tasks = group, failed, 0
        self.state: Literal["open", "ending", "over"] = "open"

    def __repr__(self) -> str:
        return f"<Nursery of {self.tasks} tasks>"

    @property
    def cancel_scope(self) -> CancelScope:
        """The scope of all its tasks; cancelling it also ends the socket, as ``StopConsumer`` does."""
        return self._group.cancel_scope

    def start_soon(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> None:
        """Start ``func(*args)`` as a task that ends with the socket."""
        self._require_open()
        self._group.start_soon(self._counted, func, args, name=name or func)
        self.tasks += 1

    async def start(self, func: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> Any:
        """Start ``func(*args, task_status=…)`` and wait until it calls ``task_status.started(value)``."""
        self._require_open()
        return await self._group.start(self._counted_start, func, args, name=name or func)

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
            self._group.cancel_scope.cancel()
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


@asynccontextmanager
async def collapsed() -> AsyncIterator[None]:
    """Let no group of a single error out, nor one of cancellations. The error keeps its own cause and context.

    ``async with collapsed(), anyio.create_task_group() as group: ...``
    """
    try:
        yield
    except BaseExceptionGroup as group:
        failures, cancelled = sort_out(group)
        if not failures and cancelled is not None:
            raise cancelled from None
        if len(failures) == 1 and cancelled is None:
            raise_as_it_was(failures[0])
        raise


def raise_as_it_was(error: BaseException) -> NoReturn:
    """Raise ``error`` with the cause and the context that it has, whatever is being handled now."""
    cause, context, hidden = error.__cause__, error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        error.__cause__, error.__context__, error.__suppress_context__ = cause, context, hidden
        del error, cause, context  # no cycle through this frame
