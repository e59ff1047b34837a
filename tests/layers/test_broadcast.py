"""Layers over any wire on which everybody hears everything: the contract, and all that can go wrong with a wire."""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from trio.testing import MockClock

from trichannels.exceptions import (
    BadEvent,
    ChannelFull,
    InvalidChannelLayerError,
    InvalidName,
    LayerClosed,
    LayerRefused,
    LayerUnreachable,
    OutcomeUnknown,
    UnreadableMessage,
)
from trichannels.layers.base import ChannelLayer, Subscription
from trichannels.layers.broadcast import BlockingBroadcast
from trichannels.layers.broadcast_frames import (
    ECHO,
    HEAD,
    JOIN,
    LONGEST_HEAD,
    TO_CHANNEL,
    TO_GROUP,
    Frame,
    read_frame,
    write_frame,
)
from trichannels.layers.broadcast_wire import Ends, Late, Outlet
from trichannels.layers.history import History
from trichannels.layers.serializers import Message
from trichannels.testing.contract.base import mailbox, message
from trichannels.testing.layers import LayerContract

from ..checkpoints import every_iteration, every_step
from .wires import Air, AirLayer, Hub, HubLayer, failing

NUMBERS = count()
GAP = {"type": "layer.resync", "group": "group", "recovered": False}
ELSEWHERE = "specific.other!i1"


# ---- the contract, over a socket


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(str(tmp_path_factory.mktemp("hub") / "socket")) as running:
        yield running


@pytest.mark.server
class TestHubLayer(LayerContract):
    """All parts but histories, presence and queues."""

    queues = history = presence = False
    quiet = 0.03
    hub: Hub
    made: list[HubLayer]

    @pytest.fixture(autouse=True)
    def served(self, hub: Hub, descriptors: None) -> Iterator[None]:
        self.hub, self.made = hub, []
        yield
        hub.wait_until_idle()

    def make(self, prefix: str) -> HubLayer:
        self.made.append(HubLayer(str(self.hub.server_address), prefix=prefix, capacity=3))
        return self.made[-1]

    def make_layer(self) -> ChannelLayer:
        return self.make(f"test-{next(NUMBERS)}")

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, HubLayer)
        return self.make(layer.prefix)

    async def settle(self) -> None:
        for layer in self.made:
            if layer.opened:
                await layer.echo()


@pytest.mark.server
async def test_a_hub_that_is_lost_and_comes_back(tmp_path: Path, descriptors: None) -> None:
    path = str(tmp_path / "socket")
    with Hub(path) as hub:
        layer = HubLayer(path, timeout=20)
        async with layer, HubLayer(path, timeout=20) as other, layer.subscribe("group") as events:
            hub.cut()
            assert await received(events) == await received(events) == GAP
            await other.group_send("group", {"text": "x" * 3_000_000})
            assert (await received(events))["type"] == "layer.dropped"  # larger than an inbox may be
            await other.group_send_many([("group", message(number)) for number in range(3)])
            assert [(await received(events))["number"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.server
async def test_code_without_a_loop(hub: Hub) -> None:
    options: dict[str, Any] = {"path": str(hub.server_address), "prefix": "sync"}
    sync = HubLayer.blocking(**options)
    assert isinstance(sync, BlockingBroadcast)
    assert "hub" in repr(sync)
    async with HubLayer(**options) as layer, layer.subscribe("group") as events:
        await to_thread.run_sync(sync.group_send, "group", message(1))
        await to_thread.run_sync(sync.group_send_many, [("group", message(2)), ("group", message(3))])
        assert [(await received(events))["number"] for _ in range(3)] == [1, 2, 3]
        channel = await layer.new_channel()
        await to_thread.run_sync(sync.send, channel, message(4))
        assert await layer.receive(channel) == message(4)
        assert sync.group_send_many([]) == []
        refused: tuple[tuple[Callable[[], object], type[Exception]], ...] = (
            (lambda: sync.send("work", message()), InvalidChannelLayerError),
            (lambda: sync.send(channel, message(), delay=1), InvalidChannelLayerError),
            (lambda: sync.send(channel, {"type": "layer.resync"}), BadEvent),
            (lambda: sync.group_send("group", message(), "key"), InvalidChannelLayerError),
            (lambda: sync.group_send("a b", message()), InvalidName),
            (lambda: sync.group_send("group", message()), RuntimeError),  # which would stop this loop
        )
        for wrong, error in refused:
            with pytest.raises(error):
                wrong()
        assert sync.serializer.decode(sync.serializer.encode(message(1))) == message(1)
    sync.close()
    away = HubLayer.blocking(path=f"{hub.server_address!s}-not", timeout=0.1)
    with pytest.raises(LayerUnreachable, match="No such file"):
        await to_thread.run_sync(away.group_send, "group", message())


# ---- frames


def test_a_frame_is_what_the_format_says() -> None:
    frame = write_frame(TO_GROUP, "news", b"body")
    assert frame == b"\x01g\x04\x00\x00\x00\x04newsbody"
    assert read_frame(frame) == Frame(TO_GROUP, "news", b"body")
    assert read_frame(write_frame(ECHO, "x" * 99)) == Frame(ECHO, "x" * 99, b"")


def test_the_head_tells_whom_a_frame_is_for() -> None:
    cut = read_frame(write_frame(TO_CHANNEL, "c" * 99, bytes(1000))[:LONGEST_HEAD])
    assert (cut.name, cut.missing) == ("c" * 99, 1000)
    with pytest.raises(UnreadableMessage, match="1000 bytes are missing"):
        cut.whole()


GARBAGE = (
    *(b"", b"\x01", b"\x01g\x04\x00\x00", b"\x01g\x05\x00\x00\x00\x00news", b"\x01g\x00\x00\x00\x00\x00"),
    *(b"\x02g\x04\x00\x00\x00\x00news", b"\x01?\x04\x00\x00\x00\x00news", b"\x01g\x01\x00\x00\x00\x00\xff"),
    *(b"\x01g\x04\x00\x00\x00\x00news and more", b"GET / HTTP/1.1\r\n\r\n", bytes(50)),
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        read_frame(garbage)


# ---- what comes


async def received(events: Subscription) -> Message:
    with anyio.fail_after(20):
        return await events.receive()


async def test_what_cannot_be_read_is_counted_and_others_go_on(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events:
        channel, box = await layer.new_channel(), mailbox()
        attached = layer.attach(box)
        air.say(*GARBAGE, UnicodeDecodeError("ascii", b"\xff", 0, 1, "not of this wire"))
        await layer.echo()
        assert events.statistics().layer_messages == 0  # nobody knows whom they were for
        assert layer.statistics().undeliverable == len(GARBAGE) + 1
        encode = layer.serializer.encode
        unreadable = (
            write_frame(TO_GROUP, "group", b"\xc1"),
            write_frame(TO_GROUP, "group", encode(message(1)))[:-1],
            write_frame(TO_GROUP, "group", encode({"type": "layer.resync", "group": "other"})),
            write_frame(TO_CHANNEL, channel, encode({"type": 7})),
            write_frame(JOIN, channel, b"no group"),
            write_frame(JOIN, f"x{attached[attached.index('.') :]} ", b"group"),
            write_frame(JOIN, channel, b"\xff"),
            write_frame(JOIN, channel, b"group.one")[:-4],
        )
        for frame in unreadable:
            air.say(frame)
        await layer.echo()
        assert layer.statistics().undeliverable == len(GARBAGE) + 1 + len(unreadable)
        assert layer.statistics().groups == layer.statistics().memberships == 1
        assert await received(events) == GAP
        air.say(write_frame(TO_GROUP, "group", b"\xc1"), write_frame(TO_GROUP, "nobody", b"\xc1"))
        await layer.group_send("group", message(2))
        assert await received(events) == GAP
        assert await received(events) == message(2)
    assert "the air: a frame was thrown away" in caplog.text
    assert layer.air.opened["listener"] == 1


@pytest.mark.parametrize("how", ["raises", "returns"])
async def test_a_wire_that_gives_no_frames_any_more_is_opened_again(
    how: str, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(AirLayer):
        calls, broken = 0, False

        async def hear(self, receive: Callable[[], Awaitable[Any]]) -> bytes:
            if not self.broken:
                return await super().hear(receive)
            self.calls += 1
            if self.calls > 5000:
                await anyio.sleep_forever()
            if how == "returns":
                return b""
            raise ValueError("I/O operation on closed file")

    async with Broken(Air()) as layer, layer.subscribe("group") as events:
        layer.broken = True
        await layer.group_send("group", message(1))
        assert await received(events) == message(1)  # it was asked for already
        assert await received(events) == GAP
        await anyio.sleep(20)
        assert 100 < layer.calls < 2000
        assert 5 < layer.air.opened["listener"] < 100
        layer.broken = False
        await layer.echo()
        assert await received(events) == GAP
        await layer.group_send("group", message(2))
        assert await received(events) == message(2)
    assert "the air was lost, and is tried again: no frame 20 times in a row" in caplog.text


async def test_what_cannot_be_read_between_frames_that_can_is_no_loss(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group"):
        for _ in range(3):
            air.say(*[b"garbage"] * 19)
            await layer.echo()
        assert air.opened["listener"] == 1


async def test_what_a_frame_concerns(autojump_clock: object) -> None:
    async with AirLayer(Air()) as layer, layer.subscribe("group"):
        own = await layer.new_channel()
        large = bytes(1000)
        assert layer.concerns(write_frame(TO_GROUP, "group", large)[:LONGEST_HEAD])
        assert layer.concerns(write_frame(TO_CHANNEL, own, large)[:LONGEST_HEAD])
        assert not layer.concerns(write_frame(TO_GROUP, "other", large)[:LONGEST_HEAD])
        assert not layer.concerns(write_frame(TO_CHANNEL, ELSEWHERE, large))
        assert not layer.concerns(b"garbage")


async def test_a_wire_that_is_cut_is_told_twice(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    air = Air()
    async with (
        AirLayer(air) as layer,
        AirLayer(air) as other,
        layer.subscribe("group", "more") as events,
        other.subscribe("group") as elsewhere,
    ):
        for number in range(3):
            air.wrong_with["open_listener"] += [failing(OSError("still away"))] * 4
            air.cut()
            told = [await received(events) for _ in range(2)]
            assert sorted(event["group"] for event in told) == ["group", "more"]
            await layer.echo()
            await other.echo()
            told = [await received(events) for _ in range(2)]
            assert sorted(event["group"] for event in told) == ["group", "more"]
            await other.group_send("group", message(number))
            assert await received(events) == message(number)
            while await received(elsewhere) != message(number):
                pass
    lost = [record for record in caplog.records if "was lost" in record.message]
    assert len(lost) == 6  # once for each loss, not for each attempt
    assert not any(record.exc_info for record in lost)


async def test_who_joins_while_the_wire_is_away_waits_for_it(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air, timeout=60) as layer:
        air.wrong_with["open_listener"] += [failing(OSError("away"))] * 4
        air.cut()
        await anyio.wait_all_tasks_blocked()
        async with layer.subscribe("group") as events:
            await layer.group_send("group", message(1))
            assert await received(events) == message(1)


@pytest.mark.parametrize("error", [OSError("reset"), EOFError(), KeyError("a mistake"), LayerRefused("the air", "no")])
async def test_a_listener_that_raises_is_opened_again(
    error: Exception, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events:
        air.say(error)
        assert await received(events) == await received(events) == GAP
        await layer.group_send("group", message(1))
        assert await received(events) == message(1)
        assert layer.statistics().undeliverable == 0
    (record,) = caplog.records
    assert record.levelno == (logging.ERROR if isinstance(error, KeyError) else logging.WARNING)


async def test_a_wire_that_is_lost_as_soon_as_it_is_there_is_not_opened_without_end(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group"), anyio.create_task_group() as nursery:

        async def cut() -> None:
            while True:
                air.cut()
                await anyio.sleep(0.01)

        nursery.start_soon(cut)
        await anyio.sleep(20)
        nursery.cancel_scope.cancel()
    assert 8 < air.opened["listener"] < 80


# ---- what goes


async def test_a_sender_that_knows_that_nothing_was_sent_is_asked_again(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events:
        air.wrong_with["transmit"] += [failing(LayerUnreachable("the air", "was closed while idle"))] * 3
        await layer.group_send("group", message(1))
        assert await received(events) == message(1)
        assert (air.opened["sender"], len(air.transmissions)) == (4, 1)
        air.wrong_with["transmit"] += [failing(LayerUnreachable("the air", "was closed while idle"))] * 1000
        with pytest.raises(LayerUnreachable, match="the air: not reached within 5 s: was closed while idle") as caught:
            await layer.group_send("group", message(2))
        assert not isinstance(caught.value, OutcomeUnknown)
        assert air.opened["sender"] < 30


@pytest.mark.parametrize(
    ("error", "raised", "opened"),
    [
        (OSError("reset"), OutcomeUnknown, 2),
        (EOFError("gone"), OutcomeUnknown, 2),
        (OutcomeUnknown("the air", "lost"), OutcomeUnknown, 2),
        (LayerRefused("the air", "too large"), LayerRefused, 1),
        (KeyError("a mistake"), KeyError, 2),
    ],
)
async def test_a_sender_that_raises(
    error: Exception, raised: type[Exception], opened: int, autojump_clock: object
) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events:
        air.wrong_with["transmit"].append(failing(error))
        with pytest.raises(raised) as caught:
            await layer.group_send("group", message(1))
        assert caught.value is error or caught.value.__cause__ is error
        await layer.group_send("group", message(2))
        assert await received(events) == message(2)
        assert air.opened["sender"] == opened


async def test_an_answer_that_does_not_come(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer:
        air.wrong_with["confirm"].append(anyio.sleep_forever)
        begin = anyio.current_time()
        outcomes: list[object] = []

        async def send() -> None:
            try:
                outcomes.append(await layer.group_send("group", message()))
            except LayerUnreachable as error:
                outcomes.append(str(error))

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(send)
            await anyio.sleep(3)
            nursery.start_soon(send)  # which waits for its turn, and then for a new connection
        assert outcomes == ["the air: no answer within 5 s", None]
        assert 5 <= anyio.current_time() - begin < 8


async def test_who_waits_for_a_turn_waits_no_longer_than_its_timeout(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, anyio.create_task_group() as nursery:

        async def send() -> None:
            with pytest.raises(OutcomeUnknown):
                await layer.group_send("group", message())

        air.wrong_with["confirm"].append(anyio.sleep_forever)
        nursery.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        layer.timeout = 1
        with pytest.raises(LayerUnreachable, match="within 1 s") as caught:
            await layer.group_send("group", message())
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_one_sends_after_the_other_in_order(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events, anyio.create_task_group() as nursery:
        for number in range(20):
            nursery.start_soon(layer.group_send, "group", message(number))
            await anyio.wait_all_tasks_blocked()
        assert [(await received(events))["number"] for _ in range(20)] == list(range(20))


async def test_many_events_are_one_transmission(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("a", "b") as events:
        answer = await layer.group_send_many([("a", message(1)), ("b", message(2)), ("a", message(3))])
        assert answer == [None, None, None]
        assert [(await received(events))["number"] for _ in range(3)] == [1, 2, 3]
        assert await layer.group_send_many([]) == []
        with pytest.raises(InvalidName):
            await layer.group_send_many([("a", message(4)), ("a b", message(5))])
        assert [len(each) for each in air.transmissions] == [3]


# ---- when the wire is away


async def test_away_every_call_fails_in_time(autojump_clock: object) -> None:
    air = Air()
    layer = AirLayer(air, timeout=2)
    async with layer:
        channel = layer.attach(mailbox())
        air.wrong_with["open_listener"] += [failing(OSError("refused"))] * 1000
        air.wrong_with["open_sender"] += [failing(OSError("refused"))] * 1000
        air.wrong_with["transmit"].append(failing(LayerUnreachable("the air", "gone")))
        air.cut()
        await anyio.wait_all_tasks_blocked()
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: layer.group_send("group", message()),
            lambda: layer.group_send_many([("group", message())]),
            lambda: layer.group_add("group", channel),
            lambda: layer.group_add("group", ELSEWHERE),
            lambda: layer.group_discard("group", ELSEWHERE),
            lambda: layer.send(ELSEWHERE, message()),
            lambda: AirLayer(air, timeout=2).__aenter__(),
        )
        for call in calls:
            begin = anyio.current_time()
            with pytest.raises(LayerUnreachable, match=r"the air: not reached within 2 s: refused"):
                await call()
            assert 2 <= anyio.current_time() - begin < 2.01
        with pytest.raises(LayerUnreachable, match="did not come back within 2 s"):
            await layer.echo()
        await layer.send(channel, message(1))  # for these, nobody is needed
        await layer.group_discard("group", channel)
        layer.detach(channel)
        air.wrong_with.clear()
        await layer.group_send("group", message())


async def test_a_mistake_in_the_subclass_is_logged_once_and_said(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    air = Air()
    air.wrong_with["open_sender"] += [failing(TypeError("no such option"))] * 1000
    with pytest.raises(LayerUnreachable, match="no such option"):
        async with AirLayer(air):
            pass
    (record,) = caplog.records
    assert record.exc_info
    assert "none of its 'errors'" in record.message


async def test_an_error_in_a_task_group_of_the_wire_is_the_wires(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    air = Air()
    async with AirLayer(air) as layer, layer.subscribe("group") as events:
        air.say(ExceptionGroup("of its nursery", [OSError("reset")]))
        assert await received(events) == GAP
        await layer.echo()
    (record,) = caplog.records
    assert record.message == "the air was lost, and is tried again: reset"


# ---- closing


async def test_closing_tells_everybody_who_waits(autojump_clock: object) -> None:
    air = Air()
    ended: dict[str, str] = {}

    async def run(name: str, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (LayerClosed, LayerUnreachable) as error:
            ended[name] = f"{type(error).__name__}: {error}"

    async with anyio.create_task_group() as nursery, AirLayer(air) as layer:
        channel = layer.attach(mailbox())
        await layer.send(ELSEWHERE, message(), delay=1)
        air.still = True
        nursery.start_soon(run, "waits for its echo", layer.echo)
        await anyio.wait_all_tasks_blocked()
        air.wrong_with["open_listener"] += [failing(OSError("away"))] * 1000
        air.wrong_with["confirm"].append(anyio.sleep_forever)
        air.cut()
        nursery.start_soon(run, "under way", lambda: layer.group_send("group", message()))
        await anyio.wait_all_tasks_blocked()
        nursery.start_soon(run, "waits", lambda: layer.group_send("group", message()))
        nursery.start_soon(run, "joins", lambda: layer.group_add("group", channel))
        nursery.start_soon(run, "echoes", layer.echo)
        await anyio.wait_all_tasks_blocked()
    assert ended.pop("under way") == "OutcomeUnknown: the air: closed before it has answered"
    assert set(ended) == {"waits", "joins", "echoes", "waits for its echo"}
    assert all(text.startswith("LayerClosed") for text in ended.values())
    assert len(air.transmissions) == 2
    assert "closed" in repr(layer._outlet)


async def test_a_layer_that_could_not_be_opened_leaves_nothing(autojump_clock: object) -> None:
    air = Air()
    layer = AirLayer(air)
    air.wrong_with["open_listener"].append(anyio.sleep_forever)
    with pytest.raises(LayerUnreachable, match="nobody answers"):
        await layer.__aenter__()
    assert not layer.opened
    with pytest.raises(LayerClosed):
        layer.attach(mailbox())
    async with layer:
        await layer.echo()


# ---- delays


async def test_what_is_delayed_to_another_process_comes_when_it_is_due_and_in_order(autojump_clock: object) -> None:
    air = Air()
    async with AirLayer(air) as one, AirLayer(air) as two:
        channel = await two.new_channel()
        begin = anyio.current_time()
        for number in range(10):
            await one.send(channel, message(number), delay=60)
        assert [(await two.receive(channel))["number"] for _ in range(10)] == list(range(10))
        assert 60 <= anyio.current_time() - begin < 60.1
        await one.send(channel, message(), delay=60)
        before = len(air.transmissions)
        await one.flush()
        await anyio.sleep(100)
        assert len(air.transmissions) == before
        air.wrong_with["confirm"].append(lambda: anyio.sleep(4))
        await one.send(channel, message(10), delay=1)
        await one.send(channel, message(11), delay=2)
        await anyio.sleep(3)  # one is being sent, the other one waits for it
        await one.flush()
        await anyio.sleep(100)
        assert [len(each) for each in air.transmissions[before:]] == [1]


async def test_what_is_due_while_the_wire_is_away_is_counted(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    air = Air()
    async with AirLayer(air, buffer_bytes=2000) as layer:
        air.wrong_with["transmit"].append(failing(OSError("lost")))
        air.wrong_with["open_sender"] += [failing(OSError("away"))] * 1000
        for number in range(3):
            await layer.send(ELSEWHERE, message(number), delay=1 + number)
        await anyio.sleep(30)
        assert layer.statistics().undeliverable == 3
        with pytest.raises(ChannelFull):
            await layer.send(ELSEWHERE, message() | {"text": "x" * 2000}, delay=1)
        for _ in range(3):
            await layer.send(ELSEWHERE, message() | {"text": "x" * 1000}, delay=1)
            await anyio.sleep(1.01)
        assert layer.statistics().dropped == 1  # beside one that is tried, one may wait
        assert layer.statistics().dropped_bytes > 1000
    assert "were not sent when they were due" in caplog.text


# ---- cancellation, at every step


class Interrupted:
    """A run that is cancelled in the middle of one call."""

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.air = Air()

    def interrupt(self) -> None:
        if self.scope is not None:
            self.scope.cancel()


async def sends(layer: AirLayer, channel: str) -> None:
    await layer.group_send("group", message(1))


async def sends_many(layer: AirLayer, channel: str) -> None:
    await layer.group_send_many([("group", message(1)), ("group", message(2))])


async def joins(layer: AirLayer, channel: str) -> None:
    await layer.group_add("other", channel)


async def adds_another(layer: AirLayer, channel: str) -> None:
    await layer.group_add("other", ELSEWHERE)


async def drops_another(layer: AirLayer, channel: str) -> None:
    await layer.group_discard("other", ELSEWHERE)


async def has_it_echoed(layer: AirLayer, channel: str) -> None:
    await layer.echo()


CALLS = {call.__name__: call for call in (sends, sends_many, joins, adds_another, drops_another, has_it_echoed)}
BEFORE: dict[str, Callable[[Air], None]] = {
    "as it should be": lambda air: None,
    "over a new connection": lambda air: air.wrong_with["transmit"].append(failing(LayerUnreachable("air", "gone"))),
    "after others": lambda air: air.wrong_with["confirm"].extend([lambda: anyio.sleep(0.01)] * 2),
}


async def program(
    run: Interrupted, call: Callable[[AirLayer, str], Awaitable[None]], before: Callable[[Air], None]
) -> None:
    async with AirLayer(run.air) as layer, layer.subscribe("group") as events:
        box = mailbox()
        channel = layer.attach(box)
        before(run.air)
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(layer.group_send, "nobody", message())
            with anyio.CancelScope() as run.scope:
                await call(layer, channel)
            cancelled, run.scope = run.scope.cancelled_caught, None
        sent = [frame for batch in run.air.transmissions for frame in batch if b"nobody" not in frame]
        expected = {"sends_many": 2, "joins": 0}.get(call.__name__, 1)
        if call is not has_it_echoed:  # whose waiting is cancelled, too
            assert len(sent) == expected * (not cancelled)
        assert layer.groups_of(channel) == (("other",) if call is joins and not cancelled else ())
        await layer.group_send("group", message(3))
        expected = {"sends": 2, "sends_many": 3}.get(call.__name__, 1) if not cancelled else 1
        assert [(await events.receive())["number"] for _ in range(expected)][-1] == 3
        assert layer._echoes == {}


@pytest.mark.once
@pytest.mark.trio_only
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("call", CALLS)
def test_cancelled_at_any_step_nothing_was_sent_or_it_was_not_cancelled(call: str, before: str) -> None:
    async def run(interrupted: Interrupted) -> None:
        await program(interrupted, CALLS[call], BEFORE[before])

    steps = list(every_step(run, Interrupted, clock=lambda: MockClock(autojump_threshold=0)))
    assert len(steps) > 20
    assert sum(1 for _ in every_iteration(run, Interrupted)) > 10


# ---- the rest


async def test_what_it_leaves_out_is_refused(autojump_clock: object) -> None:
    with pytest.raises(InvalidChannelLayerError, match="AirLayer keeps no history"):
        AirLayer(Air(), history={"*": History()})
    with pytest.raises(InvalidName):
        AirLayer(Air(), prefix="no prefix")
    async with AirLayer(Air()) as layer:
        with pytest.raises(InvalidChannelLayerError, match="has no work queues: there can be no 'work'"):
            await layer.send("work", message())


async def test_a_thread_of_somebody_else_is_sent_away(autojump_clock: object) -> None:
    async with AirLayer(Air()) as layer:
        raised: list[BaseException] = []
        box = mailbox()

        def use() -> None:
            try:
                layer.attach(box)
            except InvalidChannelLayerError as error:
                raised.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert len(raised) == 1


async def test_they_say_what_they_are(autojump_clock: object) -> None:
    async with AirLayer(Air()) as layer:
        assert repr(layer._outlet) == "<Outlet to the air, open>"
        assert repr(layer._ends) == "<Ends of the air: nobody answers>"
        assert repr(layer._late) == "<Late: 0 frames>"
    assert {type(each) for each in (layer._ends, layer._late, layer._outlet)} == {Ends, Late, Outlet}
    assert HEAD.size == 7
