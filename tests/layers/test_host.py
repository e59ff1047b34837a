"""Who keeps a router's layers open: the lifespan, an owner's block, or the first instance that comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup

from tests.asgi import Seen, get, run
from trichannels.events import Receive, Scope, Send
from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.registry import get_channel_layer
from trichannels.routing import ProtocolTypeRouter

LIFESPAN = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


class Layer(InMemoryChannelLayer):
    """A memory layer that keeps a log, and opens or closes badly or late if told so."""

    def __init__(self, log: list[str] | None = None, name: str = "layer") -> None:
        super().__init__()
        self.log = [] if log is None else log
        self.name = name
        self.opens: Exception | None = None
        self.closes: Exception | None = None
        self.gate: anyio.Event | None = None

    async def open(self) -> None:
        self.log.append(f"{self.name} opens")
        if self.gate:
            await self.gate.wait()
        if self.opens:
            raise self.opens
        await super().open()

    async def close(self) -> None:
        await super().close()
        self.log.append(f"{self.name} closes")
        if self.closes:
            raise self.closes


class Staying:
    """An application whose instances stay until they are let go."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.let_go = anyio.Event()
        self.raises: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        assert get_channel_layer() is scope["channel_layers"]["default"]
        await self.let_go.wait()
        if self.raises:
            raise self.raises


SCOPE = {"type": "http", "path": "/"}


def start(nursery: TaskGroup, router: ProtocolTypeRouter, times: int = 1) -> None:
    for _ in range(times):
        nursery.start_soon(run, router, SCOPE)


class TestOwned:
    """Somebody has a lifetime for them."""

    async def test_the_lifespan_opens_and_closes_them(self) -> None:
        layer = Layer()
        router = ProtocolTypeRouter({}, {"default": layer})
        assert [event["type"] for event in await run(router, {"type": "lifespan"}, LIFESPAN)] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert layer.log == ["layer opens", "layer closes"]

    async def test_a_layer_that_does_not_open_fails_the_startup(self) -> None:
        layer = Layer()
        layer.opens = ConnectionRefusedError("nobody there")
        (sent,) = await run(ProtocolTypeRouter({}, {"default": layer}), {"type": "lifespan"}, LIFESPAN)
        assert sent["type"] == "lifespan.startup.failed"
        assert sent["message"] == "ConnectionRefusedError: nobody there; while opening the channel layer 'default'"

    async def test_an_inner_lifespan_finds_them_open(self) -> None:
        found = []

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            layer: ChannelLayer = scope["channel_layers"]["default"]
            await receive()
            found.append(await layer.new_channel())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            found.append(await layer.new_channel())
            await send({"type": "lifespan.shutdown.complete"})

        await run(ProtocolTypeRouter({"lifespan": inner}, {"default": Layer()}), {"type": "lifespan"}, LIFESPAN)
        assert len(found) == 2

    async def test_a_block_of_the_parent_opens_them(self) -> None:
        layer, app = Layer(), Seen()
        router = ProtocolTypeRouter({"http": app}, {"default": layer})
        async with router.opened() as opened:
            assert opened is router
            assert get_channel_layer() is layer
            await get(router)
            await get(router)
            assert app.scopes[0]["channel_layers"] == {"default": layer}
        assert layer.log == ["layer opens", "layer closes"]
        assert get_channel_layer() is None

    async def test_a_lifespan_within_the_block_opens_nothing_twice(self) -> None:
        layer = Layer()
        router = ProtocolTypeRouter({}, {"default": layer})
        async with router.opened():
            await run(router, {"type": "lifespan"}, LIFESPAN)
            assert layer.opened
        assert layer.log == ["layer opens", "layer closes"]

    async def test_they_close_in_reverse_and_one_with_two_names_opens_once(self) -> None:
        log: list[str] = []
        first, second = Layer(log, "first"), Layer(log, "second")
        async with ProtocolTypeRouter({}, {"a": first, "b": second, "c": first}).opened():
            assert get_channel_layer("c") is first
        assert log == ["first opens", "second opens", "second closes", "first closes"]

    async def test_what_was_opened_closes_if_the_next_does_not_open(self) -> None:
        log: list[str] = []
        first, second = Layer(log, "first"), Layer(log, "second")
        second.opens = OSError("no")
        with pytest.raises(OSError, match="no") as caught:
            async with ProtocolTypeRouter({}, {"a": first, "b": second}).opened():
                pass
        assert caught.value.__notes__ == ["while opening the channel layer 'b'"]
        assert log == ["first opens", "second opens", "first closes"]

    async def test_they_can_be_opened_again(self) -> None:
        layer = Layer()
        router = ProtocolTypeRouter({}, {"default": layer})
        for _ in range(2):
            async with router.opened():
                assert layer.opened
        assert layer.log == ["layer opens", "layer closes"] * 2

    async def test_layers_of_an_outer_router_stay_in_the_scope(self) -> None:
        app, outer, inner = Seen(), Layer(), Layer()
        router = ProtocolTypeRouter({"http": ProtocolTypeRouter({"http": app}, {"default": inner})}, {"outer": outer})
        async with router.opened():
            await get(router)
        assert app.scopes[0]["channel_layers"] == {"outer": outer, "default": inner}

    async def test_a_layer_that_the_outer_router_carries_is_not_opened_again(self) -> None:
        app, layer = Seen(), Layer()
        router = ProtocolTypeRouter({"http": ProtocolTypeRouter({"http": app}, {"default": layer})}, {"default": layer})
        async with router.opened():
            await get(router)
        await get(router)  # and in the degraded way
        assert layer.log == ["layer opens", "layer closes"] * 2
        assert [scope["channel_layers"] for scope in app.scopes] == [{"default": layer}] * 2


class TestDegraded:
    """Nobody has: the first instance opens them, the last closes them."""

    @asynccontextmanager
    async def room(self) -> AsyncIterator[tuple[Layer, Staying, ProtocolTypeRouter, TaskGroup]]:
        layer, app = Layer(), Staying()
        async with anyio.create_task_group() as nursery:
            yield layer, app, ProtocolTypeRouter({"http": app}, {"default": layer}), nursery

    async def test_from_the_first_instance_to_the_last(self) -> None:
        async with self.room() as (layer, app, router, nursery):
            start(nursery, router, 3)
            await anyio.wait_all_tasks_blocked()
            assert len(app.scopes) == 3
            assert layer.log == ["layer opens"]
            app.let_go.set()
        assert layer.log == ["layer opens", "layer closes"]
        assert get_channel_layer() is None

    async def test_and_again_for_the_next(self) -> None:
        layer, app = Layer(), Seen()
        router = ProtocolTypeRouter({"http": app}, {"default": layer})
        await get(router)
        await get(router)
        assert layer.log == ["layer opens", "layer closes"] * 2

    async def test_who_comes_while_they_open_waits_for_the_same_opening(self) -> None:
        async with self.room() as (layer, app, router, nursery):
            layer.gate = anyio.Event()
            start(nursery, router, 2)
            await anyio.wait_all_tasks_blocked()
            assert app.scopes == []
            layer.gate.set()
            await anyio.wait_all_tasks_blocked()
            assert len(app.scopes) == 2
            app.let_go.set()
        assert layer.log == ["layer opens", "layer closes"]

    async def test_who_comes_while_they_close_waits_and_opens_them_anew(self) -> None:
        async with self.room() as (layer, app, router, nursery):
            start(nursery, router)
            await anyio.wait_all_tasks_blocked()
            with layer.in_use():  # an instance that is still saying goodbye holds the closing up
                app.let_go.set()
                await anyio.wait_all_tasks_blocked()
                start(nursery, router, 2)
                await anyio.wait_all_tasks_blocked()
                assert len(app.scopes) == 1
        assert len(app.scopes) == 3
        assert layer.log == ["layer opens", "layer closes"] * 2

    async def test_an_error_of_opening_is_the_instances_and_the_next_tries_again(self) -> None:
        layer, app = Layer(), Seen()
        router = ProtocolTypeRouter({"http": app}, {"default": layer})
        layer.opens = ConnectionRefusedError("nobody there")
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError, match="nobody there"):
                await get(router)
        layer.opens = None
        await get(router)
        assert len(app.scopes) == 1

    async def test_an_error_of_closing_is_the_last_instance_s(self) -> None:
        layer = Layer()
        layer.closes = OSError("stuck")
        with pytest.raises(OSError, match="stuck"):
            await get(ProtocolTypeRouter({"http": Seen()}, {"default": layer}))

    async def test_an_error_of_the_application_comes_first_and_names_the_other(self) -> None:
        layer, app = Layer(), Staying()
        layer.closes, app.raises = OSError("stuck"), KeyError("mine")
        app.let_go.set()
        with pytest.raises(KeyError, match="mine") as caught:
            await get(ProtocolTypeRouter({"http": app}, {"default": layer}))
        assert caught.value.__notes__ == ["the channel layers had failed: OSError('stuck')"]
        assert not layer.opened

    async def test_a_cancelled_instance_closes_them_before_it_ends(self) -> None:
        async with self.room() as (layer, _, router, nursery):
            start(nursery, router)
            await anyio.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert layer.log == ["layer opens", "layer closes"]

    async def test_cancelled_while_they_open_it_ends_the_opening(self) -> None:
        async with self.room() as (layer, app, router, nursery):
            layer.gate = anyio.Event()
            start(nursery, router, 2)
            await anyio.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not layer.opened
        layer.gate, app.let_go = None, anyio.Event()
        app.let_go.set()
        await get(router)
        assert len(app.scopes) == 1

    async def test_a_close_that_hangs_is_waited_for_only_so_long(self, autojump_clock: object) -> None:
        layer = Layer()
        router = ProtocolTypeRouter({"http": Seen()}, {"default": layer})
        started = anyio.current_time()
        with layer.in_use():
            await router(SCOPE, _never, _nothing)
            assert anyio.current_time() - started == pytest.approx(5.0)
        await anyio.wait_all_tasks_blocked()
        assert not layer.opened

    async def test_a_block_that_comes_later_keeps_them_open(self) -> None:
        async with self.room() as (layer, app, router, nursery):
            start(nursery, router)
            await anyio.wait_all_tasks_blocked()
            async with router.opened():
                app.let_go.set()
                await anyio.wait_all_tasks_blocked()
                assert layer.opened
        assert layer.log == ["layer opens", "layer closes"]


async def _never() -> dict[str, object]:
    await anyio.sleep_forever()
    return {}


async def _nothing(_: object) -> None: ...
