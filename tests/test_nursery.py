"""The nursery of an instance counts its tasks; errors come out of the groups they travel in, as themselves."""

import re
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from trichannels.exceptions import ConnectionClosed
from trichannels.nursery import Nursery, collapsed, sort_out


@asynccontextmanager
async def opened(failed: Callable[[BaseException], BaseException | None] | None = None) -> AsyncIterator[Nursery]:
    """A nursery with a task group to live in."""
    async with anyio.create_task_group() as group:
        nursery = Nursery(group.start_soon, failed)
        try:
            yield nursery
        finally:
            nursery.end()


async def test_it_counts_the_tasks_that_run() -> None:
    go = anyio.Event()

    async def task(number: int) -> None:
        await go.wait()

    async with opened() as nursery:
        nursery.start_soon(task, 1)
        nursery.start_soon(task, 2, name="second")
        await anyio.wait_all_tasks_blocked()
        assert nursery.tasks == 2
        assert repr(nursery) == "<Nursery of 2 tasks>"
        go.set()
    assert nursery.tasks == 0


async def test_tasks_have_the_names_that_they_are_given() -> None:
    names: list[str | None] = []

    async def task() -> None:
        names.append(anyio.get_current_task().name)

    async with opened() as nursery:
        nursery.start_soon(task, name="the clock")
        await anyio.wait_all_tasks_blocked()
        nursery.start_soon(task)
        await anyio.wait_all_tasks_blocked()
    assert names[0] == "the clock"
    assert re.search("task", str(names[1]))


async def test_start_returns_what_the_task_reports() -> None:
    async def serve(port: int, *, task_status: Any) -> None:
        task_status.started(port + 1)
        await anyio.sleep_forever()

    async with opened() as nursery:
        assert await nursery.start(serve, 8000) == 8001
        assert nursery.tasks == 1
        nursery.cancel_scope.cancel()
    assert nursery.tasks == 0


async def test_a_task_that_fails_is_counted_out() -> None:
    async def task() -> None:
        raise ValueError("a task failed")

    nurseries = []

    async def run() -> None:
        async with opened() as nursery:
            nurseries.append(nursery)
            nursery.start_soon(task)

    with pytest.raises(BaseExceptionGroup):
        await run()
    assert nurseries[0].tasks == 0


async def test_while_it_ends_a_new_task_is_the_sockets_end_and_afterwards_an_error() -> None:
    async def task(*, task_status: Any = None) -> None: ...

    async with opened() as nursery:
        nursery.state = "ending"
        with pytest.raises(ConnectionClosed):
            nursery.start_soon(task)
        with pytest.raises(ConnectionClosed):
            await nursery.start(task)
        nursery.state = "over"
        with pytest.raises(RuntimeError, match="await the work there instead"):
            nursery.start_soon(task)


# ---- taking groups apart


async def cancellation() -> BaseException:
    """Return a cancellation as the backend raises it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            caught = error
            raise
    return caught


async def test_groups_of_any_depth_are_taken_apart() -> None:
    one, two, stop = ValueError(1), KeyError(2), await cancellation()
    nested = BaseExceptionGroup("outer", [one, BaseExceptionGroup("inner", [stop, two])])
    assert sort_out(nested) == ([one, two], stop)
    assert sort_out(one) == ([one], None)
    assert sort_out(stop) == ([], stop)


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: ExceptionGroup("", [ExceptionGroup("", [e])])])
async def test_one_error_comes_out_as_itself(wrap: Callable[[Exception], Exception]) -> None:
    error = ValueError("alone")
    with pytest.raises(ValueError) as caught:
        async with collapsed():
            raise wrap(error)
    assert caught.value is error


async def test_an_error_keeps_its_cause_and_its_context() -> None:
    async def caused() -> None:
        raise ValueError("wrong") from KeyError("why")

    async def during() -> None:
        try:
            raise KeyError("while")
        except KeyError:
            raise ValueError("wrong")  # noqa: B904 - the context is what we look at

    for fail, word in ((caused, "why"), (during, "while")):
        with pytest.raises(ValueError) as caught:
            async with collapsed(), anyio.create_task_group() as group:
                group.start_soon(fail)
        text = "".join(traceback.format_exception(caught.value))
        assert word in text
        assert "Group" not in text


async def test_several_errors_stay_a_group() -> None:
    async def fail() -> None:
        raise ValueError

    async def run() -> None:
        async with collapsed(), anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert len(caught.value.exceptions) == 2


async def test_a_group_of_cancellations_is_a_cancellation() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with collapsed():
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as stop:
                raise BaseExceptionGroup("", [stop]) from None
    assert scope.cancelled_caught


async def test_an_error_beside_a_cancellation_is_not_separated_from_it() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with collapsed():
            raise BaseExceptionGroup("", [ValueError(), await cancellation()])
    assert len(caught.value.exceptions) == 2


async def test_a_failure_is_told_at_once_and_ends_the_others() -> None:
    told: list[BaseException] = []
    error = ValueError("told")

    def failed(raised: BaseException) -> BaseException | None:
        failures, cancelled = sort_out(raised)
        told.extend(failures)
        return cancelled

    async def lingering() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.append(KeyError("the other ends after it"))

    async def failing(early: bool, *, task_status: Any) -> None:
        if early:
            raise error
        task_status.started()
        await anyio.lowlevel.checkpoint()
        raise error

    async with opened(failed) as nursery:
        nursery.start_soon(lingering)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="told"):  # its caller's, who may go on
            await nursery.start(failing, True)
        assert (nursery.tasks, told) == (1, [])
        await nursery.start(failing, False)
        await anyio.wait_all_tasks_blocked()
    assert told[0] is error
    assert isinstance(told[1], KeyError)
    assert nursery.tasks == 0
