"""``subscribe``: the membership is in force inside the block, and nothing of it is left after the block."""

from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ...inbox import Inbox, Latest
from .base import ContractBase, message


class SubscriptionsContract(ContractBase):
    """The block, its bounds, its end."""

    async def test_what_is_sent_inside_the_block_is_received(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("a", "b") as events:
            with anyio.fail_after(self.patience):
                await peer.group_send("a", message(1))
                assert await events.receive() == message(1)
                await peer.group_send("b", message(2))
                async for event in events:
                    assert event == message(2)
                    break

    async def test_nothing_is_left_after_the_block(self) -> None:
        async with self.opened() as layer:
            before = layer.statistics()
            async with layer.subscribe("a", "b") as events:
                inside = layer.statistics()
                assert (inside.channels, inside.groups, inside.memberships) == (1, 2, 2)
                await layer.group_send("a", message())
                await self.settle()
                assert events.statistics().layer_messages == 1
            after = layer.statistics()
            assert (after.channels, after.groups, after.memberships) == (0, 0, 0)
            assert (after.waiting_messages, after.waiting_bytes) == (before.waiting_messages, before.waiting_bytes)

    async def test_an_error_leaves_the_subscription_as_it_is(self) -> None:
        error = KeyError("mine")
        async with self.opened() as layer:
            with pytest.raises(KeyError) as caught:
                async with layer.subscribe("a"):
                    raise error
            assert caught.value is error
            assert layer.statistics().memberships == 0

    async def test_a_cancelled_entry_leaves_nothing(self) -> None:
        async with self.opened() as layer:
            with anyio.CancelScope() as scope:
                scope.cancel()
                async with layer.subscribe("a", "b"):
                    await anyio.sleep_forever()
            assert layer.statistics().memberships == layer.statistics().channels == 0

    async def test_a_cancelled_wait_loses_nothing(self) -> None:
        async with self.opened() as layer, layer.subscribe("a") as events:
            for number in range(20):
                with anyio.CancelScope() as scope:
                    if number % 2:
                        await layer.group_send("a", message(number))
                    scope.cancel()
                    await events.receive()
                if not number % 2:
                    await layer.group_send("a", message(number))
                if scope.cancelled_caught:
                    with anyio.fail_after(self.patience):
                        assert await events.receive() == message(number)

    @pytest.mark.parametrize(
        ("overflow", "kept"),
        [
            ("drop_newest", [0, 1, 2]),
            ("drop_oldest", [7, 8, 9]),
            (Latest("number"), [7, 8, 9]),
        ],
    )
    async def test_overflow_is_counted_and_told(self, overflow: object, kept: list[int]) -> None:
        inbox = Inbox(messages=3, overflow=overflow)  # type: ignore[arg-type]
        async with self.opened() as layer, layer.subscribe("a", inbox=inbox) as events:
            for number in range(10):
                await layer.group_send("a", message(number))
            await self.settle()
            assert events.statistics().layer_messages == 3
            with anyio.fail_after(self.patience):
                got = [await events.receive() for _ in range(4)]
            told = [event for event in got if event["type"] == "layer.dropped"]
            assert [event["number"] for event in got if event not in told] == kept
            assert [(event["count"], event["groups"]) for event in told] == [(7, ["a"])]
            assert told[0]["bytes"] > 0
            assert events.statistics().dropped == layer.statistics().dropped == 7
            await layer.group_send("a", message(10))  # there is room again
            with anyio.fail_after(self.patience):
                assert await events.receive() == message(10)

    async def test_latest_keeps_the_newest_of_each_key(self) -> None:
        inbox = Inbox(messages=8, overflow=Latest("key"))
        async with self.opened() as layer, layer.subscribe("a", inbox=inbox) as events:
            for number in range(20):
                await layer.group_send("a", message(number) | {"key": number % 2})
            await self.settle()
            with anyio.fail_after(self.patience):
                got = [await events.receive() for _ in range(2)]
            assert sorted(event["number"] for event in got) == [18, 19]
            assert events.statistics().conflated == 18

    async def test_bytes_are_bounded_too(self) -> None:
        async with self.opened() as layer, layer.subscribe("a", inbox=Inbox(bytes=1000)) as events:
            for number in range(10):
                await layer.group_send("a", message(number) | {"text": "x" * 300})
            await self.settle()
            assert events.statistics().layer_bytes <= 1000
            assert events.statistics().dropped >= 7

    async def test_subscriptions_come_and_go_while_events_flow(self) -> None:
        async with self.pair() as (peer, layer):
            seen: list[list[int]] = []

            async def listen() -> None:
                async with layer.subscribe("a") as events:
                    seen.append([(await events.receive())["number"] for _ in range(5)])

            async def talk() -> None:
                for number in range(10_000):
                    await peer.group_send("a", message(number))
                    await checkpoint()

            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as talkers:
                    talkers.start_soon(talk)
                    async with anyio.create_task_group() as listeners:
                        for _ in range(5):
                            listeners.start_soon(listen)
                    talkers.cancel_scope.cancel()
            assert len(seen) == 5
            assert all(later == earlier + 1 for run in seen for earlier, later in pairwise(run))
            assert layer.statistics().memberships == 0
