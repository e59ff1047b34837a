"""The contract finds layers that break it: each sabotage below fails the test that is there to find it."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from trichannels.inbox import Envelope
from trichannels.layers.base import ChannelLayer
from trichannels.layers.history import Position, Recovery
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.memory_presence import MemoryPresence
from trichannels.layers.serializers import Message
from trichannels.testing.contract.base import ContractBase
from trichannels.testing.contract.history import HistoryContract
from trichannels.testing.contract.presence import PresenceContract
from trichannels.testing.contract.queues import QueuesContract
from trichannels.testing.layers import LayerContract


class Losing(InMemoryChannelLayer):
    """Takes a message, then awaits: a cancellation there loses it."""

    async def receive(self, channel: str) -> Message:
        message = await super().receive(channel)
        await checkpoint()
        return message


class Halved(InMemoryChannelLayer):
    """Sends to half of a group, awaits, then sends to the rest."""

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        self.require_open()
        members = list(self.board.groups.get(group, {}).values())
        for member in members:
            member.deliver(self.seal(message, group))
            await checkpoint()
        return None


class Shared(InMemoryChannelLayer):
    """Gives every reader the same object."""

    def seal(self, message: Message, group: str | None = None) -> Envelope:
        envelope = super().seal(message, group)
        envelope._decode = lambda payload: message
        return envelope


class Forgetful(InMemoryChannelLayer):
    """Leaves memberships behind when an instance ends."""

    def detach(self, channel: str) -> None:
        self.board.mailboxes.pop(channel, None)


class Unordered(InMemoryChannelLayer):
    """Holds messages back at random."""

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        await super().send(channel, message)
        buffer = self.board.buffers.get(channel)
        if buffer:
            random.Random(1).shuffle(buffer.items)


class LateJoin(InMemoryChannelLayer):
    """Says that a join is in force before it is."""

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        self.pending = (group, channel)
        return Recovery(group, None, True)

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        position = await super().group_send(group, message)
        if hasattr(self, "pending"):
            await super().join(*self.pending)
        return position


class SlowLeave(InMemoryChannelLayer):
    """Does not leave."""

    async def group_discard(self, group: str, channel: str) -> None:
        await checkpoint()


class Bottomless(InMemoryChannelLayer):
    """Has no capacity."""

    def get_capacity(self, channel: str) -> int:
        return 10_000


class Everlasting(InMemoryChannelLayer):
    """Forgets to let messages expire."""

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        self.expiry = 1000
        await super().send(channel, message)


class Gullible(InMemoryChannelLayer):
    """Sends whatever it is told, under any name."""

    def seal(self, message: Message, group: str | None = None) -> Envelope:
        return Envelope(repr(message).encode(), lambda payload: message, group=group)


class Repeating(InMemoryChannelLayer):
    """Gives out one name twice."""

    count = itertools.count()

    async def new_channel(self, prefix: str = "specific") -> str:
        self.require_open()
        return f"{prefix}.x!{next(self.count) // 2}"


class Unguarded(InMemoryChannelLayer):
    """Works outside its block, or seems to."""

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        if self.opened:
            await super().send(channel, message)


class Impatient(InMemoryChannelLayer):
    """Closes while an instance is still saying goodbye."""

    async def __aexit__(self, *details: Any) -> None:
        self._opened = False
        await self.close()


class Nameless(InMemoryChannelLayer):
    """Checks no names."""

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        self.require_open()
        await self.board.fan_out(group, self.seal(message, group))
        return None


class Duplicating(InMemoryChannelLayer):
    """Counts a member twice that joins twice."""

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        await super().group_send(group, message)
        return await super().group_send(group, message)


class Ghostly(InMemoryChannelLayer):
    """Lets nobody go."""

    def leave_presence(self, group: str, channel: str, key: str) -> None:
        pass


class Tabbed(InMemoryChannelLayer):
    """Counts connections, not who they are."""

    async def presence_count(self, group: str) -> int:
        return sum(map(len, (await self.presence(group)).members.values()))


class Secretive(InMemoryChannelLayer):
    """Tells no member who comes and goes."""

    async def open(self) -> None:
        await super().open()
        assert isinstance(self.presence_board, MemoryPresence)
        self.presence_board._tell_members = self.tell_nobody

    async def tell_nobody(self, group: str, message: Message) -> None:
        await checkpoint()


class Clinging(InMemoryChannelLayer):
    """Keeps the presences of an instance that has ended."""

    def detach(self, channel: str) -> None:
        self.board.detach(channel)


class Flapping(InMemoryChannelLayer):
    """Tells at once that somebody has left who may be back soon."""

    async def open(self) -> None:
        self.presence_linger = 0
        await super().open()


class Hasty(InMemoryChannelLayer):
    """Says that somebody is there before it is."""

    async def enter_presence(self, group: str, channel: str, key: str, meta: Any = None) -> None:
        self.start_soon(super().enter_presence, group, channel, key, meta)
        await checkpoint()


SABOTAGE: list[tuple[type[ChannelLayer], str, tuple[Any, ...]]] = [
    (Losing, "test_a_cancelled_receive_loses_no_message", ()),
    (Halved, "test_a_cancelled_group_send_reaches_all_or_nobody", ()),
    (Shared, "test_each_reader_has_a_copy_of_its_own", ()),
    (Shared, "test_a_message_may_be_changed_after_it_was_sent", ()),
    (Forgetful, "test_an_instance_that_ends_leaves_all_its_groups", ()),
    (Forgetful, "test_nothing_is_left_after_the_block", ()),
    (Forgetful, "test_a_cancelled_subscription_leaves_nothing", ()),
    (Unordered, "test_messages_come_in_the_order_of_their_sender", ()),
    (LateJoin, "test_what_is_sent_after_a_join_is_received", ()),
    (LateJoin, "test_what_is_sent_inside_the_block_is_received", ()),
    (SlowLeave, "test_leaving_is_immediate", ()),
    (Bottomless, "test_a_full_channel_raises_and_keeps_what_it_has", ()),
    (Bottomless, "test_capacities_by_pattern_the_first_that_fits_counts", ()),
    (Everlasting, "test_messages_expire", ()),
    (Gullible, "test_what_would_not_come_back_the_same_raises_at_the_sender", ("send",)),
    (Gullible, "test_nobody_can_forge_an_event_of_the_layer", ("group_send",)),
    (Repeating, "test_new_channels_are_unique_valid_and_of_this_process", ()),
    (Unguarded, "test_a_layer_that_is_not_open_refuses_everything", ("send",)),
    (Impatient, "test_an_instance_may_publish_while_all_around_it_is_cancelled", ()),
    (Nameless, "test_bad_group_names", ("group_send",)),
    (Duplicating, "test_joining_twice_is_joining_once", ()),
    (Ghostly, "test_tracked_in_the_block_and_gone_after_it", ()),
    (Ghostly, "test_a_cancelled_block_leaves_nobody_behind", ()),
    (Tabbed, "test_three_connections_are_one_presence", ()),
    (Secretive, "test_members_are_told_who_comes_and_goes", ()),
    (Secretive, "test_a_snapshot_and_the_diffs_after_it_agree", ()),
    (Clinging, "test_an_instance_that_ends_is_gone_at_once", ()),
    (Flapping, "test_a_reload_within_the_linger_is_no_flap", ()),
    (Hasty, "test_tracked_in_the_block_and_gone_after_it", ()),
    (Hasty, "test_a_cancelled_track_has_entered_or_not", ()),
]


@pytest.mark.parametrize(("layer", "test", "arguments"), SABOTAGE)
def test_a_broken_layer_is_found_out(layer: Callable[[], ChannelLayer], test: str, arguments: tuple[Any, ...]) -> None:
    class Contract(LayerContract):
        quiet = 0.01
        patience = 0.5

        def make_layer(self) -> ChannelLayer:
            return layer()

    with pytest.raises((AssertionError, TimeoutError, BaseExceptionGroup, pytest.fail.Exception)):
        anyio.run(getattr(Contract(), test), *arguments)


class Contract(LayerContract):
    """Of a layer that has everything, said to leave something out."""

    queues = history = presence = False

    def make_layer(self) -> ChannelLayer:
        return InMemoryChannelLayer()


@pytest.mark.parametrize("part", [QueuesContract, HistoryContract, PresenceContract])
def test_what_is_left_out_is_skipped_and_nothing_else(part: type[ContractBase]) -> None:
    for name in (name for one in LayerContract.__mro__ for name in vars(one) if name.startswith("test_")):
        LayerContract().skip_if_left_out(name)
        if name in vars(part):
            with pytest.raises(pytest.skip.Exception, match=f"Contract: {part.part} = False"):
                Contract().skip_if_left_out(name)
    Contract().skip_if_left_out("test_leaving_is_immediate")


@pytest.mark.parametrize("name", ["test_work_queues_or_a_refusal", "test_presence_or_a_refusal"])
def test_what_is_said_to_be_left_out_and_is_there_is_found_out(name: str) -> None:
    anyio.run(getattr(LayerContract(), name))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        anyio.run(getattr(Contract(), name))


def test_no_part_of_the_contract_hides_a_test_of_another() -> None:
    names = [name for part in LayerContract.__mro__ for name in vars(part) if name.startswith("test_")]
    assert len(set(names)) == len(names)
    assert len(names) > 60


def test_a_contract_without_a_layer_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="make_layer"):
        LayerContract().make_layer()
