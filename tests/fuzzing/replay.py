"""One input, driven through a whole connection on a virtual clock, and what must hold whatever the input is.

- nothing gets out of the connection, and nothing has to be contained: no input is a failure of the server's;
- it ends, in bounded virtual time, and leaves no task;
- what the server holds for it is bounded;
- the application gets well-formed events in a legal order (``apps.py``);
- what is written is HTTP, then frames, of which none but pongs follows the close frame.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import trio
import trio.testing
from hypercorn.protocol.h2 import H2Protocol

from trichannels.server.config import ServerConfig
from trichannels.server.config_file import hypercorn_config
from trichannels.server.connection import Connection
from trichannels.server.deflate import inflate
from trichannels.server.frames import RSV1
from trichannels.server.hypercorn_glue import worker_context
from trichannels.server.listening import Listener
from trichannels.server.shared import Shared

from ..server.support import BINARY, CLOSE, PING, PONG, TEXT, upgrade_request
from .acts import BARE, COMPRESS, MOST, STAY, Act, Drain, Reset, Rest, Send, Sleep, Take, decode
from .apps import APPS, application
from .memory import MemoryEnd, held

LOG = logging.getLogger("trichannels.server")
SETTINGS = ServerConfig(
    max_message_size=20_000,
    permessage_deflate=True,
    write_buffer=10_000,
    ping_interval=7,
    pong_timeout=5,
    write_timeout=9,
)
CONFIG = hypercorn_config(SETTINGS, LOG, logging.getLogger("trichannels.access"))
LONGEST = 3000.0  # virtual seconds; a request whose body dribbles in may take some
# The read-ahead, what is read but not parsed, a message and its fragments, the outbox and its joined copy, with room.
MOST_BYTES, MOST_OBJECTS = 300_000, 3_000
PATIENT = 300.0  # virtual seconds
HANDSHAKE = upgrade_request("/", "Sec-WebSocket-Protocol: chat")
OFFER = upgrade_request("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")


class _Socket:
    """As much of a socket as a connection looks at, beside its end."""

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getsockname = getpeername

    def fileno(self) -> int:
        return -1


def run(data: bytes) -> None:
    """Run one input; raises AssertionError if anything does not hold."""
    trio.run(_run, data, clock=trio.testing.MockClock(autojump_threshold=0))


async def _run(data: bytes) -> None:
    first, second = (data + b"\0\0")[:2]
    app = partial(application, app=APPS[(first & ~(STAY | BARE | COMPRESS)) % len(APPS)])
    shared = Shared(app=app, settings=SETTINGS, config=CONFIG, context=worker_context(CONFIG))
    connection, end = Connection(shared, cast(Any, _Socket()), Listener(cast(Any, None))), MemoryEnd()
    connection._end = cast(Any, end)
    end.taken = second * 16 or 2**16
    if not first & BARE:
        end.put(OFFER if first & COMPRESS else HANDSHAKE)
    with _errors_of_the_server() as errors, trio.fail_after(LONGEST):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, connection, shared)
            for number, act in enumerate(decode(data[2:])):
                await _do(act, end, connection, shared)
                if number % 64 == 63:
                    await _check_size(connection)
            await _check_size(connection)
            if first & STAY and _speaks_http2(connection):
                await trio.sleep(PATIENT)
            if not first & STAY or _speaks_http2(connection):
                end.leave()
    assert not errors, errors
    assert not shared.counters.failures
    assert end.gone, "a descriptor was left open"
    assert not shared.connections
    _check_output(bytes(end.sent), torn=not end.finished)


async def _serve(connection: Connection, shared: Shared) -> None:
    async with shared.engine.running():
        with shared.wall.connections:
            await connection.run()


async def _do(act: Act, end: MemoryEnd, connection: Connection, shared: Shared) -> None:
    match act:
        case Send(data):
            end.put(data)
        case Take(size):
            end.take(size)
        case Sleep(seconds):
            await trio.sleep(seconds)
        case Rest():
            await trio.testing.wait_all_tasks_blocked()
        case Reset():
            end.leave(broken=True)
        case Drain():
            shared.wall.bring_to(10)
            connection.go_away()


async def _check_size(connection: Connection) -> None:
    await trio.testing.wait_all_tasks_blocked()
    size, objects = held(connection._transport, connection._http)
    assert size < MOST_BYTES, f"{size} bytes are held"
    assert objects < MOST_OBJECTS, f"{objects} objects are held"
    assert trio.lowlevel.current_statistics().tasks_living < 30


@contextmanager
def _errors_of_the_server() -> Iterator[list[str]]:
    errors: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(logging.Formatter().format(record))

    handler, before = Handler(logging.ERROR), LOG.propagate
    LOG.addHandler(handler)
    LOG.propagate = False
    try:
        yield errors
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = before


def _speaks_http2(connection: Connection) -> bool:
    """Whether hypercorn has the connection: a WebSocket in there may stay for as long as its peer takes our pings."""
    return connection._http is not None and isinstance(connection._http._protocol.protocol, H2Protocol)


def _check_output(sent: bytes, *, torn: bool) -> None:
    """Check that all is frames behind a 101; the last may be torn if the connection was cut."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 ") or b"Sec-WebSocket-Accept:".lower() not in head.lower():
        return
    closed, compressing = False, b"permessage-deflate" in head
    while rest:
        opcode, payload, rest = _frame(rest)
        if compressing and opcode > 0 and opcode & RSV1:
            opcode, payload = opcode ^ RSV1, inflate(payload, MOST)
            assert opcode in (TEXT, BINARY), "compressed, but no message"
        assert opcode in (-1, TEXT, BINARY, CLOSE, PING, PONG), "an opcode or a reserved bit that we do not use"
        if opcode < 0:
            assert torn, "a torn frame, then a regular end"
            return
        # RFC 6455 section 5.5.2: pings are answered until the other's close frame has come.
        assert opcode == PONG or not closed, "behind the close frame"
        closed = closed or opcode == CLOSE
        if opcode == TEXT:
            payload.decode()
        if opcode == CLOSE and payload:
            assert len(payload) >= 2
            payload[2:].decode()


def _frame(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the first frame's opcode (with its reserved bits) and payload, and what follows; -1 if it is not whole."""
    size, start = data[1] & 127 if len(data) > 1 else 0, 2
    if size > 125:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        return -1, b"", b""
    assert data[0] & 0x80, "a fragment"
    return data[0] & 0x7F, data[start : start + size], data[start + size :]
