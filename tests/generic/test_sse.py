"""Event streams: what is on the wire, who may have one, how it ends, and clients that come back where they were."""

import http.client
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.events import Event
from trichannels.exceptions import (
    AcceptConnection,
    BadEvent,
    ConfigError,
    ConnectionClosed,
    DenyConnection,
    InvalidChannelLayerError,
    OutOfTurn,
    StopConsumer,
)
from trichannels.generic.event_stream import (
    LONGEST_ID,
    MOST_GROUPS,
    NOWHERE,
    OTHERS,
    Reached,
    encode_comment,
    encode_event,
    encode_id,
    encode_retry,
    key_of,
    read_id,
)
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.sse import EventStreamConsumer
from trichannels.inbox import Inbox
from trichannels.layers import History, InMemoryChannelLayer, Position
from trichannels.layers.base import ChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.testing.http import HttpCommunicator

from ..conftest import BACKEND
from ..test_mounted import SENDS_NO_LIFESPAN, SERVERS, Served, check_frames, served

HEADERS = {
    b"content-type": b"text/event-stream; charset=utf-8",
    b"cache-control": b"no-store",
    b"x-accel-buffering": b"no",
}


@dataclass(frozen=True)
class Told:
    """An event as a page gets it."""

    data: str
    type: str = "message"
    id: str = ""


class Source:
    """What an ``EventSource`` does with the bytes of a stream: HTML Standard, sections 9.2.5 and 9.2.6."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = self._id = last_id
        self.retry: int | None = None
        self._rest, self._data, self._type = b"", "", ""

    def feed(self, data: bytes) -> list[Told]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        told = [self._line(line.decode()) for line in lines]
        return [event for event in told if event is not None]

    def _line(self, line: str) -> Told | None:
        assert "\r" not in line
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data += value + "\n"
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Told | None:
        self.last_id = self._id
        data, kind, self._data, self._type = self._data, self._type, "", ""
        return Told(data[:-1], kind or "message", self.last_id) if data else None


class Client:
    """One response to one request, without a server."""

    def __init__(self, request: HttpCommunicator, source: Source) -> None:
        self.request, self.source = request, source
        self.status, self.headers = 0, dict[bytes, bytes]()

    async def head(self) -> None:
        start = await self.request.receive_output()
        self.status, self.headers = start["status"], dict(start["headers"])

    async def part(self, timeout: float = 1) -> bytes:
        """The next part of the body; the source has seen it, too."""
        body: bytes = (await self.request.receive_output(timeout))["body"]
        assert len(self.source.feed(body)) <= 1
        return body

    async def event(self, timeout: float = 1) -> Told:
        """The next event; parts in which there is none are passed over."""
        while True:
            output = await self.request.receive_output(timeout)
            if told := self.source.feed(output["body"]):
                return told[0]

    async def quiet(self, seconds: float = 1) -> bool:
        return await self.request.receive_nothing(seconds)


def request_to(
    consumer: type[EventStreamConsumer],
    layer: ChannelLayer | None = None,
    *,
    last_id: str = "",
    query: str = "",
    method: str = "GET",
) -> HttpCommunicator:
    headers = [(b"last-event-id", last_id.encode())] if last_id else []
    request = HttpCommunicator(consumer.as_asgi(), method, f"/stream{query}", headers=headers)
    if layer is not None:
        request.scope["channel_layers"] = {"default": layer}
    return request


@asynccontextmanager
async def streaming(
    consumer: type[EventStreamConsumer], layer: ChannelLayer | None = None, *, source: Source | None = None, **how: Any
) -> AsyncIterator[Client]:
    """Open a stream that has begun; ``source`` comes back with its last id."""
    source = source or Source()
    async with request_to(consumer, layer, **{"last_id": source.last_id, **how}) as request:
        client = Client(request, source)
        await client.head()
        yield client


def keeping(*groups: str, size: int = 1000) -> InMemoryChannelLayer:
    return InMemoryChannelLayer(history={group: History(size=size) for group in groups})


class Room(EventStreamConsumer):
    """Sends on what its room says; silent otherwise."""

    groups = ("room",)
    keep_alive = None

    async def said(self, event: Event) -> None:
        await self.send_event(event["text"])


async def say(layer: ChannelLayer, *texts: str, group: str = "room") -> None:
    for text in texts:
        await layer.group_send(group, {"type": "said", "text": text})


def consumer(base: type[EventStreamConsumer] = Room, **members: Any) -> Any:
    return type("Consumer", (base,), members)


# ---- on the wire


@pytest.mark.parametrize(
    ("arguments", "wire"),
    [
        (("hi",), "data: hi\n\n"),
        (("",), "data: \n\n"),
        (("a\nb\r\nc\rd",), "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (("a\n",), "data: a\ndata: \n\n"),
        (("a\x0bb\x0c\x85\u2028c",), "data: a\x0bb\x0c\x85\u2028c\n\n"),  # no line breaks in a stream
        ((b"\xc3\xa9",), "data: é\n\n"),
        (("hi", "greeting", "7", 5), "retry: 5\nid: 7\nevent: greeting\ndata: hi\n\n"),
        (("hi", None, ""), "id: \ndata: hi\n\n"),
    ],
)
def test_an_event_on_the_wire(arguments: Any, wire: str) -> None:
    assert encode_event(*arguments) == wire.encode()


def test_comments_ids_and_retries_on_the_wire() -> None:
    assert encode_comment() == b":\n\n"
    assert encode_comment("a\nb") == b": a\n: b\n\n"
    assert encode_id("x") == b"id: x\n\n"
    assert encode_retry(0) == b"retry: 0\n\n"


@pytest.mark.once
@given(st.text(), st.text().filter(lambda text: not set("\r\n") & set(text)), st.text(alphabet="ab 7:é"))
def test_what_is_sent_is_what_a_client_gets(data: str, event: str, name: str) -> None:
    source = Source()
    whole = data.replace("\r\n", "\n").replace("\r", "\n")
    assert source.feed(encode_comment(data)) == []
    assert source.feed(encode_event(data, event, name)) == [Told(whole, event or "message", name)]
    assert source.feed(encode_id("z")) == []
    assert source.last_id == "z"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("hi", "a\nb"), BadEvent, "event is one line .* line break: 'a.nb'"),
        (("hi", "a\r"), BadEvent, "event is one line"),
        (("hi", None, "a\nb"), BadEvent, "id is one line"),
        (("hi", None, "a\0b"), BadEvent, "id must not hold a NUL"),
        (("hi", None, None, -1), BadEvent, "retry is a number of milliseconds"),
        (("hi", None, None, 1.5), BadEvent, "retry is a number of milliseconds"),
        ((b"\xff",), BadEvent, "data is bytes that are no UTF-8"),
        (("\ud800",), BadEvent, "an event stream is UTF-8, which has no"),
        (({"a": 1},), TypeError, r"data is str or bytes, not dict: .*send_json_event\(\)"),
        (("hi", 7), TypeError, "event is a str, not int"),
        (("hi", None, 7), TypeError, "id is a str, not int"),
    ],
)
def test_what_would_arrive_as_something_else_is_refused(arguments: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        encode_event(*arguments)


async def test_the_sending_methods(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.send_event("a", "greeting", "1", 10)
        await self.send_event(b"b")
        await self.send_json_event({"c": [1]}, "json")
        await self.comment("d")
        with pytest.raises(BadEvent):
            await self.send_event("e", id="\n")

    async with streaming(consumer(groups=(), connect=connect)) as client:
        assert [await client.part() for _ in range(5)] == [
            b":\n\n",
            b"retry: 10\nid: 1\nevent: greeting\ndata: a\n\n",
            b"data: b\n\n",
            b'event: json\ndata: {"c": [1]}\n\n',
            b": d\n\n",
        ]
        assert await client.quiet()


# ---- who gets a stream


async def test_a_stream_that_is_being_opened_is_opened_once(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        self.nursery.start_soon(self.send_event, "task")
        await anyio.sleep(0.5)  # the task waits for the server now

    stuck = Stuck(100, seconds=1)
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(stuck.run, consumer(groups=(), connect=connect), InMemoryChannelLayer())
        await anyio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [event.get("body") for event in stuck.sent] == [None, b":\n\n", b"data: task\n\n"]


async def test_the_head_comes_at_once(autojump_clock: object) -> None:
    async with streaming(consumer(groups=())) as client:
        assert client.status == 200
        assert client.headers == HEADERS
        assert await client.part() == b":\n\n"
        assert await client.quiet()


async def test_headers_of_ones_own_come_beside_or_instead(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.accept({"Cache-Control": "no-cache", "X-One": "1"})
        with pytest.raises(OutOfTurn, match=r"call accept\(\) before"):
            await self.accept()
        with pytest.raises(OutOfTurn, match=r"call refuse\(\) first"):
            await self.refuse()

    async with streaming(consumer(groups=(), connect=connect)) as client:
        assert client.headers == {**HEADERS, b"cache-control": b"no-cache", b"x-one": b"1"}


@pytest.mark.parametrize("retry", [0, 2500])
async def test_retry_is_sent_first_and_once(autojump_clock: object, retry: int) -> None:
    async with InMemoryChannelLayer() as layer, streaming(consumer(retry=retry), layer) as client:
        assert await client.part() == b"retry: %d\n\n" % retry
        await say(layer, "hi")
        assert await client.part() == b"data: hi\n\n"


async def test_retry_may_be_chosen_in_connect(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        self.retry = 1234

    async with streaming(consumer(groups=(), connect=connect)) as client:
        assert await client.part() == b"retry: 1234\n\n"


@pytest.mark.parametrize(
    ("status", "body", "length"), [(403, b"no", b"2"), (204, b"", None), (503, b"", b"0")], ids=str
)
async def test_a_refusal_is_an_answer_and_the_end(
    autojump_clock: object, status: int, body: bytes, length: bytes | None
) -> None:
    seen: list[str] = []

    async def connect(self: Any) -> None:
        await self.refuse(status, body, {"X-Why": "because"})
        with pytest.raises(OutOfTurn, match="was refused"):
            await self.refuse()
        with pytest.raises(ConnectionClosed):
            await self.send_event("to nobody")

    async def disconnect(self: Any) -> None:
        seen.append("disconnect")

    async with InMemoryChannelLayer() as layer:
        async with request_to(consumer(connect=connect, disconnect=disconnect), layer) as request:
            answer = await request.get_response()
            await request.wait()
        assert layer.statistics().memberships == layer.statistics().instances == 0
    wanted = {b"cache-control": b"no-store", b"x-why": b"because"}
    assert (answer["status"], answer["body"]) == (status, body)
    assert dict(answer["headers"]) == (wanted if length is None else {**wanted, b"content-length": length})
    assert seen == ["disconnect"]


@pytest.mark.parametrize(("error", "status"), [(DenyConnection, 403), (AcceptConnection, 200), (StopConsumer, 204)])
async def test_connect_may_raise_its_answer(autojump_clock: object, error: Any, status: int) -> None:
    async def connect(self: Any) -> None:
        raise error

    async with streaming(consumer(groups=(), connect=connect)) as client:
        assert client.status == status
        if status == 200:
            assert await client.part() == b":\n\n"
        else:
            assert await client.part() == b""
            await client.request.wait()


async def test_an_error_in_connect_is_raised_as_itself(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        raise KeyError("in connect")

    request = request_to(consumer(groups=(), connect=connect))
    await request.send_request()
    with pytest.raises(KeyError):
        await request.wait()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_answered_with_what_is_allowed(autojump_clock: object, method: str) -> None:
    seen: list[str] = []

    async def note(self: Any) -> None:
        seen.append("ran")

    asked = consumer(connect=note, disconnect=note)
    async with InMemoryChannelLayer() as layer, request_to(asked, layer, method=method) as request:
        answer = await request.get_response()
        await request.wait()
    assert answer["status"] == 405
    assert (b"allow", b"GET, HEAD") in answer["headers"]
    assert seen == []


async def test_head_is_answered_without_a_body(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.send_event("state")
        raise AssertionError("went on")

    for asked in (consumer(groups=()), consumer(groups=(), connect=connect)):
        async with request_to(asked, method="HEAD") as request:
            answer = await request.get_response()
            await request.wait()
        assert answer == {"status": 200, "headers": list(HEADERS.items()), "body": b""}


async def test_head_is_refused_as_get_would_be(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.refuse(403, b"no")

    async with request_to(consumer(groups=(), connect=connect), method="HEAD") as request:
        answer = await request.get_response()
    assert (answer["status"], answer["body"]) == (403, b"")
    assert (b"content-length", b"2") in answer["headers"]


async def test_a_body_is_of_no_interest(autojump_clock: object) -> None:
    seen: list[str] = []

    async def connect(self: Any) -> None:
        seen.append("connect")

    request = request_to(consumer(groups=(), connect=connect))
    for more in (True, True, False):
        await request.send_input({"type": "http.request", "body": b"x", "more_body": more})
    await anyio.wait_all_tasks_blocked()
    assert seen == ["connect"]
    await request.send_input({"type": "http.disconnect"})
    await request.wait()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"keep_alive": 0}, "keep_alive must be a number of seconds above 0, or None, not 0"),
        ({"keep_alive": True}, "keep_alive must be"),
        ({"retry": -1}, "retry must be milliseconds"),
        ({"retry": 1.5}, "retry must be milliseconds"),
        ({"concurrency": 2}, "concurrency must be 1"),
        ({"groups": "room"}, "groups must be a list of names"),
    ],
)
def test_wrong_settings_are_found_where_they_are_made(members: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"Consumer\.{text}"):
        consumer(**members)


# ---- keep-alive


async def test_silence_is_broken_by_comments(autojump_clock: object) -> None:
    class Quiet(EventStreamConsumer):
        groups = ("room",)

        async def said(self, event: Event) -> None:
            await self.send_event(event["text"])

    async with InMemoryChannelLayer() as layer, streaming(Quiet, layer) as client:
        assert await client.part() == b":\n\n"
        began = anyio.current_time()
        for beat in (1, 2, 3):
            assert await client.part(20) == b":\n\n"
            assert anyio.current_time() - began == pytest.approx(beat * 15)
        await anyio.sleep(10)
        await say(layer, "hi")
        assert await client.part() == b"data: hi\n\n"
        said = anyio.current_time()
        assert await client.part(20) == b":\n\n"  # after 15 seconds, not after 5
        assert anyio.current_time() - said == pytest.approx(15)


async def test_no_comments_while_others_are_sent_or_where_none_are_wanted(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        async with streaming(consumer(keep_alive=3), layer) as client:
            await client.part()
            for _ in range(5):
                await anyio.sleep(2)
                await say(layer, "hi")
                assert await client.part() == b"data: hi\n\n"
        async with streaming(Room, layer) as client:
            await client.part()
            assert await client.quiet(3600)


# ---- events of the layer


async def test_events_of_the_layer_are_handler_calls_and_sse_send_needs_none(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.join("elsewhere")

    async with InMemoryChannelLayer() as layer, streaming(consumer(connect=connect), layer) as client:
        await say(layer, "one")
        assert await client.event() == Told("one")
        await layer.group_send("elsewhere", {"type": "sse.send", "data": "two\nlines"})
        assert await client.event() == Told("two\nlines")
        await layer.group_send("room", {"type": "sse.send", "data": b"3", "event": "e", "id": "x", "retry": 7})
        assert await client.event() == Told("3", "e", "x")
        assert client.source.retry == 7
        await layer.group_send("room", {"type": "sse.send", "json": {"a": 1}})
        assert await client.event() == Told('{"a": 1}', id="x")


@pytest.mark.parametrize("seconds", [0, 0.5, 1.5])
async def test_a_task_of_connect_may_be_the_first_to_send(autojump_clock: object, seconds: float) -> None:
    async def connect(self: Any) -> None:
        self.nursery.start_soon(self.tick)
        await anyio.sleep(seconds)

    async def accept(self: Any, *given: Any) -> None:
        raise AssertionError("may be overridden, but must not be called twice")

    async def tick(self: Any) -> None:
        while True:
            await self.send_event("tick")
            await anyio.sleep(1)

    async with streaming(consumer(groups=(), connect=connect, tick=tick, accept=accept)) as client:
        assert client.status == 200
        assert [await client.event(2) for _ in range(3)] == [Told("tick")] * 3


# ---- positions


async def test_a_position_is_the_id_of_what_is_sent_for_its_event(autojump_clock: object) -> None:
    async with keeping("room") as layer, streaming(Room, layer) as client:
        await client.part()
        await client.part()
        start = client.source.last_id
        assert start.startswith("1,")
        await say(layer, "a", "b")
        first, second = await client.event(), await client.event()
        assert len({start, first.id, second.id}) == 3
        (begun,), (here,) = read_id(start).values(), read_id(second.id).values()
        assert (begun.offset, here.offset, begun.epoch) == (0, 2, here.epoch)


def test_an_id_does_not_tell_the_names_of_groups() -> None:
    reached = Reached({})
    reached.enter("tenant.7", Position(12, "e.p-o,ch"))
    assert "tenant" not in reached.id()
    assert Reached(read_id(reached.id())).of("tenant.7") == Position(12, "e.p-o,ch")
    assert Reached(read_id(reached.id())).of("tenant.8") is None


async def test_all_groups_are_in_one_id(autojump_clock: object) -> None:
    two = consumer(groups=("room", "attic", "street"))
    source = Source()
    async with keeping("room", "attic") as layer:
        async with streaming(two, layer, source=source) as client:
            await say(layer, "r1")
            await say(layer, "a1", group="attic")
            await say(layer, "s1", group="street")
            assert [(await client.event()).data for _ in range(3)] == ["r1", "a1", "s1"]
        assert sorted(position.offset for position in read_id(source.last_id).values()) == [1, 1]
        await say(layer, "r2")
        await say(layer, "a2", "a3", group="attic")
        await say(layer, "s2", group="street")  # has no history: missed
        async with streaming(two, layer, source=source) as client:
            assert [(await client.event()).data for _ in range(3)] == ["r2", "a2", "a3"]
            assert await client.quiet()


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_who_comes_back_gets_what_it_missed_before_anything_newer(autojump_clock: object, way: str) -> None:
    source = Source()
    async with keeping("room") as layer:
        async with streaming(Room, layer, source=source) as client:
            old = (await client.part(), await client.part())[1].decode()[4:].strip()
            await say(layer, "1")
            assert (await client.event()).data == "1"
        await say(layer, "2", "3")

        async def connect(self: Any) -> None:
            await say(layer, "4")
            await self.send_event(self.last_event_id, "hello")

        how = {
            "header": {},
            "query": {"last_id": "", "query": f"?last_event_id={source.last_id}"},
            "both": {"query": f"?last_event_id={old}"},  # a page that was opened so: the header is newer
        }[way]
        async with streaming(consumer(connect=connect), layer, source=source, **how) as client:
            assert (await client.event()).type == "hello"
            assert [(await client.event()).data for _ in range(3)] == ["2", "3", "4"]
            await say(layer, "5")
            assert (await client.event()).data == "5"


async def test_a_client_that_is_lost_before_the_first_event_misses_none(autojump_clock: object) -> None:
    source = Source()
    async with keeping("room") as layer:
        await say(layer, "before its time")
        async with streaming(Room, layer, source=source) as client:
            await client.part()
            await client.part()
        await say(layer, "missed")
        async with streaming(Room, layer, source=source) as client:
            assert (await client.event()).data == "missed"


class Telling(Room):
    """Sends a state where events are missing."""

    async def recovery_failed(self, group: str) -> None:
        await self.send_event(f"state of {group}", "state")


@pytest.mark.parametrize("why", ["too many", "another history", "no history"])
async def test_what_cannot_be_recovered_is_told(autojump_clock: object, why: str) -> None:
    source = Source()
    async with keeping("room", size=2) as layer:
        async with streaming(Telling, layer, source=source) as client:
            await say(layer, "1")
            await client.event()
        if why == "too many":
            await say(layer, "2", "3", "4")
        elif why == "another history":
            await layer.flush()
        else:
            layer.histories.clear()
        old = source.last_id
        async with streaming(Telling, layer, source=source) as client:
            assert await client.event() == Told("", "resync", old)
            assert await client.event() == Told("state of room", "state", old)
            if why != "no history":
                assert (await client.part()).startswith(b"id: 1,")  # now it may go on from here
            await say(layer, "5")
            assert (await client.event()).data == "5"
        assert (source.last_id == old) is (why == "no history")


async def test_who_is_lost_before_it_has_the_state_is_told_again(autojump_clock: object) -> None:
    async def recovery_failed(self: Any, group: str) -> None:
        await anyio.sleep_forever()

    source = Source()
    async with keeping("room", size=1) as layer:
        async with streaming(Room, layer, source=source) as client:
            await say(layer, "1")
            await client.event()
        await say(layer, "2", "3")
        stuck = consumer(recovery_failed=recovery_failed, resync_event="afresh", disconnect_grace=0)
        async with streaming(stuck, layer, source=source) as client:
            assert (await client.event()).type == "afresh"
        async with streaming(Telling, layer, source=source) as client:
            assert [(await client.event()).type for _ in range(2)] == ["resync", "state"]
            await client.part()
        async with streaming(Telling, layer, source=source) as client:
            await client.part()
            assert await client.quiet()


async def test_a_gap_that_the_layer_finds_is_told(autojump_clock: object) -> None:
    async with keeping("room") as layer, streaming(Telling, layer) as client:
        await client.part()
        await client.part()
        (mailbox,) = layer.board.mailboxes.values()
        mailbox.resync("room", Position(7, "another"))
        assert [(await client.event()).type for _ in range(2)] == ["resync", "state"]
        await client.part()
        assert list(read_id(client.source.last_id).values()) == [Position(7, "another")]


async def test_to_join_later_is_to_be_told_at_once(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        await self.join("attic")
        await self.send_event(event["text"])

    late = consumer(Telling, said=said)
    source = Source()
    async with keeping("room", "attic", size=1) as layer:
        async with streaming(late, layer, source=source) as client:
            await say(layer, "1")
            assert (await client.event()).data == "1"
            assert len(read_id(source.last_id)) == 2
        await say(layer, "a1", "a2", group="attic")
        async with streaming(late, layer, source=source) as client:
            assert len(read_id(source.last_id)) == 2  # not forgotten before it is joined
            await say(layer, "2")
            told = [await client.event() for _ in range(3)]
            assert [event.type for event in told] == ["resync", "state", "message"]
            await say(layer, "3")  # joined already: nothing more to tell
            assert (await client.event()).data == "3"
            assert sorted(position.offset for position in read_id(source.last_id).values()) == [2, 3]


async def test_a_client_that_is_lost_between_joining_and_sending_gets_the_event_again(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        await self.join("attic")
        await anyio.sleep(1)
        await self.send_event(event["text"])

    source = Source()
    late = consumer(said=said, disconnect_grace=0)
    async with keeping("room", "attic") as layer:
        async with streaming(late, layer, source=source) as client:
            await say(layer, "1")
            for _ in range(3):  # the beginning, its position, and the one with the attic
                await client.part()
            assert len(read_id(source.last_id)) == 2
        async with streaming(late, layer, source=source) as client:
            assert (await client.event(3)).data == "1"


async def test_to_leave_is_to_be_forgotten(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        await self.leave("attic")
        await self.send_event(event["text"])

    leaving = consumer(groups=("room", "attic"), said=said)
    async with keeping("room", "attic") as layer, streaming(leaving, layer) as client:
        await client.part()
        await client.part()
        assert len(read_id(client.source.last_id)) == 2
        await say(layer, "1")
        await client.event()
        assert len(read_id(client.source.last_id)) == 1


async def test_another_task_does_not_send_the_position_of_what_is_still_handled(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        self.nursery.start_soon(self.tick)

    async def tick(self: Any) -> None:
        while True:
            await anyio.sleep(2)
            await self.send_event("tick")

    async def said(self: Any, event: Event) -> None:
        await anyio.sleep(3)
        await self.send_event(event["text"])

    source = Source()
    slow = consumer(connect=connect, tick=tick, said=said, disconnect_grace=0)
    async with keeping("room") as layer:
        async with streaming(slow, layer, source=source) as client:
            await say(layer, "1")
            assert (await client.event(3)).data == "tick"
        async with streaming(slow, layer, source=source) as client:
            assert [(await client.event(5)).data for _ in range(2)] == ["tick", "1"]


async def test_an_event_may_have_no_id_or_one_of_ones_own(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        await self.send_event("first of two", id=False)
        await self.send_event(event["text"])
        await self.send_event("own", id="own")

    async with keeping("room") as layer, streaming(consumer(said=said), layer) as client:
        await client.part()
        await client.part()
        start = client.source.last_id
        await say(layer, "1")
        first, second, third = [await client.event() for _ in range(3)]
        assert first.id == start
        assert [at.offset for at in read_id(second.id).values()] == [1]
        assert third.id == "own"


async def test_ids_of_ones_own_are_left_alone(autojump_clock: object) -> None:
    async def connect(self: Any) -> None:
        await self.send_event(self.last_event_id, "hello")

    async with keeping("room") as layer:
        for own in ({"positions_as_ids": False}, {"groups": ("no.history",)}):
            async with streaming(consumer(connect=connect, **own), layer, last_id="42") as client:
                assert (await client.event()).data == "42"
                assert await client.quiet()
                await say(layer, "1", group=own.get("groups", ["room"])[0])  # type: ignore[index]
                assert await client.event() == Told("1")


MALFORMED = [
    "garbage",
    "1",
    "1,",
    "2,0123456789-1-e",
    "1,0123456789-01-e",
    "1,0123456789--1-e",
    "1,0123456789-1-",
    "1,0123456789-1-e,x",
    "1,0123456789-" + "9" * 19 + "-e",
    "1" + ",0123456789-1-e" * (MOST_GROUPS + 1),
    "1," + "x" * LONGEST_ID,
    "1,0123456789-1-é",
    "1,0123456789-1-%ff",
    "1,0123456789-1-e,0123456789-2-f",
    "1,0123456789-1-" + "e" * 129,
    "1,*,0123456789-1-e",
    "1,*,*",
    "A" * 7000,
]


@pytest.mark.parametrize("last_id", [*MALFORMED, b"\xff\xfe".decode("latin-1")])
async def test_who_comes_back_with_an_id_that_cannot_be_read_is_told(autojump_clock: object, last_id: str) -> None:
    assert read_id(last_id) == {OTHERS: NOWHERE}
    source = Source(last_id)
    async with keeping("room") as layer:
        await say(layer, "missed, perhaps")
        async with streaming(consumer(Telling, groups=("room", "plain")), layer, source=source) as client:
            assert [(await client.event()).type for _ in range(2)] == ["resync", "state"]
            await say(layer, "1")
            assert (await client.event()).data == "1"
        async with streaming(Telling, layer, source=source) as client:
            await say(layer, "2")
            assert (await client.event()).data == "2"


async def test_join_says_what_came_of_an_id_that_cannot_be_read(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def connect(self: Any) -> None:
        seen.extend([await self.join("room"), await self.join("plain")])

    async with keeping("room") as layer, streaming(consumer(groups=(), connect=connect), layer, last_id="?") as client:
        assert (await client.event()).type == "resync"
    assert [(recovery.group, recovery.recovered, recovery.count) for recovery in seen] == [
        ("room", False, 0),
        ("plain", True, 0),
    ]


async def test_with_an_id_that_cannot_be_read_each_group_is_told_whenever_it_is_joined(autojump_clock: object) -> None:
    """Also if the client is lost in between: its new id does not hide what it has not been told yet."""

    async def connect(self: Any) -> None:
        self.nursery.start_soon(self.late)

    async def late(self: Any) -> None:
        await anyio.sleep(1)
        await self.join("street")

    async def recovery_failed(self: Any, group: str) -> None:
        await self.send_event(group, "state")
        if group == self.stuck_in:
            await anyio.sleep_forever()

    source = Source("garbage")
    members: Any = {"groups": ("room", "attic"), "connect": connect, "late": late, "recovery_failed": recovery_failed}
    told = []
    async with keeping("room", "attic", "street") as layer:
        for stuck_in, seconds in (("attic", 0.5), ("street", 3), (None, 3)):
            async with streaming(consumer(**members, stuck_in=stuck_in), layer, source=source) as client:
                with anyio.move_on_after(seconds):
                    while event := await client.event(5):
                        told.append(event.data or event.type)
    assert told == ["resync", "room", "resync", "attic", "resync", "attic", "resync", "street", "resync", "street"]


async def several(client: Client, count: int) -> list[str]:
    return [(await client.event()).type for _ in range(count)]


@pytest.mark.parametrize("why", ["one epoch twice", "unknown groups", "ahead", "from nowhere", "long names"])
async def test_an_id_that_somebody_made_up_spoils_nothing(autojump_clock: object, why: str) -> None:
    two = consumer(Telling, groups=("room", "attic"))
    async with keeping("room", "attic") as layer:
        epochs = [str((await layer.group_send(group, {"type": "x"})).epoch) for group in two.groups]  # type: ignore[union-attr]
        room, attic = key_of("room"), key_of("attic")
        made_up, tells = {
            "one epoch twice": (f"1,{room}-0-{epochs[0]},{attic}-3-{epochs[0]}", 2),
            "unknown groups": ("1" + "".join(f",{number:010x}-1-e" for number in range(100)), 0),
            "ahead": (f"1,{room}-{'9' * 18}-{epochs[0]},{attic}-2-{epochs[1]}", 4),
            "from nowhere": (f"1,{room}-0-%3F,*", 4),
            "long names": ("1" + "".join(f",{number:010x}-1-{'e' * 128}" for number in range(56)), 0),
        }[why]
        assert len(read_id(made_up)) >= 2
        source = Source(made_up)
        async with streaming(consumer(two, x=no_handler), layer, source=source) as client:
            assert await several(client, tells) == ["resync", "state"] * (tells // 2)
            await say(layer, "1")
            assert (await client.event()).data == "1"
        at = read_id(source.last_id)
        assert (at[room], at[attic]) == (Position(2, epochs[0]), Position(1, epochs[1]))
        assert len(source.last_id) < LONGEST_ID
        async with streaming(two, layer, source=source) as client:
            await say(layer, "2")
            assert (await client.event()).data == "2"


async def no_handler(self: Any, event: Event) -> None:
    """What is of no interest."""


places = st.tuples(
    st.sampled_from(["room", "attic", "plain", "elsewhere"]) | st.text("0123456789abcdef", min_size=10, max_size=10),
    st.integers(0, 4) | st.integers(0, 10**20),
    st.sampled_from(["room", "attic", "?", "e", "%", "\r\n"]) | st.text(max_size=5),
)


def made_of(epochs: dict[str, str], named: list[tuple[str, int, str]], fill: int, others: bool) -> str:
    parts = [
        f"{key_of(group) if group.isalpha() else group}-{offset}-{quote(epochs.get(epoch, epoch), safe='')}"
        for group, offset, epoch in named
    ]
    return ",".join(["1", *parts, *(f"{number:010x}-1-e" for number in range(fill)), *["*"][: int(others)]])


@given(st.text(max_size=20) | st.tuples(st.lists(places, max_size=6), st.integers(0, 120), st.booleans()))
@settings(max_examples=60, deadline=None)
def test_whatever_id_a_client_sends_it_has_a_stream_and_then_an_id_that_holds(made_up: Any) -> None:
    two = consumer(Telling, groups=("room", "attic", "plain"), x=no_handler)

    async def scenario() -> None:
        async with keeping("room", "attic", size=2) as layer:
            positions = [await layer.group_send(group, {"type": "x"}) for group in ("room", "attic") for _ in range(4)]
            epochs = {"room": positions[0].epoch, "attic": positions[-1].epoch}  # type: ignore[union-attr]
            source = Source(made_up if isinstance(made_up, str) else made_of(epochs, *made_up))
            for number in ("1", "2"):
                async with streaming(two, layer, source=source) as client:
                    assert client.status == 200
                    await say(layer, number)
                    told = [await client.event()]
                    while told[-1].data != number:
                        told.append(await client.event())
            assert len(told) == 1
            assert all(read_id(source.last_id)[key_of(group)].epoch == epochs[group] for group in epochs)

    anyio.run(scenario, backend=BACKEND)


async def test_groups_that_are_not_joined_again_take_no_room(autojump_clock: object) -> None:
    """60 groups, then 30 others, again and again: what was joined before fills an id as far as it has room."""

    async def connect(self: Any) -> None:
        for number in self.numbers:
            await self.join(f"n.{number}")

    source = Source()
    async with InMemoryChannelLayer(history={"n.*": History(size=5)}) as layer:
        for numbers in (range(60), range(60, 90), range(90, 120), range(120, 220)):
            joined = consumer(Telling, groups=(), connect=connect, numbers=numbers)
            async with streaming(joined, layer, source=source) as client:
                while not await client.quiet():
                    await client.part()
            assert {key_of(f"n.{number}") for number in numbers} <= set(read_id(source.last_id))
            assert len(source.last_id) < 4500
            assert len(read_id(source.last_id)) <= MOST_GROUPS + 1
        async with streaming(joined, layer, source=source) as client:
            assert (await client.part()) == b":\n\n"
            assert await client.quiet()


async def test_who_was_in_more_groups_than_an_id_can_tell_is_told(autojump_clock: object) -> None:
    """Which they were is not known any more, so that one may be among them that is joined for the first time."""
    reached = Reached({f"{number:010x}": Position(1, f"e{number}") for number in range(MOST_GROUPS)})
    reached.enter("room", Position(0, "e"))
    assert list(read_id(reached.id()))[-1] == OTHERS
    attic = consumer(Telling, groups=("attic",))
    async with keeping("attic") as layer, streaming(attic, layer, last_id=reached.id()) as client:
        assert await several(client, 2) == ["resync", "state"]


@pytest.mark.parametrize(
    ("seconds", "named", "then"), [(59, 2, ["resync", "state", "message"]), (61, 1, ["message"])], ids=str
)
async def test_groups_that_are_not_joined_again_within_a_minute_are_forgotten(
    autojump_clock: object, seconds: float, named: int, then: list[str]
) -> None:
    async def said(self: Any, event: Event) -> None:
        if event["text"] == "join":
            await self.join("attic")
        await self.send_event(event["text"])

    source = Source()
    async with InMemoryChannelLayer(history={"room": History(), "attic": History(size=1)}) as layer:
        async with streaming(consumer(groups=("room", "attic")), layer, source=source) as client:
            await say(layer, "0")
            assert (await client.event()).data == "0"
        await say(layer, "a1", "a2", group="attic")
        async with streaming(consumer(Telling, said=said), layer, source=source) as client:
            await anyio.sleep(seconds)
            await say(layer, "1")
            assert (await client.event()).data == "1"
            assert len(read_id(source.last_id)) == named
            await say(layer, "join")
            assert await several(client, len(then)) == then
            assert len(read_id(source.last_id)) == 2


async def test_the_id_of_a_stream_that_is_silent_gets_shorter_as_well(autojump_clock: object) -> None:
    source = Source()
    async with keeping("room", "attic") as layer:
        async with streaming(consumer(groups=("room", "attic")), layer, source=source) as client:
            await client.part()
            await client.part()
        async with streaming(consumer(keep_alive=25), layer, source=source) as client:
            parts = [await client.part(26) for _ in range(5)]
    assert [part[:3] for part in parts] == [b":\n\n", b":\n\n", b":\n\n", b"id:", b":\n\n"]
    assert list(read_id(source.last_id)) == [key_of("room")]


async def test_a_group_that_is_left_when_its_gap_is_told_is_not_in_the_id(autojump_clock: object) -> None:
    async def recovery_failed(self: Any, group: str) -> None:
        await self.leave(group)

    source = Source("garbage")
    leaving = consumer(groups=("room", "attic"), recovery_failed=recovery_failed)
    async with keeping("room", "attic") as layer, streaming(leaving, layer, source=source) as client:
        assert await several(client, 2) == ["resync", "resync"]
        assert await client.quiet()


async def test_an_id_that_somebody_made_up_lets_nobody_into_a_group(autojump_clock: object) -> None:
    made_up = Reached({})
    async with keeping("room", "secret") as layer:
        epoch = (await layer.group_send("secret", {"type": "said", "text": "not for all"})).epoch  # type: ignore[union-attr]
        made_up.enter("secret", Position(0, epoch))
        async with streaming(Room, layer, last_id=made_up.id()) as client:
            await say(layer, "1")
            assert (await client.event()).data == "1"
            assert await client.quiet()


async def test_a_header_that_is_no_text_cannot_be_read_and_a_long_query_is_no_trouble(autojump_clock: object) -> None:
    for query, header in (("?last_event_id=%ff", b"\xff"), ("?" + "&".join(["a=1"] * 200), None)):
        async with keeping("room") as layer:
            request = request_to(Telling, layer, query=query)
            request.scope["headers"] = [(b"last-event-id", header)] if header else []
            async with request:
                assert (await request.receive_output())["status"] == 200
                assert (await request.receive_output())["body"] == b":\n\n"
                first = (await request.receive_output())["body"]
                assert first.startswith(b"event: resync\n" if header else b"id: 1,")


@pytest.mark.once
@given(st.text(alphabet="1,-09af%.~é", max_size=60) | st.text())
def test_reading_an_id_never_fails(text: str) -> None:
    read_id(text)


@pytest.mark.once
@given(
    st.dictionaries(st.text(), st.builds(Position, st.integers(0, 10**17), st.text("ab0-.,%", min_size=1)), max_size=9)
)
def test_an_id_is_read_as_it_was_made(positions: dict[str, Position]) -> None:
    # An epoch is of one group.
    given = {group: Position(at.offset, f"{number}{at.epoch}") for number, (group, at) in enumerate(positions.items())}
    reached = Reached({})
    for group, position in given.items():
        reached.enter(group, position)
    again = Reached(read_id(reached.id()))
    assert {group: again.of(group) for group in given} == given
    for group, position in given.items():
        again.enter(group, position)
    assert again.id() == reached.id()


claims = st.builds(Position, st.integers(10, 10**17), st.sampled_from("efg"))
truths = st.builds(Position, st.integers(0, 9), st.sampled_from("efg"))
steps = st.tuples(
    st.sampled_from(["enter", "hold", "advance", "forget", "forget_unjoined"]), st.sampled_from("abc"), truths
)


@pytest.mark.once
@given(st.dictionaries(st.sampled_from([*map(key_of, "abcd"), OTHERS]), claims), st.lists(steps))
def test_what_the_histories_told_is_never_what_a_client_claimed(claimed: Any, taken: list[Any]) -> None:
    """Even where, against what layers promise, groups share an epoch."""
    reached, joined = Reached(claimed), set[str]()
    for step, group, position in taken:
        arguments = {"advance": (position,), "forget": (group,), "forget_unjoined": ()}
        getattr(reached, step)(*arguments.get(step, (group, position)))
        joined = joined | {group} if step == "enter" else joined - {group} if step in ("forget", "hold") else joined
        at = [reached.of(group) for group in joined]
        assert all(position is not None and position.offset < 10 for position in at)
        for name in (reached.id(), reached.id(position)):
            assert {key_of(group) for group in joined} <= set(read_id(name))


def test_a_gap_goes_on_where_the_history_says_and_an_early_event_counts() -> None:
    reached = Reached({key_of("room"): Position(10**17, "e")})
    reached.hold("room", Position(10**17, "e"))
    reached.advance(Position(6, "e"))  # handled before the client is told
    reached.enter("room", Position(5, "e"))
    assert reached.of("room") == Position(6, "e")
    reached.enter("room", Position(2, "e"))  # the layer found that the history is not where it was
    assert reached.of("room") == Position(2, "e")
    for number in range(1000):  # of groups that are left
        reached.advance(Position(1, f"e{number}"))
    assert len(reached._early) == MOST_GROUPS


def test_more_groups_than_an_id_can_tell_are_an_error() -> None:
    reached = Reached({})
    for number in range(MOST_GROUPS):
        reached.enter(f"g{number}", Position(10**12, f"{number:016}"))
    assert len(read_id(reached.id())) == MOST_GROUPS
    assert len(reached.id()) < 4500  # bytes of a header
    for add in (reached.enter, reached.hold):
        with pytest.raises(InvalidChannelLayerError, match="room for 100 groups with history"):
            add("one more", Position(1, "e"))


async def visit(layer: ChannelLayer, source: Source, chance: random.Random, got: list[str], patience: float) -> None:
    """Come back for some of a thousand events, and be lost amid them."""
    async with streaming(Room, layer, source=source) as client:
        for _ in range(chance.randrange(1, 150)):
            if len(got) == 1000:
                break
            told = await client.event(patience)
            assert told.type == "message"
            got.append(told.data)


@pytest.mark.parametrize("seed", range(5))
async def test_a_thousand_events_and_a_client_that_is_lost_at_random(autojump_clock: object, seed: int) -> None:
    """It loses its connection again and again, with whatever was on its way, and has each event once, in order."""
    chance, source = random.Random(seed), Source()
    got: list[str] = []
    visits = 0

    async def publish() -> None:
        for number in range(1000):
            await say(layer, str(number))
            if chance.random() < 0.1:
                await anyio.sleep(chance.random())

    async with keeping("room") as layer, anyio.create_task_group() as nursery:
        async with streaming(Room, layer, source=source) as client:
            await client.part()
            await client.part()
        nursery.start_soon(publish)
        while len(got) < 1000:
            visits += 1
            await anyio.sleep(chance.random())  # on its way back
            await visit(layer, source, chance, got, 100)
    assert got == [str(number) for number in range(1000)]
    assert visits > 5


# ---- the end


async def test_a_client_that_leaves_is_the_end_at_once(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def connect(self: Any) -> None:
        self.nursery.start_soon(self.work)

    async def work(self: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("task")

    async def disconnect(self: Any) -> None:
        seen.append(self.statistics().tasks)
        seen.append(self.statistics().groups)
        seen.append(anyio.current_time())

    async with InMemoryChannelLayer() as layer:
        async with streaming(consumer(connect=connect, work=work, disconnect=disconnect, keep_alive=1), layer):
            await anyio.sleep(3.5)
            assert layer.statistics().memberships == 1
            left = anyio.current_time()
        assert layer.statistics().memberships == layer.statistics().instances == 0
    assert seen == ["task", 0, (), left]


async def test_who_leaves_before_connect_has_no_goodbye(autojump_clock: object) -> None:
    seen: list[str] = []

    async def note(self: Any) -> None:
        seen.append("ran")

    class Slow(InMemoryChannelLayer):
        async def join(self, group: str, channel: str, since: Position | None = None) -> Any:
            await anyio.sleep(1)
            return await super().join(group, channel, since)

    async with Slow() as layer:
        request = request_to(consumer(connect=note, disconnect=note), layer)
        await request.send_request()
        await anyio.wait_all_tasks_blocked()
        await request.send_input({"type": "http.disconnect"})
        await request.wait(5)
    assert seen == []


async def test_the_server_ends_a_stream_with_a_whole_response(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        await self.send_event("last")
        if event["text"] == "stop":
            raise StopConsumer
        await self.close()
        with pytest.raises(ConnectionClosed):
            await self.send_event("later")

    async with InMemoryChannelLayer() as layer:
        for text in ("stop", "close"):
            async with streaming(consumer(said=said), layer) as client:
                await client.part()
                await say(layer, text)
                assert await client.event() == Told("last")
                assert await client.request.receive_output() == {
                    "type": "http.response.body",
                    "body": b"",
                    "more_body": False,
                }
                await client.request.wait()


async def test_a_failure_is_no_whole_response(autojump_clock: object) -> None:
    async def said(self: Any, event: Event) -> None:
        raise KeyError("in a handler")

    async with InMemoryChannelLayer() as layer:
        request = request_to(consumer(said=said), layer)
        await request.send_request()
        await request.receive_output()
        await request.receive_output()
        await say(layer, "hi")
        with pytest.raises(KeyError):
            await request.receive_output()


# ---- a client that is slow


class Stuck:
    """A server whose client takes ``takes`` parts, each in so many seconds, and then nothing for good."""

    def __init__(self, takes: int, seconds: float = 0) -> None:
        self.left, self.seconds, self.asked = takes, seconds, False
        self.sent: list[Event] = []

    async def receive(self) -> Event:
        if not self.asked:
            self.asked = True
            await anyio.lowlevel.checkpoint()
            return {"type": "http.request"}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(self, event: Event) -> None:
        await anyio.sleep(self.seconds)
        self.left -= 1
        while self.left < 0:
            await anyio.sleep_forever()
        self.sent.append(event)

    async def run(self, slow: type[EventStreamConsumer], layer: ChannelLayer) -> None:
        layers = {"default": layer} if layer.opened else {}
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "channel_layers": layers}
        await slow.as_asgi()(scope, self.receive, self.send)


@pytest.mark.parametrize("history", [True, False])
async def test_a_client_that_takes_nothing_is_sent_away(autojump_clock: object, history: bool) -> None:
    seen: list[Any] = []

    async def disconnect(self: Any) -> None:
        seen.append((self.close_code, self.statistics().inbox.layer_messages))

    bounds = Inbox(messages=10, overflow="disconnect")
    stuck = Stuck(5)
    async with keeping(*(["room"] if history else [])) as layer, anyio.create_task_group() as nursery:
        nursery.start_soon(stuck.run, consumer(inbox=bounds, keep_alive=1, disconnect=disconnect), layer)
        await anyio.wait_all_tasks_blocked()
        for number in range(100):
            await say(layer, str(number))
            assert all(m.statistics().layer_messages <= 10 for m in layer.board.mailboxes.values())
            await anyio.sleep(0.01)
        assert layer.statistics().memberships == 0  # at once; its handler has its grace
        await anyio.sleep(10)
        assert layer.statistics().instances == 0
    assert seen == [(1013, 0)]


async def test_who_is_overrun_before_it_begins_may_come_back(autojump_clock: object) -> None:
    """An ``EventSource`` comes back after a stream that has ended, and after nothing else."""

    async def connect(self: Any) -> None:
        await anyio.sleep(1)

    slow = consumer(connect=connect, inbox=Inbox(messages=2, overflow="disconnect"))
    async with InMemoryChannelLayer() as layer, request_to(slow, layer) as request:
        await request.send_request()
        await anyio.wait_all_tasks_blocked()
        await say(layer, "1", "2", "3")
        answer = await request.get_response(2)
        assert answer == {"status": 200, "headers": list(HEADERS.items()), "body": b""}


async def test_no_comment_waits_behind_an_event_that_waits(autojump_clock: object) -> None:
    waiting = 0

    class Counting(Stuck):
        async def send(self, event: Event) -> None:
            nonlocal waiting
            waiting += 1
            await super().send(event)
            waiting -= 1

    stuck = Counting(2)
    async with InMemoryChannelLayer() as layer, anyio.create_task_group() as nursery:
        nursery.start_soon(stuck.run, consumer(keep_alive=1), layer)
        await anyio.wait_all_tasks_blocked()
        await say(layer, "hi")
        await anyio.sleep(60)
        assert waiting == 1
        nursery.cancel_scope.cancel()


# ---- on servers


LAYER = InMemoryChannelLayer(history={"news": History()})
GONE: list[dict[str, Any]] = []
CHANGED = [anyio.Event()]


class Feed(EventStreamConsumer):
    """What the servers serve. Its goodbye says what was left."""

    groups = ("news",)
    inbox = Inbox(messages=20)

    async def connect(self) -> None:
        self.nursery.start_soon(anyio.sleep_forever)

    async def disconnect(self) -> None:
        numbers = self.statistics()
        GONE.append({"tasks": numbers.tasks, "groups": numbers.groups, "members": LAYER.statistics().memberships})
        changed, CHANGED[0] = CHANGED[0], anyio.Event()
        changed.set()


class Post(AsyncHttpConsumer):
    """Tells the group something."""

    async def handle(self, body: bytes) -> None:
        text = self.scope["url_route"]["kwargs"]["text"]
        await self.channel_layer.group_send("news", {"type": "sse.send", "data": text})
        await self.send_response(200, b"")


class Gone(AsyncHttpConsumer):
    """Answers as soon as that many streams have ended."""

    async def handle(self, body: bytes) -> None:
        while len(GONE) < self.scope["url_route"]["kwargs"]["count"]:
            await CHANGED[0].wait()
        await self.send_response(200, json.dumps(GONE).encode())


application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("feed/", Feed.as_asgi()),
                path("post/<str:text>/", Post.as_asgi()),
                path("gone/<int:count>/", Gone.as_asgi()),
            ]
        )
    },
    layers={"default": LAYER},
)


@contextmanager
def listening(server: Served, source: Source, method: str = "GET") -> Iterator[http.client.HTTPResponse]:
    """One visit of a client, which leaves without a word."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        client.request(method, "/feed/", headers={"Last-Event-ID": source.last_id} if source.last_id else {})
        with client.getresponse() as response:
            yield response
    finally:
        client.close()


def next_event(response: http.client.HTTPResponse, source: Source) -> str:
    while True:
        line = response.readline()
        assert line, "the stream has ended"
        if told := source.feed(line):
            return told[0].data


@pytest.mark.server
@pytest.mark.once
@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("kind", SERVERS)
def test_on_other_servers(kind: str) -> None:
    source = Source()
    with served(kind, f"{__name__}:application") as server:
        with listening(server, source) as response:
            assert response.status == 200
            assert {name: response.getheader(name.decode(), "").encode() for name in HEADERS} == HEADERS
            assert response.readline() == b":\n"
            server.get("/post/one/")
            assert next_event(response, source) == "one"
        assert json.loads(server.get("/gone/1/")[1]) == [{"tasks": 0, "groups": [], "members": 0}]
        server.get("/post/two/")
        with listening(server, source) as response:
            if kind not in SENDS_NO_LIFESPAN:  # there, a layer in memory ends with the last who uses it
                assert next_event(response, source) == "two"
        server.get("/gone/2/")
        with listening(server, source, "POST") as response:
            assert (response.status, response.getheader("allow")) == (405, "GET, HEAD")
        with listening(server, source, "HEAD") as response:
            assert (response.status, response.read()) == (200, b"")
        server.get("/gone/3/")
        server.stop(signal.SIGTERM)
    check_frames(server.output)


class Visit:
    """One visit to our own server, byte by byte, so that it can end without a word."""

    def __init__(self, client: Any, source: Source) -> None:
        self.client, self.source = client, source

    async def ask(self) -> bytes:
        lines = ["GET /feed/ HTTP/1.1", "Host: test", f"Last-Event-ID: {self.source.last_id}", "", ""]
        await self.client.send("\r\n".join(lines).encode())
        head: bytes = await self.client.head()
        return head

    async def data(self) -> str:
        """The data of the next event; raises EOFError when the response is complete."""
        while size := await self._size():
            if told := self.source.feed((await self.client.read(size + 2))[:-2]):
                return told[0].data
        raise EOFError

    async def _size(self) -> int:
        line = b""
        while not line.endswith(b"\r\n"):
            line += await self.client.read(1)
        return int(line, 16)


@pytest.mark.server
@pytest.mark.trio_only
async def test_on_our_own_server(descriptors: None) -> None:
    from trichannels.testing.live import LiveServer

    from ..server.support import connect

    GONE.clear()
    source = Source()
    async with LiveServer(application) as live, httpx.AsyncClient(base_url=live.url, trust_env=False) as other:
        async with await connect(live.server) as client:
            visit = Visit(client, source)
            head = await visit.ask()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert all(b"%s: %s\r\n" % pair in head for pair in HEADERS.items())
            await other.get("/post/one/")
            assert await visit.data() == "one"
        assert (await other.get("/gone/1/")).json() == [{"tasks": 0, "groups": [], "members": 0}]
        await other.get("/post/two/")
        async with await connect(live.server) as client:
            visit = Visit(client, source)
            await visit.ask()
            assert await visit.data() == "two"
            client.reset()
        await other.get("/gone/2/")
        assert (await other.post("/feed/")).headers["allow"] == "GET, HEAD"
        assert (await other.head("/feed/")).content == b""
        assert live.statistics().failures == 0


@pytest.mark.server
@pytest.mark.trio_only
async def test_a_thousand_events_over_connections_that_break(descriptors: None) -> None:
    """As above, on real sockets; and publishing is so fast that the inbox of 20 sends the client away, too."""
    from ..server.support import connect, serving

    chance, source, got, sent_away = random.Random(0), Source(), list[str](), 0

    async def publish() -> None:
        for number in range(1000):
            await LAYER.group_send("news", {"type": "sse.send", "data": str(number)})

    async with serving(application) as server, anyio.create_task_group() as nursery:
        while len(got) < 1000:
            async with await connect(server) as client:
                visit = Visit(client, source)
                await visit.ask()
                if not source.last_id:
                    while not source.last_id:
                        source.feed((await client.read(await visit._size() + 2))[:-2])
                    nursery.start_soon(publish)
                try:
                    for _ in range(min(chance.randrange(1, 150), 1000 - len(got))):
                        got.append(await visit.data())
                except EOFError:
                    sent_away += 1
        assert server.statistics().failures == 0
    assert got == [str(number) for number in range(1000)]
    assert sent_away


@pytest.mark.server
@pytest.mark.trio_only
async def test_a_drain_of_our_own_server_ends_streams_at_once(descriptors: None) -> None:
    from ..server.support import connect, serving

    GONE.clear()
    async with serving(application) as server, await connect(server) as client:
        visit = Visit(client, Source())
        await visit.ask()
        await client.read(len(b"3\r\n:\n\n\r\n"))  # the beginning
        began = anyio.current_time()
        server.drain(60)
        with pytest.raises(EOFError):  # by a whole response
            await visit.data()
        while not GONE:
            await CHANGED[0].wait()
        assert anyio.current_time() - began < 10
        assert server.statistics().failures == 0


@pytest.mark.server
@pytest.mark.trio_only
async def test_a_client_of_our_own_server_that_reads_nothing_is_sent_away(descriptors: None) -> None:
    from ..server.support import serving, small_window

    GONE.clear()
    async with serving(application) as server, await small_window(server) as client:
        await client.send(b"GET /feed/ HTTP/1.1\r\nHost: test\r\n\r\n")
        await client.head()
        async with httpx.AsyncClient(base_url=server.addresses[0], trust_env=False) as other:
            with anyio.fail_after(20):
                while LAYER.statistics().memberships:
                    await LAYER.group_send("news", {"type": "sse.send", "data": "x" * 100_000})
                    assert all(m.statistics().layer_messages <= 20 for m in LAYER.board.mailboxes.values())
                assert len((await other.get("/gone/1/")).json()) == 1
        await LAYER.flush()
        assert server.statistics().failures == 0
