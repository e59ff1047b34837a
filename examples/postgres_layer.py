"""A channel layer of somebody else's: many processes that share a PostgreSQL, by LISTEN and NOTIFY. It needs psycopg 3.

    layers={"default": PostgresChannelLayer("postgresql://me@db.example.org/site")}

``docs/writing-a-layer.md`` walks through it. Here is the wire alone: how frames get into PostgreSQL, and out of it.

- PostgreSQL delivers in the order in which transactions committed, to whoever listened before: as a broadcast must be.
- A notification is text of less than 8000 bytes: frames travel in base64. A larger one waits in an unlogged table, and
  its head is sent, so that only those read it who want it. With each that is put in, those older than ``expiry`` go.

NOTIFY does not pass a pgbouncer that hands out transactions.
"""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from typing import Any

import anyio
import psycopg
from anyio import to_thread
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from trichannels.exceptions import InvalidChannelLayerError, LayerRefused, LayerUnreachable
from trichannels.layers.broadcast import LONGEST_HEAD, BroadcastLayer, Receive, Transmit

LONGEST = 7999  # bytes of a notification
LONGEST_NAME = 63  # bytes of a name, if PostgreSQL was built as usual
ALIVE = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3}  # or a host that vanished goes unseen

# Of two processes that create a table at once, one would fail, "if not exists" or not.
CREATE = """do $$ begin if to_regclass('"{0}"') is null then perform pg_advisory_xact_lock(hashtext('{0}'));
create unlogged table if not exists "{0}" (id text primary key, body text, kept timestamptz default now());
end if; end $$"""
NOTIFY = "select pg_notify('{0}', line) from unnest($1::text[]) as line"
KEEP_AND_NOTIFY = """with old as (delete from "{0}" where kept < now() - $4::interval),
new as (insert into "{0}" (id, body) select * from unnest($2::text[], $3::text[])) """
FETCH = 'select body from "{0}" where id = $1'


class PostgresChannelLayer(BroadcastLayer):
    """A layer for all processes that give the same ``prefix``, in one database. ``dsn``: as libpq takes it."""

    errors = (*BroadcastLayer.errors, psycopg.OperationalError)

    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(**options)
        if len(self.prefix) > LONGEST_NAME:
            raise InvalidChannelLayerError(
                f"prefix: PostgreSQL's names have at most {LONGEST_NAME} characters, and {self.prefix!r} has "
                f"{len(self.prefix)}: take a shorter one"
            )
        try:
            given = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError as error:
            raise InvalidChannelLayerError(f"dsn: {error}") from error
        self.conninfo = make_conninfo(dsn, **{name: ALIVE[name] for name in ALIVE.keys() - given}).encode()
        self.where = f"PostgreSQL on {given.get('host', 'this machine')}"

    @asynccontextmanager
    async def open_sender(self) -> AsyncIterator[Transmit]:
        async with connected(self.conninfo) as connection:
            await execute(connection, CREATE.format(self.prefix))
            yield partial(self.transmit, connection)

    async def transmit(self, connection: PGconn, frames: Sequence[bytes]) -> None:
        try:  # one that was lost while nothing was sent costs nobody a message
            connection.consume_input()  # the server's last words, perhaps
            connection.consume_input()  # and then the end
        except psycopg.OperationalError as error:
            raise LayerUnreachable(self.where, str(error)) from error
        await execute(connection, *self.statement(frames))

    def statement(self, frames: Sequence[bytes]) -> list[str]:
        """Return one statement, for all or nothing, and the values of its ``$1``, ``$2``, …"""
        lines, kept = [], []
        for frame in frames:
            number = token_hex(8)  # of equal notifications in one transaction, PostgreSQL delivers but one
            line = f"{number} {b64encode(frame).decode()}"
            if len(line) > LONGEST:
                kept.append((number, line[17:]))
                line = f"{number}*{b64encode(frame[:LONGEST_HEAD]).decode()}"
            lines.append(line)
        if not kept:
            return [NOTIFY.format(self.prefix), array(lines)]
        sql = (KEEP_AND_NOTIFY + NOTIFY).format(self.prefix)
        return [sql, array(lines), *map(array, zip(*kept, strict=True)), f"{self.expiry} seconds"]

    @asynccontextmanager
    async def open_listener(self) -> AsyncIterator[Receive]:
        async with connected(self.conninfo) as connection:
            await execute(connection, f'listen "{self.prefix}"')
            yield partial(self.hear, connection)

    async def hear(self, connection: PGconn) -> bytes:
        while (notification := connection.notifies()) is None:  # some may have come with an answer
            await anyio.wait_readable(connection.socket)
            connection.consume_input()
        line = notification.extra.decode()
        frame = b64decode(line[17:], validate=True)
        if line[16:17] == "*" and self.concerns(frame):
            return await self.fetched(connection, line[:16]) or frame
        return frame

    async def fetched(self, connection: PGconn, number: str) -> bytes | None:
        """Return a frame from the table; None if it cannot be had any more."""
        try:
            found = await execute(connection, FETCH.format(self.prefix), number)
        except LayerRefused:
            return None
        return b64decode(found.get_value(0, 0) or b"") if found.ntuples else None


def array(values: Sequence[str]) -> str:
    """Return PostgreSQL's text[] of values that need no quotes."""
    return f"{{{','.join(values)}}}"


# psycopg's async connections know asyncio alone, and its blocking ones would cost a hop to a thread for each message.
# libpq, which it wraps in psycopg.pq, says what its socket has to be waited for; anyio waits, on either loop.


@asynccontextmanager
async def connected(conninfo: bytes) -> AsyncIterator[PGconn]:
    """Connect, for a block; raises psycopg's OperationalError."""
    # In a thread, for libpq looks up the host's name here. Who is cancelled lets go of it, which closes it.
    connection: PGconn = await to_thread.run_sync(pq.PGconn.connect_start, conninfo, abandon_on_cancel=True)
    try:
        while (state := connection.connect_poll()) != pq.PollingStatus.OK:
            if state == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(connection.get_error_message())
            wait = anyio.wait_readable if state == pq.PollingStatus.READING else anyio.wait_writable
            await wait(connection.socket)
        connection.nonblocking = 1
        yield connection
    finally:
        connection.finish()


async def execute(connection: PGconn, sql: str, *values: str) -> PGresult:
    """Return what a statement comes to; raises LayerRefused, OperationalError. Cancelled, the connection is no use."""
    connection.send_query_params(sql.encode(), [value.encode() for value in values])
    while connection.flush():
        await anyio.wait_writable(connection.socket)
    results = []
    while True:
        while connection.is_busy():
            await anyio.wait_readable(connection.socket)
            connection.consume_input()
        if (result := connection.get_result()) is None:
            break
        results.append(result)
    if results[-1].status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise LayerRefused("PostgreSQL", results[-1].get_error_message())
    return results[-1]
