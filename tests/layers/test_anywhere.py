"""The layer from where its loop does not run: lanes, threads, islands, loops that asgiref makes."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread
from asgiref.sync import async_to_sync as foreign_async_to_sync

from trichannels.bridge import AsyncioIsland, async_to_sync, call, current_bridge
from trichannels.bridge.home import this_loop
from trichannels.exceptions import BridgeClosed, InvalidChannelLayerError, InvalidName
from trichannels.layers import InMemoryChannelLayer, Subscription, get_channel_layer
from trichannels.layers.anywhere import AnywhereLayer
from trichannels.layers.registry import registered

pytestmark = pytest.mark.server

EVENT = {"type": "chat.message", "n": 1}


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[InMemoryChannelLayer, Subscription]]:
    async with InMemoryChannelLayer() as layer:
        with registered({"default": layer}):
            async with layer.subscribe("room") as events:
                yield layer, events


def found() -> Any:
    layer = get_channel_layer()
    assert isinstance(layer, AnywhereLayer)
    return layer


def directly() -> None:
    assert found().group_send("room", EVENT) is None


def by_our_async_to_sync() -> None:
    async_to_sync(found().group_send)("room", EVENT)


def by_asgirefs() -> None:
    foreign_async_to_sync(found().group_send)("room", EVENT)


def by_call() -> None:
    call(found().group_send, "room", EVENT)


@pytest.mark.parametrize("way", [directly, by_our_async_to_sync, by_asgirefs, by_call])
async def test_a_lane_sends_whichever_way_its_code_is_written(way: Callable[[], None]) -> None:
    async with opened() as (_, events):
        await current_bridge().run(way)
        assert await events.receive() == EVENT


async def test_a_handle_that_was_made_before_any_layer_was_there_finds_the_one_that_came() -> None:
    handle = AnywhereLayer()
    async with opened() as (_, events):
        await current_bridge().run(handle.group_send, "room", EVENT)
        await handle.group_send("room", EVENT)
        assert [await events.receive(), await events.receive()] == [EVENT, EVENT]


async def test_an_island_sends_on_the_loop_that_has_called_it() -> None:
    async def there() -> None:
        await found().group_send("room", EVENT)

    async with opened() as (_, events), AsyncioIsland() as island:
        await island.call(there)
        assert await events.receive() == EVENT


async def test_a_thread_of_anyio_sends() -> None:
    async with opened() as (_, events):
        await to_thread.run_sync(directly)
        assert await events.receive() == EVENT


async def test_a_thread_that_a_lane_starts_with_its_context_sends() -> None:
    def start() -> None:
        from contextvars import copy_context

        thread = threading.Thread(target=copy_context().run, args=(directly,))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    async with opened() as (_, events):
        await current_bridge().run(start)
        assert await events.receive() == EVENT


async def test_the_rest_of_the_layer_is_there_as_well() -> None:
    def work() -> None:
        layer, channel = found(), "another.channel"
        layer.group_add("room", channel)
        layer.group_send_many([("room", EVENT)])
        layer.group_discard("room", channel)
        layer.send("another.channel", {"type": "x"})
        assert layer.presence_count("room") == 0
        assert layer.presence("room").members == {}
        assert layer.capacity == 100
        with pytest.raises(AttributeError, match="'no_such_thing'"):
            layer.no_such_thing  # noqa: B018

    async with opened() as (layer, events):
        await current_bridge().run(work)
        assert await events.receive() == EVENT
        assert await layer.receive("another.channel") == EVENT
        assert await layer.receive("another.channel") == {"type": "x"}


async def test_an_error_of_the_layer_is_raised_where_it_was_asked() -> None:
    async with opened(), AsyncioIsland() as island:
        with pytest.raises(InvalidName):
            await current_bridge().run(lambda: found().group_send("not a name", EVENT))
        with pytest.raises(InvalidName):
            await island.call(lambda: found().group_send("not a name", EVENT))


async def test_cancelling_on_the_island_cancels_what_was_asked_for() -> None:
    ended: list[str] = []

    async with opened(), AsyncioIsland() as island:
        home = this_loop()

        async def for_ever() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("cancelled")

        async def there() -> None:
            with anyio.move_on_after(0.05):
                await home.run(for_ever)

        await island.call(there)
        assert ended == ["cancelled"]


async def test_once_the_loop_is_over_nothing_is_sent_and_that_is_said() -> None:
    def in_another_loop() -> Any:
        from ..loops import run_on_backend

        kept: list[Any] = []

        async def main() -> None:
            async with opened():
                kept.append(await current_bridge().run(found))

        run_on_backend(main)
        return kept[0]

    handle = await to_thread.run_sync(in_another_loop)
    with pytest.raises(InvalidChannelLayerError, match="no channel layer 'default' is open here"):
        await to_thread.run_sync(handle.group_send, "room", EVENT)


def test_a_thread_that_sends_while_its_loop_ends_does_not_wait_for_ever() -> None:
    """asyncio takes what it is asked for once its last task is over, and never does it."""
    failures: list[BaseException] = []

    async def main() -> None:
        here = this_loop()

        def ask() -> None:
            try:
                here.block(anyio.sleep, 0)
            except BridgeClosed as error:
                failures.append(error)

        threads.append(threading.Thread(target=ask))
        threads[0].start()
        time.sleep(0.05)  # so that it has asked before the loop can do anything

    threads: list[threading.Thread] = []
    asyncio.run(main())
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_without_a_loop_and_settings_there_is_none() -> None:
    assert get_channel_layer() is None
    with pytest.raises(InvalidChannelLayerError, match="CHANNEL_LAYERS"):
        AnywhereLayer().group_send("room", EVENT)


async def test_on_commit_is_for_blocking_code() -> None:
    async with opened():
        with pytest.raises(InvalidChannelLayerError, match="blocking code"):
            AnywhereLayer().group_send("room", EVENT, on_commit=True)


async def test_a_loop_within_a_lane_has_layers_of_its_own() -> None:
    inner: list[object] = []

    def lane() -> None:
        from ..loops import run_on_backend

        async def main() -> None:
            async with opened() as (_, events):
                await current_bridge().run(directly)
                inner.append(await events.receive())

        run_on_backend(main)

    async with opened() as (_, outer):
        await to_thread.run_sync(lane)
        assert inner == [EVENT]
        assert outer.statistics().layer_messages == 0
