"""Consumers that our server's transport feeds: who gets a turn, in what order, and what is left of them."""

import gc
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
import trio
import trio.testing

from trichannels.consumer import AsyncConsumer
from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.instance import BURST
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter
from trichannels.server import Server
from trichannels.server.contain import LOG

from .support import TEXT, connect, frame, serving

pytestmark = [pytest.mark.server, pytest.mark.trio_only, pytest.mark.usefixtures("descriptors")]


def routed(websocket: ASGIApp, layer: InMemoryChannelLayer | None = None) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"websocket": websocket}, layers={"default": layer or InMemoryChannelLayer()})


async def nobody_left(server: Server) -> None:
    with trio.fail_after(10):
        while server.statistics().connections:
            await trio.lowlevel.checkpoint()


async def ended(event: trio.Event) -> None:
    with trio.fail_after(10):
        await event.wait()


async def test_a_burst_for_a_handler_that_waits_for_nothing_leaves_others_their_turns() -> None:
    handled = most = 0
    all_handled = trio.Event()

    class Counting(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            nonlocal handled
            handled += 1
            if handled == 10_000:
                all_handled.set()

    async def watch() -> None:
        nonlocal most
        while True:
            before = handled
            await trio.lowlevel.checkpoint()
            most = max(most, handled - before)

    async with serving(routed(Counting.as_asgi())) as server, await connect(server) as client:
        await client.upgrade()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await client.send(frame(TEXT, b"!") * 10_000)
            await ended(all_handled)
            nursery.cancel_scope.cancel()
    assert most <= 2 * BURST


async def test_who_has_read_before_a_consumer_leaves_it_the_rest() -> None:
    class Echo(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise AssertionError("it was connected before")

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data)

    consumer = Echo.as_asgi()

    async def asking_first(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["text"] == "password"
        await consumer(scope, receive, send)

    async with serving(routed(asking_first)) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(b"".join(frame(TEXT, text) for text in (b"password", b"one", b"two")))
        assert [await client.text() for _ in range(2)] == ["one", "two"]


async def test_a_consumer_behind_one_that_has_closed_ends_at_once() -> None:
    over = trio.Event()

    class Closing(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.close()

    class Patient(AsyncConsumer):
        async def websocket_connect(self, event: Event) -> None: ...

    consumers = [Closing.as_asgi(), Patient.as_asgi()]

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        for consumer in consumers:
            await consumer(scope, receive, send)
        over.set()

    async with serving(routed(both)) as server, await connect(server) as client:
        await client.upgrade()
        await ended(over)


async def test_with_more_handlers_at_once_nothing_overtakes_an_event_whose_handler_is_about_to_begin() -> None:
    layer = InMemoryChannelLayer()

    class Room(AsyncWebsocketConsumer):
        concurrency = 2
        groups = ("room",)

        def order_key(self, message: Event) -> str:
            return "room"

        async def first(self, event: Event) -> None:
            await self.send("first")

    async with serving(routed(Room.as_asgi(), layer)) as server, await connect(server) as client:
        await client.upgrade()
        for _ in range(50):  # trio shuffles whose turn it is
            await layer.group_send("room", {"type": "first"})
            await trio.lowlevel.checkpoint()
            await layer.group_send("room", {"type": "websocket.send", "text": "second"})
            assert [await client.text() for _ in range(2)] == ["first", "second"]


@pytest.fixture
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but reference counts frees anything; nor does a log keep what failed."""
    monkeypatch.setattr(LOG, "disabled", True)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Member(AsyncWebsocketConsumer):
    groups = ("room",)

    async def connect(self) -> None:
        await self.accept()
        self.nursery.start_soon(trio.sleep_forever)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("room", {"type": "websocket.send", "text": "all"})

    async def disconnect(self, code: int) -> None:
        assert code == self.close_code


class Crowd(Member):
    concurrency = 3


class Leaving(Member):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await super().receive(text_data)
        await self.close(4000)


class Failing(Member):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await super().receive(text_data)
        raise ValueError("this cannot be")


class FailingAside(Failing):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.nursery.start_soon(super().receive, text_data)


class Overstaying(Member):
    disconnect_grace = 0

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await super().receive(text_data)
        await trio.sleep_forever()


class Blocking(WebsocketConsumer):
    groups = ("room",)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send("all")


@pytest.mark.parametrize("kind", [Member, Crowd, Leaving, Failing, FailingAside, Overstaying, Blocking])
async def test_nothing_of_a_socket_outlives_it_even_without_a_garbage_collector(kind: Any, no_collector: None) -> None:
    traces: list[ref[Any]] = []

    class Traced(kind):  # type: ignore[misc]
        def _sender(self, instance: Any) -> Any:
            traces.extend(map(ref, (self, instance, instance.transport._peer)))
            return super()._sender(instance)

    layer = InMemoryChannelLayer()
    async with serving(routed(Traced.as_asgi(), layer)) as server:
        async with await connect(server) as client:
            await client.upgrade()
            await client.send(frame(TEXT, b"say"))
            assert await client.text() == "all"
        await nobody_left(server)
        await trio.testing.wait_all_tasks_blocked()
        if sys.version_info >= (3, 12):
            gc.collect()  # there, what was raised and cancelled holds its frames in circles that are not ours
        assert [trace() for trace in traces] == [None] * 3


SETTING: ContextVar[str] = ContextVar("setting", default="nothing")


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_connect_sets_in_its_context_later_handlers_tasks_and_the_goodbye_see(concurrency: int) -> None:
    seen: list[tuple[str, str]] = []
    over = trio.Event()

    class Setting(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            SETTING.set("early")
            self.nursery.start_soon(self.task)
            SETTING.set("late")
            await self.accept()

        async def task(self) -> None:
            seen.append(("task", SETTING.get()))

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append(("receive", SETTING.get()))
            await self.send("seen")

        async def disconnect(self, code: int) -> None:
            seen.append(("disconnect", SETTING.get()))
            over.set()

    Setting.concurrency = concurrency
    async with serving(routed(Setting.as_asgi())) as server:
        async with await connect(server) as client:
            await client.upgrade()
            await client.send(frame(TEXT, b"look"))
            await client.text()
        await ended(over)
    assert seen == [("task", "early"), ("receive", "late"), ("disconnect", "late")]


async def test_middleware_that_gives_up_is_back_only_when_the_tasks_of_the_nursery_are_over() -> None:
    order: list[str] = []
    over = trio.Event()

    class Lingering(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            self.nursery.start_soon(self.linger)

        async def linger(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                order.append("task")

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            scopes[0].cancel()

        async def disconnect(self, code: int) -> None:
            order.append("goodbye")

    consumer = Lingering.as_asgi()
    scopes: list[trio.CancelScope] = []

    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.CancelScope() as patience:
            scopes.append(patience)
            await consumer(scope, receive, send)
        order.append("middleware")
        over.set()

    async with serving(routed(impatient)) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(frame(TEXT, b"give up"))
        assert (await client.closing())[0] == 1001
        await ended(over)
    assert order == ["task", "goodbye", "middleware"]
