"""Django's ORM on lanes: transactions, connections that last and end, statements that are given up, the guard."""

import time
from functools import partial
from typing import Any

import anyio
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, connections, transaction
from django.utils import timezone, translation

from trichannels.bridge import Bridge, call
from trichannels.db import (
    DjangoHooks,
    aclose_old_connections,
    database_bridge,
    database_sync_to_async,
    install_loop_guard,
    remove_loop_guard,
    use_database_bridge,
)

from ..test_bridge import until
from ..test_bridge_sqlite import forty_transactions
from .items import Item
from .postgres import PostgresProcess

pytestmark = pytest.mark.server

ENDLESS = {
    "default": "with recursive n(i) as (values(0) union all select i + 1 from n) select count(*) from n",
    "pg": "select pg_sleep(60)",
}


def save(alias: str, name: str) -> None:
    Item(name=name).save(using=alias)


def query(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("select 1")


def names(alias: str) -> set[str]:
    return set(Item.objects.using(alias).values_list("name", flat=True))


# ---- calls and transactions


async def test_calls_run_side_by_side_each_with_the_connection_of_its_lane(alias: str) -> None:
    seen: set[int] = set()

    def look() -> None:
        query(alias)
        seen.add(id(connections[alias].connection))
        call(anyio.sleep, 0.001)

    async with Bridge(4, hooks=DjangoHooks) as bridge:
        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(bridge.run, look)
        assert len(seen) == 4


async def test_a_transaction_over_several_calls_is_whole_or_nothing(alias: str) -> None:
    async with Bridge(10 if alias == "pg" else 1, hooks=DjangoHooks) as bridge:
        expected = await forty_transactions(bridge, partial(save, alias), using=alias)
        assert await bridge.run(names, alias) == expected
        assert bridge.statistics().running == 0


async def test_no_session_stays_in_a_transaction(postgres: PostgresProcess) -> None:
    async with Bridge(3, hooks=DjangoHooks) as bridge:
        for _ in range(5):
            with anyio.CancelScope() as scope:
                async with bridge.lease(atomic=True, using="pg") as lane:
                    await lane.run(query, "pg")
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        assert set(postgres.sessions()) == {"idle"}


def begin_by_hand(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    save(alias, "never committed")


def begin_and_forget(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    save(alias, "never committed")


@pytest.mark.parametrize("begin", [begin_by_hand, begin_and_forget])
async def test_a_transaction_that_is_left_open_is_rolled_back_and_told(
    alias: str, begin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bridge(1, hooks=DjangoHooks) as bridge:
        await bridge.run(begin, alias)
        assert f"has left a transaction open on {alias!r}" in caplog.text
        await bridge.run(save, alias, "after")
        assert await bridge.run(names, alias) == {"after"}


async def test_what_is_done_on_commit_is_done_once_it_is_committed(alias: str) -> None:
    done: list[str] = []
    async with Bridge(2, hooks=DjangoHooks) as bridge:
        async with bridge.lease(atomic=True, using=alias) as lane:
            await lane.run(transaction.on_commit, lambda: done.append("committed"), using=alias)
            await lane.run(save, alias, "x")
            assert done == []
        assert done == ["committed"]

        async def fail() -> None:
            async with bridge.lease(atomic=True, using=alias) as lane:
                await lane.run(transaction.on_commit, lambda: done.append("not committed"), using=alias)
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert done == ["committed"]


# ---- connections


@pytest.mark.parametrize(("alias", "least"), [("pg", 1), ("pg_each", 0), ("pg_pool", 1)])
async def test_sessions_are_no_more_than_lanes_and_end_with_the_bridge(
    postgres: PostgresProcess, alias: str, least: int
) -> None:
    before, most = len(postgres.sessions()), 0
    async with Bridge(5, hooks=DjangoHooks) as bridge:
        async with anyio.create_task_group() as group:
            for n in range(500):
                group.start_soon(bridge.run, query, alias)
                if not n % 50:
                    most = max(most, len(await anyio.to_thread.run_sync(postgres.sessions)))
        most = max(most, len(postgres.sessions()))
        assert least <= len(postgres.sessions()) - before
    assert most - before <= 5
    if alias == "pg_pool":
        connections[alias].close_pool()  # which is the process's, not the bridge's
    await until(lambda: len(postgres.sessions()) == before)


async def test_after_a_restart_of_the_server_each_lane_fails_once_at_the_most(postgres: PostgresProcess) -> None:
    async with Bridge(3, hooks=DjangoHooks) as bridge:

        async def on_all(outcomes: list[str]) -> None:
            async def one() -> None:
                async with bridge.lease() as lane:
                    try:
                        await lane.run(query, "pg")
                        outcomes.append("done")
                    except Error:
                        outcomes.append("failed")
                    await anyio.sleep(0.05)  # so that each has a lane of its own

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(one)

        outcomes: list[str] = []
        await on_all(outcomes)
        postgres.ask("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tests'")
        await on_all(outcomes)
        await on_all(outcomes)
        assert outcomes[:3] == outcomes[6:] == ["done"] * 3


# ---- cancellation


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_statement_that_nobody_waits_for_is_given_up(alias: str, atomic: bool) -> None:
    async with Bridge(1, hooks=DjangoHooks, interrupt_after=0.2) as bridge:
        begun = anyio.Event()

        async def tell() -> None:
            begun.set()

        def for_ever() -> None:
            save(alias, "one")
            call(tell)
            with connections[alias].cursor() as cursor:
                cursor.execute(ENDLESS[alias])
                cursor.fetchall()

        async def run() -> None:
            if not atomic:
                await bridge.run(for_ever)
            else:
                async with bridge.lease(atomic=True, using=alias) as lane:
                    await lane.run(for_ever)

        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await begun.wait()
            group.cancel_scope.cancel()
        assert time.monotonic() - began < 20
        await bridge.run(save, alias, "after")
        assert await bridge.run(names, alias) == ({"after"} if atomic else {"one", "after"})


# ---- context


async def test_language_and_time_zone_pass() -> None:
    def look() -> tuple[str, str]:
        return translation.get_language() or "", timezone.get_current_timezone_name()

    async with Bridge(2, hooks=DjangoHooks) as bridge:
        with translation.override("de"), timezone.override("Europe/Berlin"):
            assert await bridge.run(look) == ("de", "Europe/Berlin")
        assert await bridge.run(look) != ("de", "Europe/Berlin"), "and are not left behind"


# ---- the loop's own bridge


async def test_as_in_channels(alias: str) -> None:
    @database_sync_to_async
    def count() -> int:
        """How many."""
        return int(Item.objects.using(alias).count())

    @database_sync_to_async(thread_sensitive=True)
    def add(name: str) -> None:
        save(alias, name)

    use_database_bridge(Bridge(2, name="ours", hooks=DjangoHooks))
    await add("a")
    await add(name="b")
    assert await count() == 2
    assert count.__doc__ == "How many."
    await aclose_old_connections()
    assert database_bridge().name == "ours"
    assert await database_bridge().drain() == []


async def test_each_loop_has_one_of_its_own() -> None:
    assert database_bridge() is database_bridge()
    assert database_bridge().limit == 10


# ---- the guard


@pytest.mark.parametrize("opened_before", [False, True])
async def test_the_orm_in_a_task_is_an_error(alias: str, opened_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if opened_before:
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        names(alias)
        monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")
    install_loop_guard()
    try:
        with pytest.raises(SynchronousOnlyOperation):
            Item.objects.using(alias).count()
        async with Bridge(1, hooks=DjangoHooks) as bridge:
            await bridge.run(save, alias, "in a lane all is well")
            assert await bridge.run(names, alias) == {"in a lane all is well"}
    finally:
        remove_loop_guard()
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        connections.close_all()


@pytest.mark.trio_only
async def test_the_guard_says_where_and_what_to_do(alias: str) -> None:
    install_loop_guard()
    try:
        with pytest.raises(SynchronousOnlyOperation, match=r"opened in an async task, at .*test_db\.py:\d+ in test"):
            Item.objects.using(alias).count()
    finally:
        remove_loop_guard()
        connections.close_all()
