"""HTTP/2: what hypercorn speaks on our sockets, and what one stream can do to the others."""

import logging
import struct

import pytest
import trio

from trichannels.events import TRANSPORT, Event, Receive, Scope, Send
from trichannels.exceptions import ConnectionClosed

from .http2 import H2Client
from .support import TEXT, connect, echo, frame, respond, serving, still_serves, websocket_app
from .test_http import HTTP

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

BIG = 1_000_000


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """/big answers with a megabyte in one piece, /early without its request's body, all else with the body's length."""
    size = 0
    event: Event = {"more_body": scope["path"] != "/early"}
    while event.get("more_body"):
        event = await receive()
        size += len(event.get("body", b""))
    if event.get("type") == "http.disconnect":
        return
    await respond(send, b"x" * BIG if scope["path"] == "/big" else b"%d" % size)


async def test_websocket_over_http2_is_hypercorns_and_is_told_of_the_drain() -> None:
    codes: list[int] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        assert TRANSPORT not in scope["extensions"]
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        codes.append(event["code"])

    async with serving(websocket_app(handler)) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        with trio.fail_after(10):
            await client.websocket(1)
            client.h2.send_data(1, frame(TEXT, b"hello"))
            await client.flush()
            while not client.data[1].endswith(b"\x81\x05hello"):
                await client.more()
            server.drain()
            while not client.data[1].endswith(b"\x88\x02" + struct.pack("!H", 1012)):
                await client.more()
            client.h2.send_data(1, frame(8, struct.pack("!H", 1012)))
            await client.flush()
    assert codes == [1012]


async def test_remote_kill_over_http2_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    """hypercorn's own WebSocket fails on the text frame; the failure is contained in its connection."""
    async with serving(websocket_app(echo), max_message_size=1000) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        with trio.fail_after(10):
            await client.websocket(1)
            client.h2.send_data(1, frame(2, b"x" * 2000))
            client.h2.send_data(1, frame(TEXT, b"hello"))
            await client.flush()
            await raw.rest()
        await still_serves(server)
        assert server.statistics().failures == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trichannels.server"
    assert record.getMessage().startswith("connection from 127.0.0.1:")


async def test_application_stuck_on_a_full_http2_window_ends_with_the_connection() -> None:
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

    async with serving(HTTP(flood)) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        await client.request(1, (":method", "GET"), (":path", "/"))
        with trio.move_on_after(0.3):
            while True:
                await raw.stream.receive_some(65536)
        await raw.stream.aclose()
        with trio.fail_after(10):
            await done.wait()
        assert server.statistics().failures == 0
    assert outcome == ["told"]


async def test_client_that_withholds_its_window_loses_that_stream_by_the_write_deadline() -> None:
    outcome: list[Exception] = []
    done = trio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/flood":
            await pages(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 10000, "more_body": True})
        except ConnectionClosed as error:
            outcome.append(error)
            raise
        finally:
            done.set()

    async with serving(HTTP(flood), write_timeout=0.3) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        client.generous = False
        with trio.fail_after(10):
            await client.request(1, (":method", "GET"), (":path", "/flood"))
            while len(client.data[1]) < 65535:
                await client.more()
            (connection,) = server._shared.connections
            (waiting,) = connection._http._protocol.protocol.stream_buffers.values()  # type: ignore[union-attr]
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(waiting.buffer) < 50_000, "what waits for the window is bounded"
            await done.wait()
            assert await client.get(3) == b"0", "its neighbour is served"
            assert client.reset == {1}
        assert server.statistics().write_timeouts == 1
        assert server.statistics().failures == 0
    assert len(outcome) == 1


async def test_client_that_opens_its_window_slowly_is_not_cut() -> None:
    async with serving(HTTP(pages), write_timeout=0.5) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        client.generous = False
        await client.request(1, (":method", "GET"), (":path", "/big"))
        with trio.fail_after(20):
            while 1 not in client.ended:
                with trio.move_on_after(0.15):
                    while True:
                        await client.more()
                if 1 not in client.ended:
                    client.h2.increment_flow_control_window(BIG // 10, 1)
                    await client.flush()
        assert len(client.data[1]) == BIG
        assert server.statistics().write_timeouts == 0


async def test_body_that_arrives_after_the_response_harms_nobody() -> None:
    """hypercorn looks for the stream that it has closed, and the connection fails."""
    async with serving(HTTP(pages)) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        with trio.fail_after(10):
            await client.request(1, (":method", "POST"), (":path", "/early"), end=False)
            while 1 not in client.ended:
                await client.more()
            for _ in range(20):  # more than the whole window: it must be given back
                client.h2.send_data(1, b"x" * 10000)
                await client.flush()
                while client.h2.local_flow_control_window(1) < 10000 and client.h2.outbound_flow_control_window < 20000:
                    await client.more()
                if client.h2.local_flow_control_window(1) < 10000:
                    break
            assert await client.get(3) == b"0"
        assert server.statistics().failures == 0


@pytest.mark.parametrize(
    "head",
    [
        [(":method", "GET"), (":path", b"/\xff"), (":scheme", "http"), (":authority", "test")],
        [(":method", b"\xff"), (":path", "/"), (":scheme", "http"), (":authority", "test")],
        [(":method", "CONNECT"), (":authority", "test")],
        [
            (":method", "CONNECT"),
            (":path", "/"),
            (":protocol", "connect-udp"),
            (":scheme", "http"),
            (":authority", "test"),
        ],
    ],
)
async def test_head_that_cannot_be_served_ends_its_stream_only(head: list[tuple[str, str]]) -> None:
    async with serving(HTTP(pages)) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        with trio.fail_after(10):
            client.h2.send_headers(1, head)
            await client.flush()
            while 1 not in client.reset:
                await client.more()
            assert await client.get(3) == b"0"
        assert server.statistics().failures == 0


async def test_flood_of_priorities_is_taken_as_the_advice_that_it_is() -> None:
    async with serving(HTTP(pages)) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        await client.flush()
        frames = [struct.pack("!HBBBIIB", 0, 5, 2, 0, number, 0, 1) for number in range(1, 4001, 2)]
        await raw.send(b"".join(frames))
        with trio.fail_after(10):
            assert await client.get(4001) == b"0"
        assert server.statistics().failures == 0


@pytest.mark.parametrize("sent", ["nothing", "half a request", "a refused WebSocket", "pings"])
async def test_connection_that_is_held_for_nothing_is_closed(sent: str) -> None:
    options = {"keep_alive_timeout": 0.3, "body_timeout": 0.3, "handshake_timeout": 0.3}
    async with serving(HTTP(pages), **options) as server, await connect(server) as raw:
        client = H2Client(raw.stream)
        if sent == "half a request":
            await client.request(1, (":method", "POST"), (":path", "/"), end=False)
        elif sent == "a refused WebSocket":
            await client.request(1, (":method", "CONNECT"), (":path", "/"), (":protocol", "websocket"), end=False)
        await client.flush()
        with trio.fail_after(4):
            async with trio.open_nursery() as nursery:
                if sent == "pings":
                    nursery.start_soon(ping, client)
                await client.over()
                nursery.cancel_scope.cancel()
        assert server.statistics().failures == 0


async def ping(client: H2Client) -> None:
    while True:
        client.h2.ping(b"12345678")
        await client.flush()
        await trio.sleep(0.05)


@pytest.mark.parametrize("settings", [b"AAMAAABkAAQAAP__", b"AAM", b""])
async def test_upgrade_in_the_clear_whatever_its_settings(settings: bytes) -> None:
    async with serving(HTTP(pages), keep_alive_timeout=0.2) as server, await connect(server) as raw:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + settings
        await raw.send(b"GET / HTTP/1.1\r\nHost: test\r\n" + upgrade + b"\r\n\r\n")
        assert (await raw.head()).startswith(b"HTTP/1.1 101 ")
        await raw.rest()
        assert server.statistics().failures == 0
