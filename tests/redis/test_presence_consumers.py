"""Presence as consumers have it: there while the socket is, gone with it, whatever ends it. In memory and on Redis."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from trichannels.events import Event
from trichannels.exceptions import InvalidChannelLayerError, InvalidName
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing import FaultInjected, FaultyLayer

from ..sockets import connected, socket_to
from .servers import fresh_prefix, shared_server

LAYERS = [
    InMemoryChannelLayer,
    pytest.param(
        lambda: RedisChannelLayer(url=shared_server().url, prefix=fresh_prefix()), marks=pytest.mark.server, id="redis"
    ),
]
Make = Callable[[], ChannelLayer]


class Guest(AsyncWebsocketConsumer):
    """Present in the lobby; it does what it is told."""

    async def connect(self) -> None:
        await self.join("lobby")
        await self.accept()
        await self.track("lobby", "ada", {"path": self.scope["path"]})
        await self.send(text_data="in")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        match text_data:
            case "leave":
                await self.untrack("lobby", "ada")
            case "close":
                await self.close()
            case "fail":
                raise ZeroDivisionError
            case "rename":
                await self.track("lobby", "ada", {"path": "another"})
            case "nobody":
                await self.track("lobby", "")
        await self.send(text_data="done")


class Follower(Guest):
    """Tells its client who comes and goes."""

    async def presence_diff(self, event: Event) -> None:
        await self.send(text_data=f"+{sorted(event['joins'])} -{sorted(event['leaves'])}")


class SyncGuest(WebsocketConsumer):
    """The same with blocking handlers."""

    def connect(self) -> None:
        self.accept()
        self.track("lobby", "ada", {"sync": True})
        self.send(text_data="in")

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        self.untrack("lobby", "ada")
        self.send(text_data="done")


@asynccontextmanager
async def entered(consumer: Any, layer: ChannelLayer) -> AsyncIterator[Any]:
    async with connected(consumer, layer=layer, timeout=5) as socket:
        assert await socket.receive_from(5) == "in"
        yield socket


@pytest.mark.parametrize("make", LAYERS)
async def test_there_with_the_socket_and_gone_with_it(make: Make) -> None:
    async with make() as layer:
        async with entered(Guest, layer):
            assert (await layer.presence("lobby")).members == {"ada": [{"path": "/ws/"}]}
            async with entered(Guest, layer):
                assert await layer.presence_count("lobby") == 1
                assert layer.statistics().presences == 2
            assert layer.statistics().presences == 1
        assert layer.statistics().presences == 0
        assert (await layer.presence("lobby")).members == {}


@pytest.mark.parametrize("make", LAYERS)
async def test_a_socket_that_is_cancelled_is_gone_at_once(make: Make) -> None:
    async with make() as layer, anyio.create_task_group() as nursery:
        scope, here = anyio.CancelScope(), anyio.Event()

        async def be_there() -> None:
            with scope:
                async with entered(Guest, layer):
                    here.set()
                    await anyio.sleep_forever()

        async with layer.subscribe("lobby") as events:
            nursery.start_soon(be_there)
            await here.wait()
            assert list((await events.receive())["joins"]) == ["ada"]
            scope.cancel()
            with anyio.fail_after(5):
                assert list((await events.receive())["leaves"]) == ["ada"]
        assert await layer.presence_count("lobby") == 0


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("order", ["leave", "close", "fail"])
async def test_each_way_to_leave(make: Make, order: str) -> None:
    async with make() as layer, layer.subscribe("lobby") as events:
        socket = socket_to(Guest, layer=layer, timeout=5)
        await socket.connect()
        assert await socket.receive_from(5) == "in"
        await socket.send_to(text_data=order)
        with anyio.fail_after(5):
            assert list((await events.receive())["joins"]) == ["ada"]
            assert list((await events.receive())["leaves"]) == ["ada"]
        if order == "fail":
            with pytest.raises(ZeroDivisionError):
                await socket.wait()
        else:
            await socket.disconnect()
        assert await layer.presence_count("lobby") == 0


async def test_tracking_again_replaces_the_metadata_and_a_bad_key_is_refused() -> None:
    async with InMemoryChannelLayer() as layer:
        async with entered(Guest, layer) as socket:
            await socket.send_to(text_data="rename")
            assert await socket.receive_from() == "done"
            assert (await layer.presence("lobby")).members == {"ada": [{"path": "another"}]}
        socket = socket_to(Guest, layer=layer)
        await socket.connect()
        await socket.send_to(text_data="nobody")
        with pytest.raises(InvalidName):
            await socket.wait()


async def test_members_are_told_and_those_who_do_not_care_live_on() -> None:
    async with InMemoryChannelLayer() as layer, entered(Guest, layer) as guest, entered(Follower, layer) as follower:
        async with layer.track("lobby", "bob"):
            assert await follower.receive_from() == "+['bob'] -[]"
        assert await follower.receive_from() == "+[] -['bob']"
        await guest.send_to(text_data="hello")
        assert await guest.receive_from() == "done"


@pytest.mark.parametrize("make", LAYERS)
async def test_blocking_consumers_have_it_too(make: Make) -> None:
    async with make() as layer, entered(SyncGuest, layer) as socket:
        assert (await layer.presence("lobby")).members == {"ada": [{"sync": True}]}
        await socket.send_to(text_data="leave")
        assert await socket.receive_from(5) == "done"
        assert await layer.presence_count("lobby") == 0


async def test_without_a_layer_it_says_what_is_missing() -> None:
    socket = socket_to(Guest)
    with pytest.raises(InvalidChannelLayerError, match="has no channel layer"):
        await socket.connect()


@pytest.mark.server
async def test_a_layer_without_presence_says_so() -> None:
    async with RedisChannelLayer(url=shared_server().url, prefix=fresh_prefix(), wire="channels_redis.pubsub") as layer:
        with pytest.raises(InvalidChannelLayerError, match="keeps no presence"):
            async with layer.track("lobby", "ada"):
                pass
        with pytest.raises(InvalidChannelLayerError, match="keeps no presence"):
            await layer.presence("lobby")


async def test_faults_of_tracking_and_asking() -> None:
    async with FaultyLayer(InMemoryChannelLayer(), fail={"track": 1, "presence": 1}) as layer:
        with pytest.raises(FaultInjected):
            async with layer.track("lobby", "ada"):
                pass
        for ask in (layer.presence, layer.presence_count):
            with pytest.raises(FaultInjected):
                await ask("lobby")
        assert layer.statistics().presences == 0


@pytest.mark.parametrize("option", ["presence_linger", "presence_lease"])
@pytest.mark.parametrize("make", [InMemoryChannelLayer, RedisChannelLayer])
def test_bad_options(make: Any, option: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=option):
        make(**{option: -1})
