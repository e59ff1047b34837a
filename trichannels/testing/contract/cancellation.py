"""Every call may be cancelled: no message is lost or half sent, no membership is left over.

Each scenario is run with the cancellation after 0, 1, 2, … steps of the event loop, so that it meets every await.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from .base import ContractBase, mailbox, message

STEPS = 8


async def cancelled_after(steps: int, call: Callable[[], Awaitable[Any]]) -> bool:
    """Run ``call``, cancel it after that many steps, and say whether the cancellation was what ended it."""
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await call()

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(run)
        for _ in range(steps):
            await checkpoint()
        scope.cancel()
    return scope.cancelled_caught


class CancellationContract(ContractBase):
    """What remains after a cancellation at any await."""

    async def test_a_cancelled_receive_loses_no_message(self) -> None:
        async with self.opened() as layer:
            channel = await layer.new_channel()
            got: list[int] = []

            async def read() -> None:
                # No await after the message is there: an event must not be lost by the test itself.
                got.append((await layer.receive(channel))["number"])

            sent = 0
            for steps in range(STEPS):
                for before in range(STEPS):
                    scope = anyio.CancelScope()

                    async def read_until_cancelled(scope: anyio.CancelScope = scope) -> None:
                        with scope:
                            await read()

                    async with anyio.create_task_group() as nursery:
                        nursery.start_soon(read_until_cancelled)
                        for _ in range(before):
                            await checkpoint()
                        await layer.send(channel, message(sent))
                        sent += 1
                        for _ in range(steps):
                            await checkpoint()
                        scope.cancel()
                    got += [m["number"] for m in await self.drained(layer, channel)]
            assert got == list(range(sent))
            assert layer.statistics().channels == 0

    async def test_a_cancelled_send_has_sent_all_or_nothing(self) -> None:
        async with self.opened() as layer:
            box = mailbox()
            attached, loose = layer.attach(box), await layer.new_channel()
            for steps in range(STEPS):
                cancelled = await cancelled_after(steps, lambda: layer.send(attached, message()))
                assert await self.rest_of(box) == [message()] * (not cancelled)
                cancelled = await cancelled_after(steps, lambda: layer.send(loose, message()))
                assert await self.drained(layer, loose) == [message()] * (not cancelled)

    async def test_a_cancelled_group_send_reaches_all_or_nobody(self) -> None:
        async with self.opened() as layer:
            boxes = [mailbox() for _ in range(3)]
            for box in boxes:
                await layer.group_add("group", layer.attach(box))
            for steps in range(STEPS):
                cancelled = await cancelled_after(steps, lambda: layer.group_send("group", message()))
                for box in boxes:
                    assert await self.rest_of(box) == [message()] * (not cancelled)

    async def test_a_cancelled_join_can_be_left(self) -> None:
        async with self.opened() as layer:
            for steps in range(STEPS):
                box = mailbox()
                channel = layer.attach(box)
                cancelled = await cancelled_after(steps, lambda channel=channel: layer.group_add("group", channel))  # type: ignore[misc]
                assert layer.groups_of(channel) == (() if cancelled else ("group",))
                layer.detach(channel)
                await layer.group_send("group", message())
                assert await self.rest_of(box) == []
            assert layer.statistics().memberships == layer.statistics().groups == 0

    async def test_a_cancelled_leave_can_be_repeated(self) -> None:
        async with self.opened() as layer:
            box = mailbox()
            channel = layer.attach(box)
            for steps in range(STEPS):
                await layer.group_add("group", channel)
                cancelled = await cancelled_after(steps, lambda: layer.group_discard("group", channel))
                assert layer.groups_of(channel) == (("group",) if cancelled else ())
                await layer.group_discard("group", channel)
            assert layer.statistics().memberships == layer.statistics().groups == 0

    async def test_a_cancelled_subscription_leaves_nothing(self) -> None:
        async with self.opened() as layer:

            async def subscribe() -> None:
                async with layer.subscribe("a", "b") as events:
                    async for _ in events:
                        pass

            for steps in range(2 * STEPS):
                assert await cancelled_after(steps, subscribe)
                statistics = layer.statistics()
                assert statistics.memberships == statistics.groups == statistics.channels == 0

    async def test_a_cancelled_block_closes_the_layer(self) -> None:
        layer = self.make_layer()

        async def run() -> None:
            async with layer, layer.subscribe("a") as events:
                await events.receive()

        for steps in range(2 * STEPS):
            assert await cancelled_after(steps, run)
            assert not layer.opened
