"""One connection to a Redis server: RESP3, pipelined. It is opened, used, and over; who wants another opens another.

Answers come in the order of the commands. So every command has its place in a queue, and keeps it when its caller is
cancelled: the stream never gets out of step. Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import hiredis
from anyio.abc import ByteStream

from ...exceptions import LayerRefused, LayerUnreachable
from ...nursery import collapsed
from ...seam import open_wake
from .address import Endpoint
from .outbox import RUN_MARK, Due, Outbox, Pending, Stage, packed

READ = 2**16
CLIENT_NAME = "trichannels"
MISSING = object()
UNKNOWN_RUN = b"0" * len(RUN_MARK)  # where we may not ask INFO; a script that needs to know will say so
DENIED = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "NOMASTER")  # time alone does not heal these

ADVICE = {
    "NOAUTH": "give the layer a password: redis://:password@host",
    "WRONGPASS": "the username or password of the layer's URL is not right",
    "NOPERM": "the user of the layer may not do this: change its ACL",
    "READONLY": "this server is a replica: name its master, or its sentinels",
    "OOM": "the server is at its maxmemory",
    "LOADING": "the server has just started",
    "MISCONF": "the server cannot save to its disk",
}

Push = Callable[[list[Any]], None]


def refused(label: str, answer: Exception) -> LayerRefused:
    """Make our error of an error that a server has answered."""
    text = str(answer)
    return LayerRefused(label, text, ADVICE.get(text.partition(" ")[0], ""))


async def _connect(endpoint: Endpoint) -> ByteStream:
    if endpoint.path is not None:
        return await anyio.connect_unix(endpoint.path)
    if endpoint.tls is None:
        return await anyio.connect_tcp(endpoint.host, endpoint.port)
    return await anyio.connect_tcp(
        endpoint.host, endpoint.port, ssl_context=endpoint.tls.context(), tls_standard_compatible=False
    )


class Connection:
    """An open connection. ``over`` is set when it has ended, and ``problem`` says why. ``run_id``: the server's.

    With an ``outbox`` of a link it writes what is in there; else it has one of its own.
    """

    def __init__(
        self, stream: ByteStream, endpoint: Endpoint, outbox: Outbox | None, on_push: Push | None,
        settle: Callable[[], Awaitable[None]] | None, reply_bytes: int,
    ) -> None:  # fmt: skip
        self.endpoint, self.label = endpoint, endpoint.label
        self.run_id = ""
        self.over = anyio.Event()
        self.problem = ""
        self._stream, self._on_push, self._settle = stream, on_push, settle
        self.outbox = outbox if outbox is not None else Outbox(10_000, 2**26)
        self._due = Due()
        self._reply_bytes, self._partial = reply_bytes, 0
        self._parser = hiredis.Reader(notEnoughData=MISSING)
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.label}, {self.problem or f'{len(self._due)} answers due'}>"

    # ---- greeting

    async def greet(self) -> None:
        """Say who we are, and learn which run of the server this is. Raises :class:`LayerRefused`."""
        endpoint = self.endpoint
        hello: list[str | int] = ["HELLO", 3]
        if endpoint.password is not None:
            hello += ["AUTH", endpoint.username or "default", endpoint.password]
        commands = [packed(*hello, "SETNAME", CLIENT_NAME)]
        if endpoint.database:
            commands.append(packed("SELECT", endpoint.database))
        commands.append(packed("INFO", "server"))
        await self._stream.send(b"".join(commands))
        answers = [await self._answer() for _ in commands]
        for answer in answers[:-1]:
            if isinstance(answer, Exception):
                raise refused(self.label, answer)
        info = answers[-1]
        if isinstance(info, bytes):
            found = [line for line in info.decode(errors="replace").splitlines() if line.startswith("run_id:")]
            self.run_id = found[0].partition(":")[2] if found else ""

    async def _answer(self) -> Any:
        while (answer := self._parser.gets()) is MISSING:
            self._parser.feed(await self._stream.receive(READ))
        return answer

    # ---- its life

    async def serve(self) -> None:
        """Read and write until it breaks; returns then. Cancelled, it is over too."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._until_broken, self._write)
                group.start_soon(self._until_broken, self._read)
        finally:
            self.fail("the connection was closed")

    def fail(self, problem: str) -> None:
        """Give the connection up; who waits for answers is told."""
        if not self.problem:
            self.problem = problem
        self._due.fail(self.label, self.problem)
        self.over.set()
        if self._scope is not None:
            self._scope.cancel()

    async def _until_broken(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.fail("the server closed the connection")
        except (hiredis.ProtocolError, hiredis.HiredisError, ValueError) as error:
            self.fail(f"the server sent what is not RESP3: {error}")
        except OSError as error:
            self.fail(f"the connection broke: {error}")

    async def _write(self) -> None:
        outbox = self.outbox
        while True:
            written = outbox.take()
            if not written:
                await outbox.wake.sleep()
                continue
            self._due.add(written)
            data = b"".join([self._stamped(pending) if pending.marked else pending.data for pending in written])
            await self._stream.send(data)

    def _stamped(self, pending: Pending) -> bytes:
        return pending.data.replace(RUN_MARK, self.run_id.encode() or UNKNOWN_RUN)

    async def _read(self) -> None:
        parser, gets, settle = self._parser, self._parser.gets, self._settle
        while True:
            pushed = False
            while (answer := gets()) is not MISSING:
                self._partial = 0
                if type(answer) is hiredis.PushNotification:
                    pushed = True
                    if self._on_push is not None:
                        self._on_push(answer)
                elif not self._due.answer(answer):
                    raise ValueError("it answered what nobody had asked")
            if pushed and settle is not None:
                await settle()
            data = await self._stream.receive(READ)
            self._partial += len(data)
            if self._partial > self._reply_bytes:
                raise ValueError(f"an answer of more than {self._reply_bytes} bytes")
            parser.feed(data)

    # ---- for who has it alone

    async def ask(self, *command: str | bytes | int | float, timeout: float | None = None) -> Any:
        """Return the answer to a command; raises :class:`LayerRefused` for an error.

        For a connection of one's own: cancelled, or after ``timeout`` seconds, it is given up: an answer would be due.
        """
        pending = Pending(packed(*command), 1, open_wake())
        if self.problem:
            raise LayerUnreachable(self.label, self.problem)
        self.outbox.put(pending)
        try:
            with anyio.move_on_after(timeout):
                while pending.stage is not Stage.OVER:
                    assert pending.wake is not None
                    await pending.wake.sleep()
        finally:
            self.outbox.done(pending)
            if pending.stage is not Stage.OVER:
                self.outbox.withdraw(pending)
                self.fail("a command that was waited for was given up")
        if pending.error is not None:
            raise pending.error
        if not pending.answers:
            raise LayerUnreachable(self.label, self.problem or "no answer in time")
        if isinstance(pending.answers[0], Exception):
            raise refused(self.label, pending.answers[0])
        return pending.answers[0]


@asynccontextmanager
async def open_connection(
    endpoint: Endpoint,
    *,
    timeout: float,
    outbox: Outbox | None = None,
    on_push: Push | None = None,
    settle: Callable[[], Awaitable[None]] | None = None,
    reply_bytes: int = 2**26,
) -> AsyncIterator[Connection]:
    """Connect and greet within ``timeout`` seconds, and keep the connection for the block.

    Raises :class:`LayerUnreachable`, or :class:`LayerRefused` if the server will not have us.
    """
    connection = None
    stream: ByteStream | None = None
    try:
        with anyio.fail_after(timeout):
            stream = await _connect(endpoint)
            connection = Connection(stream, endpoint, outbox, on_push, settle, reply_bytes)
            await connection.greet()
    except BaseException as error:
        if stream is not None:
            await anyio.aclose_forcefully(stream)
        if isinstance(error, TimeoutError):
            raise LayerUnreachable(endpoint.label, f"no connection within {timeout:g} s") from error
        if isinstance(error, anyio.EndOfStream | anyio.BrokenResourceError):
            raise LayerUnreachable(endpoint.label, "the server closed the connection while we said hello") from error
        if isinstance(error, hiredis.ProtocolError | hiredis.HiredisError):
            raise LayerUnreachable(endpoint.label, f"it does not speak RESP3: {error}") from error
        if isinstance(error, OSError):
            raise LayerUnreachable(endpoint.label, f"cannot connect: {_reason(error)}") from error
        raise
    try:
        async with collapsed(), anyio.create_task_group() as tasks:
            tasks.start_soon(connection.serve)
            try:
                yield connection
            finally:
                tasks.cancel_scope.cancel()
    finally:
        await anyio.aclose_forcefully(stream)


def _reason(error: OSError) -> str:
    """What anyio wraps up: the reason of the last address that was tried."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[-1]
    return str(cause or error)
