"""The memory layer beyond the contract of all layers: its options, its bounds, and how it ends."""

import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from trichannels.bridge import async_to_sync, current_bridge
from trichannels.exceptions import BadEvent, ChannelFull, InvalidChannelLayerError, InvalidName, LayerClosed
from trichannels.inbox import Inbox, Mailbox
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.serializers import Message, MsgpackSerializer

from ..loops import run_on_backend

MESSAGE = {"type": "chat", "text": "x" * 100}


def message(number: int) -> dict[str, Any]:
    return {"type": "chat", "number": number}


# ---- options


@pytest.mark.parametrize("name", ["capacity", "expiry", "group_expiry"])
@pytest.mark.parametrize("value", [0, -1, None, "60", True])
def test_a_bound_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match=f"layer's {name} must be a number above 0, not {value!r}"):
        InMemoryChannelLayer(**{name: value})


def test_so_is_a_bound_of_a_pattern() -> None:
    with pytest.raises(InvalidChannelLayerError, match=re.escape("channel_capacity['http.*']")):
        InMemoryChannelLayer(channel_capacity={"http.*": 0})


def test_capacity_by_pattern_or_regular_expression_the_first_that_fits() -> None:
    layer = InMemoryChannelLayer(
        capacity=1, channel_capacity={re.compile(r"http\.\d+"): 2, "http.*": 3, "ws[a-c]!*": 4, "*": 5}
    )
    names = ["http.1", "http.x", "wsb!x", "wsd!x", "http.12x"]
    assert [layer.get_capacity(name) for name in names] == [2, 3, 4, 5, 2]
    assert InMemoryChannelLayer(capacity=1).get_capacity("anything") == 1


def test_names_of_channels_face_return_true_or_raise() -> None:
    layer = InMemoryChannelLayer()
    assert layer.valid_channel_name("a!b") is layer.require_valid_channel_name("a") is True
    assert layer.valid_group_name("g") is layer.require_valid_group_name("g") is True
    assert layer.valid_channel_name("a!", receive=True)
    with pytest.raises(InvalidName, match="must end at the !"):
        layer.valid_channel_name("a!b", receive=True)
    with pytest.raises(TypeError, match="Group name must be a valid unicode string with length < 100"):
        layer.valid_group_name("a!b")


# ---- its block


async def test_its_repr_tells_whether_it_is_open_and_for_how_many() -> None:
    layer = InMemoryChannelLayer()
    assert repr(layer) == "<InMemoryChannelLayer closed>"
    assert not layer.opened
    async with layer:
        with layer.in_use():
            assert repr(layer) == "<InMemoryChannelLayer open, 1 instances>"
        assert layer.opened


async def test_it_is_opened_once() -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(InvalidChannelLayerError, match="is open already"):
            await layer.__aenter__()
        await layer.group_send("room", MESSAGE)


async def test_closing_twice_is_closing_once() -> None:
    async with InMemoryChannelLayer() as layer:
        pass
    await layer.close()
    assert layer.groups_of("any") == ()
    layer.detach("any")


async def test_it_waits_for_its_last_instance(autojump_clock: object) -> None:
    layer, ended = InMemoryChannelLayer(), []

    async def instance(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with layer.in_use():
            task_status.started()
            await anyio.sleep(5)
            await layer.group_send("room", MESSAGE)  # still possible
            ended.append("instance")

    async with anyio.create_task_group() as nursery:
        async with layer:
            await nursery.start(instance)
            await nursery.start(instance)
        ended.append("layer")
    assert ended == ["instance", "instance", "layer"]


async def test_torn_out_of_its_wait_it_closes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # asyncio.Runner cancels its main task at Ctrl-C, and no shield holds that off.
    layer, mailbox = InMemoryChannelLayer(), Mailbox()
    await layer.__aenter__()
    layer.attach(mailbox)
    with layer.in_use(), monkeypatch.context() as patch:
        patch.setattr(anyio, "Event", Broken)
        with pytest.raises(KeyboardInterrupt):
            await layer.__aexit__(None, None, None)
    assert not layer.opened
    with pytest.raises(LayerClosed):
        await layer.group_send("room", MESSAGE)


class Broken:
    """An event whose wait is torn off."""

    async def wait(self) -> None:
        raise KeyboardInterrupt


async def test_what_an_instance_holds_is_forgotten_when_the_layer_closes_before_it(autojump_clock: object) -> None:
    layer, mailbox = InMemoryChannelLayer(), Mailbox()
    layer.close_timeout = 3
    with layer.in_use():
        async with layer:
            channel = layer.attach(mailbox)
            await layer.group_add("room", channel)
            await layer.group_send("room", MESSAGE)
            assert mailbox.statistics().layer_messages == 1
        assert mailbox.statistics().layer_messages == 0
        assert layer.groups_of(channel) == ()
        layer.detach(channel)
    statistics = layer.statistics()
    assert (statistics.instances, statistics.channels, statistics.groups, statistics.waiting_messages) == (0, 0, 0, 0)


# ---- its bounds


async def test_all_loose_channels_share_a_bound_in_bytes() -> None:
    async with InMemoryChannelLayer(buffer_bytes=300) as layer:
        for name in ("a", "b"):
            await layer.send(name, MESSAGE)
        with pytest.raises(ChannelFull, match="'c' "):
            await layer.send("c", MESSAGE)
        assert layer.statistics().channels == 2  # the refused one has left nothing
        await layer.receive("a")
        await layer.send("c", MESSAGE)
        assert layer.statistics().waiting_bytes <= 300
        assert layer.statistics().waiting_messages == 2


async def test_channels_that_nobody_reads_are_forgotten_when_their_messages_expire(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(expiry=10) as layer:
        for number in range(20):
            await layer.send(f"channel.{number}", MESSAGE)
        assert layer.statistics().channels == 20
        await anyio.sleep(11)
        for number in range(3):  # each send looks at some of the oldest
            await layer.send("live", message(number))
        statistics = layer.statistics()
        assert (statistics.channels, statistics.waiting_messages, statistics.expired) == (1, 3, 20)


async def test_a_waiting_reader_is_not_forgotten_by_the_sweep(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(expiry=10) as layer, anyio.create_task_group() as nursery:
        received: list[object] = []

        async def read() -> None:
            received.append(await layer.receive("waited.for"))

        nursery.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for number in range(20):
            await layer.send(f"channel.{number}", MESSAGE)
            await anyio.sleep(5)
        await layer.send("waited.for", message(1))
        await anyio.wait_all_tasks_blocked()
        assert received == [message(1)]


async def test_a_membership_of_a_loose_channel_ends_with_group_expiry(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(group_expiry=10, expiry=100) as layer:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await anyio.sleep(6)
        await layer.group_send("room", message(1))
        await layer.group_add("room", channel)  # renewed
        await anyio.sleep(6)
        await layer.group_send("room", message(2))
        await anyio.sleep(6)
        await layer.group_send("room", message(3))
        statistics = layer.statistics()
        assert (statistics.groups, statistics.memberships, statistics.waiting_messages) == (0, 0, 2)
        assert await layer.receive(channel) == message(1)
        assert await layer.receive(channel) == message(2)


async def test_expired_memberships_are_forgotten_though_nobody_sends(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(group_expiry=10) as layer:
        for number in range(20):
            await layer.group_add(f"room-{number}", await layer.new_channel())
            await anyio.sleep(2)
        assert layer.statistics().memberships <= 5
        assert layer.statistics().groups <= 5


async def test_a_message_beyond_a_bound_in_bytes_is_not_said_to_meet_a_full_count() -> None:
    async with InMemoryChannelLayer(buffer_bytes=10) as layer:
        channel = layer.attach(Mailbox(Inbox(bytes=10)))
        for name in (channel, "loose"):
            with pytest.raises(ChannelFull, match="it takes 100 messages, and its bound of bytes"):
                await layer.send(name, MESSAGE)


async def test_what_waits_in_an_inbox_expires_and_is_told(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(expiry=10, capacity=2) as layer, layer.subscribe("room") as events:
        await layer.group_send("room", message(1))
        await anyio.sleep(6)
        await layer.group_send("room", message(2))
        await anyio.sleep(6)
        await layer.group_send("room", message(3))  # the first has expired, and has made room
        told = {"type": "layer.dropped", "count": 1, "bytes": len(layer.seal(message(1)).payload), "groups": ["room"]}
        assert [await events.receive() for _ in range(3)] == [message(2), told, message(3)]
        await layer.group_send("room", message(4))
        await anyio.sleep(11)
        assert await events.receive() == told
        statistics = layer.statistics()
        assert (statistics.expired, statistics.dropped, statistics.waiting_messages) == (2, 0, 0)
        assert events.statistics().dropped == 2


async def test_a_message_is_encoded_once_however_many_read_it() -> None:
    class Counting(MsgpackSerializer):
        encoded = decoded = 0

        def encode(self, message: Message) -> bytes:
            Counting.encoded += 1
            return super().encode(message)

        def decode(self, payload: bytes) -> Message:
            Counting.decoded += 1
            return super().decode(payload)

    async with (
        InMemoryChannelLayer(serializer=Counting()) as layer,
        layer.subscribe("room") as first,
        layer.subscribe("room") as second,
    ):
        await layer.group_send("room", MESSAGE)
        assert (Counting.encoded, Counting.decoded) == (1, 0)
        assert await first.receive() == await second.receive() == MESSAGE
        assert (Counting.encoded, Counting.decoded) == (1, 2)


async def test_a_membership_of_an_instance_does_not_expire(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(group_expiry=10) as layer:
        mailbox = Mailbox()
        await layer.group_add("room", layer.attach(mailbox))
        await anyio.sleep(1000)
        await layer.group_send("room", message(1))
        assert mailbox.statistics().layer_messages == 1


async def test_a_member_that_is_overrun_leaves_while_others_are_served() -> None:
    async with InMemoryChannelLayer() as layer:
        others = [Mailbox(), Mailbox()]
        slow = Mailbox(Inbox(messages=1, overflow="disconnect"), overrun=lambda: layer.detach(channel))
        channel = ""
        await layer.group_add("room", layer.attach(others[0]))
        channel = layer.attach(slow)
        await layer.group_add("room", channel)
        await layer.group_add("room", layer.attach(others[1]))
        for number in range(3):
            await layer.group_send("room", message(number))
        assert [mailbox.statistics().layer_messages for mailbox in others] == [3, 3]
        assert layer.statistics().memberships == 2
        assert layer.statistics().dropped == 1


async def test_an_instance_that_has_ended_joins_nothing() -> None:
    async with InMemoryChannelLayer() as layer:
        channel = layer.attach(Mailbox())
        layer.detach(channel)
        await layer.group_add("room", channel)
        await layer.send(channel, MESSAGE)
        statistics = layer.statistics()
        assert (statistics.groups, statistics.channels, statistics.undeliverable) == (0, 0, 2)


@pytest.mark.parametrize("kind", ["layer.dropped", "layer.anything", "layer_dropped", "layer_resync"])
async def test_nobody_can_forge_an_event_of_the_layer(kind: str) -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(BadEvent, match=r"types that begin with 'layer\.' come from the layer itself"):
            await layer.group_send("room", {"type": kind})
        with pytest.raises(BadEvent):
            await layer.send("channel", {"type": kind})


async def test_a_type_is_a_str() -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(BadEvent, match="'type' must be a str, not 1"):
            await layer.group_send("room", {"type": 1})
        await layer.send("channel", {"without": "type"})  # readers of bare channels may do without


async def test_a_thread_that_runs_another_loop_is_told_the_cure_and_delivers_nothing() -> None:
    async with InMemoryChannelLayer() as layer, layer.subscribe("room") as events:

        def elsewhere() -> None:
            run_on_backend(lambda: layer.group_send("room", MESSAGE))  # what asgiref's async_to_sync does

        with pytest.raises(InvalidChannelLayerError, match=r"call it by trichannels\.bridge\.async_to_sync"):
            await current_bridge().run(elsewhere)
        assert events.statistics().layer_messages == 0
        await current_bridge().run(lambda: async_to_sync(layer.group_send)("room", MESSAGE))
        assert events.statistics().layer_messages == 1


async def test_two_readers_of_one_subscription_are_an_error() -> None:
    async with InMemoryChannelLayer() as layer, layer.subscribe("room") as events:
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(events.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="two tasks read from one inbox or subscription"):
                await events.receive()
            await layer.group_send("room", MESSAGE)
        assert repr(events).startswith("<Subscription to room:")


@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer.flush(),
        lambda layer: layer.receive("a"),
        lambda layer: layer.group_send("room", MESSAGE),
    ],
)
async def test_a_cancelled_call_does_nothing(use: Callable[[InMemoryChannelLayer], Any]) -> None:
    async with InMemoryChannelLayer() as layer, layer.subscribe("room") as events:
        await layer.send("a", MESSAGE)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await use(layer)
        assert scope.cancelled_caught
        assert layer.statistics().waiting_messages == 1
        assert events.statistics().layer_messages == 0


async def test_a_subscription_cannot_be_disconnected() -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(InvalidChannelLayerError, match="no socket to disconnect"):
            layer.subscribe("a", inbox=Inbox(overflow={"a": "disconnect"}))


async def test_who_sends_to_groups_on_and_on_lets_others_run_and_sees_each_cancellation() -> None:
    turns = cancelled = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with InMemoryChannelLayer() as layer, anyio.create_task_group() as group:
        async with layer.subscribe("room", inbox=Inbox(messages=1000)) as events:
            group.start_soon(other)
            for _ in range(160):
                await layer.group_send("room", {"type": "x"})
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await layer.group_send("room", {"type": "never"})
                cancelled += scope.cancelled_caught
            assert events.statistics().layer_messages == 160
        group.cancel_scope.cancel()
    assert cancelled == 160
    assert turns >= 10, "after each 16 sends at the latest"
