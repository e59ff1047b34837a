"""Tests of Django projects: both ways for async code to see what a test has put into its transaction."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction

from trichannels.bridge import call, current_bridge
from trichannels.db import database_bridge, database_sync_to_async
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trichannels.testing import WebsocketCommunicator, on_test_thread, run_on_test_thread, shared_connections

from ..conftest import BACKEND

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]


@pytest.fixture(params=["default", "pg"])
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database in a transaction of this thread's, with one group, which is rolled back in the end."""
    from django.core.management import call_command

    alias: str = request.param
    if alias == "pg":
        request.getfixturevalue("postgres")
        call_command("migrate", verbosity=0, database=alias)
    Group.objects.using(alias).all().delete()
    block = transaction.atomic(using=alias)
    block.__enter__()
    Group.objects.using(alias).create(name="of the test")
    yield alias
    transaction.set_rollback(True, using=alias)
    block.__exit__(None, None, None)
    assert Group.objects.using(alias).count() == 0
    connections.close_all()


def add(alias: str, name: str) -> None:
    with transaction.atomic(using=alias):
        Group.objects.using(alias).create(name=name)
        call(anyio.sleep, 0.001)


def count(alias: str) -> int:
    return int(Group.objects.using(alias).count())


async def twenty_writers(alias: str) -> None:
    assert await database_sync_to_async(count)(alias) == 1, "what the test has put there is seen"
    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(database_sync_to_async(add), alias, f"writer {n}")
    assert await database_sync_to_async(count)(alias) == 21
    async with database_bridge().lease(atomic=True, using=alias) as lane:
        await lane.run(add, alias, "in a lease")
        transaction_ends = await current_bridge().run(count, alias)
        assert transaction_ends == 22


async def test_the_lane_has_the_connections_of_the_test(alias: str) -> None:
    with shared_connections():
        await twenty_writers(alias)


def test_the_thread_of_the_test_is_the_lane(alias: str) -> None:
    run_on_test_thread(twenty_writers, alias, backend=BACKEND)
    assert count(alias) == 22


def test_a_failure_there_is_the_tests(alias: str) -> None:
    @on_test_thread
    async def test() -> None:
        await database_sync_to_async(add)(alias, "x")
        raise KeyError("of the test")

    with pytest.raises(KeyError, match="of the test"):
        test()


def test_a_failure_of_the_orm_is_raised_where_it_is_awaited(alias: str) -> None:
    async def test() -> None:
        with pytest.raises(Group.DoesNotExist):
            await database_sync_to_async(lambda: Group.objects.using(alias).get(name="nobody"))()

    run_on_test_thread(test)


async def test_an_async_test_has_no_thread_to_lend() -> None:
    async def nothing() -> None: ...

    with pytest.raises(RuntimeError, match="in an async one use shared_connections"):
        run_on_test_thread(nothing)


class Async(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **more: Any) -> None:
        await database_sync_to_async(add)(content, "from the consumer")
        await self.send_json(await database_sync_to_async(count)(content))


class Blocking(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **more: Any) -> None:
        add(content, "from the consumer")
        self.send_json(count(content))


async def by_a_socket(consumer: Any, alias: str) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as socket:
        await socket.send_json_to(alias)
        assert await socket.receive_json_from(5) == 2


@pytest.mark.parametrize("consumer", [Async, Blocking])
async def test_consumers_see_it(consumer: Any, alias: str) -> None:
    with shared_connections():
        await by_a_socket(consumer, alias)


@pytest.mark.parametrize("consumer", [Async, Blocking])
def test_consumers_see_it_on_the_tests_thread(consumer: Any, alias: str) -> None:
    run_on_test_thread(by_a_socket, consumer, alias, backend=BACKEND)
    assert count(alias) == 2


async def test_afterwards_lanes_have_connections_of_their_own(alias: str) -> None:
    with shared_connections():
        assert await database_sync_to_async(count)(alias) == 1
    assert await database_sync_to_async(count)(alias) == 0, "it sees only what is committed"
