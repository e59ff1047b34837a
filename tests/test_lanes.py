"""Lanes: nesting without deadlock, leases, cancellation that is told, and an end that names what is stuck."""

import contextvars
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread

from trichannels.bridge import (
    AsyncioIsland,
    Bridge,
    Hooks,
    LaneCancelled,
    call,
    checkpoint,
    current_bridge,
    sync_to_async,
    when_cancelled,
)
from trichannels.exceptions import BridgeClosed, BridgeSaturated, ConfigError

from .loops import run_on_backend
from .test_bridge import Gate, until


def here() -> int:
    return threading.get_ident()


# ---- nesting


async def test_what_a_call_asks_for_runs_in_the_task_that_waits() -> None:
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
    task = anyio.get_current_task().id

    async def ask() -> tuple[int, str]:
        return anyio.get_current_task().id, colour.get()

    colour.set("red")
    async with Bridge() as bridge:
        assert await bridge.run(call, ask) == (task, "red")


async def test_nested_calls_stay_in_their_thread_however_deep() -> None:
    async with Bridge(1) as bridge:

        def down(depth: int) -> list[int]:
            return [here()] + (call(across, depth) if depth else [])

        async def across(depth: int) -> list[int]:
            found: list[list[int]] = []

            async def branch() -> None:
                found.append(await bridge.run(down, depth - 1))

            async with anyio.create_task_group() as group:
                group.start_soon(branch)
            return found[0]

        with anyio.fail_after(10):
            threads = await bridge.run(down, 5)
        assert len(threads) == 6
        assert len(set(threads)) == 1
        assert bridge.statistics().running == 0


async def test_as_many_as_there_are_lanes_nest_at_once() -> None:
    async with Bridge(4) as bridge:
        barrier = threading.Barrier(4)

        def outer() -> int:
            barrier.wait(10)
            return call(inner)

        async def inner() -> int:
            return await bridge.run(here)

        results: list[int] = []

        async def one() -> None:
            results.append(await bridge.run(outer))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(one)
        assert len(set(results)) == 4


async def test_several_tasks_under_one_call_take_turns_in_its_thread() -> None:
    async with Bridge(1) as bridge:
        order: list[str] = []

        def leaf(name: str) -> None:
            order.append(f"{name} in")
            call(anyio.sleep, 0.01)
            order.append(f"{name} out")

        async def both() -> None:
            async with anyio.create_task_group() as group:
                for name in ("a", "b", "c"):
                    group.start_soon(bridge.run, leaf, name)

        with anyio.fail_after(10):
            await bridge.run(call, both)
        assert sorted(order) == ["a in", "a out", "b in", "b out", "c in", "c out"]


async def test_after_the_frame_ends_leftover_tasks_take_lanes_of_their_own() -> None:
    async with Bridge(2) as bridge, anyio.create_task_group() as group:
        go_on, threads = anyio.Event(), list[int]()

        async def later() -> None:
            await go_on.wait()
            threads.append(await bridge.run(here))

        async def leave_one() -> None:
            group.start_soon(later)

        threads.append(await bridge.run(lambda: (call(leave_one), here())[1]))
        hold = Gate()
        async with anyio.create_task_group() as other:
            other.start_soon(bridge.run, hold.pass_through)  # takes the lane that was used last
            await hold.has_begun()
            go_on.set()
            await until(lambda: len(threads) == 2)
            hold.open.set()
        assert threads[0] != threads[1]


async def test_two_bridges_do_not_share_lanes_and_still_nest() -> None:
    async with Bridge(1, name="one") as one, Bridge(1, name="two") as two:
        threads: list[int] = []

        def first() -> None:
            threads.append(here())
            call(second)

        async def second() -> None:
            await two.run(third)

        def third() -> None:
            threads.append(here())
            call(fourth)

        async def fourth() -> None:
            threads.append(await one.run(here))
            threads.append(await two.run(here))

        with anyio.fail_after(10):
            await one.run(first)
        assert threads[0] == threads[2] != threads[1] == threads[3]


async def test_errors_pass_both_ways() -> None:
    async def fail() -> None:
        raise KeyError("on the loop")

    async with Bridge(1) as bridge:
        with pytest.raises(KeyError, match="on the loop"):
            await bridge.run(call, fail)
        assert await bridge.run(here) == await bridge.run(here), "the lane is whole, and used again"


# ---- bounds


async def test_when_saturated_the_holders_are_named() -> None:
    async with Bridge(1, acquire_timeout=0.05) as bridge, bridge.lease():
        async with anyio.create_task_group() as group:

            async def other() -> None:
                with pytest.raises(
                    BridgeSaturated, match=r"none of 1 threads .* held by a lease for 0\.\d s"
                ) as caught:
                    await bridge.run(here)
                assert [name for name, _ in caught.value.holders] == ["a lease"]

            group.start_soon(other)
        assert bridge.statistics().waiting == 0
        assert await bridge.run(here), "under the lease nobody has to wait"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"limit": 0}, "limit=…"),
        ({"limit": True}, "limit=…"),
        ({"acquire_timeout": 0}, "acquire_timeout"),
        ({"interrupt_after": "1"}, "interrupt"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Bridge(**options)


async def test_lanes_are_made_when_needed_and_the_last_used_comes_first() -> None:
    async with Bridge(10) as bridge:
        threads = {await bridge.run(here) for _ in range(20)}
        assert len(threads) == 1
        assert len(bridge._lanes) == 1


# ---- leases


class Recorded(Hooks):
    """What a lane's hooks were asked for."""

    told: list[str]

    def __init__(self) -> None:
        self.told.append("open")

    def before(self) -> None:
        self.told.append("before")

    def after(self) -> None:
        self.told.append("after")

    @contextmanager
    def transaction(self, using: str | None) -> Iterator[None]:
        self.told.append(f"begin {using}")
        try:
            yield
        except BaseException as error:
            self.told.append(f"rollback for {type(error).__name__}")
            raise
        else:
            self.told.append("commit")

    def interrupt(self) -> None:
        self.told.append("interrupt")

    def close(self) -> None:
        self.told.append("close")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Recorded, "told", found, raising=False)
    return found


async def test_a_lease_is_one_thread_with_the_hooks_around_it(told: list[str]) -> None:
    async with Bridge(3, hooks=Recorded) as bridge:
        async with bridge.lease() as lane:
            threads = {await lane.run(here), await lane.run(here), await bridge.run(here)}
            assert len(threads) == 1
        await bridge.run(told.append, "call")
    assert told == ["open", "before", "after", "before", "call", "after", "close"]


async def test_a_lease_with_a_transaction(told: list[str]) -> None:
    async with Bridge(3, hooks=Recorded) as bridge:
        async with bridge.lease(atomic=True, using="other") as lane:
            await lane.run(told.append, "work")
        assert told == ["open", "before", "begin other", "work", "commit", "after"]
        told.clear()
        with pytest.raises(KeyError):
            async with bridge.lease(atomic=True):
                raise KeyError
        assert told == ["before", "begin None", "rollback for KeyError", "after"]
        told.clear()
        with anyio.CancelScope() as scope:
            async with bridge.lease(atomic=True) as lane:
                scope.cancel()
                await lane.run(told.append, "never")
        assert scope.cancelled_caught
        assert [each for each in told if each.startswith(("rollback for Cancel", "commit", "never"))] == [
            f"rollback for {anyio.get_cancelled_exc_class().__name__}"
        ]
        assert bridge.statistics().running == 0


async def test_without_a_database_there_is_no_transaction() -> None:
    async with Bridge(1) as bridge:
        with pytest.raises(RuntimeError, match="hooks know a database"):
            async with bridge.lease(atomic=True):
                pass
        assert bridge.statistics().running == 0


async def test_tasks_of_a_leases_block_use_the_lease_one_after_the_other() -> None:
    async with Bridge(2) as bridge, bridge.lease() as lane:
        inside: list[int] = []
        threads: set[int] = set()

        def work() -> None:
            inside.append(1)
            assert len(inside) == 1
            threads.add(here())
            call(anyio.sleep, 0.005)
            inside.pop()

        elsewhere: list[int] = []

        async def on_the_bridge() -> None:
            elsewhere.append(await bridge.run(here))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(lane.run, work)
                group.start_soon(on_the_bridge)
        assert len(threads) == 1
        assert elsewhere[0] not in threads, "a child task that does not use the lease has a lane of its own"


async def test_the_task_of_a_lease_waits_for_its_other_tasks_too() -> None:
    """What it runs on the bridge does not come in between a call of another one."""
    order: list[str] = []

    def long() -> None:
        order.append("long begins")
        call(anyio.sleep, 0.05)
        order.append("long ends")

    async with Bridge(1) as bridge, bridge.lease() as lane, anyio.create_task_group() as group:
        group.start_soon(lane.run, long)
        await until(lambda: bool(order))
        await bridge.run(order.append, "by the bridge")
        await lane.run(order.append, "by the lease")
    assert order == ["long begins", "long ends", "by the bridge", "by the lease"]


async def test_hooks_that_cannot_be_made_fail_the_call_and_are_tried_again() -> None:
    made: list[Hooks] = []

    def make() -> Hooks:
        made.append(Hooks())
        if len(made) == 1:
            raise OSError("no database yet")
        return made[-1]

    async with Bridge(1, hooks=make) as bridge:
        with pytest.raises(OSError, match="no database yet"):
            await bridge.run(here)
        assert await bridge.run(here)
        with anyio.fail_after(10):
            async with bridge.lease() as lane:
                await lane.run(here)


# ---- cancellation


async def test_a_call_is_waited_for_and_can_look(told: list[str]) -> None:
    ended = threading.Event()

    def work() -> None:
        try:
            while True:
                checkpoint()
                time.sleep(0.001)
        finally:
            ended.set()

    async with Bridge(1, hooks=Recorded) as bridge:
        with anyio.move_on_after(0.05) as scope:
            await bridge.run(work)
        assert scope.cancelled_caught
        assert ended.is_set()
        assert bridge.statistics().running == 0
    assert told == ["open", "before", "after", "close"]


async def test_what_a_cancelled_call_asks_for_raises_in_its_thread() -> None:
    seen: list[str] = []
    gate = Gate()

    def work() -> None:
        gate.pass_through()
        try:
            call(anyio.sleep, 0)
        except LaneCancelled:
            seen.append("cancelled")
            raise

    async with Bridge(1) as bridge:
        async with anyio.create_task_group() as group:
            group.start_soon(bridge.run, work)
            await gate.has_begun()
            group.cancel_scope.cancel()
            gate.open.set()
        assert seen == ["cancelled"]


async def test_a_cancellation_reaches_what_the_call_has_asked_for() -> None:
    seen: list[str] = []
    begun = anyio.Event()

    async def sleep() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("task")
            raise

    def work() -> None:
        try:
            call(sleep)
        except LaneCancelled:
            seen.append("thread")
            raise

    async with Bridge(1) as bridge:
        async with anyio.create_task_group() as group:
            group.start_soon(bridge.run, work)
            await begun.wait()
            group.cancel_scope.cancel()
        assert seen == ["task", "thread"]
        assert bridge.statistics().running == 0


async def test_a_callback_ends_what_the_thread_waits_for() -> None:
    gate, waited = Gate(), list[str]()

    def work() -> None:
        answer = threading.Event()
        with when_cancelled(answer.set):
            gate.begun.release()
            assert answer.wait(10)
        waited.append("ended")
        with pytest.raises(LaneCancelled), when_cancelled(answer.clear):
            pass

    async with Bridge(1) as bridge, anyio.create_task_group() as group:
        group.start_soon(bridge.run, work)
        await gate.has_begun()
        group.cancel_scope.cancel()
    assert waited == ["ended"]


async def test_a_deadline_inside_is_only_for_what_is_inside() -> None:
    async def sleep() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        return "went on"

    async with Bridge(1) as bridge:
        assert await bridge.run(call, sleep) == "went on"


async def test_a_call_that_was_done_is_not_reported_as_done_when_cancelled() -> None:
    gate, done = Gate(), list[str]()
    async with Bridge(1) as bridge:
        async with anyio.create_task_group() as group:

            async def work() -> None:
                await bridge.run(gate.pass_through, "result")
                done.append("reported")

            group.start_soon(work)
            await gate.has_begun()
            group.cancel_scope.cancel()
            gate.open.set()
        assert done == []


async def test_what_a_call_waits_for_is_interrupted(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """As a driver's statement is: it fails in its thread, which nobody has to hear of."""

    class Statement(Hooks):
        cancelled = threading.Event()

        def interrupt(self) -> None:
            self.cancelled.set()

    def work() -> None:
        assert Statement.cancelled.wait(10)
        raise ValueError("the statement was cancelled")

    async with Bridge(1, hooks=Statement, interrupt_after=0.05) as bridge:
        with anyio.move_on_after(0.01) as scope:
            await bridge.run(work)
        assert scope.cancelled_caught
    assert not caplog.records


async def test_a_failure_after_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with Bridge(1) as bridge, anyio.create_task_group() as group:
        group.start_soon(bridge.run, gate.pass_through, ValueError("too late"))
        await gate.has_begun()
        group.cancel_scope.cancel()
        gate.open.set()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trichannels.bridge", logging.ERROR)
    assert "Gate.pass_through, which was cancelled while it ran, has failed" in record.getMessage()


async def test_who_is_cancelled_in_line_loses_no_lane() -> None:
    async with Bridge(2) as bridge:
        gate = Gate()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(bridge.run, gate.pass_through)
            await gate.has_begun(2)
            for _ in range(50):
                with anyio.move_on_after(0.0005):
                    await bridge.run(here)
            gate.open.set()
        assert await bridge.run(here)
        assert bridge.statistics().running == bridge.statistics().waiting == 0


async def test_random_cancellations_leave_every_lane_usable() -> None:
    """Calls nest, and are cancelled anywhere, again and again."""
    async with Bridge(3) as bridge:

        def work(number: int) -> int:
            if number % 3 == 0:
                call(anyio.sleep, 0.0005 * (number % 5))
            if number % 7 == 0:
                return call(deeper, number)
            return number

        async def deeper(number: int) -> int:
            return await bridge.run(work, number + 1)

        async def one(number: int) -> None:
            with anyio.move_on_after(0.0003 * (number % 23)) as scope:
                result = await bridge.run(work, number)
                assert result in (number, number + 1)
            del scope

        for _ in range(5):
            async with anyio.create_task_group() as group:
                for number in range(60):
                    group.start_soon(one, number)
        assert bridge.statistics().running == bridge.statistics().abandoned == 0
        gate = Gate()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(bridge.run, gate.pass_through)
            await gate.has_begun(3)
            gate.open.set()


# ---- the end


async def test_a_bridge_that_has_ended_runs_nothing() -> None:
    async with Bridge() as bridge:
        assert await bridge.run(here)
    with pytest.raises(BridgeClosed, match="'bridge' has ended"):
        await bridge.run(here)
    async with bridge:
        assert await bridge.run(here), "and may be used again"


async def test_what_is_stuck_is_listed_with_where_it_stands() -> None:
    bridge, gate = Bridge(2), Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(bridge.run_or_abandon, gate.pass_through)
        await gate.has_begun()
        group.cancel_scope.cancel()
    (stuck,) = await bridge.drain(grace=0.05)
    assert stuck.name == "Gate.pass_through"
    assert stuck.seconds > 0
    assert "self.open.wait(10)" in stuck.stack
    gate.open.set()
    await until(lambda: not any(lane.thread.is_alive() for lane in bridge._lanes))


async def test_a_call_of_a_former_life_gives_no_place_to_the_next() -> None:
    bridge, gate = Bridge(1), Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(bridge.run_or_abandon, gate.pass_through)
        await gate.has_begun()
        group.cancel_scope.cancel()
    former = bridge._lanes[0]
    assert await bridge.drain(0.01)
    async with bridge:
        assert await bridge.run(here) != former.thread.ident
        gate.open.set()
        await until(lambda: not former.thread.is_alive())
        assert bridge.statistics().running == bridge.statistics().abandoned == 0
        second = Gate()
        async with anyio.create_task_group() as group:
            group.start_soon(bridge.run, second.pass_through)
            group.start_soon(bridge.run, second.pass_through)
            await second.has_begun()
            await until(lambda: bridge.statistics().waiting == 1)
            second.open.set()


def test_a_loops_own_bridge_ends_with_the_loop() -> None:
    async def main() -> list[threading.Thread]:
        @sync_to_async
        def thread() -> threading.Thread:
            return threading.current_thread()

        return [await thread()] + [lane.thread for lane in current_bridge()._lanes]

    assert not any(thread.is_alive() for thread in run_on_backend(main))


def test_a_bridge_without_a_block_serves_one_loop_after_the_other() -> None:
    bridge = Bridge(2)

    async def main() -> int:
        return await bridge.run(here)

    assert [run_on_backend(main) for _ in range(3)]
    assert bridge.statistics().running == 0
    assert bridge._lanes == []


async def test_where_no_thread_can_be_had_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Bridge(1, acquire_timeout=5) as bridge:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="can't start"):
                    await bridge.run(here)
        assert await bridge.run(here)


# ---- the island


async def test_an_island_runs_what_knows_asyncio_only() -> None:
    import asyncio

    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
    colour.set("blue")

    async def there(word: str) -> tuple[str, str, bool]:
        await asyncio.sleep(0)
        return word, colour.get(), asyncio.get_running_loop().is_running()

    async def fail() -> None:
        raise KeyError("there")

    ended: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with AsyncioIsland() as island:
        assert repr(island) == "<AsyncioIsland, open>"
        assert await island.call(there, "hello") == ("hello", "blue", True)
        with pytest.raises(KeyError):
            await island.call(fail)
        with anyio.move_on_after(0.05) as scope:
            await island.call(for_ever)
        assert scope.cancelled_caught
        assert ended == ["cancelled"]
    with pytest.raises(BridgeClosed):
        await island.call(there, "late")


async def test_calls_of_an_island_end_with_it() -> None:
    import asyncio

    begun = threading.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    failures: list[type[BaseException]] = []

    async def one(island: AsyncioIsland) -> None:
        try:
            await island.call(for_ever)
        except BaseException as error:
            failures.append(type(error))
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise

    async with anyio.create_task_group() as group:
        async with AsyncioIsland() as island:
            group.start_soon(one, island)
            assert await to_thread.run_sync(begun.wait, 10)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert len(failures) == 1
