"""get_channel_layer() finds what is open in the running loop, and nothing anywhere else."""

import threading

import anyio
import pytest

import trichannels.layers
from trichannels.bridge import current_bridge
from trichannels.layers import InMemoryChannelLayer, get_channel_layer
from trichannels.layers.anywhere import AnywhereLayer
from trichannels.layers.registry import registered

from ..loops import run_on_backend


async def test_a_layer_is_found_by_its_alias_while_it_is_registered() -> None:
    one, other = InMemoryChannelLayer(), InMemoryChannelLayer()
    assert get_channel_layer() is None
    with registered({"default": one, "other": other}):
        assert get_channel_layer() is get_channel_layer("default") is one
        assert get_channel_layer("other") is other
        assert get_channel_layer("third") is None
    assert get_channel_layer() is None


async def test_of_two_with_one_alias_the_newest_is_found() -> None:
    outer, inner = InMemoryChannelLayer(), InMemoryChannelLayer()
    with registered({"default": outer}):
        with registered({"default": inner}):
            assert get_channel_layer() is inner
        assert get_channel_layer() is outer


async def test_the_one_that_ends_first_need_not_be_the_newest() -> None:
    first, second = InMemoryChannelLayer(), InMemoryChannelLayer()
    one, two = registered({"default": first}), registered({"default": second})
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert get_channel_layer() is second
    two.__exit__(None, None, None)
    assert get_channel_layer() is None


async def test_an_error_takes_the_registration_away() -> None:
    with pytest.raises(KeyError), registered({"default": InMemoryChannelLayer()}):
        raise KeyError
    assert get_channel_layer() is None


def test_no_loop_no_layer() -> None:
    assert get_channel_layer() is None


async def test_a_thread_of_the_bridge_finds_the_layers_of_its_loop() -> None:
    async with InMemoryChannelLayer() as layer:
        with registered({"default": layer}):
            found = await current_bridge().run(get_channel_layer)
            assert isinstance(found, AnywhereLayer)
            assert found.statistics() == layer.statistics()
            assert found == await current_bridge().run(get_channel_layer)
    assert await current_bridge().run(get_channel_layer) is None


async def test_another_loop_finds_its_own_and_a_bare_thread_none() -> None:
    here, there = InMemoryChannelLayer(), InMemoryChannelLayer()
    found: list[object] = []

    async def elsewhere() -> None:
        found.append(get_channel_layer())
        with registered({"default": there}):
            found.append(get_channel_layer())

    with registered({"default": here}):
        for target in (lambda: run_on_backend(elsewhere), lambda: found.append(get_channel_layer())):
            thread = threading.Thread(target=target)
            thread.start()
            await anyio.to_thread.run_sync(thread.join)
        assert get_channel_layer() is here
    assert found == [None, there, None]


@pytest.mark.parametrize("name", trichannels.layers.__all__)
def test_the_face_of_the_package_gives_each_name(name: str) -> None:
    assert getattr(getattr(trichannels.layers, name), "__name__", name) == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'RedisLayer'"):
        trichannels.layers.RedisLayer  # noqa: B018
