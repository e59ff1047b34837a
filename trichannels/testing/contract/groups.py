"""Groups: who receives a group send, from when on, until when, in which order."""

import anyio

from ...inbox import Inbox, Mailbox
from .base import ContractBase, mailbox, message


class GroupsContract(ContractBase):
    """``group_add``, ``group_discard``, ``group_send``, ``groups_of``."""

    async def test_every_member_receives_and_nobody_else(self) -> None:
        async with self.pair() as (peer, layer):
            boxes: list[Mailbox] = [mailbox() for _ in range(5)]
            channels = [layer.attach(box) for box in boxes]
            loose = await layer.new_channel()
            for channel in (*channels[:4], loose):
                await layer.group_add("group", channel)
            await layer.group_add("another", channels[4])
            await peer.group_send("group", message(1))
            for box in boxes[:4]:
                assert await self.opened_from(box) == message(1)
            assert await self.received(layer, loose) == message(1)
            assert await self.rest_of(boxes[4]) == []

    async def test_what_is_sent_after_a_join_is_received(self) -> None:
        async with self.pair() as (peer, layer):
            for number in range(20):
                box = mailbox()
                await layer.group_add(f"group.{number}", layer.attach(box))
                await peer.group_send(f"group.{number}", message(number))
                assert await self.opened_from(box) == message(number)

    async def test_leaving_is_immediate(self) -> None:
        async with self.pair() as (peer, layer):
            box = mailbox()
            channel = layer.attach(box)
            await layer.group_add("group", channel)
            await layer.group_discard("group", channel)
            assert layer.groups_of(channel) == ()
            await peer.group_send("group", message())
            assert await self.rest_of(box) == []
            await layer.group_discard("group", channel)
            await layer.group_discard("never.joined", channel)

    async def test_joining_twice_is_joining_once(self) -> None:
        async with self.pair() as (peer, layer):
            box = mailbox()
            channel = layer.attach(box)
            await layer.group_add("group", channel)
            await layer.group_add("group", channel)
            await peer.group_send("group", message())
            assert await self.rest_of(box) == [message()]
            await layer.group_discard("group", channel)
            await peer.group_send("group", message())
            assert await self.rest_of(box) == []

    async def test_one_channel_in_several_groups(self) -> None:
        async with self.pair() as (peer, layer):
            box = mailbox()
            channel = layer.attach(box)
            for group in ("a", "b", "c"):
                await layer.group_add(group, channel)
            assert sorted(layer.groups_of(channel)) == ["a", "b", "c"]
            await layer.group_discard("b", channel)
            assert sorted(layer.groups_of(channel)) == ["a", "c"]
            for number, group in enumerate(("a", "b", "c")):
                await peer.group_send(group, message(number))
            assert sorted(got["number"] for got in await self.rest_of(box)) == [0, 2]

    async def test_a_group_without_members_takes_anything(self) -> None:
        async with self.opened() as layer:
            await layer.group_send("nobody", message())
            assert layer.statistics().groups == 0

    async def test_group_sends_come_in_the_order_of_their_sender(self) -> None:
        async with self.pair() as (peer, layer):
            boxes = [mailbox() for _ in range(3)]
            for box in boxes:
                await layer.group_add("group", layer.attach(box))
            for number in range(50):
                await peer.group_send("group", message(number))
            for box in boxes:
                assert [(await self.opened_from(box))["number"] for _ in range(50)] == list(range(50))

    async def test_senders_at_once_each_keep_their_order(self) -> None:
        async with self.pair() as (peer, layer):
            box = mailbox()
            await layer.group_add("group", layer.attach(box))

            async def send(sender: int) -> None:
                for number in range(20):
                    await (peer, layer)[sender % 2].group_send("group", message(number) | {"sender": sender})

            async with anyio.create_task_group() as nursery:
                for sender in range(4):
                    nursery.start_soon(send, sender)
            got = [await self.opened_from(box) for _ in range(80)]
            for sender in range(4):
                assert [m["number"] for m in got if m["sender"] == sender] == list(range(20))

    async def test_a_full_member_raises_nothing_and_costs_the_others_nothing(self) -> None:
        async with self.opened() as layer:
            full, other = mailbox(Inbox(messages=1)), mailbox()
            for box in (full, other):
                await layer.group_add("group", layer.attach(box))
            for number in range(3):
                await layer.group_send("group", message(number))
            await self.settle()
            assert [m["number"] for m in await self.rest_of(other)] == [0, 1, 2]
            first, dropped = await self.rest_of(full)
            assert first == message(0)
            assert (dropped["type"], dropped["count"], dropped["groups"]) == ("layer.dropped", 2, ["group"])

    async def test_a_full_channel_that_no_instance_owns_drops_what_is_new(self) -> None:
        async with self.opened(capacity=2) as layer:
            channel = await layer.new_channel()
            await layer.group_add("group", channel)
            for number in range(5):
                await layer.group_send("group", message(number))
            await self.settle()
            assert [m["number"] for m in await self.drained(layer, channel)] == [0, 1]
            assert layer.statistics().dropped == 3

    async def test_an_instance_that_ends_leaves_all_its_groups(self) -> None:
        async with self.pair() as (peer, layer):
            gone, stays = mailbox(), mailbox()
            channel = layer.attach(gone)
            for group in ("a", "b"):
                await layer.group_add(group, channel)
                await layer.group_add(group, layer.attach(stays))
            layer.detach(channel)
            assert layer.groups_of(channel) == ()
            await layer.group_add("a", channel)  # too late: it joins nothing
            await peer.group_send("a", message())
            assert await self.opened_from(stays) == message()
            assert await self.rest_of(gone) == []
            assert layer.statistics().memberships == 2

    async def test_another_process_may_add_and_remove_a_member(self) -> None:
        async with self.pair() as (peer, layer):
            box = mailbox()
            channel = layer.attach(box)
            await peer.group_add("group", channel)
            await peer.group_send("group", message(1))
            assert await self.opened_from(box) == message(1)
            await peer.group_discard("group", channel)
            await peer.group_send("group", message(2))
            assert await self.rest_of(box) == []
