"""Django's ORM in consumers and other async code."""

# mypy: allow-subclassing-any, allow-untyped-decorators

import threading
from typing import Any

import anyio

from .consumers import DISCONNECT, SOCKET
from .library import as_json, blocking, name_of, thread, told
from .rows import documented_at

behaviour = documented_at("topics/databases.html")
FUNCTION = "#database-sync-to-async"


def groups() -> Any:
    """Return the manager of some model: Django's groups, which are not those of a layer."""
    from django.contrib.auth.models import Group

    return Group.objects


@behaviour(
    FUNCTION,
    "`database_sync_to_async(function)(…)` runs it in a thread, and returns what it returns",
    same=[0, True, 3],
)
async def a_function(lib: Any) -> Any:
    def count(offset: int, *, more: int) -> Any:
        found.append(thread() != loop)
        return groups().filter(name="none").count() + offset + more

    loop = thread()
    found: list[bool] = []
    total = await lib.database_sync_to_async(count)(1, more=2)
    return [await lib.database_sync_to_async(lambda: groups().filter(name="none").count())(), *found, total]


@behaviour(FUNCTION, "It is a decorator, too, also of methods", same="of Consumer")
async def a_decorator(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(await self.name())

        @lib.database_sync_to_async
        def name(self) -> str:
            groups().count()
            return f"of {type(self).__name__}"

    async with lib.socket(Consumer) as client:
        return await client.receive_from(3)


@behaviour(FUNCTION, "Errors come out of it as they are", same="DoesNotExist")
async def errors(lib: Any) -> Any:
    return await told(lib.database_sync_to_async(groups().get)(name="none"))


@behaviour(
    FUNCTION,
    "Two calls at once",
    theirs=["take turns", 1],
    ours=["run side by side", 2],
    better="run side by side, in two threads; in Channels they take turns in one",
)
async def two_calls_at_once(lib: Any) -> Any:
    barrier = threading.Barrier(2, timeout=lib.patience)
    met, threads = [], set()

    def meet() -> None:
        threads.add(thread())
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            return
        met.append(True)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lib.database_sync_to_async(meet))
    return ["run side by side" if len(met) == 2 else "take turns", len(threads)]


@behaviour("", "The ORM in async code is a `SynchronousOnlyOperation`", same="SynchronousOnlyOperation")
async def the_orm_on_the_loop(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            try:
                groups().count()
            except Exception as error:  # noqa: BLE001 - that is what is looked at
                await self.send(name_of(error))

    async with lib.socket(Consumer) as client:
        return await client.receive_from(3)


@behaviour(
    "",
    "Django's async methods, such as `aget()` and `acreate()`, work in async consumers",
    same=["made", ["made"]],
)
async def the_async_orm(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await groups().acreate(name="made")
            one = (await groups().aget(name="made")).name
            await self.send(as_json([one, [group.name async for group in groups().filter(name="made")]]))

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        seen = await client.receive_json_from(3)
    await blocking(lambda: groups().filter(name="made").delete())
    return seen


@behaviour(
    "",
    "So does `aiterator()`",
    theirs=["made"],
    ours="SynchronousOnlyOperation",
    on_asyncio=["made"],
    different="not on trio, where it raises `SynchronousOnlyOperation` (on asyncio it works): "
    "`async for … in queryset`, as in the row above",
    tests=("tests/project/test_asgiref.py::test_aiterator_says_what_to_do",),
)
async def the_async_iterator(lib: Any) -> Any:
    async def names() -> list[str]:
        return [group.name async for group in groups().filter(name="made").aiterator()]

    await lib.database_sync_to_async(groups().create)(name="made")
    seen = await told(names())
    await lib.database_sync_to_async(lambda: groups().filter(name="made").delete())()
    return seen


@behaviour("#aclose-old-connections", "`await aclose_old_connections()` may be called now and then", same=None)
async def closing_old_connections(lib: Any) -> Any:
    return await told(lib.aclose_old_connections())


@behaviour(
    "#database-connections",
    "A connection that is older than `CONN_MAX_AGE` is closed between events",
    same=[True, True],
)
async def old_connections(lib: Any) -> Any:
    from django.db import connection

    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            connection.ensure_connection()
            fresh.append(not any(connection.connection is known for known in known_ones))
            known_ones.append(connection.connection)

    fresh: list[bool] = []
    known_ones: list[Any] = []
    frame = {"type": "websocket.receive", "text": "go"}
    await lib.ends(Consumer, SOCKET, {"type": "websocket.connect"}, frame, frame, DISCONNECT)
    return fresh
