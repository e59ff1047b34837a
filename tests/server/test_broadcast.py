"""Events that members send unchanged: framed once and written at once, in order, wherever nothing stands between."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import pytest
import trio
from trio_websocket import ConnectionClosed

from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.exceptions import ConfigError
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer, shared_payload
from trichannels.inbox import Inbox
from trichannels.layers import InMemoryChannelLayer, switchboard
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.server import transport
from trichannels.server.ends import SocketEnd
from trichannels.testing import LiveServer, WebsocketCommunicator

pytestmark = [pytest.mark.server, pytest.mark.trio_only, pytest.mark.usefixtures("descriptors")]


class Room(AsyncWebsocketConsumer):
    """Sends on what its group is sent; what its client says goes to the group as it is."""

    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        event = {"type": "websocket.send", "text": text_data, "bytes": bytes_data}
        await self.channel_layer.group_send("room", {key: value for key, value in event.items() if value is not None})


class BlockingRoom(WebsocketConsumer):
    groups = ("room",)


class Loud(Room):
    """Has a handler of its own."""

    async def websocket_send(self, message: Event) -> None:
        await self.send(message["text"].upper())


class Gated(Room):
    """Has a slow handler for other events of the group."""

    gate = trio.Event()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("room", {"type": "slow"})
        await self.send("asked")
        await super().receive(text_data, bytes_data)
        await self.send("answered")

    async def slow(self, event: Event) -> None:
        await self.gate.wait()
        await self.send("slow")


def routed(consumer: Any, layer: InMemoryChannelLayer | None = None) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"websocket": consumer.as_asgi()}, layers={"default": layer or InMemoryChannelLayer()})


@pytest.fixture
def framed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The events for which a frame was made, to be shared."""
    made: list[Any] = []
    frame = transport._framed

    def spy(event: Any, *how: Any) -> bytes:
        data = frame(event, *how)
        if data:
            made.append(dict(event.peek()))
        return data

    monkeypatch.setattr(transport, "_framed", spy)
    return made


async def test_an_event_for_many_is_framed_once(framed: list[Any]) -> None:
    layer = InMemoryChannelLayer()
    async with LiveServer(routed(Room, layer)) as live, live.connect() as a, live.connect() as b, live.connect() as c:
        await a.send_message("hello")
        await b.send_message(b"\x00\xff")
        for client in (a, b, c):
            assert {await client.get_message(), await client.get_message()} == {"hello", b"\x00\xff"}
        assert len(framed) == 2
        assert layer.statistics().delivered == 6
        assert layer.statistics().waiting_messages == 0


async def test_blocking_consumers_have_it_too(framed: list[Any]) -> None:
    layer = InMemoryChannelLayer()
    async with LiveServer(routed(BlockingRoom, layer)) as live, live.connect() as a, live.connect() as b:
        await layer.group_send("room", {"type": "websocket.send", "text": "ünïcode"})
        assert await a.get_message() == await b.get_message() == "ünïcode"
    assert len(framed) == 1


async def test_a_handler_of_ones_own_is_asked(framed: list[Any]) -> None:
    async with LiveServer(routed(Loud)) as live, live.connect() as client:
        await client.send_message("hello")
        assert await client.get_message() == "HELLO"
    assert not framed


async def test_middleware_that_wraps_send_sees_every_event(framed: list[Any]) -> None:
    seen: list[str] = []

    def watching(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def watched(event: Event) -> None:
                seen.append(event["type"])
                await send(event)

            await inner(scope, receive, watched)

        return app

    application = ProtocolTypeRouter(
        {"websocket": watching(Room.as_asgi())}, layers={"default": InMemoryChannelLayer()}
    )
    async with LiveServer(application) as live, live.connect() as client:
        await client.send_message("hello")
        assert await client.get_message() == "hello"
    assert seen == ["websocket.accept", "websocket.send"]
    assert not framed


async def test_it_does_not_overtake_an_event_that_waits_or_is_being_handled(framed: list[Any]) -> None:
    Gated.gate = trio.Event()
    async with LiveServer(routed(Gated)) as live, live.connect() as client, live.connect() as other:
        await client.send_message("first")  # behind "slow" in the inboxes, though its socket could take it
        assert [await client.get_message() for _ in range(2)] == ["asked", "answered"]
        Gated.gate.set()
        assert [await client.get_message() for _ in range(2)] == ["slow", "first"]
        assert [await other.get_message() for _ in range(2)] == ["slow", "first"]
    assert not framed


async def test_order_with_the_sockets_own_sends_is_kept() -> None:
    class Counting(Room):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for number in range(50):
                await self.send(f"own {number}")
                await self.channel_layer.group_send("room", {"type": "websocket.send", "text": f"all {number}"})

    async with LiveServer(routed(Counting)) as live, live.connect() as client:
        await client.send_message("count")
        got = [await client.get_message() for _ in range(100)]
    assert got == [f"{kind} {number}" for number in range(50) for kind in ("own", "all")]


async def test_before_the_socket_is_accepted_it_waits(framed: list[Any]) -> None:
    inside, gate = trio.Event(), trio.Event()
    layer = InMemoryChannelLayer()

    class Late(Room):
        async def connect(self) -> None:
            inside.set()
            await gate.wait()
            await self.accept()

    async with LiveServer(routed(Late, layer)) as live, trio.open_nursery() as nursery:

        async def client() -> None:
            async with live.connect() as socket:
                assert await socket.get_message() == "early"

        nursery.start_soon(client)
        await inside.wait()
        await layer.group_send("room", {"type": "websocket.send", "text": "early"})
        assert layer.statistics().waiting_messages == 1
        gate.set()


@pytest.mark.parametrize("event", [{}, {"text": 3}])
async def test_a_malformed_event_fails_where_it_is_handled(event: dict[str, Any], caplog: Any) -> None:
    layer = InMemoryChannelLayer()
    async with LiveServer(routed(Room, layer)) as live, live.connect() as client:
        await layer.group_send("room", {"type": "websocket.send", **event})
        with pytest.raises(ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1011
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == ["ERROR"]


async def test_text_goes_before_bytes_as_in_a_handler() -> None:
    layer = InMemoryChannelLayer()
    async with LiveServer(routed(Room, layer)) as live, live.connect() as client:
        await layer.group_send("room", {"type": "websocket.send", "text": "both", "bytes": b"both"})
        assert await client.get_message() == "both"


async def test_a_client_that_stops_reading_costs_its_bounds_and_nobody_else() -> None:
    layer = InMemoryChannelLayer()
    overrun = trio.Event()

    class Cut(Room):
        inbox = Inbox(messages=4, overflow="disconnect")

        async def disconnect(self, code: int) -> None:
            if code == 1013:
                overrun.set()

    options: dict[str, Any] = {"write_buffer": 65536, "write_timeout": 60}
    async with LiveServer(routed(Cut, layer), **options) as live, live.connect() as deaf, live.connect() as good:
        with trio.fail_after(20):
            while not overrun.is_set():
                await layer.group_send("room", {"type": "websocket.send", "bytes": b"x" * 60_000})
                assert len(await good.get_message()) == 60_000
        assert layer.statistics().memberships == 1
        assert layer.statistics().dropped == 1
        del deaf


async def test_a_large_group_lets_others_run_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "CHUNK", 2)
    order: list[str] = []

    class Member:
        """Stands for a mailbox."""

        def __init__(self, leave: Callable[[], None] = lambda: None) -> None:
            self.leave = leave

        def deliver(self, envelope: Any) -> bool:
            order.append("member")
            self.leave()
            return True

    async def other() -> None:
        order.append("other")

    async with InMemoryChannelLayer() as layer, trio.open_nursery() as nursery:
        members: dict[str, Any] = {str(number): Member() for number in range(5)}
        members["0"].leave = lambda: members.pop("3")  # who has left meanwhile gets nothing
        layer.board.groups["room"] = members
        nursery.start_soon(other)
        with trio.CancelScope() as scope:
            await trio.lowlevel.checkpoint()
            order.clear()
            nursery.start_soon(other)
            await layer.group_send("room", {"type": "x"})
            scope.cancel()
        layer.board.groups.clear()
    assert order.count("member") == 4
    assert order.index("other") < len(order) - 1


async def test_a_cancelled_broadcast_reaches_all_or_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "CHUNK", 1)
    reached: list[int] = []

    class Member:
        def __init__(self, number: int, scope: trio.CancelScope) -> None:
            self.number, self.scope = number, scope

        def deliver(self, envelope: Any) -> bool:
            reached.append(self.number)
            if self.number == 1:
                self.scope.cancel()
            return True

    async with InMemoryChannelLayer() as layer:
        with trio.CancelScope() as scope:
            layer.board.groups["room"] = {str(number): Member(number, scope) for number in range(4)}
            await layer.group_send("room", {"type": "x"})
        layer.board.groups.clear()
    assert reached == [0, 1, 2, 3]


# ---- events of which a consumer says once what is sent


class Prices(Room):
    """Has a handler that makes one payload for all."""

    made: ClassVar[list[Any]]

    @shared_payload
    def price_changed(cls, event: Event) -> str | bytes:
        """Tell a price."""
        cls.made.append(event)
        return f"{event['symbol']} {event['price'] / 100:.2f}"

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("room", {"type": "price.changed", "symbol": text_data, "price": 150})
        await self.send("told")


class BlockingPrices(WebsocketConsumer):
    groups = ("room",)
    made: ClassVar[list[Any]]
    price_changed = Prices.__dict__["price_changed"]


class Raw(Room):
    made: ClassVar[list[Any]]

    @shared_payload
    def price_changed(cls, event: Event) -> str | bytes:
        """Tell it in bytes."""
        cls.made.append(event)
        return bytes([255, *event["symbol"].encode()])


PRICE = {"type": "price.changed", "symbol": "X", "price": 150}


@pytest.mark.parametrize("consumer", [Prices, BlockingPrices])
async def test_a_payload_is_made_once_for_all(consumer: Any) -> None:
    consumer.made = []
    layer = InMemoryChannelLayer()
    async with LiveServer(routed(consumer, layer)) as live, live.connect() as a, live.connect() as b:
        await layer.group_send("room", dict(PRICE))
        assert await a.get_message() == await b.get_message() == "X 1.50"
    assert consumer.made == [PRICE]


async def test_classes_of_one_group_make_a_payload_each(framed: list[Any]) -> None:
    Prices.made, Raw.made = [], []
    layer = InMemoryChannelLayer()
    routes = URLRouter([path("text", Prices.as_asgi()), path("raw", Raw.as_asgi()), path("loud", Loud.as_asgi())])
    application = ProtocolTypeRouter({"websocket": routes}, layers={"default": layer})
    async with LiveServer(application) as live, live.connect("/text") as text, live.connect("/raw") as raw:
        for _ in range(2):
            await layer.group_send("room", dict(PRICE))
            assert (await text.get_message(), await raw.get_message()) == ("X 1.50", b"\xffX")
    assert (len(Prices.made), len(Raw.made), len(framed)) == (2, 2, 4)


async def test_its_order_with_other_events_and_the_sockets_own_sends_is_kept() -> None:
    class Mixed(Prices):
        made: ClassVar[list[Any]] = []

        async def chat_message(self, event: Event) -> None:
            await self.send(event["text"])

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for number in range(50):
                await self.channel_layer.group_send("room", {"type": "price.changed", "symbol": "A", "price": number})
                await self.channel_layer.group_send("room", {"type": "chat.message", "text": f"chat {number}"})
                await self.channel_layer.group_send("room", {"type": "price.changed", "symbol": "B", "price": number})

    layer = InMemoryChannelLayer(capacity=1000)
    async with LiveServer(routed(Mixed, layer)) as live, live.connect() as client, live.connect() as other:
        await client.send_message("go")
        told = [(f"A {n / 100:.2f}", f"chat {n}", f"B {n / 100:.2f}") for n in range(50)]
        for socket in (client, other):
            assert [await socket.get_message() for _ in range(150)] == [text for three in told for text in three]


@pytest.mark.parametrize("where", ["behind middleware", "side by side", "in a communicator"])
async def test_elsewhere_each_sends_it_by_itself(where: str) -> None:
    class Watched(Prices):
        made: ClassVar[list[Any]] = []
        concurrency = 2 if where == "side by side" else 1

        async def dispatch(self, message: Event) -> None:
            await super().dispatch(message)

    consumer = Watched if where == "side by side" else Prices
    consumer.made = []
    layer = InMemoryChannelLayer()
    if where == "in a communicator":
        application = routed(consumer, layer)
        async with application.opened(), WebsocketCommunicator(application, "/") as one:
            await layer.group_send("room", dict(PRICE))
            assert await one.receive_from() == "X 1.50"
        return
    inner = consumer.as_asgi()

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(event: Event) -> None:
            await send(event)

        await inner(scope, receive, watched)

    application = ProtocolTypeRouter({"websocket": wrapped}, layers={"default": layer})
    async with LiveServer(application) as live, live.connect() as a, live.connect() as b:
        await layer.group_send("room", dict(PRICE))
        assert await a.get_message() == await b.get_message() == "X 1.50"
    assert len(consumer.made) == (1 if where == "behind middleware" else 2)


@pytest.mark.parametrize("wrong", ["raises", "returns a dict"])
async def test_a_payload_that_cannot_be_made_ends_each_as_a_handler_would(wrong: str, caplog: Any) -> None:
    class Wrong(Room):
        @shared_payload
        def price_changed(cls, event: Event) -> Any:
            """Fail."""
            return {} if wrong == "returns a dict" else 1 / 0

    layer = InMemoryChannelLayer()
    async with LiveServer(routed(Wrong, layer)) as live, live.connect() as a, live.connect() as b:
        await layer.group_send("room", dict(PRICE))
        for client in (a, b):
            with pytest.raises(ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1011
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2
    if wrong == "returns a dict":
        assert "Wrong.price_changed returned dict" in str(errors[0].exc_info)


async def test_what_else_a_class_has_is_not_touched_and_private_methods_are_out_of_reach() -> None:
    class Untouchable:
        def __get__(self, instance: Any, owner: type) -> Any:
            raise RuntimeError("not from here")

    class Guarded(Room):
        settings = Untouchable()

        @shared_payload
        def _secret(cls, event: Event) -> str:
            """Never."""
            return "secret"

    layer = InMemoryChannelLayer()
    async with LiveServer(routed(Guarded, layer)) as live, live.connect() as client:
        await client.send_message("hello")
        assert await client.get_message() == "hello"
        await layer.group_send("room", {"type": "_secret"})
        with pytest.raises(ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1011


def test_it_is_for_websocket_consumers() -> None:
    with pytest.raises((ConfigError, RuntimeError)) as caught:  # before Python 3.12, wrapped

        class Page(AsyncHttpConsumer):
            @shared_payload
            def price_changed(cls, event: Event) -> str:
                """Never."""
                return ""

    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError)
    assert "Page.price_changed: shared_payload is for handlers of WebSocket consumers" in str(error)


async def test_broadcasts_in_one_turn_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight events, from one handler that does not wait in between, reach each of 100 sockets in fewer writes."""
    writes = 0
    send_nowait = SocketEnd.send_nowait

    def counted(end: SocketEnd, data: bytes | memoryview) -> int:
        nonlocal writes
        writes += 1
        return send_nowait(end, data)

    layer = InMemoryChannelLayer()

    async def in_bursts() -> None:
        for number in range(8):
            await layer.group_send("room", {"type": "websocket.send", "text": str(number)})

    async with LiveServer(routed(Room, layer)) as live, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(live.connect()) for _ in range(100)]
        monkeypatch.setattr(SocketEnd, "send_nowait", counted)
        await in_bursts()
        for client in clients:
            assert [await client.get_message() for _ in range(8)] == [str(number) for number in range(8)]
        monkeypatch.undo()
    assert writes <= 400, f"{writes} writes for 800 messages"
