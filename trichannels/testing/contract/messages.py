"""What a message may hold, and that it arrives as it was sent: a copy for each reader."""

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from math import inf, isnan, nan
from typing import Any
from uuid import UUID

import pytest

from ...exceptions import BadEvent, UnserializableMessage
from ...layers.base import ChannelLayer
from ...layers.serializers import Message
from .base import ContractBase, mailbox, message

LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1),
    *(0.0, -1.5, 1e300, inf, -inf),
    *("", "text", "räume \N{SNOWMAN} \U0001f600 \x00", b"", b"\x00\xff", "x" * 10_000),
    *([], {}, [1, [2, [3]]], {"a": {"b": {"c": b"d"}}}, datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)),
)
REFUSED: tuple[tuple[Message, str], ...] = (
    ({"type": "x", "value": object()}, "message['value']"),
    ({"type": "x", "value": [1, {"deep": {1, 2}}]}, "message['value'][1]['deep']"),
    ({"type": "x", "value": UUID(int=7)}, "message['value']"),
    ({"type": "x", "value": (0, Decimal("1.5"))}, "message['value'][1]"),
    ({"type": "x", "value": 2**64}, "message['value']"),
    ({"type": "x", "value": 1 + 2j}, "message['value']"),
)
SENDS: dict[str, Callable[[ChannelLayer, str, Any], Awaitable[Any]]] = {
    "send": lambda layer, channel, content: layer.send(channel, content),
    "group_send": lambda layer, _, content: layer.group_send("group", content),
}


def made_up(dice: random.Random, depth: int = 0) -> Any:
    """Return a random value of what a message may hold."""
    kind = dice.randrange(8 if depth < 4 else 6)
    if kind < 6:
        return dice.choice(LEAVES)
    if kind == 6:
        return [made_up(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {f"key {number}": made_up(dice, depth + 1) for number in range(dice.randrange(4))}


class MessagesContract(ContractBase):
    """Round trips, refusals, copies."""

    async def test_what_arrives_is_what_was_sent(self) -> None:
        dice = random.Random(2)  # noqa: S311 - reproducible, not secret
        values = [*LEAVES, *(made_up(dice) for _ in range(200))]
        async with self.pair() as (peer, layer):
            channel = await layer.new_channel()
            for value in values:
                sent = {"type": "test.value", "value": value}
                await peer.send(channel, sent)
                back = await self.received(layer, channel)
                assert back == sent
                assert repr(back) == repr(sent)  # True is not 1, 1.0 is not 1
            await peer.send(channel, {"value": nan})  # a type is not asked for
            assert isnan((await self.received(layer, channel))["value"])

    async def test_tuples_may_become_lists(self) -> None:
        async with self.pair() as (peer, layer):
            channel = await layer.new_channel()
            await peer.send(channel, {"type": "x", "value": (1, (2, 3))})
            back = (await self.received(layer, channel))["value"]
            assert [back[0], list(back[1])] == [1, [2, 3]]

    @pytest.mark.parametrize("send", SENDS)
    async def test_what_would_not_come_back_the_same_raises_at_the_sender(self, send: str) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            for content, path in REFUSED:
                with pytest.raises(TypeError) as caught:
                    await SENDS[send](layer, channel, content)
                assert isinstance(caught.value, UnserializableMessage)
                assert caught.value.path == path
            for wrong in (None, "text", ["a"], 7):
                with pytest.raises(TypeError):
                    await SENDS[send](layer, channel, wrong)
            assert await self.drained(layer, channel) == []

    @pytest.mark.parametrize("send", SENDS)
    async def test_nobody_can_forge_an_event_of_the_layer(self, send: str) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            for kind in ("layer.dropped", "layer.resync", "layer.anything", "layer_dropped", "layer_resync", 7, None):
                with pytest.raises(BadEvent):
                    await SENDS[send](layer, channel, {"type": kind})

    async def test_a_message_may_be_changed_after_it_was_sent(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            content: Message = {"type": "x", "list": [1]}
            await layer.send(channel, content)
            await layer.group_send("group", content)
            content["list"].append(2)
            content["more"] = True
            assert await self.received(layer, channel) == {"type": "x", "list": [1]}
            assert await self.received(layer, channel) == {"type": "x", "list": [1]}

    async def test_each_reader_has_a_copy_of_its_own(self) -> None:
        async with self.opened() as layer:
            boxes = [mailbox(), mailbox()]
            for box in boxes:
                await layer.group_add("group", layer.attach(box))
            async with layer.subscribe("group") as events:
                await layer.group_send("group", message() | {"list": []})
                for box in boxes:
                    content = await self.opened_from(box)
                    assert content["list"] == []
                    content["list"].append("mine")
                assert (await events.receive())["list"] == []
