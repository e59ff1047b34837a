"""WebSocket consumers, async and blocking, side by side: every test runs on both kinds."""

import inspect
import json
from importlib import import_module
from typing import Any

import anyio
import pytest

from trichannels.bridge import call
from trichannels.events import TRANSPORT, Event
from trichannels.exceptions import (
    AcceptConnection,
    BadEvent,
    ConnectionClosed,
    DenyConnection,
    InvalidChannelLayerError,
    StopConsumer,
)
from trichannels.generic import websocket
from trichannels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from trichannels.layers.history import Position, Recovery
from trichannels.layers.memory import InMemoryChannelLayer

from ..sockets import OurTransport, connected, socket_to

PAIRS = ["WebsocketConsumer", "AsyncWebsocketConsumer", "JsonWebsocketConsumer", "AsyncJsonWebsocketConsumer"]


@pytest.mark.parametrize("name", PAIRS)
def test_names_and_signatures_are_those_of_channels(name: str) -> None:
    theirs, ours = getattr(import_module("channels.generic.websocket"), name), getattr(websocket, name)
    for method, function in inspect.getmembers(theirs, inspect.isroutine):
        if method.startswith("_"):
            continue
        mine = getattr(ours, method)
        wanted, given = inspect.signature(function).parameters, inspect.signature(mine).parameters
        assert list(given) == list(wanted), method
        assert [p.kind for p in given.values()] == [p.kind for p in wanted.values()], method
        assert [p.default for p in given.values()] == [p.default for p in wanted.values()], method
        if method != "dispatch":
            assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(function), method


# ---- one consumer for each kind; what differs is only how a call is made


class Made:
    """Makes the async or the blocking variant of a consumer whose methods are ``name(self, do, *args)``.

    In them, ``yield self.send, args`` stands for a call, awaited or not.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, base: str = "WebsocketConsumer", /, **members: Any) -> Any:
        parent = getattr(websocket, base if self.kind == "blocking" else f"Async{base}")
        wrap = _blocking if self.kind == "blocking" else _awaiting
        for name, member in members.items():
            members[name] = wrap(member) if inspect.isgeneratorfunction(member) else member
        return type("Made", (parent,), members)


def _blocking(script: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        for function, *given in script(self, *args, **kwargs):
            call(function, *given) if inspect.iscoroutinefunction(function) else function(*given)

    return method


def _awaiting(script: Any) -> Any:
    async def method(self: Any, *args: Any, **kwargs: Any) -> None:
        for function, *given in script(self, *args, **kwargs):
            await function(*given)

    return method


@pytest.fixture(params=["async", "blocking"])
def made(request: pytest.FixtureRequest) -> Made:
    return Made(request.param)


@pytest.fixture
def seen() -> list[Any]:
    return []


# ---- connecting


async def test_by_default_it_accepts(made: Made) -> None:
    socket = socket_to(made())
    assert await socket.connect() == (True, None)
    await socket.disconnect()


async def test_accept_with_a_subprotocol_and_headers(made: Made) -> None:
    def connect(self: Any) -> Any:
        yield self.accept, "v2", {"X-Room": "Café"}

    socket = socket_to(made(connect=connect))
    socket.scope["subprotocols"] = ["v1", "v2"]
    assert await socket.connect() == (True, "v2")
    assert socket.response_headers == [(b"x-room", "Café".encode("latin-1"))]
    await socket.disconnect()


async def test_headers_in_channels_shape(made: Made) -> None:
    def connect(self: Any) -> Any:
        yield self.accept, None, [(b"x-room", b"tea")]

    socket = socket_to(made(connect=connect))
    await socket.connect()
    assert socket.response_headers == [(b"x-room", b"tea")]
    await socket.disconnect()


async def test_accept_connection_accepts(made: Made, seen: list[Any]) -> None:
    def connect(self: Any) -> Any:
        seen.append("connect")
        raise AcceptConnection
        yield

    async with connected(made(connect=connect)):
        assert seen == ["connect"]


@pytest.mark.parametrize("how", ["raise", "close", "code", "send"])
async def test_a_socket_can_be_refused(made: Made, seen: list[Any], how: str) -> None:
    def connect(self: Any) -> Any:
        if how == "raise":
            raise DenyConnection
        if how == "close":
            yield (self.close,)
        elif how == "code":
            yield self.close, 4003, "no"
        else:
            yield self.base_send, {"type": "websocket.close"}
        seen.append("connect goes on")

    def disconnect(self: Any, code: int) -> Any:
        seen.append(code)
        yield from ()

    socket = socket_to(made(connect=connect, disconnect=disconnect))
    code = 4003 if how == "code" else 1000
    assert await socket.connect() == (False, code)
    await socket.wait()
    assert seen == ([code] if how == "raise" else ["connect goes on", code])


async def test_a_refusal_can_be_a_response_of_its_own(made: Made) -> None:
    def connect(self: Any) -> Any:
        yield self.deny, 401, b"who are you?", {"WWW-Authenticate": "Basic"}

    socket = socket_to(made(connect=connect))
    assert await socket.connect() == (False, 401)
    assert socket.denial is not None
    assert (socket.denial.body, socket.denial.headers[0]) == (b"who are you?", (b"www-authenticate", b"Basic"))
    await socket.wait()


async def test_groups_are_joined_before_connect_and_left_at_the_end(made: Made, seen: list[Any]) -> None:
    def connect(self: Any) -> Any:
        seen.append(self.statistics().groups)
        yield (self.accept,)

    def disconnect(self: Any, code: int) -> Any:
        seen.append(self.statistics().groups)
        yield from ()

    kind = made(connect=connect, disconnect=disconnect, groups=["tea", "coffee"])
    async with InMemoryChannelLayer() as layer:
        async with connected(kind, layer=layer):
            assert layer.statistics().groups == 2
        assert layer.statistics().groups == 0
    assert seen == [("coffee", "tea"), ()]


async def test_groups_may_be_set_by_init_and_are_a_list_by_default(made: Made) -> None:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        super(kind, self).__init__(*args, **kwargs)
        assert self.groups == []
        self.groups.append("own")

    kind = made()
    kind.__init__ = init
    async with InMemoryChannelLayer() as layer, connected(kind, layer=layer), connected(kind, layer=layer):
        assert layer.statistics().memberships == 2
        assert layer.statistics().groups == 1


async def test_groups_without_a_layer_are_an_error(made: Made) -> None:
    with pytest.raises(InvalidChannelLayerError, match="has no channel layer"):
        await socket_to(made(groups=["tea"])).connect()


async def test_a_bad_group_name_is_an_error(made: Made) -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(TypeError, match="Group name must be"):
            await socket_to(made(groups=["no spaces"]), layer=layer).connect()


# ---- frames


def echo(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
    yield self.send, text_data, bytes_data


async def test_text_and_bytes_go_both_ways(made: Made) -> None:
    async with connected(made(receive=echo)) as socket:
        for text in ("hi", "", "🫖"):
            await socket.send_to(text)
            assert await socket.receive_from() == text
        for data in (b"\x00\xff", b""):
            await socket.send_to(bytes_data=data)
            assert await socket.receive_from() == data


async def test_text_comes_before_bytes_where_a_server_gives_both(made: Made) -> None:
    async with connected(made(receive=echo)) as socket:
        await socket.send_input({"type": "websocket.receive", "text": None, "bytes": b"data"})
        assert await socket.receive_from() == b"data"
        await socket.send_input({"type": "websocket.receive", "text": "text", "bytes": None})
        assert await socket.receive_from() == "text"


async def test_what_is_received_is_ignored_by_default(made: Made) -> None:
    async with connected(made()) as socket:
        await socket.send_to("anybody?")
        assert await socket.receive_nothing()


async def test_to_send_nothing_is_an_error(made: Made) -> None:
    def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
        yield (self.send,)

    socket = socket_to(made(receive=receive))
    await socket.connect()
    await socket.send_to("a")
    with pytest.raises(ValueError, match="You must pass one of bytes_data or text_data"):
        await socket.wait(5)


@pytest.mark.parametrize(("close", "code"), [(True, 1000), (4001, 4001)])
async def test_send_can_close_behind_the_frame(made: Made, close: Any, code: int) -> None:
    def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
        yield self.send, "last", None, close

    async with connected(made(receive=receive)) as socket:
        await socket.send_to("a")
        assert await socket.receive_from() == "last"
        assert (await socket.receive_output())["code"] == code


async def test_an_event_of_the_layer_may_be_a_frame(made: Made) -> None:
    async with InMemoryChannelLayer() as layer, connected(made(groups=["all"]), layer=layer) as socket:
        await layer.group_send("all", {"type": "websocket.send", "text": "to all"})
        await layer.group_send("all", {"type": "websocket.send", "bytes": b"to all"})
        assert [await socket.receive_from(), await socket.receive_from()] == ["to all", b"to all"]


async def test_handlers_of_the_protocol_can_be_overridden(made: Made, seen: list[Any]) -> None:
    def websocket_connect(self: Any, message: Event) -> Any:
        seen.append(message["type"])
        yield (self.accept,)

    def websocket_receive(self: Any, message: Event) -> Any:
        seen.append(message["text"])
        yield from ()

    def websocket_disconnect(self: Any, message: Event) -> Any:
        seen.append(message["code"])
        raise StopConsumer  # Channels needs it here
        yield

    kind = made(
        websocket_connect=websocket_connect,
        websocket_receive=websocket_receive,
        websocket_disconnect=websocket_disconnect,
    )
    async with connected(kind) as socket:
        await socket.send_to("a")
    assert seen == ["websocket.connect", "a", 1000]


async def test_a_consumer_with_its_own_connect_event_keeps_disconnect(made: Made, seen: list[Any]) -> None:
    def websocket_connect(self: Any, message: Event) -> Any:
        yield (self.accept,)

    def disconnect(self: Any, code: int) -> Any:
        seen.append(code)
        yield from ()

    async with connected(made(websocket_connect=websocket_connect, disconnect=disconnect)):
        pass
    assert seen == [1000]


# ---- closing


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [((), 1000, ""), ((None,), 1000, ""), ((True,), 1000, ""), ((4001,), 4001, ""), ((4001, "enough"), 4001, "enough")],
)
async def test_close_with_code_and_reason(
    made: Made, seen: list[Any], given: tuple[Any, ...], code: int, reason: str
) -> None:
    def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
        yield self.close, *given
        yield self.close, 4999  # has ended: nothing
        seen.append((self.close_code, self.close_reason))
        yield self.send, "too late"

    def disconnect(self: Any, code: int) -> Any:
        seen.append(code)
        yield self.close, 4999

    socket = socket_to(made(receive=receive, disconnect=disconnect))
    await socket.connect()
    await socket.send_to("a")
    event = await socket.receive_output()
    assert (event["type"], event["code"], event.get("reason", "")) == ("websocket.close", code, reason)
    await socket.wait(5)  # the ConnectionClosed of the last send is a normal end
    assert await socket.receive_nothing(0)
    assert seen == [(code, reason), code]


async def test_a_close_code_that_may_not_travel_is_an_error(made: Made) -> None:
    def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> Any:
        yield self.close, 1006

    socket = socket_to(made(receive=receive))
    await socket.connect()
    await socket.send_to("a")
    with pytest.raises(BadEvent, match="'code' must be"):
        await socket.wait(5)


async def test_disconnect_gets_the_clients_code(made: Made, seen: list[Any]) -> None:
    def disconnect(self: Any, code: int) -> Any:
        seen.append((code, self.close_code, self.close_reason))
        yield from ()

    socket = socket_to(made(disconnect=disconnect))
    await socket.connect()
    await socket.disconnect(4321, 5, reason="lunch")
    assert seen == [(4321, 4321, "lunch")]


async def test_a_disconnect_without_a_code_is_1005(made: Made, seen: list[Any]) -> None:
    def disconnect(self: Any, code: int) -> Any:
        seen.append(code)
        yield from ()

    socket = socket_to(made(disconnect=disconnect))
    await socket.connect()
    await socket.send_input({"type": "websocket.disconnect"})
    await socket.wait(5)
    assert seen == [1005]


async def test_a_socket_that_leaves_before_connect_begins_gets_no_disconnect(made: Made, seen: list[Any]) -> None:
    def noted(self: Any, *args: Any) -> Any:
        seen.append(args)
        yield from ()

    class Slow(InMemoryChannelLayer):
        async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
            await socket.send_input({"type": "websocket.disconnect", "code": 1001})
            await anyio.wait_all_tasks_blocked()
            return await super().join(group, channel, since)

    async with Slow() as layer:
        socket = socket_to(made(connect=noted, disconnect=noted, groups=["tea"]), layer=layer)
        await socket.send_input({"type": "websocket.connect"})
        await socket.wait(5)
        assert layer.statistics().groups == 0
    assert seen == []


async def test_a_socket_that_has_left_when_its_turn_comes_gets_neither(made: Made, seen: list[Any]) -> None:
    def noted(self: Any, *args: Any) -> Any:
        seen.append(args)
        yield from ()

    events: list[Event] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

    async def receive() -> Event:
        return events.pop(0)

    async def send(event: Event) -> None:
        seen.append(event)

    transport = OurTransport()
    kind = made(connect=noted, disconnect=noted)
    with anyio.fail_after(5):
        await kind()({"type": "websocket", "extensions": {TRANSPORT: transport}}, receive, send)
    assert seen == []


async def test_sending_to_a_peer_that_has_left_raises(made: Made, seen: list[Any]) -> None:
    def disconnect(self: Any, code: int) -> Any:
        try:
            yield self.send, "anybody?"
        finally:
            seen.append("ended")

    async with connected(made(disconnect=disconnect)):
        pass
    assert seen == ["ended"]


# ---- JSON


def echo_json(self: Any, content: Any, **kwargs: Any) -> Any:
    yield self.send_json, content


async def test_json_goes_both_ways(made: Made) -> None:
    async with connected(made("JsonWebsocketConsumer", receive_json=echo_json)) as socket:
        contents: list[Any] = [{"a": [1, None, "ü"]}, [], 0, "text", None]
        for content in contents:
            await socket.send_json_to(content)
            assert await socket.receive_json_from() == content


async def test_json_is_ignored_by_default_and_can_close(made: Made) -> None:
    async with connected(made("JsonWebsocketConsumer")) as socket:
        await socket.send_json_to({})
        assert await socket.receive_nothing()

    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        yield self.send_json, "bye", 4000

    async with connected(made("JsonWebsocketConsumer", receive_json=receive_json)) as socket:
        await socket.send_json_to({})
        assert await socket.receive_json_from() == "bye"
        assert (await socket.receive_output())["code"] == 4000


NOT_JSON = ["{", "not json", "[" * 100_000, "1" * 5000]


@pytest.mark.parametrize("text", NOT_JSON, ids=["torn", "words", "too deep", "too long a number"])
async def test_what_is_not_json_is_the_clients_failure(made: Made, text: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(made("JsonWebsocketConsumer", receive_json=echo_json)) as socket:
        await socket.send_to(text)
        event = await socket.receive_output()
        assert (event["code"], event["reason"][:8]) == (1007, "not JSON")
    assert caplog.records == []


@pytest.mark.parametrize("frame", [{"text_data": ""}, {"bytes_data": b"{}"}])
async def test_a_frame_without_text_is_the_clients_failure(made: Made, frame: Any) -> None:
    async with connected(made("JsonWebsocketConsumer", receive_json=echo_json)) as socket:
        await socket.send_to(**frame)
        event = await socket.receive_output()
        assert (event["code"], event["reason"]) == (1003, "No text section for incoming WebSocket frame!")


def quoted(text: str) -> Any:
    if text == "bad":
        raise ValueError("ü" * 500)
    return {"decoded": text}


class AsyncQuoting(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        return quoted(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return f"<{json.dumps(content)}>"


class Quoting(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(content)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        return quoted(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        return f"<{json.dumps(content)}>"


@pytest.mark.parametrize("kind", [AsyncQuoting, Quoting])
async def test_encoding_and_decoding_can_be_overridden(kind: Any) -> None:
    async with connected(kind) as socket:
        await socket.send_to("hi")
        assert await socket.receive_from() == '<{"decoded": "hi"}>'
        await socket.send_to("bad")
        event = await socket.receive_output()
        assert event["code"] == 1007
        assert 100 < len(event["reason"].encode()) <= 123


@pytest.mark.parametrize("kind", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_receive_takes_more_arguments_of_a_wrapper(kind: Any) -> None:
    given: list[Any] = []

    async def receive_json(self: Any, content: Any, **kwargs: Any) -> None:
        given.append((content, kwargs))

    def receive_json_blocking(self: Any, content: Any, **kwargs: Any) -> None:
        given.append((content, kwargs))

    is_async = kind is AsyncJsonWebsocketConsumer
    wrapped = type("Wrapped", (kind,), {"receive_json": receive_json if is_async else receive_json_blocking})
    outcome = wrapped().receive(text_data="[1]", stream="a")
    if is_async:
        await outcome
    assert given == [([1], {"stream": "a"})]


async def test_an_error_that_is_no_json_error_passes(made: Made) -> None:
    def receive_json(self: Any, content: Any, **kwargs: Any) -> Any:
        raise ValueError("the application's own")
        yield

    socket = socket_to(made("JsonWebsocketConsumer", receive_json=receive_json))
    await socket.connect()
    await socket.send_json_to({})
    with pytest.raises(ValueError, match="the application's own"):
        await socket.wait(5)


def test_the_two_families_are_consumers_of_their_kind() -> None:
    assert not AsyncWebsocketConsumer._sync
    assert WebsocketConsumer._sync
    assert issubclass(ConnectionClosed, OSError)
