"""The numbers of ``statistics()`` are true."""

from dataclasses import FrozenInstanceError, asdict

import anyio
import pytest

from ...exceptions import ChannelFull
from ...inbox import Inbox
from .base import ContractBase, mailbox, message


class StatisticsContract(ContractBase):
    """What a layer says of itself."""

    async def test_an_unused_layer_holds_nothing(self) -> None:
        layer = self.make_layer()
        assert not any(asdict(layer.statistics()).values())
        async with layer:
            assert not any(asdict(layer.statistics()).values())
            with pytest.raises(FrozenInstanceError):
                layer.statistics().channels = 1  # type: ignore[misc]

    async def test_instances_channels_groups_and_memberships(self) -> None:
        async with self.opened() as layer:
            with layer.in_use(), layer.in_use():
                assert layer.statistics().instances == 2
            assert layer.statistics().instances == 0
            channels = [layer.attach(mailbox()) for _ in range(3)]
            for channel in channels:
                await layer.group_add("all", channel)
            await layer.group_add("one", channels[0])
            statistics = layer.statistics()
            assert (statistics.channels, statistics.groups, statistics.memberships) == (3, 2, 4)
            layer.detach(channels[0])
            statistics = layer.statistics()
            assert (statistics.channels, statistics.groups, statistics.memberships) == (2, 1, 2)

    async def test_what_waits_and_what_was_delivered(self) -> None:
        async with self.opened() as layer:
            box, loose = mailbox(), await layer.new_channel()
            attached = layer.attach(box)
            await layer.group_add("group", attached)
            await layer.send(loose, message(1))
            await layer.send(attached, message(2))
            await layer.group_send("group", message(3))
            await self.settle()
            statistics = layer.statistics()
            assert (statistics.waiting_messages, statistics.delivered) == (3, 3)
            assert statistics.waiting_bytes == sum(len(layer.serializer.encode(message(n))) for n in (1, 2, 3))
            await self.received(layer, loose)
            await self.rest_of(box)
            statistics = layer.statistics()
            assert (statistics.waiting_messages, statistics.waiting_bytes, statistics.delivered) == (0, 0, 3)

    async def test_what_was_dropped_and_why(self) -> None:
        async with self.opened(capacity=1, expiry=self.brief_expiry) as layer:
            box = mailbox(Inbox(messages=1))
            attached = layer.attach(box)
            await layer.group_add("group", attached)
            for number in range(4):
                await layer.group_send("group", message(number))
            await self.settle()
            with pytest.raises(ChannelFull):
                await layer.send(attached, message(4))
            statistics = layer.statistics()
            assert statistics.dropped == 4
            assert statistics.dropped_bytes == 4 * len(layer.serializer.encode(message(0)))
            layer.detach(attached)
            await layer.send(attached, message(5))
            assert layer.statistics().undeliverable == 1
            channel = await layer.new_channel()
            await layer.send(channel, message(6))
            await anyio.sleep(2 * self.brief_expiry)
            assert await self.drained(layer, channel) == []
            assert layer.statistics().expired == 1

    async def test_totals_start_anew_with_each_opening(self) -> None:
        layer = self.make_layer()
        async with layer:
            await layer.send(await layer.new_channel(), message())
            assert layer.statistics().delivered == 1
        async with layer:
            assert not any(asdict(layer.statistics()).values())
