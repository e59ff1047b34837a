"""The bridge: a limit that is honest, waiting that can be cancelled, errors and contexts that pass."""

import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread

from trichannels.bridge import Bridge, async_to_sync, call, call_soon, current_bridge, sync_to_async
from trichannels.exceptions import ConnectionClosed

from .loops import run_on_backend


class Gate:
    """Calls that begin, and stay in their threads until they are let through."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def pass_through(self, result: object = None) -> object:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.begun.release()
        self.open.wait(10)
        with self._lock:
            self.inside -= 1
        if isinstance(result, BaseException):
            raise result
        return result

    async def has_begun(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert await to_thread.run_sync(self.begun.acquire, True, 10)


@asynccontextmanager
async def abandoned(bridge: Bridge, gate: Gate, result: object = None) -> AsyncIterator[None]:
    """Leave a call behind in its thread for the length of a block; after it, the thread has ended."""
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(bridge.run_or_abandon, gate.pass_through, result)
        await gate.has_begun()
        nursery.cancel_scope.cancel()
    try:
        yield
    finally:
        gate.open.set()
        await until(lambda: bridge.statistics().abandoned == 0)


async def until(ready: Callable[[], bool]) -> None:
    """Let threads go on until something is true on the loop."""
    with anyio.fail_after(10):
        while not ready():
            await to_thread.run_sync(threading.Event().wait, 0.001)


async def test_results_and_arguments_pass() -> None:
    def add(a: int, *, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    total, thread = await Bridge().run(add, 1, b=2)
    assert total == 3
    assert thread != threading.get_ident()


async def test_an_error_passes_as_itself() -> None:
    error = KeyError("in the thread")

    def fail() -> None:
        raise error

    bridge = Bridge()
    with pytest.raises(KeyError) as caught:
        await bridge.run(fail)
    assert caught.value is error
    assert bridge.statistics().running == 0


async def test_no_more_calls_run_than_the_limit_allows() -> None:
    bridge, gate = Bridge(2), Gate()
    async with anyio.create_task_group() as nursery:
        for _ in range(5):
            nursery.start_soon(bridge.run, gate.pass_through)
        await gate.has_begun(2)
        await until(lambda: bridge.statistics().waiting == 3)
        statistics = bridge.statistics()
        assert (statistics.limit, statistics.running, statistics.abandoned) == (2, 2, 0)
        assert "running=2" in repr(bridge)
        gate.open.set()
    assert gate.most == 2
    assert bridge.statistics().running == bridge.statistics().waiting == 0


async def test_waiting_for_a_thread_is_cancellable_at_once() -> None:
    bridge, gate = Bridge(1), Gate()
    ran: list[str] = []
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(bridge.run, gate.pass_through)
        await gate.has_begun()
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(bridge.run, ran.append, "never")
            await until(lambda: bridge.statistics().waiting == 1)
            waiting.cancel_scope.cancel()
        assert bridge.statistics().waiting == 0
        gate.open.set()
    assert ran == []
    await bridge.run(ran.append, "the place is free again")
    assert ran == ["the place is free again"]


async def test_an_abandoned_call_keeps_its_place_until_its_thread_ends() -> None:
    bridge, gate = Bridge(1), Gate()
    ran: list[str] = []
    async with abandoned(bridge, gate):
        assert bridge.statistics().abandoned == bridge.statistics().running == 1
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(bridge.run, ran.append, "too early")
            await until(lambda: bridge.statistics().waiting == 1)
            waiting.cancel_scope.cancel()
    assert ran == []
    await bridge.run(ran.append, "now")
    assert ran == ["now"]
    assert bridge.statistics().running == 0


async def test_an_abandoned_calls_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with abandoned(Bridge(), Gate(), ValueError("too late")):
        pass
    (record,) = [record for record in caplog.records if record.name == "trichannels.bridge"]
    assert record.levelno == logging.ERROR
    assert "cancelled while it ran" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_an_abandoned_call_that_finds_the_socket_closed_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with abandoned(Bridge(), Gate(), ConnectionClosed(1001)):
        pass
    assert not [record for record in caplog.records if record.name == "trichannels.bridge"]


def test_an_abandoned_call_may_outlive_its_loop() -> None:
    gate, ended = Gate(), threading.Event()

    def work() -> None:
        try:
            gate.pass_through()
        finally:
            ended.set()

    async def main() -> None:
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(Bridge().run_or_abandon, work)
            await gate.has_begun()
            nursery.cancel_scope.cancel()

    run_on_backend(main)
    gate.open.set()
    assert ended.wait(10)


colour = contextvars.ContextVar("colour", default="none")


async def test_context_variables_are_copied_in_and_not_back() -> None:
    def paint() -> str:
        seen = colour.get()
        colour.set("green")
        return seen

    colour.set("red")
    assert await Bridge().run(paint) == "red"
    assert colour.get() == "red"


async def test_a_thread_calls_back_into_its_loop() -> None:
    here = threading.get_ident()

    async def where(*names: str, sep: str = "") -> tuple[str, int]:
        await anyio.lowlevel.checkpoint()
        return sep.join(names), threading.get_ident()

    def work() -> tuple[Any, Any, Any]:
        return call(where, "a", "b", sep="-"), async_to_sync(where)("c"), call_soon(threading.get_ident)

    assert await Bridge().run(work) == (("a-b", here), ("c", here), here)


async def test_an_error_of_the_loop_passes_into_the_thread() -> None:
    async def fail() -> None:
        raise KeyError("on the loop")

    def work() -> str:
        with pytest.raises(KeyError):
            call(fail)
        return "caught"

    assert await Bridge().run(work) == "caught"


async def test_outside_of_a_thread_of_ours_calling_back_is_an_error() -> None:
    async def nothing() -> None: ...

    with pytest.raises(RuntimeError):
        call(nothing)
    with pytest.raises(RuntimeError):
        call_soon(len, "")


async def test_a_blocking_function_becomes_awaitable_by_the_loops_own_bridge() -> None:
    @sync_to_async
    def running(extra: int = 0) -> int:
        """How many run."""
        return current.statistics().running + extra

    current = current_bridge()
    assert current is current_bridge()
    assert await running(extra=1) == 2
    assert running.__doc__ == "How many run."


def test_each_loop_has_a_bridge_of_its_own() -> None:
    async def mine() -> Bridge:
        return current_bridge()

    assert run_on_backend(mine) is not run_on_backend(mine)


def test_an_abandoned_call_that_is_cancelled_while_it_calls_back_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bridge, begun = Bridge(), anyio.Event()

        async def wait() -> None:
            begun.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(bridge.run_or_abandon, call, wait)
            await begun.wait()
            nursery.cancel_scope.cancel()
        await until(lambda: bridge.statistics().abandoned == 0)

    anyio.run(main, backend="asyncio")  # on trio it waits on, until its loop ends
    assert caplog.records == []
