"""The bridge with a real database: transactions over several calls, interrupted statements, a connection a lane."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from examples import guestbook
from examples.guestbook import MINE, Sqlite, last_entries, write
from trichannels.bridge import Bridge, call

ENDLESS = "with recursive n(i) as (values(0) union all select i + 1 from n) select count(*) from n"


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "book.sqlite3"
    monkeypatch.setattr(guestbook, "DATABASE", str(path))
    return path


def entries(path: Path) -> set[str]:
    """Return what another connection sees."""
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("select name from entries")}
    finally:
        connection.close()


async def forty_transactions(bridge: Bridge, write: Callable[[str], object], **lease: Any) -> set[str]:
    """Let forty tasks write twice in a transaction each; a quarter fails, a quarter is cancelled in the middle.

    Returns what must be there afterwards.
    """

    async def two(number: int) -> None:
        with anyio.CancelScope() as scope:
            try:
                async with bridge.lease(atomic=True, **lease) as lane:
                    await lane.run(write, f"{number}.first")
                    if number % 4 == 1:
                        raise KeyError(number)
                    if number % 4 == 2:
                        scope.cancel()
                    await anyio.sleep(0.001)
                    await bridge.run(write, f"{number}.second")
            except KeyError:
                pass

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(two, number)
    whole = {number for number in range(40) if number % 4 in (0, 3)}
    return {f"{number}.{part}" for number in whole for part in ("first", "second")}


async def test_a_transaction_over_several_calls_is_whole_or_nothing(database: Path) -> None:
    async with Bridge(5, hooks=Sqlite) as bridge:
        expected = await forty_transactions(bridge, write)
        assert entries(database) == expected
        assert bridge.statistics().running == 0
        async with bridge.lease() as lane:
            assert not await lane.run(lambda: MINE.connection.in_transaction)


async def test_what_the_loop_does_within_a_transaction_is_part_of_it(database: Path) -> None:
    async with Bridge(2, hooks=Sqlite) as bridge:

        async def deeper() -> None:
            await bridge.run(write, "deeper")

        async def write_and_fail() -> None:
            async with bridge.lease(atomic=True) as lane:
                await lane.run(call, deeper)
                await bridge.run(write, "by the bridge itself")
                assert await bridge.run(last_entries, 9) == ["deeper", "by the bridge itself"]
                raise KeyError

        with pytest.raises(KeyError):
            await write_and_fail()
        assert await bridge.run(last_entries, 9) == []


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_statement_without_end_is_interrupted(database: Path, atomic: bool) -> None:
    async with Bridge(1, hooks=Sqlite, interrupt_after=0.1) as bridge:
        begun = threading.Event()

        def for_ever() -> None:
            write("not to be seen")
            begun.set()
            MINE.connection.execute(ENDLESS).fetchall()

        async def run() -> None:
            if not atomic:
                await bridge.run(for_ever)
            else:
                async with bridge.lease(atomic=True) as lane:
                    await lane.run(for_ever)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.to_thread.run_sync(begun.wait, 10)
                group.cancel_scope.cancel()
            await bridge.run(write, "after")  # the lane is whole
        assert entries(database) == ({"after"} if atomic else {"not to be seen", "after"})


async def test_a_lane_has_one_connection_for_all_its_calls(database: Path) -> None:
    seen: set[int] = set()

    def look() -> None:
        seen.add(id(MINE.connection))
        call(anyio.sleep, 0.0005)

    async with Bridge(3, hooks=Sqlite) as bridge:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(bridge.run, look)
        assert len(seen) <= 3
        assert len(bridge._lanes) == 3


async def test_what_is_stuck_in_a_statement_when_the_bridge_ends_is_interrupted(database: Path) -> None:
    bridge, begun = Bridge(1, hooks=Sqlite), threading.Event()

    def for_ever() -> None:
        begun.set()
        MINE.connection.execute(ENDLESS).fetchall()

    async with anyio.create_task_group() as group:
        group.start_soon(bridge.run_or_abandon, for_ever)
        await anyio.to_thread.run_sync(begun.wait, 10)
        group.cancel_scope.cancel()
    with anyio.fail_after(20):
        assert await bridge.drain(grace=0.05) == []
    assert not any(lane.thread.is_alive() for lane in bridge._lanes)
