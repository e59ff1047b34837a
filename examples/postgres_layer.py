"""A channel layer of somebody else's: many processes that share a PostgreSQL, by LISTEN and NOTIFY. It needs psycopg 3.

    layers={"default": PostgresChannelLayer("postgresql://me@db.example.org/site")}

``docs/writing-a-layer.md`` walks through it. What is this process's own (instances, memberships, bounds, statistics) is
``BoardedLayer``; here is the wire. Each process holds two connections: over one it sends, on the other it listens.

- Everybody hears everything, and takes what its own channels are in for. PostgreSQL delivers in the order in which
  transactions committed, to whoever listened before. So a group that is joined here is joined, and a channel of another
  process has joined before anything that is sent later reaches it: nobody has to be asked.
- A notification is text of less than 8000 bytes: messages travel in base64. A larger one waits in an unlogged table,
  from which those who want it read it. With each one that is put in, those older than ``expiry`` are deleted.
- Lost connections are made anew. Members are told of it by ``layer.resync``: what was sent meanwhile is lost to them.

Left out: histories, presence, work queues. NOTIFY does not pass a pgbouncer that hands out transactions.
"""

import logging
import random
from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from secrets import token_hex
from typing import Any, TypeAlias

import anyio
import psycopg
from anyio import to_thread
from anyio.lowlevel import checkpoint
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from trichannels.exceptions import (
    InvalidChannelLayerError,
    LayerClosed,
    LayerRefused,
    LayerUnreachable,
    OutcomeUnknown,
    UnreadableMessage,
)
from trichannels.inbox import Envelope
from trichannels.layers.base import require_channel_name, require_delay, require_group_name
from trichannels.layers.boarded import BoardedLayer
from trichannels.layers.history import Position, Recovery
from trichannels.layers.postponed import Postponed
from trichannels.layers.serializers import Message
from trichannels.layers.switchboard import LOOSE, Switchboard

log = logging.getLogger("postgres_layer")

Statement: TypeAlias = tuple[str, ...]  # SQL, and the values of its $1, $2, …

LONGEST = 7999  # bytes of a notification
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two attempts to connect
ALIVE = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3}  # or a host that vanished goes unseen
TO_GROUP, TO_CHANNEL, JOIN, LEAVE = "group", "channel", "join", "leave"
IN_TABLE = "*"

# Of two processes that create a table at once, one would fail, "if not exists" or not.
CREATE = """do $$ begin perform pg_advisory_xact_lock(hashtext('{0}'));
create unlogged table if not exists "{0}" (id text primary key, body text, kept timestamptz default now()); end $$"""
KEEP = """with old as (delete from "{0}" where kept < now() - $3::interval)
insert into "{0}" (id, body) values ($1, $2)"""
FETCH = 'select body from "{0}" where id = $1'
NOTIFY = "select pg_notify($1, $2)"


# ---- connections. psycopg's async ones know asyncio alone, and its blocking ones would cost a hop to a thread for each
# message. libpq, which it wraps in psycopg.pq, needs neither: it says what its socket has to be waited for, and anyio
# waits for that on either loop.


async def connect(conninfo: bytes, *statements: Statement) -> PGconn:
    """Return a connection on which the statements were executed; raises psycopg's OperationalError, LayerRefused."""
    # In a thread, for libpq looks up the host's name here. Who is cancelled lets go of it, which closes it.
    connection: PGconn = await to_thread.run_sync(pq.PGconn.connect_start, conninfo, abandon_on_cancel=True)
    try:
        while (state := connection.connect_poll()) != pq.PollingStatus.OK:
            if state == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(connection.get_error_message())
            wait = anyio.wait_readable if state == pq.PollingStatus.READING else anyio.wait_writable
            await wait(connection.socket)
        connection.nonblocking = 1
        for statement in statements:
            await execute(connection, statement)
    except BaseException:
        connection.finish()
        raise
    return connection


async def execute(connection: PGconn, statement: Statement) -> PGresult:
    """Return what a statement comes to; raises as ``connect`` does. Cancelled, the connection is of no more use."""
    sql, *values = statement
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


class Server:
    """Where PostgreSQL is, and what was wrong with it last."""

    def __init__(self, dsn: str) -> None:
        try:
            options = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError as error:
            raise InvalidChannelLayerError(f"dsn: {error}") from error
        self.conninfo = make_conninfo(dsn, **{name: ALIVE[name] for name in ALIVE.keys() - options})
        self.label = f"PostgreSQL on {options.get('host', 'this machine')}"  # without the password
        self.problem = "not reached"

    async def connect(self, *statements: Statement) -> PGconn:
        """Return a connection, however long it takes: who calls has a limit of his own, or has time."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await connect(self.conninfo.encode(), *statements)
            except (psycopg.OperationalError, LayerRefused) as error:  # it may be a standby now, or starting
                self.problem = str(error).strip()
            await anyio.sleep(random.uniform(0, pause))  # not all processes at once
            pause = min(2 * pause, LONGEST_PAUSE)


class Sender:
    """The connection over which statements go, one caller's after the other's."""

    def __init__(self, server: Server, timeout: float) -> None:
        self._server, self._timeout = server, timeout
        self._connection: PGconn | None = None
        self._turn = anyio.Lock()
        self._closed = False

    async def run(self, statements: Iterable[Statement]) -> None:
        """Have them executed in time; raises LayerUnreachable if not. Cancelled, nothing was done."""
        with anyio.move_on_after(self._timeout) as limit:
            async with self._turn:
                connection = await self._connected()
                # From here on it cannot be taken back: who is cancelled waits for the answer, and was not cancelled.
                with anyio.CancelScope(deadline=limit.deadline, shield=True):
                    await self._execute(connection, statements)
                    return
                raise OutcomeUnknown(self._server.label, f"no answer within {self._timeout:g} s")
        raise LayerUnreachable(self._server.label, f"not reached within {self._timeout:g} s: {self._server.problem}")

    async def _connected(self) -> PGconn:
        """Return the connection; one that was lost while nothing was sent costs nobody a message."""
        if self._connection is not None:
            with suppress(psycopg.OperationalError):
                self._connection.consume_input()  # the server's last words, perhaps
                self._connection.consume_input()  # and then the end
                return self._connection
            self._hang_up()
        connection = await self._server.connect()
        if self._closed:
            connection.finish()
            raise LayerClosed("PostgresChannelLayer")
        self._connection = connection
        return connection

    async def _execute(self, connection: PGconn, statements: Iterable[Statement]) -> None:
        try:
            for statement in statements:
                await execute(connection, statement)
        except (psycopg.OperationalError, anyio.ClosedResourceError) as error:
            self._hang_up()
            raise OutcomeUnknown(self._server.label, f"lost before it has answered: {error}") from error
        except BaseException:
            self._hang_up()  # in the middle of something, perhaps
            raise

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.OperationalError):
                anyio.notify_closing(connection.socket)
            connection.finish()

    def close(self) -> None:
        self._closed = True
        self._hang_up()


# ---- the layer


class PostgresChannelLayer(BoardedLayer):
    """A layer for all processes that give the same ``prefix``, in one database.

    ``dsn``: as libpq takes it. ``timeout``: seconds within which a send succeeds or raises LayerUnreachable. The other
    options are those of every layer; ``history`` is refused.
    """

    def __init__(
        self,
        dsn: str = "",
        *,
        prefix: str = "trichannels",
        timeout: float = 5,
        buffer_bytes: int = 64 * 1024 * 1024,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.histories:
            raise InvalidChannelLayerError(f"{type(self).__name__} keeps no history: take the option out")
        self.prefix, self.timeout, self.buffer_bytes = require_group_name(prefix), timeout, buffer_bytes
        self.server = Server(dsn)
        self.create: Statement = (CREATE.format(prefix),)

    @classmethod
    def blocking(cls, **options: Any) -> "BlockingPostgres":
        return BlockingPostgres(cls(**options))

    # ---- lifetime

    async def open(self) -> None:
        """Connect; raises LayerUnreachable if that does not succeed within ``timeout``."""
        board = self.set_up_board()
        self._postponed, self._sender = Postponed(self), Sender(self.server, self.timeout)
        self._hearing = anyio.Event()
        try:
            await self._sender.run([self.create])
            self.start_soon(self._listen, board)
            await self._heard_of_all()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._postponed.forget()
        self._sender.close()
        self._hearing.set()  # who waits to join is told that it is closed
        self.take_down_board()

    # ---- what comes: one task reads it, and hands it to the board

    async def _listen(self, board: Switchboard) -> None:
        """Read for ever, over one connection after the other."""
        while True:
            connection = await self.server.connect((f'listen "{self.prefix}"',))
            self._tell_of_gap(board, board.groups)
            self._hearing.set()
            try:
                await self._read(board, connection)
            except psycopg.OperationalError as error:
                self.server.problem = str(error).strip()
                log.warning("%s was lost, and is tried again: %s", self.server.label, self.server.problem)
            finally:
                connection.finish()
            self._hearing = anyio.Event()
            self._tell_of_gap(board, board.groups)

    async def _read(self, board: Switchboard, connection: PGconn) -> None:
        while True:
            while (notification := connection.notifies()) is not None:  # some may have come with an answer
                line = notification.extra.decode()
                try:
                    await self._take(board, connection, line)
                except psycopg.OperationalError:
                    raise
                except Exception:  # the next line may be better: a reader that has ended would make all deaf
                    log.exception("a notification was thrown away: %.100r", line)
                    board.ledger.undeliverable += 1
                    self._tell_of_gap(board, line.split(" ")[2:3])
            await anyio.wait_readable(connection.socket)
            connection.consume_input()

    async def _take(self, board: Switchboard, connection: PGconn, line: str) -> None:
        number, verb, name, rest = line.split(" ")
        if verb == TO_GROUP and name in board.groups:
            await board.fan_out(name, self._envelope(await self._body(connection, number, rest), name))
        elif verb == TO_CHANNEL and board.owns(name):
            board.post_late(name, self._envelope(await self._body(connection, number, rest), None))
        elif verb == JOIN and board.owns(name):
            board.join(rest, name)
        elif verb == LEAVE and board.owns(name):
            board.leave(rest, name)

    async def _body(self, connection: PGconn, number: str, rest: str) -> bytes:
        if rest != IN_TABLE:
            return b64decode(rest)
        answer = await execute(connection, (FETCH.format(self.prefix), number))
        body = answer.get_value(0, 0) if answer.ntuples else None
        if body is None:
            raise UnreadableMessage("it was deleted before it was read: it has expired")
        return b64decode(body)

    def _envelope(self, payload: bytes, group: str | None) -> Envelope:
        return self.seal(self.serializer.decode(payload), group)  # which refuses what nobody may send

    def _tell_of_gap(self, board: Switchboard, groups: Iterable[str]) -> None:
        for group in groups:
            for channel in board.groups.get(group, ()):
                if channel in board.mailboxes:
                    board.mailboxes[channel].resync(group)

    # ---- what goes

    def written(self, verb: str, name: str, rest: str | bytes) -> list[Statement]:
        """Return the statements that tell everybody."""
        body = b64encode(rest).decode() if isinstance(rest, bytes) else rest
        number = token_hex(8)  # of equal notifications in one transaction, PostgreSQL delivers but one
        line = f"{number} {verb} {name} {body}"
        if len(line) <= LONGEST:
            return [(NOTIFY, self.prefix, line)]
        kept = (KEEP.format(self.prefix), number, body, f"{self.expiry} seconds")
        return [kept, (NOTIFY, self.prefix, f"{number} {verb} {name} {IN_TABLE}")]

    def require_no_queue(self, channel: str) -> None:
        """Raise InvalidChannelLayerError for a channel that any process might read: that is a work queue."""
        if "!" not in require_channel_name(channel):
            raise InvalidChannelLayerError(
                f"{type(self).__name__} has no work queues: nothing can be sent to {channel!r}"
            )

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        board, envelope = self.board, self.seal(message)
        self.require_no_queue(channel)
        if require_delay(delay):
            await checkpoint()
            self._postponed.send(self._post_late, channel, envelope, delay)
        elif board.owns(channel):
            await checkpoint()
            self.board.post(channel, envelope)
        else:
            await self._sender.run(self.written(TO_CHANNEL, channel, envelope.payload))

    def _post_late(self, channel: str, envelope: Envelope) -> None:
        if self.board.owns(channel):
            self.board.post_late(channel, envelope)
        else:
            self.start_soon(self._sender.run, self.written(TO_CHANNEL, channel, envelope.payload))

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        self.board  # noqa: B018 - it must be open
        statements = self.written(TO_GROUP, require_group_name(group), self.encoded(message))
        self.require_no_key(group, idempotency_key)
        await self._sender.run(statements)
        return None

    # ---- channels and groups

    async def receive(self, channel: str) -> Message:
        await checkpoint()
        return await self.board.take(require_channel_name(channel))

    async def new_channel(self, prefix: str = "specific") -> str:
        return require_channel_name(self.board.name(prefix, LOOSE))

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        board = self.board
        require_group_name(group)
        if board.owns(require_channel_name(channel)):
            await self._heard_of_all()
            self.board.join(group, channel)
        else:
            self.require_no_queue(channel)
            await self._sender.run(self.written(JOIN, channel, group))
        return Recovery(group, None, since is None)

    async def _heard_of_all(self) -> None:
        """Wait until what is sent is heard here; raises LayerUnreachable."""
        with anyio.move_on_after(self.timeout):
            return await self._hearing.wait()
        raise LayerUnreachable(self.server.label, f"not reached within {self.timeout:g} s: {self.server.problem}")

    async def group_discard(self, group: str, channel: str) -> None:
        await checkpoint()
        board = self.board
        require_group_name(group)
        if board.owns(require_channel_name(channel)):
            board.leave(group, channel)
        elif "!" in channel:
            await self._sender.run(self.written(LEAVE, channel, group))

    async def flush(self) -> None:
        await checkpoint()
        board = self.board
        self._postponed.forget()
        board.flush()


class BlockingPostgres:
    """Sends without an event loop, over a new connection each time: no thread and no fork can come between."""

    def __init__(self, layer: PostgresChannelLayer) -> None:
        self._layer = layer  # never opened: it knows how a message is written

    def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        """Send to a channel of a process."""
        self._layer.require_no_queue(channel)
        if require_delay(delay):
            raise InvalidChannelLayerError(f"send({channel!r}, delay=…): nobody is here who would do that later")
        self._run(self._layer.written(TO_CHANNEL, channel, self._layer.encoded(message)))

    def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> None:
        """Send to every member of a group."""
        self._layer.require_no_key(require_group_name(group), idempotency_key)
        self._run(self._layer.written(TO_GROUP, group, self._layer.encoded(message)))

    def close(self) -> None:
        """Give nothing back, for nothing is kept."""

    def _run(self, statements: list[Statement]) -> None:
        server = self._layer.server
        try:
            connection = psycopg.connect(
                server.conninfo,
                autocommit=True,
                cursor_factory=psycopg.RawCursor,
                connect_timeout=ceil(self._layer.timeout),
            )
        except psycopg.OperationalError as error:
            raise LayerUnreachable(server.label, str(error)) from error
        with connection:
            try:
                for sql, *values in ([self._layer.create] if len(statements) > 1 else []) + statements:
                    connection.execute(sql.encode(), values or None)
            except psycopg.OperationalError as error:
                raise OutcomeUnknown(server.label, str(error)) from error
            except psycopg.Error as error:
                raise LayerRefused(server.label, str(error)) from error
