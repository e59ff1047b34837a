"""Blocking tests of a project whose layer is in memory: what they send reaches somebody."""

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync as asgirefs
from django.contrib.auth.models import Group
from django.db.models.signals import post_save
from django.test import override_settings

from trichannels.bridge import async_to_sync
from trichannels.exceptions import InvalidChannelLayerError
from trichannels.layers import get_channel_layer
from trichannels.testing import TimedOut, UnexpectedEvent, opened_layers

from ..conftest import BACKEND

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]
MEMORY = {"BACKEND": "trichannels.layers.InMemoryChannelLayer"}


def with_layers(**layers: Any) -> Any:
    return override_settings(CHANNEL_LAYERS=layers)


@pytest.fixture
def in_memory() -> Iterator[None]:
    with with_layers(default=MEMORY, other=MEMORY):
        yield


def layer(alias: str = "default") -> Any:
    return get_channel_layer(alias)


def opened() -> Any:
    return opened_layers(backend=BACKEND)


@pytest.mark.usefixtures("in_memory")
def test_what_a_signal_sends_is_heard() -> None:
    def tell(sender: Any, instance: Group, **more: Any) -> None:
        layer().group_send("groups", {"type": "group.saved", "name": instance.name})

    post_save.connect(tell, sender=Group)
    try:
        with opened() as layers, layers.subscribe("groups") as events:
            group = Group.objects.create(name="told of")
            assert events.receive() == {"type": "group.saved", "name": "told of"}
            events.receive_nothing(0.01)
            group.delete()
    finally:
        post_save.disconnect(tell, sender=Group)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("to_sync", [async_to_sync, asgirefs])
def test_as_written_for_channels(to_sync: Any) -> None:
    with opened() as layers, layers.subscribe("a", "b", alias="other") as events:
        to_sync(layer("other").group_send)("b", {"type": "x"})
        assert events.receive() == {"type": "x"}
        to_sync(layer().group_send)("b", {"type": "y"})
        events.receive_nothing(0.01)


@pytest.mark.usefixtures("in_memory")
def test_what_is_missing_and_what_is_too_much_is_said() -> None:
    with opened() as layers:
        with layers.subscribe("a") as events:
            with pytest.raises(TimedOut, match=r"within 0\.01 s"):
                events.receive(0.01)
            layer().group_send("a", {"type": "x"})
            with pytest.raises(UnexpectedEvent, match=r"expected nothing.*'x'"):
                events.receive_nothing(20)
        with (
            pytest.raises(InvalidChannelLayerError, match="CHANNEL_LAYERS has no 'third'"),
            layers.subscribe("a", alias="third"),
        ):
            pass


@pytest.mark.usefixtures("in_memory")
def test_afterwards_there_is_none() -> None:
    with opened():
        layer().group_send("a", {"type": "x"})
    with pytest.raises(InvalidChannelLayerError, match="opened_layers"):
        layer().group_send("a", {"type": "x"})


def test_the_options_for_tests_count() -> None:
    with with_layers(default=MEMORY | {"CONFIG": {"capacity": 7}, "TEST_CONFIG": {"capacity": 3}}), opened():
        assert layer().capacity == 3


def test_a_wrong_setting_is_raised_as_itself() -> None:
    wrong = MEMORY | {"CONFIG": {"capacity": -1}}
    with with_layers(default=wrong), pytest.raises(InvalidChannelLayerError, match="capacity"), opened():
        pass


async def test_an_async_test_is_told_what_it_needs() -> None:
    with pytest.raises(RuntimeError, match=r"application\.opened"), opened():
        pass
