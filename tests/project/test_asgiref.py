"""asgiref's own two wrappers in a project on trio: Django's async methods, and users in code written for Channels."""

import asyncio
import threading
from typing import Any

import anyio
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction

from trichannels.auth import AuthMiddlewareStack, get_user, login, logout
from trichannels.bridge import Bridge, LaneCancelled, checkpoint, use_bridge
from trichannels.bridge import sync_to_async as own_sync_to_async
from trichannels.bridge.island import current_island
from trichannels.db import DjangoHooks, database_sync_to_async, install_async_orm, use_database_bridge
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trichannels.sessions import get_session
from trichannels.testing.websocket import WebsocketCommunicator

from ..conftest import BACKEND
from .people import Counted, make_session, store, with_cookie

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]

# ---- Django's async methods


@pytest.mark.trio_only
async def test_the_async_orm() -> None:
    made = await Group.objects.acreate(name="made")
    assert await Group.objects.aget(pk=made.pk) == made
    assert [group.name async for group in Group.objects.filter(name="made")] == ["made"]
    assert await Group.objects.filter(name="made").acount() == 1
    made.name = "changed"
    await made.asave()
    await made.arefresh_from_db()
    assert made.name == "changed"
    with pytest.raises(Group.DoesNotExist):
        await Group.objects.aget(name="made")
    await made.adelete()
    assert not await Group.objects.filter(name="changed").aexists()


@pytest.mark.trio_only
async def test_calls_run_side_by_side_and_are_cancelled() -> None:
    began, told = threading.Event(), []

    def stay() -> None:
        began.set()
        try:
            while True:
                checkpoint()
        except LaneCancelled as error:
            told.append(type(error))
            raise

    async with Bridge(2, hooks=DjangoHooks) as bridge:
        use_database_bridge(bridge)
        async with anyio.create_task_group() as group:
            group.start_soon(sync_to_async(stay))
            assert await sync_to_async(began.wait)(20), "it is beside the other"
            group.cancel_scope.cancel()
    assert told == [LaneCancelled]


@pytest.mark.trio_only
async def test_aiterator_says_what_to_do() -> None:
    with pytest.raises(SynchronousOnlyOperation, match="async for … in queryset"):
        async for _ in Group.objects.aiterator():
            pass


@pytest.mark.trio_only
async def test_it_is_installed_once() -> None:
    from asgiref.sync import SyncToAsync

    before = SyncToAsync.__call__
    install_async_orm()
    assert SyncToAsync.__call__ is before


class Sessions(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        session = self.scope["session"]
        await session.aset("n", await session.aget("n", 0) + 1)
        await session.asave()
        await self.send_json(await session.aget("n"))


@pytest.mark.trio_only
async def test_a_session_by_its_async_methods(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)
    app = AuthMiddlewareStack(Sessions.as_asgi())
    async with WebsocketCommunicator(app, "/", headers=with_cookie(key)) as socket:
        for n in (1, 2):
            await socket.send_json_to(None)
            assert await socket.receive_json_from(5) == n
    assert await store(key).aget("n") == 2


# ---- blocking consumers, as Channels' documentation has them


class Blocking(JsonWebsocketConsumer):
    def connect(self) -> None:
        user = async_to_sync(get_user)(self.scope)
        self.accept()
        self.send_json(user.get_username())

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "out":
            async_to_sync(logout)(self.scope)
        else:
            async_to_sync(login)(
                self.scope, get_user_model().objects.get(username=content), "django.contrib.auth.backends.ModelBackend"
            )
            async_to_sync(get_session)(self.scope)
            self.scope["session"].save()
        self.send_json([self.scope["user"].get_username(), self.scope["session"].session_key])


async def test_logging_in_and_out_from_blocking_code(ada: Any) -> None:
    async with WebsocketCommunicator(AuthMiddlewareStack(Blocking.as_asgi()), "/") as socket:
        assert await socket.receive_json_from(5) == ""
        await socket.send_json_to("ada")
        name, key = await socket.receive_json_from(5)
        assert name == "ada"
        assert (await database_sync_to_async(lambda: store(key).load())())["_auth_user_id"] == str(ada.pk)
        await socket.send_json_to("out")
        assert await socket.receive_json_from(5) == ["", None]


async def test_it_takes_no_further_lane_and_no_further_query(ada: Any) -> None:
    """The blocking code waits in its lane, and the work is done there: with one lane, and on its connection."""
    key = await database_sync_to_async(make_session)(ada)
    async with Bridge(1, hooks=DjangoHooks) as bridge:
        use_bridge(bridge)
        counted = Counted()
        await bridge.run(lambda: connection.execute_wrappers.append(counted))
        async with anyio.create_task_group() as group:

            async def visit() -> None:
                app = AuthMiddlewareStack(Blocking.as_asgi())
                async with WebsocketCommunicator(app, "/", headers=with_cookie(key), timeout=20) as socket:
                    assert await socket.receive_json_from(20) == "ada"

            for _ in range(8):
                group.start_soon(visit)
        assert len(counted.queries) == 16, "a session and a user for each"
        await bridge.run(connections.close_all)


@pytest.mark.parametrize("within", [database_sync_to_async, sync_to_async])
async def test_what_blocking_code_waits_for_is_cancelled_with_it(within: Any) -> None:
    if BACKEND == "asyncio" and within is sync_to_async:
        pytest.skip("that is asgiref's own business")
    began, told = threading.Event(), []

    async def stay() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(within(lambda: async_to_sync(stay)()))
            await database_sync_to_async(began.wait)()
            group.cancel_scope.cancel()
    assert told == ["cancelled"]


# ---- our own wrappers within asgiref's


async def test_what_blocking_code_waits_for_is_in_its_transaction() -> None:
    """Both wrappers come back to the thread that waits, on whose connection the row is that nobody else sees."""

    def count() -> int:
        return int(Group.objects.filter(name="unseen").count())

    async def count_both() -> tuple[int, int, int]:
        return await database_sync_to_async(count)(), await sync_to_async(count)(), await own_sync_to_async(count)()

    def work() -> tuple[int, int, int]:
        with transaction.atomic():
            Group.objects.create(name="unseen")
            seen = async_to_sync(count_both)()
            transaction.set_rollback(True)
        return seen

    async with Bridge(1, hooks=DjangoHooks) as bridge:
        use_database_bridge(bridge)
        assert await database_sync_to_async(work)() == (1, 1, 1)
        assert await database_sync_to_async(count)() == 0
        await bridge.run(connections.close_all)


async def test_a_task_that_outlives_the_blocking_code_has_lanes_of_its_own() -> None:
    go, threads = threading.Event(), []
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await database_sync_to_async(threading.get_ident)()
        while not go.is_set():
            await asyncio.sleep(0)
        threads.append(await database_sync_to_async(threading.get_ident)())

    async def begin() -> None:
        tasks.append(asyncio.create_task(later()))

    async with Bridge(1) as bridge:
        use_database_bridge(bridge)
        lane = await database_sync_to_async(threading.get_ident)()
        await database_sync_to_async(async_to_sync(begin))()
        go.set()
        await (await current_island()).call(asyncio.wait, tasks)
    assert threads
    assert lane not in threads
