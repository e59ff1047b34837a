"""Streams of one socket: each an instance of its own, which opens, fails, overflows and ends by itself."""

import json
import logging
from functools import partial
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from trichannels.exceptions import BadEvent, ConfigError, ConnectionClosed, InvalidRoute
from trichannels.generic.frames import payload_frame
from trichannels.generic.multiplexer import Multiplexer
from trichannels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
    shared_payload,
)
from trichannels.inbox import Inbox
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.testing import LiveServer, SocketRefused, WebsocketCommunicator

from ..checkpoints import every_step

seen: list[Any] = []
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


class Echo(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **more: Any) -> None:
        if content == "fail":
            raise ValueError("in the stream")
        if content == "close":
            await self.close(4007, "enough")
            return
        await self.send_json({"echo": content, "on": self.scope["stream"]})

    async def disconnect(self, code: int) -> None:
        seen.append((self.scope["stream"], code))


class Blocking(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **more: Any) -> None:
        self.send_json({"blocking": content})


class Stuck(AsyncJsonWebsocketConsumer):
    disconnect_grace = 0.0

    async def receive_json(self, content: Any, **more: Any) -> None:
        await anyio.sleep_forever()


class Plain(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"heard {text_data}")


class Refusing(Echo):
    async def connect(self) -> None:
        await self.close(4403)


def streams(**applications: Any) -> dict[str, Any]:
    return {name: consumer.as_asgi() for name, consumer in applications.items()}


def connected(app: Any, path: str = "/") -> WebsocketCommunicator:
    return WebsocketCommunicator(app, path, timeout=20)


async def say(socket: WebsocketCommunicator, stream: Any, payload: Any) -> None:
    await socket.send_json_to({"stream": stream, "payload": payload})


async def test_each_message_reaches_its_stream_and_answers_carry_its_name() -> None:
    async with connected(Multiplexer(streams(one=Echo, other=Echo, blocking=Blocking))) as socket:
        await say(socket, "other", [1])
        assert await socket.receive_json_from(20) == {"stream": "other", "payload": {"echo": [1], "on": "other"}}
        await say(socket, "blocking", None)
        assert await socket.receive_json_from(20) == {"stream": "blocking", "payload": {"blocking": None}}
    assert sorted(seen) == [("one", 1000), ("other", 1000)], "each has ended once, with the client's code"


async def test_a_stream_that_fails_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Multiplexer(streams(one=Echo, other=Echo))) as socket:
        await say(socket, "one", "fail")
        closed = {"stream": "one", "close": {"code": 1011, "reason": "failed"}}
        assert await socket.receive_json_from(20) == closed
        await say(socket, "other", 1)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == 1
        await say(socket, "one", 1)
        assert (await socket.receive_json_from(20))["error"]["code"] == "not_open"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "stream 'one' of the socket at / failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_a_stream_closes_itself_and_the_client_opens_it_again() -> None:
    async with connected(Multiplexer(streams(one=Echo, other=Echo))) as socket:
        await say(socket, "one", "close")
        assert await socket.receive_json_from(20) == {"stream": "one", "close": {"code": 4007, "reason": "enough"}}
        await socket.send_json_to({"stream": "one", "open": True})
        assert await socket.receive_json_from(20) == {"stream": "one", "open": True}
        await say(socket, "one", 2)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == 2
    assert ("one", 4007) in seen


async def test_the_client_opens_and_closes_streams() -> None:
    async with connected(Multiplexer(streams(one=Echo, other=Echo), at_connect=[], max_open=1)) as socket:
        await say(socket, "one", 1)
        assert (await socket.receive_json_from(20))["error"]["code"] == "not_open"
        await socket.send_json_to({"stream": "one", "open": {}})
        assert await socket.receive_json_from(20) == {"stream": "one", "open": True}
        await socket.send_json_to({"stream": "one", "open": True})
        assert (await socket.receive_json_from(20))["error"]["code"] == "already_open"
        await socket.send_json_to({"stream": "other", "open": True})
        assert (await socket.receive_json_from(20))["error"]["code"] == "too_many"
        await socket.send_json_to({"stream": "one", "close": True})
        assert await socket.receive_json_from(20) == {"stream": "one", "close": {"code": 1000, "reason": ""}}
        assert seen == [("one", 1000)]
        await socket.send_json_to({"stream": "other", "open": True})
        assert await socket.receive_json_from(20) == {"stream": "other", "open": True}


@pytest.mark.parametrize(
    ("frame", "code", "stream"),
    [
        ("no json", "malformed", None),
        ("[]", "malformed", None),
        ('{"payload": 1}', "malformed", None),
        ('{"stream": 1, "payload": 1}', "malformed", None),
        ('{"stream": "one"}', "malformed", None),
        ('{"stream": "nobody", "payload": 1}', "unknown_stream", "nobody"),
        (b"binary", "malformed", None),
        ("\ud800".encode("utf-8", "surrogatepass"), "malformed", None),
        ('{"stream": "one", "payload": "\ud800"}', "malformed", None),
        ('{"stream": "one", "payload": "\\ud800"}', "malformed", None),
        ('{"stream": "one", "payload": ' + DEEP + "}", "malformed", None),
        ('{"stream": "nobody", "payload": ' + DEEP + "}", "malformed", None),
        ('{"stream": "one", "open": ' + DEEP + "}", "malformed", None),
        ('{"stream": "one", "more": ' + DEEP + "}", "malformed", None),
        (DEEP, "malformed", None),
        ('{"stream": "one", "open": false}', "malformed", None),
        ('{"stream": "one", "close": false}', "malformed", None),
        ('{"stream": "one", "close": null}', "malformed", None),
        ('{"stream": "one", "close": 1}', "malformed", None),
        ('{"stream": "one", "close": true, "payload": 1}', "malformed", None),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_a_bad_frame_gets_an_error_and_no_dead_socket(frame: Any, code: str, stream: str | None) -> None:
    async with connected(Multiplexer(streams(one=Echo))) as socket:
        await (socket.send_to(bytes_data=frame) if isinstance(frame, bytes) else socket.send_to(frame))
        answer = await socket.receive_json_from(20)
        assert (answer["stream"], answer["error"]["code"]) == (stream, code)
        assert answer["error"]["message"]
        await say(socket, "one", 1)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == 1


@pytest.mark.parametrize("payload", ["5", "null", "1e999", "9" * 5000, DEEP, '["a"]'], ids=lambda value: value[:9])
async def test_a_payload_that_is_no_text_where_text_is_wanted_is_told(payload: str) -> None:
    async with connected(Multiplexer(streams(plain=Plain), text=["plain"])) as socket:
        await socket.send_to(f'{{"stream": "plain", "payload": {payload}}}')
        answer = await socket.receive_json_from(20)
        assert answer["error"]["code"] == "malformed"
        await say(socket, "plain", "a")
        assert (await socket.receive_json_from(20))["payload"] == "heard a"


@pytest.mark.parametrize(("text", "form"), [(DEEP, "json"), ('"\ud800"', "json"), ("\ud800", "text")])
def test_a_frame_is_made_of_nothing_that_the_client_could_not_read(text: str, form: Any) -> None:
    with pytest.raises(BadEvent, match="stream 'one' sent"):
        payload_frame("one", {"text": text}, form)


async def test_a_stream_that_cannot_keep_up_is_closed_and_never_pauses_the_socket() -> None:
    class Narrow(Stuck):
        inbox = Inbox(client_messages=2)

    app = Multiplexer(streams(stuck=Narrow, one=Echo), messages=3)
    async with connected(app) as socket:
        for n in range(20):
            await say(socket, "stuck", n)
        await say(socket, "one", 1)
        answers = []
        while "payload" not in (answer := await socket.receive_json_from(20)):
            answers.append(answer)
        assert answer == {"stream": "one", "payload": {"echo": 1, "on": "one"}}
        assert answers[0] == {"stream": "stuck", "close": {"code": 1013, "reason": "too slow"}}
        assert {answer["error"]["code"] for answer in answers[1:]} <= {"not_open"}, "what was on its way"


@pytest.mark.parametrize(
    "options",
    [{"messages": 4}, {"bytes": 4 * len('"message"')}, {"messages": 4, "text": ["stuck"]}],
    ids=["messages", "bytes", "text"],
)
@pytest.mark.parametrize("bounds", [Inbox(), Inbox(client_messages=1), Inbox(client_messages=3)], ids=repr)
async def test_what_waits_is_counted_wherever_it_waits(options: Any, bounds: Inbox) -> None:
    class Stopped(AsyncWebsocketConsumer):
        inbox = bounds
        disconnect_grace = 0.0

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append(text_data)
            handling.set()
            await anyio.sleep_forever()

    handling = anyio.Event()
    async with connected(Multiplexer(streams(stuck=Stopped, one=Echo), **options)) as socket:
        await say(socket, "stuck", "message")
        with anyio.fail_after(20):
            await handling.wait()
        for _ in range(4):
            await say(socket, "stuck", "message")
        await say(socket, "one", 1)
        assert (await socket.receive_json_from(20))["stream"] == "one", "as many as may wait"
        await say(socket, "stuck", "message")
        assert await socket.receive_json_from(20) == {"stream": "stuck", "close": {"code": 1013, "reason": "too slow"}}
    assert len([each for each in seen if isinstance(each, str)]) == 1


async def test_a_large_message_has_room_where_nothing_waits_and_more_has_none() -> None:
    app = Multiplexer(streams(stuck=Stuck, one=Echo), bytes=10)
    async with connected(app) as socket:
        await say(socket, "one", "x" * 1000)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == "x" * 1000


async def test_a_stream_is_closed_when_more_bytes_wait_for_it_than_it_may_have() -> None:
    class Narrow(Stuck):
        inbox = Inbox(client_messages=1)

    async with connected(Multiplexer(streams(stuck=Narrow, one=Echo), bytes=10)) as socket:
        for _ in range(4):  # one is being handled, one waits in the inbox
            await say(socket, "stuck", "x" * 6)
        assert await socket.receive_json_from(20) == {"stream": "stuck", "close": {"code": 1013, "reason": "too slow"}}
        await say(socket, "one", 1)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == 1


async def test_any_application_that_speaks_websocket_may_be_a_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        seen.append(event["code"])

    async with connected(Multiplexer({"plain": app})) as socket:
        await say(socket, "plain", [1])
        assert await socket.receive_json_from(20) == {"stream": "plain", "payload": [1]}
    assert seen == [1000]


async def test_closed_by_what_is_around_it_all_streams_end() -> None:
    """As ``AuthMiddleware`` closes a socket whose user has logged out."""
    multiplexer = Multiplexer(streams(one=Echo, other=Echo))
    close: list[Any] = []

    async def around(scope: Any, receive: Any, send: Any) -> None:
        close.append(partial(send, {"type": "websocket.close", "code": 4401, "reason": "logged out"}))
        await multiplexer(scope, receive, send)

    async with connected(around) as socket:
        await close[0]()
        event = await socket.receive_output(20)
        assert (event["type"], event["code"]) == ("websocket.close", 4401)
        await socket.wait(20)
    assert sorted(seen) == [("one", 4401), ("other", 4401)]


# ---- the handshake


async def test_the_socket_is_refused_if_all_streams_refuse() -> None:
    with pytest.raises(SocketRefused) as refused:
        async with connected(Multiplexer(streams(one=Refusing, other=Refusing))):
            pass
    assert refused.value.code == 4403


async def test_one_that_refuses_is_told_of_and_the_others_are_open() -> None:
    async with connected(Multiplexer(streams(one=Refusing, other=Echo))) as socket:
        await say(socket, "other", 1)
        answers = [await socket.receive_json_from(20), await socket.receive_json_from(20)]
        assert {"stream": "one", "close": {"code": 4403, "reason": ""}} in answers


async def test_scope_and_headers_are_shared() -> None:
    class Setting(Echo):
        async def connect(self) -> None:
            seen.append((self.scope["url_route"]["kwargs"], self.scope["user"], self.scope["stream"]))
            await self.accept(headers=[("x-from", self.scope["stream"])])

    app = URLRouter([path("<slug:room>/", Multiplexer(streams(one=Setting)))])

    async def with_user(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "user": "ada"}, receive, send)

    async with connected(with_user, "/lobby/") as socket:
        assert (b"x-from", b"one") in (socket.response_headers or [])
    assert seen[0] == ({"room": "lobby"}, "ada", "one")


async def test_the_first_that_accepts_chooses_the_subprotocol() -> None:
    class Choosing(Echo):
        async def connect(self) -> None:
            offered = self.scope["subprotocols"]
            seen.append(offered)
            await self.accept(subprotocol=offered[0 if self.scope["stream"] == "one" else 1])

    app = Multiplexer(streams(one=Choosing, late=Choosing), at_connect=["one"])
    async with WebsocketCommunicator(app, "/", subprotocols=["v1", "v2"], timeout=20) as socket:
        assert socket.subprotocol == "v1"
        await socket.send_json_to({"stream": "late", "open": True})
        assert await socket.receive_json_from(20) == {"stream": "late", "open": True}
        await say(socket, "late", 1)
        assert (await socket.receive_json_from(20))["payload"]["echo"] == 1
    assert seen[:2] == [["v1", "v2"]] * 2


# ---- payloads


class PlainInAThread(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=f"heard {text_data}")


@pytest.mark.parametrize("consumer", [Plain, PlainInAThread])
async def test_plain_text_is_a_string(consumer: Any) -> None:
    async with connected(Multiplexer(streams(plain=consumer), text=["plain"])) as socket:
        await say(socket, "plain", 'a "b"')
        assert await socket.receive_json_from(20) == {"stream": "plain", "payload": 'heard a "b"'}
        await say(socket, "plain", 5)
        assert (await socket.receive_json_from(20))["error"]["message"] == "the payload of this stream is a string"


@pytest.mark.parametrize(
    ("more", "problem"),
    [({"text_data": "no json"}, "which is no JSON: use send_json"), ({"bytes_data": b"x"}, "binary")],
)
async def test_what_cannot_be_framed_is_the_streams_own_mistake(
    more: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(**more)

    async with connected(Multiplexer(streams(wrong=Wrong, one=Echo))) as socket:
        await say(socket, "wrong", 1)
        assert (await socket.receive_json_from(20))["close"]["code"] == 1011
    assert problem in str(caplog.records[0].exc_info)


async def test_numbers_and_unicode_come_as_they_were_sent() -> None:
    class Raw(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append(text_data)
            await self.send(text_data=text_data)

    text = '{"n":12345678901234567890.5,"ä":"\\u00e4"}'
    async with connected(Multiplexer({"ü": Raw.as_asgi()})) as socket:
        await socket.send_to(f'{{"stream": "ü", "payload": {text}}}')
        assert await socket.receive_from(20) == f'{{"stream":"ü","payload":{text}}}'
    assert seen == [text]


# ---- the layer


class Member(AsyncJsonWebsocketConsumer):
    groups = ("room",)

    async def room_message(self, event: Any) -> None:
        await self.send_json(event["n"])

    @shared_payload
    def room_shared(cls, event: Any) -> str:
        seen.append("encoded")
        return json.dumps(event["n"])


async def test_an_event_reaches_the_stream_that_has_joined() -> None:
    layer = InMemoryChannelLayer()
    multiplexer = Multiplexer(streams(member=Member, one=Echo))
    app = ProtocolTypeRouter({"websocket": multiplexer}, layers={"default": layer})
    async with app.opened(), connected(app) as socket:
        await layer.group_send("room", {"type": "room.message", "n": 1})
        await layer.group_send("room", {"type": "room.shared", "n": 2})
        await layer.group_send("room", {"type": "websocket.send", "text": "3"})
        for n in (1, 2, 3):
            assert await socket.receive_json_from(20) == {"stream": "member", "payload": n}
        await socket.send_json_to({"stream": "member", "close": True})
        assert (await socket.receive_json_from(20))["close"]["code"] == 1000
        assert layer.statistics().memberships == 0, "it has left its groups with its own end"


@pytest.mark.server
@pytest.mark.trio_only
async def test_on_our_server_a_broadcast_is_framed_once_for_all_members_of_a_stream_name() -> None:
    instances: list[Any] = []

    class Kept(Member):
        async def connect(self) -> None:
            await self.accept()
            instances.append(self._instance)

    layer = InMemoryChannelLayer()
    multiplexer = Multiplexer({"a": Kept.as_asgi(), "b": Kept.as_asgi()})
    app = ProtocolTypeRouter({"websocket": multiplexer}, layers={"default": layer})
    async with LiveServer(app) as live, live.connect() as one, live.connect() as other:
        while len(instances) < 4:
            await anyio.sleep(0.001)
        await layer.group_send("room", {"type": "room.shared", "n": 5})
        for socket in (one, other):
            heard = [json.loads(await socket.get_message()) for _ in range(2)]
            assert sorted(frame["stream"] for frame in heard) == ["a", "b"]
            assert {frame["payload"] for frame in heard} == {5}
        assert seen == ["encoded"] * 2, "once for each stream name, however many sockets there are"
        assert [instance.mailbox.passed for instance in instances] == [1] * 4, "it went past the inboxes"


@pytest.mark.server
@pytest.mark.trio_only
async def test_on_our_server_clients_come_talk_and_go() -> None:
    app = ProtocolTypeRouter({"websocket": Multiplexer(streams(one=Echo, other=Echo))})
    async with LiveServer(app) as live, live.connect() as socket:
        await socket.send_message('{"stream": "one", "payload": "fail"}')
        assert json.loads(await socket.get_message())["close"]["code"] == 1011
        await socket.send_message('{"stream": "other", "payload": 1}')
        assert json.loads(await socket.get_message())["payload"]["echo"] == 1
    assert sorted(seen) == [("one", 1011), ("other", 1000)]


async def test_what_a_stream_sends_after_the_client_has_closed_it_raises() -> None:
    class Late(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any, **more: Any) -> None:
            with anyio.CancelScope(shield=True):
                await ended.wait()
            try:
                await self.send_json("late")
            except ConnectionClosed as closed:
                seen.append(closed.code)

    ended = anyio.Event()
    async with connected(Multiplexer(streams(late=Late, one=Echo))) as socket:
        await say(socket, "late", 1)
        await socket.send_json_to({"stream": "late", "close": True})
        await say(socket, "one", 1)
        await socket.receive_json_from(20)
        ended.set()
        assert (await socket.receive_json_from(20))["close"]["code"] == 1000
    assert seen[0] == 1000


# ---- while it ends


class Lingering(Echo):
    """Ends when the test says so."""

    async def connect(self) -> None:
        seen.append("connect")
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await may_end[0].wait()


may_end: list[anyio.Event] = []


@pytest.fixture
def lingering() -> Multiplexer:
    may_end[:] = [anyio.Event()]
    return Multiplexer(streams(a=Lingering, one=Echo), messages=3, max_open=2)


async def frames(socket: WebsocketCommunicator, *said: Any) -> None:
    """Send frames of the stream ``"a"``."""
    for frame in said:
        await socket.send_json_to({"stream": "a", **frame})


async def heard(socket: WebsocketCommunicator, count: int) -> list[Any]:
    """Return what stream ``"a"`` is answered, shortly."""
    answers = []
    for _ in range(count):
        answer = await socket.receive_json_from(20)
        assert answer.pop("stream") == "a"
        (kind,) = answer
        said = answer[kind]
        answers.append(said["code"] if kind in ("close", "error") else said["echo"] if kind == "payload" else kind)
    return answers


async def others_go_on(socket: WebsocketCommunicator) -> None:
    await say(socket, "one", 1)
    assert (await socket.receive_json_from(20))["stream"] == "one"


async def test_what_is_opened_while_it_ends_is_opened_when_that_is_told(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"close": True}, {"open": True}, {"payload": 5}, {"payload": 6})
        await others_go_on(socket)
        await frames(socket, {"open": True})
        assert await heard(socket, 1) == ["already_open"]
        may_end[0].set()
        assert await heard(socket, 4) == [1000, "open", 5, 6]
        await frames(socket, {"close": True}, {"payload": 7})
        assert sorted(await heard(socket, 2), key=str) == [1000, "not_open"]
    assert seen.count("connect") == 2


async def test_what_has_closed_itself_is_opened_again_in_its_turn(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"payload": "close"})
        await others_go_on(socket)
        await frames(socket, {"payload": "lost"}, {"open": True}, {"payload": 5})
        await others_go_on(socket)
        may_end[0].set()
        assert await heard(socket, 3) == [4007, "open", 5]


async def test_after_its_own_close_the_client_is_told_that_a_stream_is_not_open(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"close": True}, {"payload": 5}, {"close": True})
        assert await heard(socket, 2) == ["not_open", "not_open"]
        may_end[0].set()
        assert await heard(socket, 1) == [1000]


async def test_opened_and_closed_again_while_it_ends_it_never_begins(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"close": True}, {"open": True}, {"payload": 5}, {"close": True}, {"open": True})
        assert await heard(socket, 1) == ["too_many"]
        await frames(socket, {"payload": 6})
        assert await heard(socket, 1) == ["not_open"]
        may_end[0].set()
        assert await heard(socket, 2) == [1000, 1000]
        await frames(socket, {"open": True})
        assert await heard(socket, 1) == ["open"]
    assert seen.count("connect") == 2


async def test_what_waits_for_its_successor_is_bounded_too(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"close": True}, {"open": True}, *[{"payload": number} for number in range(5)])
        await others_go_on(socket)
        may_end[0].set()
        assert await heard(socket, 2) == [1000, 1013]
    assert seen.count("connect") == 1


async def test_the_socket_ends_while_a_stream_waits_to_be_opened_again(lingering: Multiplexer) -> None:
    async with connected(lingering) as socket:
        await frames(socket, {"close": True}, {"open": True}, {"payload": 5})
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await anyio.wait_all_tasks_blocked()
        may_end[0].set()
        await socket.wait(20)
    assert seen.count("connect") == 1


# ---- before it has begun


async def test_no_message_comes_before_a_stream_has_accepted() -> None:
    class Slow(Echo):
        async def connect(self) -> None:
            connecting.set()
            await may_accept.wait()
            await self.accept()

        async def receive_json(self, content: Any, **more: Any) -> None:
            seen.append("received")

    connecting, may_accept = anyio.Event(), anyio.Event()
    async with connected(Multiplexer(streams(slow=Slow, one=Echo), at_connect=["one"])) as socket:
        await socket.send_json_to({"stream": "slow", "open": True})
        await say(socket, "slow", 1)
        with anyio.fail_after(20):
            await connecting.wait()
        await socket.send_json_to({"stream": "slow", "close": True})
        await others_go_on(socket)
        may_accept.set()
        assert await socket.receive_json_from(20) == {"stream": "slow", "close": {"code": 1000, "reason": ""}}
    assert "received" not in seen


async def test_an_application_that_sends_to_a_stream_the_client_has_closed_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await receive()
            await send({"type": "websocket.send", "text": "1"})

    async with connected(Multiplexer({"plain": app, "one": Echo.as_asgi()})) as socket:
        await socket.send_json_to({"stream": "plain", "close": True})
        assert await socket.receive_json_from(20) == {"stream": "plain", "close": {"code": 1000, "reason": ""}}
    assert not caplog.records


# ---- its options


@pytest.mark.parametrize(
    ("applications", "options", "error", "problem"),
    [
        ({}, {}, InvalidRoute, "takes a dict of stream names"),
        ({1: Echo.as_asgi()}, {}, InvalidRoute, "name is a str"),
        ({"one": Echo}, {}, InvalidRoute, "one"),
        (streams(one=Echo), {"at_connect": ["two"]}, InvalidRoute, "'two' is none of its streams"),
        (streams(one=Echo, two=Echo), {"at_connect": ["one", "one"]}, InvalidRoute, "'one' is named more than once"),
        (streams(one=Echo), {"text": ["two"]}, InvalidRoute, "'two' is none of its streams"),
        (streams(one=Echo), {"messages": 0}, ConfigError, "messages"),
        (streams(one=Echo, two=Echo), {"max_open": 1}, ConfigError, "max_open is 1"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(applications: Any, options: Any, error: Any, problem: str) -> None:
    with pytest.raises(error, match=problem):
        Multiplexer(applications, **options)


async def test_other_protocols_are_not_its_own() -> None:
    async def nothing(*_: Any) -> Any: ...

    with pytest.raises(InvalidRoute, match="for WebSockets, not for 'http'"):
        await Multiplexer(streams(one=Echo))({"type": "http"}, nothing, nothing)


# ---- interrupted at every step


class Kept(AsyncJsonWebsocketConsumer):
    """Does what consumers do in streams, and notes its beginning and its end."""

    groups = ("room",)
    disconnect_grace = 0.5

    async def connect(self) -> None:
        self.scope["run"].begun.append(self.scope["stream"])
        await self.accept()
        self.nursery.start_soon(anyio.sleep_forever)

    async def receive_json(self, content: Any, **more: Any) -> None:
        if content == "fail":
            raise ZeroDivisionError("planned")
        if content == "close":
            await self.close(4000)
            return
        await self.channel_layer.group_send("room", {"type": "room.message", "n": content})
        await anyio.sleep(0.1)

    async def room_message(self, event: Any) -> None:
        await self.send_json(event["n"])

    async def disconnect(self, code: int) -> None:
        self.scope["run"].ended.append(self.scope["stream"])
        await anyio.sleep(0.1)


class Run:
    """One run: a client that says what it says and leaves, or is interrupted before."""

    SAID = (
        {"stream": "a", "payload": 1},
        {"stream": "b", "payload": 2},
        {"stream": "nobody", "payload": 2},
        {"stream": "a", "payload": "fail"},
        {"stream": "b", "payload": "close"},
        {"stream": "a", "open": True},
        {"stream": "c", "payload": 3},
        {"stream": "c", "close": True},
        {"stream": "c", "open": True, "at once": True},
        {"stream": "c", "payload": 4, "at once": True},
    )

    def __init__(self, how: str) -> None:
        self.how, self.layer = how, InMemoryChannelLayer()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.scope: anyio.CancelScope | None = None
        self.gone: anyio.Event | None = None
        self.sent: list[Any] = []

    def interrupt(self) -> None:
        if self.how == "cancel" and self.scope is not None:
            self.scope.cancel()
        elif self.gone is not None:
            self.gone.set()

    async def live(self) -> None:
        self.gone = anyio.Event()
        frames = [{"type": "websocket.receive", "text": json.dumps(one)} for one in self.SAID]
        said = iter([{"type": "websocket.connect"}, *frames])

        async def receive() -> Any:
            assert self.gone is not None
            event = next(said, None)
            with anyio.move_on_after(0 if event is not None and "at once" in event.get("text", "") else 0.3):
                await self.gone.wait()
            event = None if self.gone.is_set() else event
            return event or {"type": "websocket.disconnect", "code": 4001, "reason": ""}

        async def send(event: Any) -> None:
            await anyio.lowlevel.checkpoint()
            assert self.gone is not None
            if self.gone.is_set():
                raise ConnectionClosed(4001)
            self.sent.append(event)

        app = Multiplexer({name: Kept.as_asgi() for name in "abc"})
        scope = {"type": "websocket", "path": "/", "channel_layers": {"default": self.layer}, "run": self}
        async with self.layer:
            with anyio.CancelScope() as self.scope:
                await app(scope, receive, send)
            statistics = self.layer.statistics()
        assert (statistics.instances, statistics.memberships, statistics.channels) == (0, 0, 0)
        assert sorted(self.begun) == sorted(self.ended), "each that has begun has said goodbye once"


@pytest.mark.exhaustive
@pytest.mark.once
@pytest.mark.trio_only
@pytest.mark.parametrize("how", ["cancel", "disconnect"])
def test_interrupted_at_every_step_nothing_of_any_stream_remains(how: str) -> None:
    steps = 0
    for _ in every_step(Run.live, lambda: Run(how), clock=partial(MockClock, autojump_threshold=0)):
        steps += 1
    assert steps > 100
