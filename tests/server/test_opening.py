"""How a connection begins: bad handshakes, doubtful heads and slow ones, both on the fast way in and behind h11."""

import logging
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
import trio
import trio.testing

from trichannels.events import Receive, Scope, Send
from trichannels.server.config import ServerConfig
from trichannels.server.config_file import hypercorn_config
from trichannels.server.connection import Connection
from trichannels.server.head import MOST_HEADERS
from trichannels.server.hypercorn_glue import worker_context
from trichannels.server.listening import Listener
from trichannels.server.shared import Shared

from ..fuzzing.memory import MemoryEnd
from .support import KEY, TEXT, Client, connect, echo, frame, serving, upgrade_request, websocket_app

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

UPGRADE = upgrade_request()
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
echo_app = websocket_app(echo)


async def first(client: Client, request: bytes) -> None:
    """The connection's first request, in one piece."""
    await client.send(request)


async def in_pieces(client: Client, request: bytes) -> None:
    """A piece, and the rest once that has been read."""
    await client.send(request[:9])
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(request[9:])


async def later(client: Client, request: bytes) -> None:
    """A later request on a connection that was kept alive."""
    assert (await client.get()).endswith(b"ok")
    await client.send(request)


WAYS = [first, in_pieces, later]


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_leads_into_a_websocket_and_keeps_the_frames_behind_the_request(way: Any) -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        await way(client, UPGRADE + frame(TEXT, b"early") + frame(TEXT, b"bird"))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert [await client.text(), await client.text()] == ["early", "bird"]
        (connection,) = server._shared.connections
        assert connection.is_websocket
        assert connection._http is None


def many(number: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % each for each in range(number))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", b"426"),
        (b"Sec-WebSocket-Version: 13\r\n", b"", b"400"),
        (b"Sec-WebSocket-Key: " + KEY + b"\r\n", b"", b"400"),
        (KEY, b"dGhlIHNhbXBsZQ==", b"400"),
        (KEY, KEY[:-2], b"400"),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Key: " + KEY, b"400"),
        (b"Host: test\r\n", b"", b"400"),
        (b"Host: test", b"Host: test\r\nHost: test", b"400"),
        (b"Host: test", b"Host: test\r\nOrigin: http://a\r\nOrigin: http://b", b"400"),
        (b"Host: test", b"Host: test\r\nContent-Length: 5", b"400"),
        (b"Host: test", b"Host: test\r\nContent-Length: 5\r\nContent-Length: 6", b"400"),
        (b"Host: test\r\n", b"Host: test\r\n" + CHUNKED, b"400"),
        (b"Host: test\r\n", b"Host: test\r\nContent-Length: 0\r\n" + CHUNKED, b"400"),
        (b"Host: test", b"Host: test\r\nSec-WebSocket-Protocol: two words", b"400"),
        (b"Host: test", b"Host: test\r\nX: a\r\n b", b"400"),
        (b"Host: test\r\n", b"Host: test\n", b"400"),
        (b"Host: test", b"Host: test\r\nX: a\nY: b", b"400"),
        (b"Host:", b"Host :", b"400"),
        (b"Host: test", b"Host: te\0st", b"400"),
        (b"Host: test", b"Host: te\rst", b"400"),
        (b"Host: test", b"Host: test\r\nX: \x7f", b"400"),
        (b"Host: test\r\n", b"Host: test\r\n" + many(MOST_HEADERS), b"431"),
        (b"Host: test", b"Host: test\r\nX: " + b"x" * 20_000, b"431"),
    ],
)
async def test_bad_handshake_is_refused_and_nothing_behind_it_is_served(
    way: Any, old: bytes, new: bytes, status: bytes
) -> None:
    assert old in UPGRADE
    async with serving(echo_app) as server, await connect(server) as client:
        await way(client, UPGRADE.replace(old, new, 1) + b"0\r\n\r\n" + GET)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.count(b"HTTP/1.1") == 1
        assert server.statistics().failures == 0
        assert server.statistics().websockets_accepted == 0


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: test\r\nX: a\r\n b\r\n",
        b"Host: test\n",
        b"Host: test\r\nX: a\nContent-Length: 5\r\n",
        b"Host: test\r\n" + many(MOST_HEADERS),
        b"Host: test\r\nX: " + b"x" * 20_000 + b"\r\n",
    ],
)
async def test_doubtful_lines_are_refused_for_http_as_well(lines: bytes) -> None:
    served: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["type"])

    async with serving(app) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
        status = b"431" if len(lines) > 100 else b"400"
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)
    assert "http" not in served


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize(
    ("host", "status"), [(b"chat.example", b"101"), (b"other", b"404"), (b"other, chat.example", b"404")]
)
async def test_a_websocket_is_opened_for_a_served_host_alone(way: Any, host: bytes, status: bytes) -> None:
    options = {"hypercorn": {"server_names": ["chat.example"]}}
    async with serving(echo_app, **options) as server, await connect(server) as client:
        await way(client, UPGRADE.replace(b"Host: test", b"Host: " + host))
        assert (await client.head()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("way", WAYS[:2])
async def test_hypercorns_limit_of_a_heads_size_holds(way: Any) -> None:
    options = {"hypercorn": {"h11_max_incomplete_size": len(UPGRADE) + 50}}
    async with serving(echo_app, **options) as server:
        for size, status in [(10, b"101"), (100, b"431")]:
            async with await connect(server) as client:
                await way(client, UPGRADE.replace(b"Host: test", b"Host: test\r\nX: " + b"x" * size))
                assert (await client.head()).startswith(b"HTTP/1.1 " + status)


# ---- slow heads, on a virtual clock


class _Socket:
    """As much of a socket as a connection looks at, beside its end."""

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getsockname = getpeername

    def fileno(self) -> int:
        return -1


@pytest.fixture
def opening() -> Iterator[tuple[Connection, MemoryEnd]]:
    """A connection that nobody serves yet, and its end."""
    settings, log = ServerConfig(), logging.getLogger("trichannels.server")
    config = hypercorn_config(settings, log, log)
    shared = Shared(app=echo_app, settings=settings, config=config, context=worker_context(config))
    connection, end = Connection(shared, cast(socket.socket, _Socket()), Listener(cast(Any, None))), MemoryEnd()
    connection._end = cast(Any, end)
    yield connection, end
    assert end.gone
    assert not shared.connections
    assert not shared.counters.failures


@pytest.mark.parametrize("drips", [b"", UPGRADE, GET])
async def test_a_head_has_its_time_in_all_however_its_bytes_drip_in(
    drips: bytes, opening: tuple[Connection, MemoryEnd], autojump_clock: trio.testing.MockClock
) -> None:
    connection, end = opening
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        for byte in (drips * 10)[:19]:
            await trio.sleep(0.5)
            end.put(bytes([byte]))
        await trio.sleep_until(trio.current_time() + 9.9 - len((drips * 10)[:19]) / 2)
        assert not end.finished
        await trio.sleep(0.2)
        assert end.finished
        assert not end.sent
        end.leave()


async def test_a_drain_closes_a_connection_that_has_not_asked_for_anything(
    opening: tuple[Connection, MemoryEnd], autojump_clock: trio.testing.MockClock
) -> None:
    connection, end = opening
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await trio.testing.wait_all_tasks_blocked()
        connection.shared.wall.bring_to(10)
        connection.go_away()
        await trio.testing.wait_all_tasks_blocked()
        assert end.finished
        end.leave()
