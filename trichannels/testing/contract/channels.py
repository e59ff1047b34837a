"""Direct sends: order, capacity, expiry, delay, several readers, channels that are gone."""

import re

import anyio
import pytest

from ...exceptions import BadEvent, ChannelFull
from ...inbox import Inbox
from .base import ContractBase, mailbox, message


class ChannelsContract(ContractBase):
    """``send``, ``receive``, ``attach``, ``detach``, ``flush``."""

    async def test_messages_come_in_the_order_of_their_sender(self) -> None:
        async with self.pair() as (peer, layer):
            channel, box = await layer.new_channel(), mailbox()
            attached = layer.attach(box)
            for number in range(50):
                await peer.send(channel, message(number))
                await peer.send(attached, message(number))
            assert [(await self.received(layer, channel))["number"] for _ in range(50)] == list(range(50))
            assert [(await self.opened_from(box))["number"] for _ in range(50)] == list(range(50))

    async def test_a_reader_may_wait_before_the_message_is_sent(self) -> None:
        async with self.pair() as (peer, layer):
            channel = await layer.new_channel()
            got = []

            async def read() -> None:
                got.append(await self.received(layer, channel))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                await peer.send(channel, message(1))
            assert got == [message(1)]

    async def test_each_message_goes_to_one_of_several_readers(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            got: list[int] = []

            async def read(times: int) -> None:
                for _ in range(times):
                    got.append((await self.received(layer, channel))["number"])

            async with anyio.create_task_group() as nursery:
                for _ in range(3):
                    nursery.start_soon(read, 4)
                for number in range(12):
                    await layer.send(channel, message(number))
            assert sorted(got) == list(range(12))
            assert await self.drained(layer, channel) == []

    async def test_channels_do_not_mix(self) -> None:
        async with self.pair() as (peer, layer):
            one, two = await layer.new_channel(), await layer.new_channel()
            await peer.send(two, message(2))
            await peer.send(one, message(1))
            assert await self.received(layer, one) == message(1)
            assert await self.received(layer, two) == message(2)

    async def test_a_full_channel_raises_and_keeps_what_it_has(self) -> None:
        async with self.opened(capacity=3) as layer:
            channel = await layer.new_channel()
            for number in range(3):
                await layer.send(channel, message(number))
            with pytest.raises(ChannelFull) as caught:
                await layer.send(channel, message(3))
            assert (caught.value.channel, caught.value.capacity) == (channel, 3)
            assert await self.received(layer, channel) == message(0)
            await layer.send(channel, message(4))
            assert [m["number"] for m in await self.drained(layer, channel)] == [1, 2, 4]

    async def test_capacities_by_pattern_the_first_that_fits_counts(self) -> None:
        patterns = {"tiny*": 1, re.compile(r"^t"): 2, "*!*": 4}
        async with self.opened(capacity=3, channel_capacity=patterns) as layer:
            for prefix, capacity in (("tiny", 1), ("t.other", 2), ("else", 4)):
                channel = await layer.new_channel(prefix)
                assert layer.get_capacity(channel) == capacity
                for number in range(capacity):
                    await layer.send(channel, message(number))
                with pytest.raises(ChannelFull):
                    await layer.send(channel, message(capacity))
            assert layer.get_capacity("plain") == 3

    async def test_a_full_instance_of_this_process_raises_at_a_direct_send(self) -> None:
        async with self.opened() as layer:
            box = mailbox(Inbox(messages=2))
            channel = layer.attach(box)
            await layer.send(channel, message(0))
            await layer.send(channel, message(1))
            with pytest.raises(ChannelFull) as caught:
                await layer.send(channel, message(2))
            assert (caught.value.channel, caught.value.capacity) == (channel, 2)
            assert [await self.opened_from(box) for _ in range(2)] == [message(0), message(1)]

    async def test_messages_expire(self) -> None:
        async with self.opened(expiry=self.brief_expiry) as layer:
            channel = await layer.new_channel()
            await layer.send(channel, message(0))
            await anyio.sleep(2 * self.brief_expiry)
            assert await self.drained(layer, channel) == []
            assert layer.statistics().waiting_messages == layer.statistics().waiting_bytes == 0

    async def test_expired_messages_make_room(self) -> None:
        async with self.opened(expiry=self.brief_expiry, capacity=1) as layer:
            channel = await layer.new_channel()
            await layer.send(channel, message(0))
            await anyio.sleep(2 * self.brief_expiry)
            await layer.send(channel, message(1))  # raises no ChannelFull

    async def test_a_channel_of_this_process_is_sent_to_with_a_delay(self) -> None:
        async with self.opened() as layer:
            box = mailbox()
            attached, loose = layer.attach(box), await layer.new_channel()
            before = anyio.current_time()
            await layer.send(attached, message(1), delay=self.brief)
            await layer.send(loose, message(2), delay=self.brief)
            assert await self.opened_from(box) == message(1)
            assert await self.received(layer, loose) == message(2)
            assert self.brief * 0.9 <= anyio.current_time() - before

    async def test_a_delay_is_a_number_of_seconds(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            for delay in (-1, float("nan"), float("inf"), "1", True):
                with pytest.raises(BadEvent, match="delay"):
                    await layer.send(channel, message(), delay=delay)  # type: ignore[arg-type]

    async def test_a_send_to_an_instance_that_has_ended_is_quiet(self) -> None:
        async with self.opened() as layer:
            box = mailbox()
            channel = layer.attach(box)
            layer.detach(channel)
            layer.detach(channel)
            for _ in range(3):
                await layer.send(channel, message())
            assert await self.rest_of(box) == []
            statistics = layer.statistics()
            assert statistics.channels == statistics.waiting_messages == 0
            assert statistics.undeliverable == 3

    async def test_attached_channels_have_valid_names_of_this_process(self) -> None:
        async with self.opened() as layer:
            names = [layer.attach(mailbox(), prefix) for prefix in ("specific", "other") for _ in range(20)]
            assert len(set(names)) == 40
            assert all(layer.valid_channel_name(name) and "!" in name for name in names)
            assert all(name.startswith("other") for name in names[20:])
            for name in names:
                layer.detach(name)

    async def test_flush_forgets_what_waits_and_leaves_the_layer_usable(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            await layer.send(channel, message(0))
            await layer.group_add("group", channel)
            await layer.flush()
            await layer.group_send("group", message(1))
            assert await self.drained(layer, channel) == []
            statistics = layer.statistics()
            assert statistics.groups == statistics.memberships == statistics.waiting_messages == 0
            await layer.send(channel, message(2))
            assert await self.received(layer, channel) == message(2)

    async def test_flush_leaves_those_who_wait_in_place(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            got = []

            async def read() -> None:
                got.append(await self.received(layer, channel))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                await layer.flush()
                await layer.send(channel, message(1))
            assert got == [message(1)]
