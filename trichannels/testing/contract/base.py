"""What all parts of the contract share: making and opening layers, and waiting within bounds."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

import anyio
import pytest

from ...inbox import Inbox, Mailbox
from ...layers.base import ChannelLayer
from ...layers.serializers import Message


def message(number: int = 0) -> Message:
    """Return a small message that can be told from others."""
    return {"type": "test.message", "number": number}


def mailbox(inbox: Inbox | None = None) -> Mailbox:
    """Return a mailbox as an instance has one, without a client side."""
    box = Mailbox(inbox or Inbox())
    box.finish()
    return box


# What a test needs in a layer, whatever the one from make_layer() was told.
ROOMY: dict[str, Any] = {"capacity": 100, "channel_capacity": {}, "expiry": 60}


class ContractBase:
    """The hooks that a user of the contract overrides, and what a layer says that it leaves out."""

    queues: ClassVar[bool] = True
    """False for a layer without work queues: the tests of that part are skipped, and it must refuse them."""
    history: ClassVar[bool] = True
    """False for a layer that keeps no history of its groups."""
    presence: ClassVar[bool] = True
    """False for a layer without presence."""

    patience: ClassVar[float] = 10
    """Seconds within which a message that was sent must arrive."""
    quiet: ClassVar[float] = 0.05
    """Seconds after which a message that has not come is taken not to come."""
    brief_expiry: ClassVar[float] = 0.2
    """The shortest ``expiry``, in seconds, that the layer can keep."""
    brief: ClassVar[float] = 0.3
    """Seconds that count as a delay: longer than a call takes."""

    part: ClassVar[str] = ""
    """Which of those the tests of a class are about."""

    @pytest.fixture(autouse=True)
    def left_out(self, request: pytest.FixtureRequest) -> None:
        """Skip the tests of what the layer leaves out."""
        self.skip_if_left_out(request.function.__name__)

    def skip_if_left_out(self, test: str) -> None:
        """Skip a test whose class is about a part that the layer has not."""
        part = next((vars(one).get("part", "") for one in type(self).__mro__ if test in vars(one)), "")
        if part and not getattr(self, part):
            pytest.skip(f"{type(self).__name__}: {part} = False, its layer leaves that out")

    def make_layer(self) -> ChannelLayer:
        """Return a new layer, closed, with nothing in it. The one method that must be written."""
        raise NotImplementedError("write make_layer() so that it returns a new, closed layer")

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        """Return what another process would use to talk to ``layer``; the layer itself if it serves one process."""
        return layer

    def configured(self, **options: Any) -> ChannelLayer:
        """Return a new layer with some of its attributes (``capacity``, ``expiry``, ``histories``, …) set."""
        layer = self.make_layer()
        if "channel_capacity" in options:
            options["channel_capacity"] = list(options["channel_capacity"].items())
        for name, value in options.items():
            setattr(layer, name, value)
        return layer

    @asynccontextmanager
    async def opened(self, **options: Any) -> AsyncIterator[ChannelLayer]:
        """Open a layer for one test, which must end within bounds."""
        with anyio.fail_after(6 * self.patience):
            async with self.configured(**ROOMY | options) as layer:
                yield layer

    @asynccontextmanager
    async def pair(self, **options: Any) -> AsyncIterator[tuple[ChannelLayer, ChannelLayer]]:
        """Open two layers, of two processes where the layer can: what one sends, the other one receives."""
        async with AsyncExitStack() as stack:
            layer = await stack.enter_async_context(self.opened(**options))
            peer = self.make_peer(layer)
            peer.histories, peer.capacity = layer.histories, layer.capacity
            if peer is not layer:
                await stack.enter_async_context(peer)
            yield peer, layer

    async def settle(self) -> None:
        """Let what was sent arrive."""
        await anyio.sleep(self.quiet)

    async def received(self, layer: ChannelLayer, channel: str) -> Message:
        """Return the next message of a channel from ``new_channel``."""
        with anyio.fail_after(self.patience):
            return await layer.receive(channel)

    async def drained(self, layer: ChannelLayer, channel: str) -> list[Message]:
        """Return all that has been sent, and whatever else comes until the channel stays quiet.

        A machine that stands still for longer than ``quiet`` does not make it so: the reader has its turn first.
        """
        messages: list[Message] = []

        async def read() -> None:
            while True:
                messages.append(await layer.receive(channel))

        await self.settle()
        async with anyio.create_task_group() as reading:
            reading.start_soon(read)
            seen = -1
            while seen != len(messages):
                await anyio.wait_all_tasks_blocked()
                seen = len(messages)
                await anyio.sleep(self.quiet)
                await anyio.wait_all_tasks_blocked()
            reading.cancel_scope.cancel()
        return messages

    async def opened_from(self, box: Mailbox) -> Message:
        """Return the next message of a mailbox."""
        with anyio.fail_after(self.patience):
            item = await box.get()
        assert item is not None, "the mailbox was closed"
        return dict(item.open())

    async def rest_of(self, box: Mailbox) -> list[Message]:
        """Return all that has been sent to a mailbox, and whatever else comes until it stays quiet."""
        await self.settle()
        messages = []
        while True:
            with anyio.move_on_after(self.quiet):
                item = await box.get()
                assert item is not None, "the mailbox was closed"
                messages.append(dict(item.open()))
                continue
            return messages
