"""HTTP through hypercorn's protocols, on our sockets and tasks."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from trichannels.events import TRANSPORT, Event, Receive, Scope, Send
from trichannels.exceptions import ConnectionClosed, OutOfTurn
from trichannels.server import Server, exchange, hypercorn_glue

from .certificates import Certificates
from .support import TEXT, connect, echo, frame, respond, serving, small_window, still_serves, websocket_app

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]


async def body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        assert event["type"] == "http.request", event
        body, more = body + event.get("body", b""), event.get("more_body", False)
    return body


class HTTP:
    """An application with an HTTP handler and without lifespan."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.handler(scope, receive, send)


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    body = await body_of(receive)
    await respond(send, f"{scope['method']} {scope['path']} {scope['http_version']} ".encode() + body)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(100):
        await send({"type": "http.response.body", "body": b"%d " % number * 1000, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def test_get_post_and_keep_alive() -> None:
    async with serving(HTTP(mirror)) as server, httpx.AsyncClient(base_url=server.addresses[0]) as client:
        assert (await client.get("/a%20b")).text == "GET /a b 1.1 "
        big = b"x" * 1_000_000
        assert (await client.post("/up", content=big)).content == b"POST /up 1.1 " + big
        assert server.statistics().accepted == 1


async def test_streaming_response() -> None:
    async with serving(HTTP(stream)) as server, httpx.AsyncClient() as client:
        response = await client.get(server.addresses[0])
        assert response.text == "".join(f"{number} " * 1000 for number in range(100)) + "end"


async def test_http2_with_prior_knowledge_by_alpn_and_its_websockets(tls: Certificates) -> None:
    async with serving(HTTP(mirror), **tls.options) as server:
        async with httpx.AsyncClient(http2=True, http1=False, verify=tls.client) as client:
            response = await client.post(server.addresses[0] + "/two", content=b"x" * 100_000)
        assert response.http_version == "HTTP/2"
        assert response.content == b"POST /two 2 " + b"x" * 100_000
        async with httpx.AsyncClient(verify=tls.client) as client:
            assert (await client.get(server.addresses[0])).http_version == "HTTP/1.1"


async def test_http_client_that_stops_reading_ends_by_the_write_deadline() -> None:
    outcome: list[str] = []
    done = trio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 10000, "more_body": True})
        except ConnectionClosed:
            outcome.append("told")
            raise
        finally:
            done.set()

    async with serving(HTTP(flood), write_timeout=0.2) as server, await small_window(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        with trio.fail_after(10):
            await done.wait()
        assert server.statistics().write_timeouts == 1
        assert server.statistics().failures == 0
    assert outcome == ["told"]


async def test_http_client_that_stops_reading_does_not_hold_the_shutdown() -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10000, "more_body": True})

    started = trio.current_time()
    async with serving(HTTP(flood), write_timeout=60) as server, await small_window(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await client.head()
        await trio.sleep(0.2)
        server.drain(0.5)
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)
    assert trio.current_time() - started < 5


async def test_sending_for_ever_to_an_http_client_that_left_does_not_freeze_the_loop() -> None:
    refused = 0
    events: list[Event] = []
    done = trio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal refused
        await body_of(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        events.append(await receive())
        while refused < 100:
            try:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            except ConnectionClosed:
                refused += 1
        done.set()

    async with serving(HTTP(stubborn)) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await client.head()
        client.reset()
        with trio.fail_after(10):
            await done.wait()
    assert [event["type"] for event in events] == ["http.disconnect"]


async def test_transport_of_a_request_says_when_the_client_has_left() -> None:
    gone: list[int] = []
    told = trio.Event()

    def callback(code: int, reason: str) -> None:
        gone.append(code)
        told.set()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].when_gone(callback)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/complete":
            await send({"type": "http.response.body", "body": b""})
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            scope["extensions"][TRANSPORT].when_gone(callback)
            assert not gone, "a complete response is no peer that left"
        else:
            await told.wait()

    async with serving(HTTP(wait)) as server:
        async with await connect(server) as client:
            await client.send(b"GET /complete HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.head()
        async with await connect(server) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.head()
            client.reset()
            with trio.fail_after(10):
                await told.wait()
        assert server.statistics().failures == 0
    assert gone == [1006]


async def test_upload_that_nobody_reads_does_not_wedge_the_connection() -> None:
    """hypercorn's queue of 10 holds up the disconnect behind the unread body."""

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no thanks")

    async with serving(HTTP(deaf)) as server:
        async with await connect(server) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1_000_000)
            assert b" 200 " in await client.head()
        with trio.fail_after(10):
            while server.statistics().connections:
                await trio.sleep(0.01)


async def test_client_that_stalls_in_its_body_is_cut() -> None:
    seen: list[str] = []

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])
        with pytest.raises(ConnectionClosed):
            await respond(send)

    async with serving(HTTP(reader), body_timeout=0.2) as server, await connect(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nxx")
        assert await client.rest() == b""
        assert server.statistics().failures == 0
    assert seen == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHos", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"])
async def test_idle_and_slow_clients_are_closed(sent: bytes) -> None:
    options = {"handshake_timeout": 0.2, "keep_alive_timeout": 0.2}
    async with serving(HTTP(mirror), **options) as server, await connect(server) as client:
        await client.send(sent)
        assert (await client.rest()).endswith(b"GET / 1.1 ") == sent.endswith(b"\r\n\r\n")


async def test_oversized_head_gets_an_error_and_harms_nobody() -> None:
    async with serving(websocket_app(echo)) as server:
        async with await connect(server) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 100_000)
            assert (await client.rest()).startswith(b"HTTP/1.1 431 ")
        await still_serves(server)


async def test_pipelined_requests_behind_a_last_response_do_not_leak_the_connection() -> None:
    async def last(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async with serving(HTTP(last)) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
        assert (await client.rest()).count(b"200") == 1
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("boom")])
@pytest.mark.parametrize("started", [False, True])
async def test_failing_application(error: BaseException, started: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"123", "more_body": True})
        raise error

    async with serving(HTTP(failing)) as server, await connect(server) as client:
        await client.send(b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 200 " if started else b"HTTP/1.1 500 ")
        assert server.statistics().failures == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trichannels.server"
    assert "http /x from 127.0.0.1:" in record.getMessage()


async def test_application_that_returns_without_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with serving(HTTP(nothing)) as server, await connect(server) as client:
        assert b" 500 " in await client.get()
    assert "returned before its response was complete" in caplog.text


async def test_events_out_of_turn() -> None:
    async def eager(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(OutOfTurn):
            await send({"type": "http.response.body", "body": b"x"})
        await respond(send, b"fine")
        with pytest.raises(OutOfTurn):
            await send({"type": "http.response.body", "body": b"x"})

    async with serving(HTTP(eager)) as server, await connect(server) as client:
        assert (await client.get()).endswith(b"fine")
        assert server.statistics().failures == 0


async def test_tls_for_http_and_websockets(tls: Certificates) -> None:
    schemes: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    async with serving(websocket_app(handler), **tls.options) as server, await connect(server, tls.client) as client:
        assert server.addresses[0].startswith("https://127.0.0.1:")
        assert (await client.get()).endswith(b"ok")
        assert b" 101 " in await client.upgrade()
        await client.send(frame(TEXT, b"secret") + frame(TEXT, b"x" * 300_000))
        assert await client.text() == "secret"
        assert await client.text() == "x" * 300_000
        await client.close(4001, "bye")
        assert await client.closing() == (4001, "bye")
        assert await client.rest() == b""
        assert server.statistics().failures == 0
    assert schemes == ["wss"]


async def test_tls_client_that_stops_reading(tls: Certificates) -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 100_000})

    async with serving(websocket_app(flood), **tls.options, write_timeout=0.3) as server:
        async with await connect(server, tls.client) as client:
            await client.upgrade()
            with trio.fail_after(10):
                while server.statistics().connections:
                    await trio.sleep(0.05)
        assert server.statistics().write_timeouts == 1
        assert server.statistics().failures == 0


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03", b""])
async def test_broken_tls_handshakes_harm_nobody(tls: Certificates, sent: bytes) -> None:
    async with serving(HTTP(mirror), **tls.options, handshake_timeout=0.3) as server:
        async with await connect(server) as client:
            await client.send(sent)
            await client.rest()
        async with httpx.AsyncClient(verify=tls.client) as client2:
            assert (await client2.get(server.addresses[0])).status_code == 200
        assert server.statistics().failures == 0


async def test_unix_socket_for_http_and_websockets(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    clients: list[object] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        clients.append(scope["client"])
        await echo(scope, receive, send)

    async with serving(websocket_app(handler), bind=f"unix:{path}") as server, await connect(server) as client:
        assert server.addresses == [f"unix:{path}"]
        assert (await client.get()).endswith(b"ok")
        assert b" 101 " in await client.upgrade()
        await client.send(frame(TEXT, b"local"))
        assert await client.text() == "local"
    assert clients == [None]
    assert not path.exists()


async def test_several_addresses_and_still_serving(tmp_path: Path) -> None:
    bind = ["127.0.0.1:0", f"unix:{tmp_path / 's'}"]
    async with serving(HTTP(mirror), bind=bind) as server:
        for number in range(2):
            async with await connect(server, address=number) as client:
                assert (await client.get()).endswith(b"GET / 1.1 ")
        assert isinstance(server, Server)
        assert "127.0.0.1" in repr(server)


@pytest.mark.parametrize("how", ["response", "request", "websocket send", "websocket receive"])
async def test_starlettes_ways_of_saying_that_the_client_left_are_no_failures(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[type[BaseException]] = []

    class Endless:  # a generator would be left to the garbage collector by Starlette, which trio warns of
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"x" * 1000

    async def page(request: Request) -> Response:
        if how == "request":
            await request.body()
        return StreamingResponse(Endless())

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await (websocket.send_text("x") if how == "websocket send" else websocket.receive_text())

    site = Starlette(routes=[Route("/", page, methods=["GET", "POST"]), WebSocketRoute("/ws", socket)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await site(scope, receive, send)
        except Exception as error:
            raised.append(type(error))
            raise

    async with serving(app) as server, await connect(server) as client:
        if how == "request":
            await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nx")
            await trio.testing.wait_all_tasks_blocked(0.05)
        elif how == "response":
            await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.head()
        else:
            await client.upgrade("/ws")
        client.reset()
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)
        assert server.statistics().failures == 0
    # Having read ClientDisconnect out of a request, Starlette tries to answer 500.
    kinds = {"response": ClientDisconnect, "request": ConnectionClosed}
    assert raised == [kinds.get(how, WebSocketDisconnect)]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/", "/ws"])
async def test_a_bug_met_while_handling_the_end_is_reported_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        else:
            return
        part: Event = {"type": "websocket.send", "text": "x"}
        if scope["type"] == "http":
            part = {"type": "http.response.body", "body": b"x", "more_body": True}
        try:
            while True:
                await send(part)
        except ConnectionClosed:
            raise AssertionError  # noqa: B904 - without a text, as a bug may be

    async with serving(app) as server, await connect(server) as client:
        if path == "/ws":
            await client.upgrade(path)
        else:
            await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.head()
        client.reset()
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)
        assert server.statistics().failures == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is AssertionError


# What would make two servers see different requests, or holds a connection.


POST = b"POST / HTTP/1.1\r\nHost: test\r\n"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n", b"400"),
        (POST + b"Content-Length: +3\r\n", b"400"),
        (POST + b"Content-Length: 3\r\n" + CHUNKED, b"400"),
        (POST + CHUNKED + b"Content-Length: 3\r\n", b"400"),
        (POST + b"Transfer-Encoding : chunked\r\n", b"400"),
        (POST + b"Transfer-Encoding: xchunked\r\n", b"501"),
        (POST + CHUNKED + b"Transfer-Encoding: identity\r\n", b"501"),
        (GET + b"Host: other\r\n", b"400"),
        (GET + b"X: a\rb\r\n", b"400"),
        (GET + b"X: a\0b\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n", b"400"),
        (b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n", b"501"),
        (b"GET /\xff HTTP/1.1\r\nHost: test\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),
    ],
)
async def test_doubtful_request_is_refused_and_nothing_behind_it_is_served(request_head: bytes, status: bytes) -> None:
    served: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        await respond(send)

    async with serving(HTTP(app)) as server, await connect(server) as client:
        await client.send(request_head + b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.count(b"HTTP/1.1") == 1
        assert server.statistics().failures == 0
    assert served == []


@pytest.mark.parametrize("behind", [b"G", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"x" * 100_000])
@pytest.mark.parametrize("goodbye", ["close", "reset"])
@pytest.mark.parametrize("way", ["/receive", "/when_gone"])
async def test_client_that_leaves_behind_a_pipelined_request_is_noticed(
    behind: bytes, goodbye: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first request has its response, hypercorn reads nothing."""
    monkeypatch.setattr(hypercorn_glue, "LOOK", 0.1)
    told = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/when_gone":
            scope["extensions"][TRANSPORT].when_gone(lambda code, reason: told.set())
            await told.wait()
        else:
            await body_of(receive)
            assert (await receive())["type"] == "http.disconnect"
            told.set()

    async with serving(HTTP(app)) as server, await connect(server) as client:
        await client.send(f"GET {way} HTTP/1.1\r\nHost: test\r\n\r\n".encode() + behind)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.sleep(0.2)
        assert not told.is_set()
        client.reset() if goodbye == "reset" else await client.stream.aclose()
        with trio.fail_after(5):
            await told.wait()
            while server.statistics().connections:
                await trio.sleep(0.01)
        assert server.statistics().failures == 0


@pytest.mark.parametrize("goodbye", ["close", "reset"])
async def test_client_that_leaves_behind_a_body_that_nobody_reads_is_noticed(
    goodbye: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LOOK", 0.1)
    told = trio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].when_gone(lambda code, reason: told.set())
        await told.wait()

    async with serving(HTTP(deaf)) as server, await connect(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 160_000)
        await trio.testing.wait_all_tasks_blocked(0.05)
        client.reset() if goodbye == "reset" else await client.stream.aclose()
        with trio.fail_after(5):
            await told.wait()
            while server.statistics().connections:
                await trio.sleep(0.01)
        assert server.statistics().failures == 0


async def test_body_that_was_sent_whole_is_read_whole_though_its_client_has_left() -> None:
    go = trio.Event()
    size: list[int] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        size.append(len(await body_of(receive)))

    async with serving(HTTP(slow)) as server, await connect(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 160000\r\n\r\n" + b"x" * 160_000)
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        go.set()
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)
    assert size == [160_000]


async def test_host_that_is_not_served_is_told_and_closed() -> None:
    options = {"hypercorn": {"server_names": ["chat.example"]}, "handshake_timeout": 0.2}
    async with serving(HTTP(mirror), **options) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 404 ")
