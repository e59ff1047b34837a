"""Which names channels and groups may have, with the error texts of Channels."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ...exceptions import InvalidName
from ...layers.base import ChannelLayer
from .base import ContractBase, message

GOOD_GROUPS = ("a", "Chat-1_2.3", "9", "x" * 99)
GOOD_CHANNELS = (*GOOD_GROUPS, "specific.abc!def", "specific.abc!", "a!" + "x" * 97)
BAD_GROUPS = ("", "a b", "a!b", "a/b", "ä", "a\n", "x" * 100, "a:b", None, 7, b"a", ["a"])
BAD_CHANNELS = (*(name for name in BAD_GROUPS if name != "a!b"), "!a", "a!b!c", "a!b c")

GROUP_CALLS: dict[str, Callable[[ChannelLayer, Any], Awaitable[Any]]] = {
    "group_send": lambda layer, name: layer.group_send(name, message()),
    "group_add": lambda layer, name: layer.group_add(name, "channel"),
    "group_discard": lambda layer, name: layer.group_discard(name, "channel"),
    "subscribe": lambda layer, name: layer.subscribe("good", name).__aenter__(),
}
CHANNEL_CALLS: dict[str, Callable[[ChannelLayer, Any], Awaitable[Any]]] = {
    "send": lambda layer, name: layer.send(name, message()),
    "receive": lambda layer, name: layer.receive(name),
    "group_add": lambda layer, name: layer.group_add("group", name),
    "group_discard": lambda layer, name: layer.group_discard("group", name),
}
RULE = (
    "name must be a valid unicode string with length < 100 "
    "containing only ASCII alphanumerics, hyphens, underscores, or periods"
)


class NamesContract(ContractBase):
    """Names are checked by every call that takes one, before anything is done."""

    async def test_good_names(self) -> None:
        async with self.opened() as layer:
            for group in GOOD_GROUPS:
                assert layer.valid_group_name(group)
                await layer.group_send(group, message())
            for channel in GOOD_CHANNELS:
                assert layer.valid_channel_name(channel)

    @pytest.mark.parametrize("call", GROUP_CALLS)
    async def test_bad_group_names(self, call: str) -> None:
        async with self.opened() as layer:
            for name in BAD_GROUPS:
                with pytest.raises(TypeError, match=f"^Group {RULE}"):
                    await GROUP_CALLS[call](layer, name)
            assert layer.statistics().groups == layer.statistics().channels == 0

    @pytest.mark.parametrize("call", CHANNEL_CALLS)
    async def test_bad_channel_names(self, call: str) -> None:
        async with self.opened() as layer:
            for name in BAD_CHANNELS:
                with pytest.raises(InvalidName, match=f"^Channel {RULE}"):
                    await CHANNEL_CALLS[call](layer, name)
            assert layer.statistics().groups == layer.statistics().channels == 0

    async def test_names_to_receive_from(self) -> None:
        layer = self.make_layer()
        assert layer.valid_channel_name("specific.abc!", receive=True)
        with pytest.raises(TypeError, match=r"^Specific channel names in receive\(\) must end at the !"):
            layer.valid_channel_name("specific.abc!def", receive=True)

    async def test_new_channels_are_unique_valid_and_of_this_process(self) -> None:
        async with self.pair() as (peer, layer):
            names = [await owner.new_channel() for owner in (peer, layer) for _ in range(50)]
            assert len(set(names)) == len(names)
            assert all(layer.valid_channel_name(name) and "!" in name for name in names)
            assert (await layer.new_channel("prefix")).startswith("prefix")
            with pytest.raises(TypeError, match=f"^Channel {RULE}"):
                await layer.new_channel("pre fix")
