"""What differs between trio and asyncio: doorbells, reaching a loop from threads, tasks without a nursery."""

import contextvars
import logging
import threading
from collections.abc import Callable

import anyio
import pytest
from anyio import to_thread

from trichannels.seam import backend, being_cancelled, loop_caller, loop_clock, open_wake, spawn_host

from .conftest import BACKEND
from .loops import run_on_backend


async def test_the_running_backend_is_named() -> None:
    assert backend() == BACKEND


def test_outside_of_any_loop_the_cure_is_told() -> None:
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        backend()


# ---- doorbells


async def test_a_ring_wakes_the_sleeper() -> None:
    wake, woken = open_wake(), []

    async def sleeper() -> None:
        await wake.sleep()
        woken.append("woken")

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(sleeper)
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        wake.ring()
        wake.ring()  # before the sleeper has run: one is remembered
    assert woken == ["woken"]
    with anyio.fail_after(1):
        await wake.sleep()


async def test_one_ring_is_remembered_and_no_more() -> None:
    wake = open_wake()
    wake.ring()
    wake.ring()
    with anyio.fail_after(1):
        await wake.sleep()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(wake.sleep)
        await anyio.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def test_a_remembered_ring_is_a_checkpoint_all_the_same() -> None:
    wake = open_wake()
    with anyio.CancelScope() as scope:
        scope.cancel()
        wake.ring()
        await wake.sleep()
    assert scope.cancelled_caught


async def test_a_cancelled_sleeper_leaves_a_bell_that_works() -> None:
    wake = open_wake()
    for _ in range(2):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(wake.sleep)
            await anyio.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(wake.sleep)
        await anyio.wait_all_tasks_blocked()
        wake.ring()
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_ring_for_a_sleeper_that_is_being_cancelled_does_no_harm() -> None:
    wake = open_wake()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(wake.sleep)
        await anyio.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        wake.ring()
    wake.ring()
    with anyio.fail_after(1):
        await wake.sleep()


async def test_a_second_sleeper_is_an_error_and_not_a_task_that_hangs() -> None:
    wake = open_wake()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(wake.sleep)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="two tasks read from one inbox"):
            await wake.sleep()
        wake.ring()  # the first one has kept its place


# ---- reaching the loop from a thread


async def test_any_thread_reaches_the_loop_without_waiting() -> None:
    call, done, here = loop_caller(), anyio.Event(), threading.get_ident()
    ran: list[int] = []

    def on_loop() -> None:
        ran.append(threading.get_ident())
        done.set()

    await to_thread.run_sync(call, on_loop)
    with anyio.fail_after(5):
        await done.wait()
    assert ran == [here]


def test_a_loop_that_is_over_cannot_be_reached() -> None:
    async def take() -> Callable[[Callable[[], object]], object]:
        return loop_caller()

    call = run_on_backend(take)
    with pytest.raises(RuntimeError):
        call(lambda: None)


# ---- tasks without a nursery

colour = contextvars.ContextVar("colour", default="none")


async def test_a_host_task_runs_with_a_copy_of_its_starters_context() -> None:
    seen = []

    async def work() -> None:
        seen.append(colour.get())
        colour.set("green")

    colour.set("red")
    host = spawn_host(work, "painter")
    assert repr(host).endswith("running>")
    await host.wait()
    assert host.over
    assert host.error is None
    assert repr(host).endswith("over>")
    assert seen == ["red"]
    assert colour.get() == "red"


async def test_a_host_tasks_error_is_kept_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("in the host")

    host = spawn_host(work, "failing")
    await host.wait()
    assert isinstance(host.error, ValueError)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_host_task_ends_when_it_is_cancelled() -> None:
    ended = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("ended")

    host = spawn_host(work, "sleeping")
    await anyio.wait_all_tasks_blocked()
    host.cancel()
    await host.wait()
    assert host.over
    assert ended == ["ended"]
    assert host.error is None


def test_a_loop_that_ends_takes_its_host_tasks_along() -> None:
    async def main() -> None:
        async def work() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("ended")

        spawn_host(work, "left behind")
        await anyio.wait_all_tasks_blocked()

    ended: list[str] = []
    run_on_backend(main)
    assert ended == ["ended"]


async def test_the_loops_clock_is_anyios(autojump_clock: object) -> None:
    clock = loop_clock()
    before = clock()
    assert before <= anyio.current_time()
    await anyio.sleep(10)
    assert clock() - before == pytest.approx(10, abs=1)


async def test_a_cancellation_is_ours_if_somebody_has_cancelled_us() -> None:
    seen: list[bool] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append(being_cancelled())
            raise
    assert seen == [True]
    assert being_cancelled() is (backend() == "trio")
