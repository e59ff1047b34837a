"""The WebSocket transport, seen by a client that speaks bytes."""

import copy
import logging
import struct
from contextlib import suppress
from typing import Any, cast

import pytest
import trio

from trichannels.events import TRANSPORT, Event, Receive, Scope, Send
from trichannels.exceptions import BadEvent, ConnectionClosed, OutOfTurn

from .support import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    connect,
    echo,
    frame,
    serving,
    small_window,
    still_serves,
    upgrade_request,
    websocket_app,
)

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

echo_app = websocket_app(echo)


class Witness:
    """An application that writes down what it receives, and says when it has ended."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        event: Event = {"type": ""}
        while event["type"] != "websocket.disconnect":
            event = await receive()
            self.events.append(event)
        assert await receive() == event, "the disconnect may be read again"
        self.ended.set()


async def ended(event: trio.Event) -> None:
    with trio.fail_after(10):
        await event.wait()


async def test_text_and_bytes_go_both_ways() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        head = await client.upgrade("/chat?x=1")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        for opcode, payload in [
            (TEXT, "häß".encode()),
            (BINARY, b"\xff\0"),
            (TEXT, b"x" * 300),
            (BINARY, b"y" * 70000),
        ]:
            await client.send(frame(opcode, payload))
            assert await client.frame() == (opcode, payload)


async def test_fragments_are_joined_around_control_frames() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.upgrade()
        text = "€".encode()
        await client.send(frame(TEXT, text[:1], fin=False) + frame(PING, b"?") + frame(0, b"", fin=False))
        await client.send(frame(0, text[1:]))
        assert await client.frame() == (PONG, b"?")
        assert await client.text() == "€"


async def test_bytes_behind_the_upgrade_request_are_not_lost() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.upgrade(behind=frame(TEXT, b"one") + frame(TEXT, b"two")[:3])
        await client.send(frame(TEXT, b"two")[3:])
        assert [await client.text(), await client.text()] == ["one", "two"]


async def test_upgrade_on_a_connection_that_was_kept_alive() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        assert (await client.get()).endswith(b"ok")
        assert (await client.get()).endswith(b"ok")
        assert b" 101 " in await client.upgrade(behind=frame(TEXT, b"late"))
        assert await client.text() == "late"
        assert server.statistics().accepted == 1


async def test_upgrade_pipelined_behind_a_request() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" + upgrade_request() + frame(TEXT, b"now"))
        assert b" 200 " in await client.head()
        assert await client.read(2) == b"ok"
        assert b" 101 " in await client.head()
        assert await client.text() == "now"


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(b"\x0f\xa1bye", 4001, "bye"), (b"\x03\xe8", 1000, ""), (b"", 1005, ""), (None, 1006, "")],
)
async def test_close_code_and_reason_arrive_truthfully(payload: bytes | None, code: int, reason: str) -> None:
    witness = Witness()
    async with serving(websocket_app(witness)) as server, await connect(server) as client:
        await client.upgrade()
        if payload is None:
            await client.stream.aclose()
        else:
            await client.send(frame(CLOSE, payload))
            assert await client.frame() == (CLOSE, payload)
            assert await client.rest() == b""
        await ended(witness.ended)
    assert witness.events == [{"type": "websocket.disconnect", "code": code, "reason": reason}]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"x" * 1001), 1009),
        (frame(BINARY, b"x" * 600, fin=False) + frame(0, b"x" * 600), 1009),
        (frame(TEXT, b"\xff"), 1007),
        (b"\xf1\x80\0\0\0\0", 1002),
        (frame(3), 1002),
        (b"\x81\x01x", 1002),
        (b"\x89\x00", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x99\x80\0\0\0\0", 1002),
        (frame(11), 1002),
        (frame(PING, fin=False), 1002),
        (frame(CLOSE, fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
        (frame(0, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        *(
            (frame(CLOSE, struct.pack("!H", code)), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)
        ),
        (frame(TEXT, b"\xe2", fin=False) + frame(0, b"("), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", 1009),
        (b"\x82\xff" + struct.pack("!Q", 2**62) + b"\0\0\0\0", 1009),
        (upgrade_request(), 1002),
    ],
)
async def test_peer_that_breaks_the_protocol_is_told_why(data: bytes, code: int) -> None:
    witness = Witness()
    async with serving(websocket_app(witness), max_message_size=1000) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(data)
        assert (await client.closing())[0] == code
        await ended(witness.ended)
        await still_serves(server)
    assert witness.events[0]["code"] == code
    assert type(witness.events[0]["code"]) is int


async def test_remote_kill_by_a_huge_message_and_a_text_frame() -> None:
    """hypercorn's process dies of this; ours closes 1009 and serves on."""
    async with serving(echo_app) as server, await connect(server) as neighbour:
        await neighbour.upgrade()
        async with await connect(server) as client:
            await client.upgrade()
            with suppress(trio.BrokenResourceError):
                await client.send(frame(BINARY, b"x" * (17 * 2**20)) + frame(TEXT, b"hello"))
            assert (await client.closing())[0] == 1009
            assert await client.rest() == b""
        await neighbour.send(frame(TEXT, b"alive"))
        assert await neighbour.text() == "alive"
        await still_serves(server)
        assert server.statistics().failures == 0


async def test_remote_kill_by_one_byte_behind_the_upgrade() -> None:
    """hypercorn issue #225."""
    async with serving(echo_app) as server, await connect(server) as neighbour:
        await neighbour.upgrade()
        async with await connect(server) as client:
            await client.send(upgrade_request() + b"x")
            assert b" 101 " in await client.head()
            await client.send(b"x")  # the one byte was half a frame's head, and this one shows that it is a wrong one
            assert (await client.closing())[0] == 1002
        await neighbour.send(frame(TEXT, b"alive"))
        assert await neighbour.text() == "alive"
        await still_serves(server)
        assert server.statistics().failures == 0


async def test_client_that_stops_reading_ends_by_the_write_deadline() -> None:
    outcome: list[Exception] = []
    done = trio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 10000})
        except ConnectionClosed as error:
            outcome.append(error)
            raise
        finally:
            done.set()

    async with serving(websocket_app(flood), write_timeout=0.2) as server:
        async with await small_window(server) as client:
            await client.upgrade()
            await ended(done)
        assert [error.code for error in outcome if isinstance(error, ConnectionClosed)] == [1006]
        assert server.statistics().write_timeouts == 1
        assert server.statistics().failures == 0


async def test_outbox_is_bounded_however_many_tasks_send() -> None:
    sent = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        async def one() -> None:
            nonlocal sent
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 10000})
                sent += 10000

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
            assert (await receive())["type"] == "websocket.disconnect"
            nursery.cancel_scope.cancel()

    async with serving(websocket_app(flood), write_buffer=50_000) as server, await small_window(server) as client:
        await client.upgrade()
        (connection,) = server._shared.connections
        with trio.fail_after(10):
            while not connection._transport._wire.full:  # type: ignore[union-attr]
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert 50_000 < connection._transport._wire._waiting <= 60_000  # type: ignore[union-attr]
        client.reset()


async def test_a_cancelled_send_has_sent_nothing() -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        number = 0
        stuck = False
        while not stuck:
            with trio.move_on_after(0.3) as patience:
                await send({"type": "websocket.send", "text": f"{number:010000}"})
                number += 1
            stuck = patience.cancelled_caught
        await receive()
        await send({"type": "websocket.send", "text": f"{number} sent"})

    async with serving(websocket_app(flood)) as server, await small_window(server) as client:
        await client.upgrade()
        await trio.sleep(0.5)
        await client.send(frame(TEXT, b"go on"))
        count = 0
        while not (text := await client.text()).endswith("sent"):
            assert text == f"{count:010000}"
            count += 1
        assert text == f"{count} sent"


@pytest.mark.parametrize("goodbye", ["reset", "close frame"])
async def test_sending_for_ever_to_a_peer_that_left_does_not_freeze_the_loop(goodbye: str) -> None:
    refused = 0
    done = trio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal refused
        while refused < 100:
            try:
                await send({"type": "websocket.send", "text": "x"})
            except ConnectionClosed:
                refused += 1
        done.set()

    async with serving(websocket_app(stubborn)) as server, await connect(server) as client:
        await client.upgrade()
        client.reset() if goodbye == "reset" else await client.close(4001)
        await ended(done)


async def test_who_sends_on_and_on_lets_others_run_and_sees_each_cancellation() -> None:
    turns, cancelled = 0, 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def tireless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cancelled
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for number in range(320):
                await send({"type": "websocket.send", "text": str(number)})
                with trio.CancelScope() as scope_of_one:
                    scope_of_one.cancel()
                    await send({"type": "websocket.send", "text": "never"})
                cancelled += scope_of_one.cancelled_caught
            nursery.cancel_scope.cancel()
        await send({"type": "websocket.send", "text": "done"})
        await receive()

    async with serving(websocket_app(tireless)) as server, await connect(server) as client:
        await client.upgrade()
        assert [await client.text() for _ in range(321)] == [*map(str, range(320)), "done"]
    assert cancelled == 320
    assert turns >= 20, "after each 16 sends at the latest"


async def test_unread_messages_and_a_reset_are_told_at_once_and_read_in_order() -> None:
    gone: list[tuple[int, str]] = []
    told, done = trio.Event(), trio.Event()
    events: list[Event] = []

    def callback(code: int, reason: str) -> None:
        gone.append((code, reason))
        told.set()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].when_gone(callback)
        await send({"type": "websocket.send", "text": "registered"})
        await ended(told)
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
        done.set()

    async with serving(websocket_app(deaf)) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.text() == "registered"
        for number in range(15):
            await client.send(frame(TEXT, str(number).encode()))
        await client.send(frame(PING, b"all read"))
        assert await client.frame() == (PONG, b"all read")
        client.reset()
        await ended(done)
    assert gone == [(1006, "")]
    assert [event["text"] for event in events[:-1]] == [str(number) for number in range(15)]
    assert events[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@pytest.mark.parametrize(("goodbye", "code"), [("reset", 1006), ("close", 4001)])
async def test_peer_that_leaves_behind_a_full_read_ahead_is_noticed_by_the_ping_tick(goodbye: str, code: int) -> None:
    gone: list[tuple[int, str]] = []
    told = trio.Event()

    def callback(code: int, reason: str) -> None:
        gone.append((code, reason))
        told.set()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].when_gone(callback)
        await ended(told)

    # The pong deadline is shorter than the test: it must be suspended while nothing is read.
    options = {"ping_interval": 0.1, "pong_timeout": 0.1}
    async with serving(websocket_app(deaf), **options) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(frame(TEXT, b"x" * 1000) * 150)
        await trio.sleep(0.5)
        assert not gone
        assert server.statistics().pong_timeouts == 0
        if goodbye == "reset":
            client.reset()
        else:
            # Not closed: with pings unread, the kernel would make a reset of it, which overtakes the close frame.
            await client.close(code)
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
        await ended(told)
    assert gone == [(code, "")]


async def test_who_asks_after_the_peer_has_left_is_told_at_once() -> None:
    gone: list[tuple[int, str]] = []
    done = trio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope["extensions"][TRANSPORT]
        assert (await receive())["code"] == 4001
        transport.when_gone(lambda code, reason: gone.append((code, reason)))
        done.set()

    async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope["extensions"][TRANSPORT]
        transport.when_gone(lambda code, reason: gone.append((code, reason)))
        await send({"type": "websocket.close", "code": 4000})
        transport.when_gone(lambda code, reason: gone.append((code, reason)))

    async with serving(websocket_app(late)) as server, await connect(server) as client:
        await client.upgrade()
        await client.close(4001, "bye")
        await ended(done)
    assert gone == [(4001, "bye")]
    async with serving(websocket_app(leaving)) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.closing() == (4000, "")
    assert gone == [(4001, "bye")], "an application that has left is not left"


async def test_pings_are_answered_while_the_application_does_not_read() -> None:
    done = trio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await done.wait()

    async with serving(websocket_app(deaf)) as server, await connect(server) as client:
        await client.upgrade()
        for number in range(20):
            await client.send(frame(TEXT, b"unread") + frame(PING, str(number).encode()))
            assert await client.frame() == (PONG, str(number).encode())
        done.set()


async def test_ping_flood_from_a_client_that_does_not_read_is_bounded() -> None:
    async with serving(echo_app, write_timeout=0.3) as server, await small_window(server) as client:
        await client.upgrade()
        (connection,) = server._shared.connections
        wire = connection._transport._wire  # type: ignore[union-attr]
        most = 0
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            while True:
                most = max(most, wire._waiting)
                await client.send(frame(PING, b"x" * 125) * 100)
        assert most < 2 * 2**16 + 1000, "write_buffer, and the pongs to one reading"
        assert server.statistics().write_timeouts == 1


async def test_missing_pong_ends_the_socket() -> None:
    witness = Witness()
    options = {"ping_interval": 0.1, "pong_timeout": 0.1}
    async with serving(websocket_app(witness), **options) as server, await connect(server) as client:
        await client.upgrade()
        assert (await client.frame())[0] == PING
        await ended(witness.ended)
        assert server.statistics().pong_timeouts == 1
        assert await client.rest() == b""
    assert witness.events == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_pongs_keep_the_socket() -> None:
    options = {"ping_interval": 0.05, "pong_timeout": 1}
    async with serving(echo_app, **options) as server, await connect(server) as client:
        await client.upgrade()
        for _ in range(4):
            opcode, payload = await client.frame()
            assert opcode == PING
            await client.send(frame(PONG, payload))
        assert server.statistics().pong_timeouts == 0


async def test_peer_that_ignores_our_close_is_cut() -> None:
    async def goodbye(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        with pytest.raises(OutOfTurn):
            await send({"type": "websocket.send", "text": "more"})
        assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}

    async with serving(websocket_app(goodbye), close_timeout=0.2) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.closing() == (4000, "enough")
        assert await client.rest() == b""
        with trio.fail_after(5):
            while server.statistics().websockets:
                await trio.sleep(0.01)
        assert server.statistics().close_timeouts == 1
        assert server.statistics().failures == 0


class Rude(BaseException):
    """Neither an Exception nor one of ours."""


@pytest.mark.parametrize("error", [SystemExit(3), Rude(), ValueError("boom"), GeneratorExit()])
async def test_whatever_an_application_raises_stays_in_its_socket(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/fail":
            raise error
        await echo(scope, receive, send)

    async with serving(websocket_app(failing)) as server, await connect(server) as neighbour:
        await neighbour.upgrade()
        async with await connect(server) as client:
            await client.upgrade("/fail")
            await client.send(frame(TEXT, b"now"))
            assert (await client.closing())[0] == 1011
            await client.close(1011)
            assert await client.rest() == b""
        await neighbour.send(frame(TEXT, b"first") + frame(TEXT, b"alive"))
        assert await neighbour.text() == "alive"
        assert server.statistics().failures == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trichannels.server"
    assert "websocket /fail from 127.0.0.1:" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_application_that_raises_before_it_accepts_gives_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit("no")

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        assert (await client.upgrade()).startswith(b"HTTP/1.1 500 ")
        await client.rest()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


class Wrapped:
    """An application without lifespan."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)


async def test_application_that_returns_before_it_accepts_gives_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        assert (await client.upgrade()).startswith(b"HTTP/1.1 500 ")
        assert await client.rest() == b"Internal Server Error\n"
    assert "returned before it accepted" in caplog.text


async def test_application_that_returns_closes_normally() -> None:
    async def brief(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "that is all"})

    async with serving(websocket_app(brief)) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.text() == "that is all"
        assert await client.closing() == (1000, "")
        await client.close()
        assert await client.rest() == b""


async def test_connection_closed_after_the_peer_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    done = trio.Event()

    async def sender(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                while True:
                    await send({"type": "websocket.send", "text": "x"})
        finally:
            done.set()

    async with serving(websocket_app(sender)) as server, await connect(server) as client:
        await client.upgrade()
        client.reset()
        await ended(done)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert server.statistics().failures == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_subprotocol_and_headers_of_accept() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["subprotocols"])
        for wrong in (
            {"subprotocol": "soap"},
            {"headers": [(b"x", b"a\r\nb: c")]},
            {"headers": [(b"sec-websocket-protocol", b"chat")]},
        ):
            with pytest.raises(BadEvent):
                await send({"type": "websocket.accept", **wrong})
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"X-Extra", b"1")]})
        await echo(scope, receive, send)

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        head = await client.upgrade("/", "Sec-WebSocket-Protocol: json, chat")
        assert b"sec-websocket-protocol: chat\r\n" in head
        assert b"x-extra: 1\r\n" in head
        assert b"sec-websocket-extensions" not in head
    assert seen == [["json", "chat"]]


async def test_denial_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "websocket.http.response" in scope["extensions"]
        headers = [(b"content-type", b"text/plain"), (b"transfer-encoding", b"chunked")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        if scope["path"] == "/parts":
            await send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"in"})
        with pytest.raises(OutOfTurn):
            await send({"type": "websocket.accept"})

    async with serving(Wrapped(app)) as server:
        async with await connect(server) as client:
            head = await client.upgrade()
            assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
            assert b"content-length: 2\r\n" in head
            assert b"transfer-encoding" not in head
            assert await client.rest() == b"in"
        async with await connect(server) as client:
            assert b"content-length" not in await client.upgrade("/parts")
            assert await client.rest() == b"log in"
        assert server.statistics().failures == 0


async def test_close_before_accept_is_403() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        assert (await client.upgrade()).startswith(b"HTTP/1.1 403 ")
        await client.rest()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Version: 13", b"Version: 8"), b"426"),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), b"400"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), b"400"),
        ((b"Host: test\r\n", b""), b"400"),
        ((b"Host: test", b"Host: test\r\nContent-Length: 5"), b"400"),
        ((b"GET / ", b"GET /\xff "), b"400"),
        ((b"Host: test", b"Host: test\r\nX: \x08"), b"400"),
    ],
)
async def test_bad_handshake_gets_an_http_error(change: tuple[bytes, bytes], status: bytes) -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.send(upgrade_request().replace(*change))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 " + status)
        assert (b"sec-websocket-version: 13" in head) == (status == b"426")
        await client.rest()
        assert server.statistics().failures == 0


async def test_peer_that_leaves_before_the_answer() -> None:
    seen: list[Event] = []
    done = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])
        with pytest.raises(ConnectionClosed):
            await send({"type": "websocket.accept"})
        done.set()

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        await client.send(upgrade_request())
        await client.stream.aclose()
        await ended(done)
        assert server.statistics().failures == 0
    assert [event["type"] for event in seen] == ["websocket.connect", "websocket.disconnect"]


async def test_malformed_events_are_refused_and_the_socket_lives() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(OutOfTurn):
            await send({"type": "websocket.send", "text": "too early"})
        await send({"type": "websocket.accept"})
        for wrong in ({"text": None}, {"text": b"bytes"}, {"text": "a", "bytes": b"b"}):
            with pytest.raises(BadEvent):
                await send({"type": "websocket.send", **wrong})
        with pytest.raises(BadEvent):
            await send({"type": "websocket.close", "code": 1005})
        for no_event in (None, "text", {"text": "a"}, {"type": 3, "text": "a"}):
            with pytest.raises(BadEvent, match="an ASGI event is a dict with a 'type'"):
                await send(cast(Any, no_event))
        await send({"type": "websocket.send", "text": "fine"})

    async with serving(Wrapped(app)) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.text() == "fine"


async def test_half_of_a_thousand_tiny_messages_wait_in_the_kernel() -> None:
    """The read-ahead is bounded in messages too: 64, and what one slice of 2 KiB holds."""
    go = trio.Event()
    count = 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            count += 1

    async with serving(websocket_app(slow)) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(frame(TEXT) * 5000)
        (connection,) = server._shared.connections
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert connection._transport is not None
        assert 64 <= len(connection._transport._peer.ahead or ()) < 64 + 350
        go.set()
        await client.close(1000)
        assert await client.closing() == (1000, "")
        await client.rest()
    assert count == 5000


async def test_the_application_reads_on_while_a_peer_floods() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.upgrade()

        async def write() -> None:
            for number in range(2000):
                await client.send(frame(TEXT, str(number).encode()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for number in range(2000):
                assert await client.text() == str(number)


async def test_the_transport_survives_a_deep_copy_of_the_scope() -> None:
    seen: list[bool] = []

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(copy.deepcopy(scope)["extensions"][TRANSPORT] is scope["extensions"][TRANSPORT])

    async with serving(websocket_app(check)) as server, await connect(server) as client:
        await client.upgrade()
        await client.closing()
    assert seen == [True]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: websocket"), b"4"),
        ((b"HTTP/1.1", b"HTTP/1.0"), b"505"),
        ((b"Upgrade: websocket", b"Upgrade: websocket, chat"), b"4"),
    ],
)
async def test_no_upgrade_slips_past_us_to_hypercorns_own_transport(change: tuple[bytes, bytes], status: bytes) -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await client.send(upgrade_request().replace(*change))
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)


async def test_close_to_a_client_that_does_not_read_does_not_wait() -> None:
    done = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(0.3):
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 10000})
        with trio.fail_after(1):
            await send({"type": "websocket.close", "code": 4000})
        done.set()

    async with serving(websocket_app(app), close_timeout=0.2) as server, await small_window(server) as client:
        await client.upgrade()
        await ended(done)
        assert server.statistics().failures == 0


@pytest.mark.parametrize(("payload", "code", "reason"), [(b"\x0f\xa1had enough", 4001, "had enough"), (b"", 1005, "")])
async def test_a_close_between_fragments_is_a_close(payload: bytes, code: int, reason: str) -> None:
    witness = Witness()
    async with serving(websocket_app(witness)) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(frame(TEXT, b"half", fin=False) + frame(CLOSE, payload))
        assert await client.frame() == (CLOSE, payload)
        assert await client.rest() == b""
        await ended(witness.ended)
    assert witness.events == [{"type": "websocket.disconnect", "code": code, "reason": reason}]
