"""What a layer leaves out it refuses: nobody may wait for what will never come."""

from collections.abc import Awaitable, Callable

import pytest

from ...exceptions import InvalidChannelLayerError
from ...layers.history import Position
from .base import ContractBase, mailbox, message


class RefusalsContract(ContractBase):
    """For each part that is declared False; those that are True have tests of their own."""

    async def test_work_queues_or_a_refusal(self) -> None:
        if self.queues:
            return
        async with self.opened() as layer:
            calls: tuple[Callable[[], Awaitable[object]], ...] = (
                lambda: layer.send("work", message()),
                lambda: layer.send("work", message(), delay=1),
                lambda: layer.group_add("group", "work"),
            )
            for call in calls:
                with pytest.raises(InvalidChannelLayerError):
                    await call()
            with pytest.raises(InvalidChannelLayerError):
                async with layer.open_queue("work"):
                    pass
            await layer.group_discard("group", "work")  # which it is not in

    async def test_history_or_a_refusal(self) -> None:
        if self.history:
            return
        async with self.opened() as layer:
            with pytest.raises(InvalidChannelLayerError):
                await layer.group_send("group", message(), "key")
            recovery = await layer.join("group", layer.attach(mailbox()), Position(1, "epoch"))
            assert (recovery.position, recovery.recovered) == (None, False)

    async def test_presence_or_a_refusal(self) -> None:
        if self.presence:
            return
        async with self.opened() as layer:
            for call in (lambda: layer.presence("group"), lambda: layer.presence_count("group")):
                with pytest.raises(InvalidChannelLayerError):
                    await call()
            with pytest.raises(InvalidChannelLayerError):
                async with layer.track("group", "ada"):
                    pass
