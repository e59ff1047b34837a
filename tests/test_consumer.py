"""From event to method, and the life of a consumer: order, concurrency, backpressure, grace, errors, the goodbye."""

import asyncio
import logging
import threading
from collections.abc import Hashable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

import trichannels.bridge
from trichannels.bridge import async_to_sync, current_bridge
from trichannels.consumer import AsyncConsumer, NoLayer, SyncConsumer, get_handler_name
from trichannels.events import Event, Receive, Scope, Send
from trichannels.exceptions import (
    BadEvent,
    ConfigError,
    ConnectionClosed,
    InvalidChannelLayerError,
    NoHandler,
    OutOfTurn,
    StopConsumer,
)
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.inbox import Inbox
from trichannels.instance import FOREIGN_PATIENCE
from trichannels.layers import get_channel_layer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.registry import registered
from trichannels.testing.application import ApplicationCommunicator
from trichannels.testing.errors import SocketRefused
from trichannels.testing.websocket import WebsocketCommunicator

from .sockets import OurTransport, connected, socket_to

# ---- its settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", "2"),
        ("concurrency", 0),
        ("disconnect_grace", None),
        ("disconnect_grace", -1),
        ("disconnect_timeout", "5"),
        ("disconnect_timeout", True),
        ("inbox", {"messages": 3}),
        ("groups", "chat"),
    ],
)
def test_a_setting_that_cannot_work_is_told_where_the_class_is_made(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^Chat.{name} must be "):
        type("Chat", (AsyncWebsocketConsumer,), {name: value})


def test_a_name_that_means_nothing_to_a_consumer_is_its_own() -> None:
    type("Job", (AsyncConsumer,), {"groups": "of its own"})


def test_a_setting_may_be_computed() -> None:
    type("Chat", (WebsocketConsumer,), {"concurrency": property(lambda self: 3), "disconnect_grace": float("inf")})


# ---- from type to method


@pytest.mark.parametrize(
    ("kind", "name"), [("websocket.receive", "websocket_receive"), ("a.b.c", "a_b_c"), ("plain", "plain")]
)
def test_a_type_names_its_method(kind: str, name: str) -> None:
    assert get_handler_name({"type": kind}) == name


@pytest.mark.parametrize("message", [{}, {"type": ""}, {"type": None}, {"type": 1}])
def test_a_message_has_a_type(message: Event) -> None:
    with pytest.raises(BadEvent, match="Incoming message has no 'type' attribute"):
        get_handler_name(message)


@pytest.mark.parametrize("kind", ["_private", ".private", "__init__"])
def test_private_methods_are_out_of_reach(kind: str) -> None:
    with pytest.raises(ValueError, match=r"Malformed type in message \(leading underscore\)"):
        get_handler_name({"type": kind})


class Recorder(AsyncConsumer):
    """Writes down what it handles."""

    def __init__(self, seen: list[Any] | None = None, **kwargs: Any) -> None:
        self.seen = seen if seen is not None else []
        self.kwargs = kwargs

    async def websocket_connect(self, message: Event) -> None:
        self.seen.append("connect")
        await self.send({"type": "websocket.accept"})

    async def websocket_receive(self, message: Event) -> None:
        self.seen.append(message["text"])

    async def websocket_disconnect(self, message: Event) -> None:
        self.seen.append(("disconnect", message["code"], self.close_code, self.close_reason))


async def test_events_run_their_handlers_in_order() -> None:
    seen: list[Any] = []
    async with connected(Recorder, seen=seen) as socket:
        for text in "abc":
            await socket.send_to(text)
    assert seen == ["connect", "a", "b", "c", ("disconnect", 1000, 1000, "")]


async def test_as_asgi_makes_one_instance_for_each_scope() -> None:
    made: list[Recorder] = []

    class Counted(Recorder):
        """What it says of itself."""

        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            made.append(self)

    app = Counted.as_asgi(colour="red")
    for path in ("/one", "/two"):
        async with WebsocketCommunicator(app, path):
            pass
    assert made[0] is not made[1]
    assert [consumer.kwargs for consumer in made] == [{"colour": "red"}] * 2
    assert [consumer.scope["path"] for consumer in made] == ["/one", "/two"]
    assert (app.consumer_class, app.consumer_initkwargs) == (Counted, {"colour": "red"})  # type: ignore[attr-defined]
    assert (app.__name__, app.__doc__) == ("Counted", "What it says of itself.")


async def test_an_event_without_a_handler_is_an_error_that_tells_the_cure() -> None:
    class Deaf(AsyncConsumer):
        async def websocket_connect(self, message: Event) -> None:
            await self.send({"type": "websocket.accept"})

    socket = socket_to(Deaf)
    await socket.connect()
    await socket.send_to("hello?")
    with pytest.raises(NoHandler, match=r"No handler for message type websocket\.receive: .*Deaf has") as caught:
        await socket.wait()
    assert isinstance(caught.value, ValueError)


async def test_without_a_disconnect_handler_the_end_is_quiet() -> None:
    class Short(AsyncConsumer):
        async def websocket_connect(self, message: Event) -> None:
            await self.send({"type": "websocket.accept"})

    async with connected(Short):
        pass


async def test_base_send_is_what_send_stands_on() -> None:
    class Loud(Recorder):
        async def send(self, message: Event) -> None:
            self.seen.append("send")
            await self.base_send(message)

    seen: list[Any] = []
    async with connected(Loud, seen=seen):
        assert seen[:2] == ["connect", "send"]


async def test_dispatch_can_be_wrapped() -> None:
    class Logged(Recorder):
        async def dispatch(self, message: Event) -> None:
            self.seen.append(f"before {message['type']}")
            await super().dispatch(message)

    seen: list[Any] = []
    async with connected(Logged, seen=seen):
        assert seen == ["before websocket.connect", "connect"]


# ---- the layer


class Member(Recorder):
    async def websocket_connect(self, message: Event) -> None:
        await self.join("room")
        await super().websocket_connect(message)

    async def chat_message(self, event: Event) -> None:
        await self.send({"type": "websocket.send", "text": event["text"]})

    async def chat_leave(self, event: Event) -> None:
        await self.leave("room")
        await self.send({"type": "websocket.send", "text": "left"})


async def test_a_member_receives_what_is_sent_after_its_join_until_it_leaves() -> None:
    async with InMemoryChannelLayer() as layer, connected(Member, layer=layer) as socket:
        await layer.group_send("room", {"type": "chat.message", "text": "one"})
        assert await socket.receive_from() == "one"
        assert layer.statistics().memberships == 1
        await layer.group_send("room", {"type": "chat.leave"})
        assert await socket.receive_from() == "left"
        await layer.group_send("room", {"type": "chat.message", "text": "two"})
        assert await socket.receive_nothing()
        assert layer.statistics().memberships == 0


async def test_all_is_left_when_the_socket_ends() -> None:
    async with InMemoryChannelLayer() as layer:
        async with connected(Member, layer=layer):
            assert layer.statistics().instances == layer.statistics().channels == 1
        statistics = layer.statistics()
        assert (statistics.instances, statistics.channels, statistics.groups) == (0, 0, 0)


async def test_the_channel_can_be_sent_to_directly() -> None:
    class Named(Member):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            await self.channel_layer.send(self.channel_name, {"type": "chat.message", "text": self.channel_name})

    async with InMemoryChannelLayer() as layer, connected(Named, layer=layer) as socket:
        name = await socket.receive_from()
        assert isinstance(name, str)
        assert layer.valid_channel_name(name)


async def test_the_layer_of_the_alias_is_used_and_the_routers_comes_before_the_loops() -> None:
    class Other(Member):
        channel_layer_alias = "other"

    async with InMemoryChannelLayer() as one, InMemoryChannelLayer() as other, InMemoryChannelLayer() as third:
        with registered({"default": one, "other": other}):
            async with connected(Other), connected(Member), connected(Member, layer=third):
                assert [layer.statistics().memberships for layer in (one, other, third)] == [1, 1, 1]


async def test_without_a_layer_its_use_tells_the_cure() -> None:
    seen: list[Any] = []

    class Alone(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            assert not self.channel_layer
            assert self.channel_name == ""
            for use in (self.join, self.leave, lambda group: self.channel_layer.group_send(group, {})):
                with pytest.raises(InvalidChannelLayerError, match="ProtocolTypeRouter"):
                    await use("room")
            await super().websocket_connect(message)

    async with connected(Alone, seen=seen):
        assert seen == ["connect"]


def test_no_layer_says_which_use_was_made_of_it() -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"channel_layer\.send: no channel layer is open here"):
        NoLayer().send("a", {})


async def test_a_layer_that_is_not_open_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="is not open"):
        async with connected(Member, layer=InMemoryChannelLayer()):
            pass


async def test_nobody_can_run_disconnect_by_an_event() -> None:
    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer, connected(Member, layer=layer, seen=seen) as socket:
        await layer.group_send("room", {"type": "websocket.disconnect", "code": 4000})
        assert (await socket.receive_output())["type"] == "websocket.close"
        await socket.wait()
    assert [event[0] for event in seen if isinstance(event, tuple)] == ["disconnect"]


async def test_an_event_that_cannot_be_opened_ends_its_reader_as_an_error() -> None:
    class Torn(InMemoryChannelLayer):
        def seal(self, message: Any, group: str | None = None) -> Any:
            envelope = super().seal(message, group)
            envelope.payload = b"\xc1"
            return envelope

    for concurrency in (1, 2):
        kind = type("Reader", (Member,), {"concurrency": concurrency})
        async with Torn() as layer:
            socket = socket_to(kind, layer=layer)
            await socket.connect()
            await layer.group_send("room", {"type": "chat.message"})
            with pytest.raises(ValueError, match="MessagePack data is malformed") as caught:
                await socket.wait()
            assert "Reader" in caught.value.__notes__[0]
            assert (await socket.receive_output())["code"] == 1011


# ---- what overflows


class Slow(Member):
    """Handles nothing until it may."""

    may = anyio.Event()
    inbox = Inbox(messages=2)

    async def websocket_connect(self, message: Event) -> None:
        await super().websocket_connect(message)
        await self.may.wait()


async def flooded(kind: type[Slow], seen: list[Any]) -> list[Any]:
    kind.may = anyio.Event()
    async with InMemoryChannelLayer() as layer, connected(kind, layer=layer, seen=seen) as socket:
        for text in "abcd":
            await layer.group_send("room", {"type": "chat.message", "text": text})
        assert layer.statistics().dropped == 2
        kind.may.set()
        received = [await socket.receive_from() for _ in range(2)]
        await anyio.wait_all_tasks_blocked()
        return received


async def test_what_overflows_is_dropped_and_by_default_not_told() -> None:
    assert await flooded(Slow, []) == ["a", "b"]


async def test_what_overflows_is_told_to_who_wants_to_know() -> None:
    class Curious(Slow):
        async def layer_dropped(self, event: Event) -> None:
            self.seen.append((event["count"], event["groups"], self.statistics().inbox.dropped))

    seen: list[Any] = []
    assert await flooded(Curious, seen) == ["a", "b"]
    assert (2, ["room"], 2) in seen


async def test_a_resync_is_ignored_unless_a_consumer_wants_it() -> None:
    consumer = AsyncConsumer()
    await consumer.dispatch({"type": "layer.resync", "group": "room"})
    await consumer.dispatch({"type": "layer.dropped", "count": 1, "bytes": 1, "groups": []})


async def test_overflow_disconnect_closes_with_1013() -> None:
    class Strict(Slow):
        may = anyio.Event()
        inbox = Inbox(messages=2, overflow="disconnect")

    seen: list[Any] = []
    Strict.may = anyio.Event()
    async with InMemoryChannelLayer() as layer, connected(Strict, layer=layer, seen=seen) as socket:
        for text in "abc":
            await layer.group_send("room", {"type": "chat.message", "text": text})
        assert layer.statistics().memberships == 0  # at once, while the handler still has its grace
        Strict.may.set()
        event = await socket.receive_output()
        assert (event["type"], event["code"]) == ("websocket.close", 1013)
        await socket.wait()
    assert seen == ["connect", ("disconnect", 1013, 1013, "too slow: try again later")]


async def test_the_capacity_of_the_channel_bounds_an_inbox_that_names_no_bound() -> None:
    class Roomy(Slow):
        inbox = Inbox()

    Roomy.may = anyio.Event()
    async with InMemoryChannelLayer(capacity=1) as layer, connected(Roomy, layer=layer) as socket:
        for text in "ab":
            await layer.group_send("room", {"type": "chat.message", "text": text})
        Roomy.may.set()
        assert await socket.receive_from() == "a"
        assert await socket.receive_nothing()


# ---- one handler at a time, or several


class Steps(Recorder):
    """Each message waits for its own permission: "<key>:<name>"."""

    def __init__(self, seen: list[Any], gates: dict[str, anyio.Event]) -> None:
        super().__init__(seen)
        self.gates = gates

    async def websocket_receive(self, message: Event) -> None:
        text = message["text"]
        self.seen.append(f"{text} begins")
        await self.gates.setdefault(text, anyio.Event()).wait()
        self.seen.append(f"{text} ends")


class Keyed(Steps):
    concurrency = 3

    def order_key(self, message: Event) -> Hashable | None:
        key: str = message["text"].partition(":")[0]
        return key or None


async def test_handlers_run_one_at_a_time_by_default() -> None:
    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    async with connected(Steps, seen=seen, gates=gates) as socket:
        await socket.send_to("a")
        await socket.send_to("b")
        await anyio.wait_all_tasks_blocked()
        assert seen == ["connect", "a begins"]
        gates["a"].set()
        await anyio.wait_all_tasks_blocked()
        assert seen[2:] == ["a ends", "b begins"]
        gates["b"].set()


async def test_concurrency_lets_so_many_run_and_no_more() -> None:
    class Two(Steps):
        concurrency = 2

    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    async with connected(Two, seen=seen, gates=gates) as socket:
        for text in "abc":
            await socket.send_to(text)
        await anyio.wait_all_tasks_blocked()
        assert sorted(seen) == ["a begins", "b begins", "connect"]
        gates["b"].set()
        await anyio.wait_all_tasks_blocked()
        assert seen[-2:] == ["b ends", "c begins"]
        for gate in gates.values():
            gate.set()


async def test_what_waits_for_one_of_several_handlers_waits_in_the_inbox_and_is_counted(autojump_clock: object) -> None:
    class Stuck(Recorder):
        concurrency = 2

        async def websocket_receive(self, message: Event) -> None:
            self.seen.append(self)
            await anyio.sleep_forever()

    seen: list[Any] = []
    async with connected(Stuck, seen=seen, timeout=20) as socket:
        for text in "abcde":
            await socket.send_to(text)
        await anyio.wait_all_tasks_blocked()
        consumer = seen[-1]
        assert consumer.statistics().handlers == 2
        assert consumer.statistics().inbox.client_messages == 3
    assert consumer.statistics().handled == 3  # with connect
    assert consumer.statistics().discarded == 3


async def test_events_of_one_key_follow_each_other_and_others_pass() -> None:
    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    async with connected(Keyed, seen=seen, gates=gates) as socket:
        for text in ("ann:1", "ann:2", "bob:1"):
            await socket.send_to(text)
        await anyio.wait_all_tasks_blocked()
        assert sorted(seen) == ["ann:1 begins", "bob:1 begins", "connect"]
        gates["bob:1"].set()
        await anyio.wait_all_tasks_blocked()
        await socket.send_to(":free")
        await anyio.wait_all_tasks_blocked()
        assert seen[-1] == ":free begins"
        gates["ann:1"].set()
        await anyio.wait_all_tasks_blocked()
        assert seen[-2:] == ["ann:1 ends", "ann:2 begins"]
        for gate in gates.values():
            gate.set()
        await anyio.wait_all_tasks_blocked()
        await socket.send_to("ann:3")  # nothing is left of the sequence, and it begins anew
        await anyio.wait_all_tasks_blocked()
        assert seen[-1] == "ann:3 begins"
        gates["ann:3"].set()


async def test_connect_is_handled_alone() -> None:
    class Careful(Keyed):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            await self.gates.setdefault("connect", anyio.Event()).wait()
            self.seen.append("connected")

    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    async with connected(Careful, seen=seen, gates=gates) as socket:
        await socket.send_to("a")
        await anyio.wait_all_tasks_blocked()
        assert seen == ["connect"]
        gates["connect"].set()
        await anyio.wait_all_tasks_blocked()
        assert seen == ["connect", "connected", "a begins"]
        gates["a"].set()


async def test_an_order_key_that_fails_is_a_failure_of_the_consumer() -> None:
    class Keyless(Recorder):
        concurrency = 2

        def order_key(self, message: Event) -> Hashable | None:
            raise KeyError("no sender")

    socket = socket_to(Keyless)
    await socket.connect()
    await socket.send_to("a")
    with pytest.raises(KeyError) as caught:
        await socket.wait()
    assert "Keyless at websocket /ws/" in caught.value.__notes__[0]
    assert (await socket.receive_output())["code"] == 1011


# ---- backpressure


def eager(events: list[Event]) -> Receive:
    """Return a ``receive`` that gives all it has without ever yielding, as some servers do."""

    async def receive() -> Event:
        if not events:
            await anyio.sleep_forever()
        return events.pop(0)

    return receive


def receives(count: int) -> list[Event]:
    return [{"type": "websocket.receive", "text": str(number)} for number in range(count)]


async def test_on_our_server_a_full_client_side_stops_the_reading_and_loses_nothing() -> None:
    class Narrow(Steps):
        inbox = Inbox(client_messages=3)

    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    events = [{"type": "websocket.connect"}, *receives(10)]
    sent: list[Event] = []
    scope: Scope = {"type": "websocket", "extensions": {"trichannels.transport": OurTransport()}}
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(Narrow(seen, gates), scope, eager(events), keep(sent))
        await anyio.wait_all_tasks_blocked()
        assert len(events) == 6  # connect and one are handled, three wait
        for number in range(10):
            gates[str(number)].set()
            await anyio.wait_all_tasks_blocked()
        assert seen[-1] == "9 ends"
        nursery.cancel_scope.cancel()
    assert [text for text in seen if str(text).endswith("ends")] == [f"{number} ends" for number in range(10)]


def keep(sent: list[Event]) -> Send:
    async def send(event: Event) -> None:
        sent.append(event)

    return send


async def test_on_a_foreign_server_a_client_side_that_stays_full_closes_with_1013(autojump_clock: object) -> None:
    class Narrow(Steps):
        inbox = Inbox(client_messages=3)

    seen: list[Any] = []
    gates = {str(number): anyio.Event() for number in range(4)}
    async with connected(Narrow, seen=seen, gates=gates) as socket:
        await socket.send_to("0")
        await anyio.wait_all_tasks_blocked()
        for number in range(1, 4):
            await socket.send_to(str(number))
        await anyio.wait_all_tasks_blocked()
        assert await socket.receive_nothing(0)
        await socket.send_to("one too many")
        await anyio.sleep(FOREIGN_PATIENCE * 1.5)
        gates["0"].set()  # it has its grace; those that wait are discarded
        event = await socket.receive_output()
        assert (event["type"], event["code"]) == ("websocket.close", 1013)
        await socket.wait()
    assert seen == ["connect", "0 begins", "0 ends", ("disconnect", 1013, 1013, "too slow: try again later")]


async def test_so_does_one_that_is_full_of_bytes(autojump_clock: object) -> None:
    class Narrow(Steps):
        inbox = Inbox(client_bytes=1000)

    gates: dict[str, anyio.Event] = {}
    async with connected(Narrow, seen=[], gates=gates) as socket:
        await socket.send_to("0")
        await anyio.wait_all_tasks_blocked()
        await socket.send_to("ü" * 500)
        await socket.send_to("x")
        await anyio.sleep(FOREIGN_PATIENCE * 1.5)
        gates["0"].set()
        assert (await socket.receive_output())["code"] == 1013


async def test_a_client_side_that_is_full_for_a_moment_loses_nothing(autojump_clock: object) -> None:
    class Narrow(Steps):
        inbox = Inbox(client_messages=1)

    seen: list[Any] = []
    gates = {str(number): anyio.Event() for number in range(4)}
    async with connected(Narrow, seen=seen, gates=gates) as socket:
        for number in range(4):
            await socket.send_to(str(number))
        await anyio.sleep(FOREIGN_PATIENCE / 2)
        for gate in gates.values():
            gate.set()
    assert [text for text in seen if "begins" in str(text)] == [f"{number} begins" for number in range(4)]


async def test_a_refusal_that_is_left_unfinished_is_not_closed_as_well() -> None:
    class Unfinished(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.base_send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await self.base_send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
            raise StopConsumer

    sent: list[Event] = []
    await Unfinished()({"type": "websocket"}, eager([{"type": "websocket.connect"}]), keep(sent))
    assert [event["type"] for event in sent] == ["websocket.http.response.start", "websocket.http.response.body"]


async def test_a_burst_is_no_slowness_on_a_server_that_gives_all_at_once() -> None:
    seen: list[Any] = []
    sent: list[Event] = []
    events = [{"type": "websocket.connect"}, *receives(1000), {"type": "websocket.disconnect", "code": 1001}]
    await Recorder(seen)({"type": "websocket"}, eager(events), keep(sent))
    assert [event["type"] for event in sent] == ["websocket.accept"]
    assert seen == ["connect", *map(str, range(1000)), ("disconnect", 1001, 1001, "")]


async def test_a_slow_handler_does_not_delay_the_detection_of_the_disconnect(autojump_clock: object) -> None:
    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    consumers: list[Any] = []

    class Watching(Steps):
        disconnect_grace = 50.0

        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            consumers.append(self)

    socket = socket_to(Watching, seen=seen, gates=gates)
    await socket.connect()
    await socket.send_to("a")
    await socket.send_to("b")
    await anyio.wait_all_tasks_blocked()
    (consumer,) = consumers
    await socket.send_input({"type": "websocket.disconnect", "code": 4001, "reason": "enough"})
    await anyio.wait_all_tasks_blocked()
    assert (consumer.close_code, consumer.close_reason) == (4001, "enough")
    assert consumer.statistics().state == "disconnected"
    with pytest.raises(ConnectionClosed, match=r"4001, enough"):
        await consumer.send({"type": "websocket.send", "text": "to nobody"})
    gates["a"].set()
    await anyio.wait_all_tasks_blocked()
    gates["b"].set()
    await socket.wait()
    # what the client sent before it left is still handled, in order, and then disconnect()
    assert seen[1:] == ["a begins", "a ends", "b begins", "b ends", ("disconnect", 4001, 4001, "enough")]


async def test_our_server_tells_of_the_disconnect_while_nobody_reads() -> None:
    class Narrow(Steps):
        inbox = Inbox(client_messages=1)

    seen: list[Any] = []
    gates: dict[str, anyio.Event] = {}
    transport = OurTransport()
    async with InMemoryChannelLayer() as layer:
        async with connected(Narrow, seen=seen, gates=gates, transport=transport, layer=layer) as socket:
            for text in "abc":
                await socket.send_to(text)
            await anyio.wait_all_tasks_blocked()
            assert layer.statistics().channels == 1
            transport.peer_leaves(4002, "gone")
            assert layer.statistics().channels == 0
            for text in "abc":
                gates.setdefault(text, anyio.Event()).set()
        assert seen[-1] == ("disconnect", 1000, 1000, "")  # the communicator's own word for it is the more exact one
        assert [text for text in seen if str(text).endswith("ends")] == ["a ends", "b ends", "c ends"]
        assert len(transport.bounded) == 1


# ---- grace and timeout


class Stubborn(Recorder):
    disconnect_grace = 3.0
    disconnect_timeout = 2.0

    async def websocket_receive(self, message: Event) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.seen.append(("cancelled at", anyio.current_time()))

    async def websocket_disconnect(self, message: Event) -> None:
        self.seen.append(("disconnect at", anyio.current_time()))
        await anyio.sleep_forever()


async def test_a_handler_gets_its_grace_and_disconnect_its_timeout(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    socket = socket_to(Stubborn, seen=seen)
    await socket.connect()
    await socket.send_to("a")
    await anyio.wait_all_tasks_blocked()
    start = anyio.current_time()
    await socket.disconnect(timeout=10)
    assert seen[1:] == [("cancelled at", pytest.approx(start + 3)), ("disconnect at", pytest.approx(start + 3))]
    assert anyio.current_time() == pytest.approx(start + 5)
    (record,) = caplog.records
    assert "disconnect() of Stubborn at websocket /ws/ did not end in 2 s" in record.getMessage()


async def test_an_owners_cancellation_gives_no_grace(autojump_clock: object) -> None:
    class Brief(Stubborn):
        async def websocket_disconnect(self, message: Event) -> None:
            await anyio.sleep(1)
            self.seen.append(("disconnect", message["code"], anyio.current_time()))

    seen: list[Any] = []
    socket = socket_to(Brief, seen=seen)
    await socket.connect()
    await socket.send_to("a")
    await anyio.wait_all_tasks_blocked()
    start = anyio.current_time()
    socket.stop()
    await socket.wait(10)
    assert seen[1:] == [("cancelled at", start), ("disconnect", 1001, pytest.approx(start + 1))]
    assert (await socket.receive_output())["code"] == 1001


async def test_a_cancelled_instance_has_left_its_groups_before_its_tasks_are_waited_for() -> None:
    class Tidy(Member):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            self.nursery.start_soon(self.hold)

        async def hold(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()  # so the instance has had its turn
                    self.seen.append((self._instance.state, self.channel_layer.members()))

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer:
        socket = socket_to(Tidy, layer=layer, seen=seen)
        await socket.connect()
        await anyio.wait_all_tasks_blocked()
        socket.stop()
        await socket.wait(10)
    assert ("cancelled", {}) in seen


async def test_disconnect_may_publish_and_call_close_and_send_ends_it() -> None:
    class Polite(Member):
        async def websocket_disconnect(self, message: Event) -> None:
            await self.channel_layer.group_send("others", {"type": "chat.message", "text": "bye"})
            with pytest.raises(ConnectionClosed):
                await self.join("room")
            self.seen.append("published")
            await self.send({"type": "websocket.send", "text": "to nobody"})

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer, layer.subscribe("others") as events:
        async with connected(Polite, layer=layer, seen=seen):
            pass
        assert (await events.receive())["text"] == "bye"
        assert layer.statistics().memberships == 1
    assert seen == ["connect", "published"]


# ---- stopping, failing


@pytest.mark.parametrize("where", ["connect", "receive", "nursery"])
async def test_stop_consumer_ends_in_the_ordinary_order(where: str) -> None:
    class Stopping(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            if where == "connect":
                raise StopConsumer
            if where == "nursery":
                self.nursery.start_soon(self.stop)

        async def websocket_receive(self, message: Event) -> None:
            raise StopConsumer

        async def stop(self) -> None:
            raise StopConsumer

    seen: list[Any] = []
    socket = socket_to(Stopping, seen=seen)
    await socket.connect()
    if where == "receive":
        await socket.send_to("stop")
    assert (await socket.receive_output())["code"] == 1000
    await socket.wait()
    assert seen == ["connect", ("disconnect", 1000, 1000, "")]


async def test_stopped_before_accepting_the_socket_is_refused() -> None:
    class Refusing(AsyncConsumer):
        async def websocket_connect(self, message: Event) -> None:
            raise StopConsumer

    with pytest.raises(SocketRefused):
        async with connected(Refusing):
            pass


@pytest.mark.parametrize("where", ["receive", "nursery", "layer"])
async def test_an_error_is_raised_once_as_itself_with_a_note_of_where(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("out of order")

    class Failing(Member):
        async def websocket_receive(self, message: Event) -> None:
            if where == "receive":
                raise error
            self.nursery.start_soon(self.fail)

        async def fail(self) -> None:
            raise error

        async def chat_message(self, event: Event) -> None:
            raise error

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer:
        socket = socket_to(Failing, "/ws/lobby/", layer=layer, seen=seen)
        await socket.connect()
        channel = next(iter(layer.board.mailboxes))
        if where == "layer":
            await layer.group_send("room", {"type": "chat.message"})
        else:
            await socket.send_to("fail")
        with pytest.raises(ValueError) as caught:
            await socket.wait()
        assert (await socket.receive_output())["code"] == 1011
    assert caught.value is error
    (note,) = error.__notes__
    for fact in ("Failing", "websocket /ws/lobby/", channel):
        assert fact in note
    assert seen == ["connect", ("disconnect", 1011, 1011, "")]
    assert caplog.records == []


async def test_of_several_errors_one_is_raised_and_the_others_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            raise ExceptionGroup("both", [ValueError("one"), ExceptionGroup("", [KeyError("two")])])

        async def websocket_disconnect(self, message: Event) -> None:
            raise RuntimeError("three")

    socket = socket_to(Failing)
    await socket.connect()
    await socket.send_to("fail")
    with pytest.raises(ValueError, match="one"):
        await socket.wait()
    told = [repr(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert told == ["KeyError('two')", "RuntimeError('three')"]
    assert {record.name for record in caplog.records} == {"trichannels.instance"}


async def test_an_error_in_disconnect_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        async def websocket_disconnect(self, message: Event) -> None:
            raise RuntimeError("while leaving")

    socket = socket_to(Failing)
    await socket.connect()
    with pytest.raises(RuntimeError, match="while leaving") as caught:
        await socket.disconnect()
    assert "Failing" in caught.value.__notes__[0]
    assert caplog.records == []


async def test_an_error_before_accepting_leaves_the_answer_to_the_server() -> None:
    class Failing(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            raise ValueError("no")

    seen: list[Any] = []
    socket = socket_to(Failing, seen=seen)
    with pytest.raises(ValueError, match="no"):
        await socket.connect()
    assert seen == [("disconnect", 1011, 1011, "")]


async def test_an_error_under_cancellation_is_logged_because_nobody_else_tells(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    class Failing(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("while cancelled")

    socket = socket_to(Failing)
    await socket.connect()
    await socket.send_to("a")
    await anyio.wait_all_tasks_blocked()
    socket.stop()
    await socket.wait()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert "Failing at websocket /ws/" in record.getMessage()
    assert record.levelno == logging.ERROR


async def test_connection_closed_is_a_normal_end(caplog: pytest.LogCaptureFixture) -> None:
    class Sending(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            self.nursery.start_soon(self.feed)

        async def feed(self) -> None:
            while True:
                await self.send({"type": "websocket.send", "text": "tick"})

    seen: list[Any] = []
    async with connected(Sending, seen=seen) as socket:
        await socket.receive_from()
    assert seen == ["connect", ("disconnect", 1000, 1000, "")]
    assert caplog.records == []


async def test_an_oserror_of_a_foreign_servers_send_is_the_peers_leaving() -> None:
    seen: list[Any] = []

    class Sending(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            await self.send({"type": "websocket.send", "text": "x"})

    async def send(event: Event) -> None:
        if event["type"] == "websocket.send":
            raise BrokenPipeError

    events = [{"type": "websocket.connect"}, *receives(1), {"type": "websocket.disconnect", "code": 1006}]
    await Sending(seen)({"type": "websocket"}, eager(events), send)
    assert seen == ["connect", ("disconnect", 1006, 1006, "")]


async def test_an_event_out_of_turn_is_an_error_of_the_consumer() -> None:
    class Hasty(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            await self.send({"type": "websocket.accept"})

    socket = socket_to(Hasty)
    await socket.connect()
    await socket.send_to("a")
    with pytest.raises(OutOfTurn):
        await socket.wait()


# ---- the nursery


async def test_background_tasks_end_with_the_socket_and_are_counted() -> None:
    found: list[Any] = []

    class Busy(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            self.nursery.start_soon(self.background)
            await self.nursery.start(self.reporting)

        async def background(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.seen.append("background ends")

        async def reporting(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            task_status.started()

        async def websocket_receive(self, message: Event) -> None:
            found.append(self.statistics())

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer, connected(Busy, seen=seen, layer=layer) as socket:
        await socket.send_to("a")
        await anyio.wait_all_tasks_blocked()
        (statistics,) = found
        assert (statistics.state, statistics.tasks, statistics.handlers, statistics.handled) == ("open", 1, 1, 1)
        assert statistics.groups == ()
        assert statistics.channel
    assert seen == ["connect", "background ends", ("disconnect", 1000, 1000, "")]


async def test_a_failed_task_ends_the_socket_at_once_whatever_the_others_do(autojump_clock: object) -> None:
    found: list[Any] = []

    class Failing(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            await super().websocket_connect(message)
            await self.join("room")
            self.nursery.start_soon(self.lingering)
            self.nursery.start_soon(self.failing)
            found.append(self.statistics().tasks)

        async def lingering(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(100)
            found.append((self.statistics().state, self.statistics().groups))

        async def failing(self) -> None:
            await anyio.sleep(1)
            raise ValueError("in the background")

    async with InMemoryChannelLayer() as layer:
        socket = socket_to(Failing, layer=layer)
        await socket.connect()
        await anyio.sleep(2)
        assert layer.statistics().memberships == 0
        with pytest.raises(ValueError, match="in the background"):
            await socket.wait(200)
    assert found == [2, ("failed", ())]


async def test_disconnect_sees_the_context_variables_that_connect_has_set() -> None:
    user: ContextVar[str] = ContextVar("user")

    class Bound(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            user.set("Ada")
            await super().websocket_connect(message)

        async def websocket_disconnect(self, message: Event) -> None:
            self.seen.append(user.get())

    seen: list[Any] = []
    async with connected(Bound, seen=seen):
        pass
    assert seen == ["connect", "Ada"]


async def test_a_server_that_raises_during_the_end_does_not_hide_the_error_that_ended_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    saying_goodbye, refused = anyio.Event(), anyio.Event()

    class Failing(Recorder):
        async def websocket_connect(self, message: Event) -> None:
            raise KeyError("mine")

        async def websocket_disconnect(self, message: Event) -> None:
            saying_goodbye.set()
            await refused.wait()

    events = [{"type": "websocket.connect"}]

    async def receive() -> Event:
        if events:
            return events.pop()
        await saying_goodbye.wait()
        refused.set()
        raise OSError("the server's")

    async def send(event: Event) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(KeyError, match="mine"):
        await Failing.as_asgi()({"type": "websocket", "path": "/"}, receive, send)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["the server's"]


@pytest.mark.parametrize("where", ["handler", "task", "disconnect"])
def test_a_stray_cancellation_of_asyncio_is_a_failure_that_is_told(where: str) -> None:
    async def stray() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    class Awaiting(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            if where == "handler":
                await stray()
            elif where == "task":
                self.nursery.start_soon(stray)

        async def websocket_disconnect(self, message: Event) -> None:
            if where == "disconnect":
                await stray()

    async def main() -> None:
        socket = socket_to(Awaiting)
        await socket.connect()
        await socket.send_to("a")
        with pytest.raises(RuntimeError, match="nobody has cancelled us") as caught:
            await (socket.disconnect() if where == "disconnect" else socket.wait())
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert "Awaiting" in caught.value.__notes__[0]

    asyncio.run(main())


async def test_a_nursery_that_is_cancelled_ends_the_socket() -> None:
    class Ending(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            self.nursery.cancel_scope.cancel()

    seen: list[Any] = []
    async with connected(Ending, seen=seen) as socket:
        await socket.send_to("end")
        assert (await socket.receive_output())["code"] == 1000
        await socket.wait()
    assert seen == ["connect", ("disconnect", 1000, 1000, "")]


async def test_a_task_that_is_started_while_the_socket_is_cancelled_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Starting(Recorder):
        async def websocket_receive(self, message: Event) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.nursery.start_soon(anyio.sleep, 1)

    seen: list[Any] = []
    socket = socket_to(Starting, seen=seen)
    await socket.connect()
    await socket.send_to("a")
    await anyio.wait_all_tasks_blocked()
    socket.stop()
    await socket.wait()
    assert (await socket.receive_output())["code"] == 1001
    assert seen == ["connect", ("disconnect", 1001, 1001, "")]
    assert caplog.records == []


async def test_to_start_a_task_in_disconnect_is_an_error_that_tells_the_cure() -> None:
    class Starting(Recorder):
        async def websocket_disconnect(self, message: Event) -> None:
            self.nursery.start_soon(anyio.sleep, 1)

    socket = socket_to(Starting)
    await socket.connect()
    with pytest.raises(RuntimeError, match="await the work there instead"):
        await socket.disconnect()


async def test_other_protocols_are_served_too() -> None:
    class Worker(AsyncConsumer):
        async def job_done(self, message: Event) -> None:
            await self.send({"type": "done", "by": repr(self._instance)})
            raise StopConsumer

    app = ApplicationCommunicator(Worker.as_asgi(), {"type": "channel", "channel": "jobs"})
    await app.send_input({"type": "job.done"})
    assert (await app.receive_output())["by"].endswith("Worker at channel jobs open>")
    await app.wait()


# ---- blocking handlers


class Threaded(SyncConsumer):
    def __init__(self, seen: list[Any] | None = None) -> None:
        self.seen = seen if seen is not None else []

    def websocket_connect(self, message: Event) -> None:
        self.seen.append(threading.get_ident())
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, message: Event) -> None:
        self.seen.append(message["text"])

    def websocket_disconnect(self, message: Event) -> None:
        self.seen.append(("disconnect", message["code"], self.close_code))


async def test_blocking_handlers_run_in_threads_in_order() -> None:
    seen: list[Any] = []
    async with connected(Threaded, seen=seen) as socket:
        for text in "abcdef":
            await socket.send_to(text)
    assert seen[0] != threading.get_ident()
    assert seen[1:] == [*"abcdef", ("disconnect", 1000, 1000)]


class Barrier(Threaded):
    """Handlers that all must be in their threads at once."""

    barrier = threading.Barrier(3)

    def websocket_receive(self, message: Event) -> None:
        self.barrier.wait(10)
        self.send({"type": "websocket.send", "text": "met"})


async def test_several_instances_run_at_once() -> None:
    Barrier.barrier = threading.Barrier(3)
    async with connected(Barrier) as one, connected(Barrier) as two, connected(Barrier) as three:
        for socket in (one, two, three):
            await socket.send_to("go")
        for socket in (one, two, three):
            assert await socket.receive_from(10) == "met"


async def test_no_more_instances_run_at_once_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    trichannels.bridge.use_bridge(trichannels.bridge.Bridge(limit=2))
    most: list[int] = []
    lock, inside = threading.Lock(), [0]

    class Counted(Threaded):
        def websocket_receive(self, message: Event) -> None:
            with lock:
                inside[0] += 1
                most.append(inside[0])
            self.send({"type": "websocket.send", "text": "in"})
            with lock:
                inside[0] -= 1

    async with connected(Counted) as a, connected(Counted) as b, connected(Counted) as c, connected(Counted) as d:
        for socket in (a, b, c, d):
            await socket.send_to("go")
        for socket in (a, b, c, d):
            await socket.receive_from(10)
    assert max(most) <= 2


async def test_a_handler_in_a_thread_uses_the_layer_the_nursery_and_its_socket() -> None:
    class Chat(Threaded):
        def websocket_connect(self, message: Event) -> None:
            self.join("room")
            self.join("other")
            self.leave("other")
            super().websocket_connect(message)
            self.base_send({"type": "websocket.send", "text": "sent by base_send"})

        def websocket_receive(self, message: Event) -> None:
            assert get_channel_layer() == self.channel_layer
            self.nursery.start_soon(self.answer, message["text"], name="answer")

        async def answer(self, text: str) -> None:
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": text})

        def chat_message(self, event: Event) -> None:
            if event["text"] != "echo":
                async_to_sync(self.channel_layer.group_send)("room", {"type": "chat.message", "text": "echo"})
            self.send({"type": "websocket.send", "text": event["text"]})

    async with InMemoryChannelLayer() as layer:
        with registered({"default": layer}):
            async with connected(Chat) as socket:
                assert await socket.receive_from() == "sent by base_send"
                assert layer.statistics().memberships == 1
                await socket.send_to("hi")
                assert [await socket.receive_from(), await socket.receive_from()] == ["hi", "echo"]


async def test_the_layer_blocks_in_a_handler_and_needs_no_other_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a group has been sent when the call returns, by the loop that has the layer open."""

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("an event loop was made")

    class Chat(Threaded):
        def websocket_receive(self, message: Event) -> None:
            monkeypatch.setattr(asyncio, "new_event_loop", refuse)
            assert self.channel_layer.group_send("room", {"type": "chat.message", "text": "a"}) is None
            self.channel_layer.group_add("room", self.channel_name)
            self.channel_layer.group_send("room", {"type": "chat.message", "text": "b"})
            self.channel_layer.group_discard("room", self.channel_name)
            self.channel_layer.group_send("room", {"type": "chat.message", "text": "c"})
            self.channel_layer.send(self.channel_name, {"type": "chat.message", "text": "d"})

        def chat_message(self, event: Event) -> None:
            self.send({"type": "websocket.send", "text": event["text"]})

    async with InMemoryChannelLayer() as layer:
        with registered({"default": layer}):
            async with connected(Chat) as socket, layer.subscribe("room") as events:
                await socket.send_to("go")
                assert [await socket.receive_from(), await socket.receive_from()] == ["b", "d"]
                assert [(await events.receive())["text"] for _ in range(3)] == ["a", "b", "c"]


async def test_an_error_in_a_thread_ends_the_instance_as_any_other() -> None:
    class Failing(Threaded):
        def websocket_receive(self, message: Event) -> None:
            raise ValueError("in a thread")

    seen: list[Any] = []
    socket = socket_to(Failing, seen=seen)
    await socket.connect()
    await socket.send_to("a")
    with pytest.raises(ValueError, match="in a thread") as caught:
        await socket.wait(5)
    assert "Failing at websocket /ws/" in caught.value.__notes__[0]
    assert (await socket.receive_output())["code"] == 1011
    assert seen[1:] == [("disconnect", 1011, 1011)]


async def test_stop_consumer_passes_from_a_thread() -> None:
    class Stopping(Threaded):
        def websocket_receive(self, message: Event) -> None:
            raise StopConsumer

    async with connected(Stopping) as socket:
        await socket.send_to("a")
        assert (await socket.receive_output(5))["code"] == 1000


async def test_the_layers_notices_may_be_async_or_blocking() -> None:
    class Told(Threaded):
        def layer_resync(self, event: Event) -> None:  # type: ignore[override]
            self.seen.append(threading.get_ident())

        async def chat_message(self, event: Event) -> None:
            self.seen.append("async")

    consumer = Told()
    await consumer.dispatch({"type": "layer.dropped", "count": 1, "bytes": 1, "groups": []})
    await consumer.dispatch({"type": "layer.resync", "group": "room"})
    await consumer.dispatch({"type": "chat.message"})
    assert consumer.seen[0] != threading.get_ident()
    assert consumer.seen[1:] == ["async"]


async def test_a_handler_that_overstays_its_grace_is_left_behind_and_its_next_send_raises() -> None:
    go, begun, raised = threading.Event(), threading.Event(), list[BaseException]()

    class Overstaying(Threaded):
        disconnect_grace = 0.01

        def websocket_receive(self, message: Event) -> None:
            begun.set()
            go.wait(10)
            try:
                self.send({"type": "websocket.send", "text": "too late"})
            except BaseException as error:
                raised.append(error)
                raise

    seen: list[Any] = []
    socket = socket_to(Overstaying, seen=seen)
    await socket.connect()
    await socket.send_to("a")
    await anyio.to_thread.run_sync(begun.wait, 10)
    await socket.disconnect(timeout=10)
    assert seen[1:] == [("disconnect", 1000, 1000)]
    bridge = current_bridge()
    assert bridge.statistics().abandoned == 1
    go.set()
    with anyio.fail_after(10):
        while bridge.statistics().abandoned:
            await anyio.to_thread.run_sync(threading.Event().wait, 0.001)
    assert [type(error) for error in raised] == [ConnectionClosed]


async def test_an_ended_instance_joins_nothing_from_a_background_thread() -> None:
    class Late(WebsocketConsumer):
        def disconnect(self, code: int) -> None:
            try:
                self.join("room")
            except ConnectionClosed as error:
                ended.append(error.code)

    ended: list[int] = []
    async with InMemoryChannelLayer() as layer:
        async with connected(Late, layer=layer):
            pass
        assert layer.statistics().memberships == 0
    assert ended == [1000]


async def test_an_overridden_join_does_not_break_groups() -> None:
    class Game(AsyncWebsocketConsumer):
        groups = ("lobby",)

        async def join(self, event: Event) -> None:  # type: ignore[override]
            await self.send(text_data=f"{event['who']} joins")

    async with InMemoryChannelLayer() as layer, connected(Game, layer=layer) as socket:
        await layer.group_send("lobby", {"type": "join", "who": "Ann"})
        assert await socket.receive_from() == "Ann joins"


async def test_a_dispatch_that_is_put_in_place_of_ours_later_sees_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send("heard")

    seen: list[str] = []
    ours = AsyncConsumer.dispatch

    async def watching(self: AsyncConsumer, message: Event) -> None:
        seen.append(message["type"])
        await ours(self, message)

    monkeypatch.setattr(AsyncConsumer, "dispatch", watching)
    async with WebsocketCommunicator(Plain.as_asgi(), "/") as socket:
        await socket.send_to("hello")
        assert await socket.receive_from() == "heard"
    assert seen[:2] == ["websocket.connect", "websocket.receive"]
