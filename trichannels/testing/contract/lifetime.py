"""A layer is open inside its block, and only there; it waits for its instances, within bounds."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from ...exceptions import InvalidChannelLayerError, LayerClosed
from ...layers.base import ChannelLayer
from .base import ContractBase, mailbox, message

OPERATIONS: dict[str, Callable[[ChannelLayer], Awaitable[Any]]] = {
    "send": lambda layer: layer.send("channel", message()),
    "receive": lambda layer: layer.receive("channel"),
    "new_channel": lambda layer: layer.new_channel(),
    "group_add": lambda layer: layer.group_add("group", "channel"),
    "group_discard": lambda layer: layer.group_discard("group", "channel"),
    "group_send": lambda layer: layer.group_send("group", message()),
    "flush": lambda layer: layer.flush(),
    "subscribe": lambda layer: layer.subscribe("group").__aenter__(),
}


class LifetimeContract(ContractBase):
    """Opening, closing, and the use of a layer that is not open."""

    async def test_open_inside_its_block_only(self) -> None:
        layer = self.make_layer()
        assert not layer.opened
        for _ in range(2):  # a layer may be opened again
            async with layer as entered:
                assert entered is layer
                assert layer.opened
                with pytest.raises(InvalidChannelLayerError):
                    await layer.__aenter__()
            assert not layer.opened

    @pytest.mark.parametrize("name", OPERATIONS)
    async def test_a_layer_that_is_not_open_refuses_everything(self, name: str) -> None:
        layer = self.make_layer()
        with pytest.raises(LayerClosed):
            await OPERATIONS[name](layer)
        async with layer:
            pass
        with pytest.raises(LayerClosed):
            await OPERATIONS[name](layer)

    async def test_nothing_is_left_for_the_next_opening(self) -> None:
        layer = self.make_layer()
        async with layer:
            box = mailbox()
            channel = layer.attach(box)
            await layer.group_add("group", channel)
        with pytest.raises(LayerClosed):
            layer.attach(box)
        layer.detach(channel)  # an instance may outlive its layer
        assert layer.groups_of(channel) == ()
        async with layer:
            assert layer.groups_of(channel) == ()
            assert layer.statistics().memberships == layer.statistics().channels == 0

    async def test_closing_ends_every_wait(self) -> None:
        layer = self.make_layer()
        ended: list[str] = []

        async def wait_for_message(channel: str) -> None:
            with pytest.raises(LayerClosed):
                await layer.receive(channel)
            ended.append("receive")

        async def wait_for_event() -> None:
            async with layer.subscribe("group") as events:
                subscribed.set()
                with pytest.raises(LayerClosed):
                    await events.receive()
            ended.append("subscribe")

        with anyio.fail_after(self.patience):
            subscribed = anyio.Event()
            async with anyio.create_task_group() as nursery, layer:
                nursery.start_soon(wait_for_message, await layer.new_channel())
                nursery.start_soon(wait_for_event)
                await subscribed.wait()
                await anyio.wait_all_tasks_blocked()
        assert sorted(ended) == ["receive", "subscribe"]

    async def test_an_instance_may_publish_while_all_around_it_is_cancelled(self) -> None:
        layer = self.make_layer()
        running = anyio.Event()
        published = False

        async def instance() -> None:
            nonlocal published
            with layer.in_use():
                running.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(self.quiet)
                        await layer.group_send("group", message())
                        published = True

        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as nursery, layer:
                nursery.start_soon(instance)
                await running.wait()
                nursery.cancel_scope.cancel()
                await anyio.sleep_forever()
        assert published
        assert not layer.opened

    async def test_an_instance_that_never_ends_holds_the_layer_for_close_timeout(self) -> None:
        layer = self.make_layer()
        layer.close_timeout = self.quiet
        with layer.in_use():
            with anyio.fail_after(self.patience):
                async with layer:
                    assert layer.statistics().instances == 1
            assert not layer.opened

    async def test_an_error_leaves_the_block_as_it_is(self) -> None:
        error = KeyError("mine")
        layer = self.make_layer()
        with pytest.raises(KeyError) as caught:
            async with layer:
                raise error
        assert caught.value is error
        assert not layer.opened
