"""The HTTP consumer: body, answer, limit, streams, a client that leaves, and one disconnect() whatever happens."""

import inspect
from importlib import import_module
from typing import Any

import anyio
import pytest

from trichannels.events import Event
from trichannels.exceptions import ConnectionClosed, StopConsumer
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.layers.memory import InMemoryChannelLayer

from ..sockets import OurTransport, request_to


class Page(AsyncHttpConsumer):
    """Notes what happens; ``handle`` is to be overridden."""

    seen: list[Any]

    async def disconnect(self) -> None:
        self.seen.append("disconnect")


def page(handle: Any, seen: list[Any] | None = None, **members: Any) -> type[AsyncHttpConsumer]:
    return type("Page", (Page,), {"handle": handle, "seen": [] if seen is None else seen, **members})


def test_names_and_signatures_are_those_of_channels() -> None:
    channels = import_module("channels.generic.http")
    for name, theirs in inspect.getmembers(channels.AsyncHttpConsumer, inspect.isfunction):
        if name.startswith("_") or name == "send_response":
            continue
        wanted = inspect.signature(theirs).parameters
        given = inspect.signature(getattr(AsyncHttpConsumer, name)).parameters
        assert list(given) == list(wanted), name
        assert [p.kind for p in given.values()] == [p.kind for p in wanted.values()], name
        assert [p.default for p in given.values()] == [p.default for p in wanted.values()], name


async def test_the_body_is_collected_and_answered() -> None:
    async def handle(self: Any, body: bytes) -> None:
        headers = {"Content-Type": "text/plain", b"X-Bytes": b"1"}
        await self.send_response(201, body.upper(), headers=headers)

    seen: list[Any] = []
    async with request_to(page(handle, seen), "POST", b"hello") as request:
        response = await request.get_response()
        assert response == {
            "status": 201,
            "headers": [(b"content-type", b"text/plain"), (b"x-bytes", b"1")],
            "body": b"HELLO",
        }
        await request.wait()
    assert seen == ["disconnect"]


async def test_a_body_in_pieces() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.send_response(200, body)

    request = request_to(page(handle))
    for piece in (b"a", b"", b"b"):
        await request.send_input({"type": "http.request", "body": piece, "more_body": True})
    assert await request.receive_nothing(0.01)
    await request.send_input({"type": "http.request"})
    request.sent_request = True
    assert (await request.get_response())["body"] == b"ab"
    await request.wait()


async def test_headers_and_body_apart_and_in_a_stream() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.send_headers(headers=[("X-One", "1")])
        await self.send_body(b"one,", more_body=True)
        await self.send_body(b"two,", more_body=True)
        await self.send_body(b"three")

    async with request_to(page(handle)) as request:
        assert await request.get_response() == {
            "status": 200,
            "headers": [(b"x-one", b"1")],
            "body": b"one,two,three",
        }


async def test_a_response_may_begin_with_a_part() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.send_response(200, b"one,", more_body=True)
        await self.send_body(b"two")

    async with request_to(page(handle)) as request:
        assert (await request.get_response())["body"] == b"one,two"


async def test_a_body_that_is_not_bytes_is_an_error_that_tells_the_cure() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.send_response(200, "text")

    request = request_to(page(handle))
    await request.send_request()
    with pytest.raises(TypeError, match="a body is bytes, not str: encode it"):
        await request.wait()


async def test_without_a_handle_method_it_says_so() -> None:
    request = request_to(AsyncHttpConsumer)
    await request.send_request()
    with pytest.raises(NotImplementedError, match=r"must provide a handle\(\) method"):
        await request.wait()


@pytest.mark.parametrize("size", [10, 11])
async def test_a_body_above_the_limit_is_answered_with_413(size: int) -> None:
    seen: list[Any] = []

    async def handle(self: Any, body: bytes) -> None:
        seen.append(len(body))
        await self.send_response(200, b"")

    request = request_to(page(handle, seen, max_body=10))
    for _ in range(size):
        await request.send_input({"type": "http.request", "body": b"x", "more_body": True})
    await request.send_input({"type": "http.request", "body": b"", "more_body": False})
    request.sent_request = True
    response = await request.get_response()
    assert response["status"] == (200 if size == 10 else 413)
    await request.wait()
    assert seen == ([10, "disconnect"] if size == 10 else ["disconnect"])


async def test_a_body_in_a_great_many_pieces_costs_no_more_than_its_bytes() -> None:
    consumer = AsyncHttpConsumer()
    consumer.body = Countless()
    for _ in range(1000):
        await consumer.http_request({"type": "http.request", "body": b"x", "more_body": True})
        await consumer.http_request({"type": "http.request", "body": b"", "more_body": True})
    assert len(consumer.body) == 1000


async def test_above_the_limit_it_stops_and_keeps_nothing() -> None:
    consumer, sent = AsyncHttpConsumer(), list[Event]()

    async def base_send(event: Event) -> None:
        sent.append(event)

    consumer.base_send, consumer.max_body = base_send, 3
    await consumer.http_request({"type": "http.request", "body": b"xxx", "more_body": True})
    with pytest.raises(StopConsumer):
        await consumer.http_request({"type": "http.request", "body": b"x", "more_body": True})
    assert [event.get("status") for event in sent] == [413, None]
    assert consumer.body == []


class Countless(list[bytes]):
    """A list that nobody goes through piece by piece."""

    def __iter__(self) -> Any:
        raise AssertionError("each piece was looked at again")


async def test_an_error_is_raised_as_itself_and_disconnect_runs_once(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(self: Any, body: bytes) -> None:
        raise KeyError("in handle")

    seen: list[Any] = []
    request = request_to(page(handle, seen))
    await request.send_request()
    with pytest.raises(KeyError) as caught:
        await request.wait()
    assert "Page at http /page" in caught.value.__notes__[0]
    assert seen == ["disconnect"]
    assert caplog.records == []


async def test_a_client_that_leaves_gives_handle_its_grace(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def handle(self: Any, body: bytes) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(anyio.current_time())

    request = request_to(page(handle, seen, disconnect_grace=3.0))
    await request.send_request()
    await anyio.wait_all_tasks_blocked()
    left = anyio.current_time()
    await request.send_input({"type": "http.disconnect"})
    await request.wait(10)
    assert seen == [pytest.approx(left + 3), "disconnect"]


async def test_within_its_grace_handle_may_end_by_itself(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def handle(self: Any, body: bytes) -> None:
        await anyio.sleep(2)
        seen.append("done")
        with pytest.raises(ConnectionClosed):
            await self.send_response(200, b"to nobody")

    request = request_to(page(handle, seen))
    await request.send_request()
    await anyio.wait_all_tasks_blocked()
    await request.send_input({"type": "http.disconnect"})
    await request.wait(10)
    assert seen == ["done", "disconnect"]


async def test_a_client_that_leaves_before_its_body_is_complete() -> None:
    seen: list[Any] = []

    async def handle(self: Any, body: bytes) -> None:
        seen.append(body)

    request = request_to(page(handle, seen))
    await request.send_input({"type": "http.request", "body": b"half", "more_body": True})
    await anyio.wait_all_tasks_blocked()
    await request.send_input({"type": "http.disconnect"})
    await request.wait()
    assert seen == ["disconnect"]


async def test_a_client_that_leaves_before_it_asks_is_nobody() -> None:
    seen: list[Any] = []

    async def handle(self: Any, body: bytes) -> None:
        seen.append(body)

    request = request_to(page(handle, seen))
    await request.send_input({"type": "http.disconnect"})
    await request.wait()
    assert seen == []


async def test_a_large_body_waits_for_its_reader_on_our_server() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.send_response(200, str(len(body)).encode())

    async with request_to(page(handle), "POST", b"x" * 3_000_000, transport=OurTransport()) as request:
        assert (await request.get_response())["body"] == b"3000000"


async def test_a_long_answer_may_use_groups_and_the_nursery(autojump_clock: object) -> None:
    async def handle(self: Any, body: bytes) -> None:
        async with self.channel_layer.subscribe("news") as events:
            await self.send_headers(headers={"Content-Type": "text/event-stream"})
            self.nursery.start_soon(beat, self)
            async for event in events:
                await self.send_body(event["text"].encode(), more_body=True)

    async def beat(self: Any) -> None:
        while True:
            await anyio.sleep(1)
            await self.send_body(b":", more_body=True)

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer:
        async with request_to(page(handle, seen, disconnect_grace=1.0), layer=layer, timeout=5) as request:
            assert (await request.receive_output())["type"] == "http.response.start"
            await layer.group_send("news", {"type": "news", "text": "extra"})
            assert (await request.receive_output())["body"] == b"extra"
            assert (await request.receive_output(2))["body"] == b":"
        assert layer.statistics().memberships == layer.statistics().instances == 0
    assert seen == ["disconnect"]


async def test_events_of_the_layer_wait_until_handle_is_done() -> None:
    async def handle(self: Any, body: bytes) -> None:
        await self.join("room")
        await self.channel_layer.group_send("room", {"type": "note"})
        await self.send_response(200, b"")

    async def note(self: Any, event: Event) -> None:
        seen.append("note")

    seen: list[Any] = []
    async with InMemoryChannelLayer() as layer, request_to(page(handle, seen, note=note), layer=layer) as request:
        await request.get_response()
        await request.wait()
        assert layer.statistics().memberships == 0
    assert seen == ["disconnect"]
