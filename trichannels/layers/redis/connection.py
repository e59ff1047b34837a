"""One connection to a Redis server: RESP3, pipelined. It is opened, used, and over; who wants another opens another.

Answers come in the order of the commands. So every command has its place in a queue, and keeps it when its caller is
cancelled: the stream never gets out of step. Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import hiredis
from anyio.abc import ByteStream

from ...exceptions import InvalidChannelLayerError, LayerRefused, LayerUnreachable, TrichannelsError
from ...nursery import collapsed
from ...seam import open_wake
from .address import Endpoint
from .outbox import Due, Outbox, OutOfStep, Pending, Stage, packed

READ = 2**16
CLIENT_NAME = "trichannels"
MISSING = object()
LAST_WORDS = 1.0  # seconds in which what a server said before it hung up is read

# What an error begins with, and what can be done about it.
ADVICE = {
    "NOAUTH": "give the layer a password: redis://:password@host",
    "WRONGPASS": "the username or password of the layer's URL is not right",
    "NOPERM": "the user of the layer may not do this: change its ACL",
    "DENIED": "the server takes nobody from another machine without a password",
    "NOPROTO": "the server does not speak RESP3: Redis 7 does",
    "ERR unknown command 'HELLO'": "the server does not speak RESP3: Redis 7 does",
    "ERR unknown command `HELLO`": "the server does not speak RESP3: Redis 7 does",
    "ERR DB index": "the server has no database of this number",
    "ERR invalid DB index": "the server has no database of this number",
    "ERR SELECT is not allowed": "a cluster has only the database 0",
    "READONLY": "this server is a replica: name its master, or its sentinels",
    "MOVED": "this server is a cluster's: redis+cluster://host:port",
    "OOM": "the server is at its maxmemory",
    "LOADING": "the server has just started",
    "MISCONF": "the server cannot save to its disk",
}
# Those that no waiting will change, where they answer our greeting.
HOPELESS = (
    "NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "NOPROTO", "NOMASTER",
    *(text for text in ADVICE if text.startswith("ERR")),
)  # fmt: skip

Push = Callable[[list[Any]], None]


def refused(label: str, answer: Exception) -> LayerRefused:
    """Make our error of an error that a server has answered. What it repeats of our command is left out of it."""
    text = str(answer).partition(", with args beginning with")[0]
    advice = next((advice for beginning, advice in ADVICE.items() if text.startswith(beginning)), "")
    return LayerRefused(label, text, advice)


def ours(label: str, error: Exception) -> TrichannelsError:
    """Return an error among the answers as one of ours, which it is already where an answer did not come."""
    return error if isinstance(error, TrichannelsError) else refused(label, error)


def hopeless(error: LayerRefused) -> bool:
    """Whether a server that answered our greeting so will have to be told otherwise first, or we."""
    return error.answer.startswith(HOPELESS)


async def _connect(endpoint: Endpoint) -> ByteStream:
    if endpoint.path is not None:
        return await anyio.connect_unix(endpoint.path)
    if endpoint.tls is None:
        return await anyio.connect_tcp(endpoint.host, endpoint.port)
    return await anyio.connect_tcp(
        endpoint.host, endpoint.port, ssl_context=endpoint.tls.context(), tls_standard_compatible=False
    )


class Connection:
    """An open connection. ``over`` is set when it has ended, and ``problem`` says why.

    With an ``outbox`` of a link it writes what is in there; else it has one of its own.
    """

    def __init__(
        self, stream: ByteStream, endpoint: Endpoint, outbox: Outbox | None, on_push: Push | None,
        settle: Callable[[], Awaitable[None]] | None, reply_bytes: int,
    ) -> None:  # fmt: skip
        self.endpoint, self.label = endpoint, endpoint.label
        self.heard = 0  # how often something came: whoever still talks is alive
        self.settling = False  # what came is being delivered; meanwhile nothing is read
        self.over = anyio.Event()
        self.problem = ""
        self._stream, self._on_push, self._settle = stream, on_push, settle
        self._of_link = outbox is not None  # what is in its outbox goes to the next connection
        self.outbox = outbox if outbox is not None else Outbox(10_000, 2**26)
        self._due = Due()
        self._reply_bytes, self._partial = reply_bytes, 0
        self._parser = hiredis.Reader(notEnoughData=MISSING)
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.label}, {self.problem or f'{len(self._due)} answers due'}>"

    # ---- greeting

    async def greet(self) -> None:
        """Say who we are. Raises :class:`LayerRefused`.

        It ends with a PING: what the server answers to that while it loads its data, it would answer to all else.
        """
        endpoint = self.endpoint
        hello: list[str | int] = ["HELLO", 3]
        if endpoint.username or endpoint.password:
            hello += ["AUTH", endpoint.username or "default", endpoint.password or ""]
        commands = [packed(*hello, "SETNAME", CLIENT_NAME)]
        if endpoint.database:
            commands.append(packed("SELECT", endpoint.database))
        with suppress(anyio.BrokenResourceError):  # it may have hung up on us: its last words tell why
            await self._stream.send(b"".join([*commands, packed("PING")]))
        answers = []
        for _ in [*commands, "PING"]:
            answers.append(answer := await self._answer())
            if isinstance(answer, Exception):
                raise refused(self.label, _censored(answer, endpoint.password))
        if not isinstance(answers[0], dict) or self._parser.has_data():  # a mail server greets with "+OK", too
            raise OutOfStep("other answers to our greeting than Redis has")

    async def _answer(self) -> Any:
        while True:
            answer = self._parsed()
            if answer is MISSING:
                await self._more()
            elif type(answer) is not hiredis.PushNotification:
                return answer

    def _parsed(self) -> Any:
        """Return the next answer or push of what came, or MISSING."""
        try:
            return self._parser.gets()
        except Exception as error:  # MemoryError and TypeError are among them
            raise _malformed(error) from error

    async def _more(self) -> None:
        """Wait for more to parse. The bound counts what came since an answer was complete: that is a part of one."""
        data = await self._stream.receive(READ)
        self.heard += 1
        self._partial += len(data)
        if self._partial > self._reply_bytes:
            raise OutOfStep(f"an answer of more than {self._reply_bytes} bytes")
        self._parser.feed(data)

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
        for pending in [] if self._of_link else self.outbox.drop():
            pending.finish(LayerUnreachable(self.label, self.problem))
        self.over.set()
        if self._scope is not None:
            self._scope.cancel()

    async def _until_broken(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.fail("the server closed the connection")
        except OutOfStep as error:
            self.fail(f"the server sent {error}")
        except OSError as error:
            self.fail(f"the connection broke: {error}")

    async def _write(self) -> None:
        outbox = self.outbox
        while not self.problem:  # what is not written when it breaks is not taken, though we may still be woken
            written = outbox.take()
            if not written:
                await outbox.wake.sleep()
                continue
            self._due.extend([pending for pending in written if pending.count])
            data = b"".join([pending.data for pending in written])
            for pending in written:
                if not pending.count:  # it is answered by pushes alone
                    pending.finish()
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, OSError):
                await anyio.sleep(LAST_WORDS)  # the reader finds the end sooner, behind what was answered before it
                raise

    async def _read(self) -> None:
        gets, answered, on_push, settle = self._parser.gets, self._due.answer, self._on_push, self._settle
        while True:
            some = pushed = False
            while True:
                try:
                    answer = gets()
                except Exception as error:
                    raise _malformed(error) from error
                if answer is MISSING:
                    break
                some = True
                if type(answer) is not hiredis.PushNotification:
                    answered(answer)
                elif on_push is not None:
                    pushed = True
                    on_push(answer)
            if some:
                self._partial = 0
            if pushed and settle is not None:
                self.settling = True
                await settle()
                self.settling = False
            await self._more()

    # ---- for who has it alone

    async def ask(self, *command: str | bytes | int | float, timeout: float | None = None) -> Any:
        """Return the answer to a command; raises :class:`LayerRefused` for an error.

        For a connection of one's own: cancelled, or after ``timeout`` seconds, it is given up: an answer would be due.
        Then, or when it breaks, :class:`OutcomeUnknown` is raised, or :class:`LayerUnreachable` if nothing was sent.
        """
        if self.problem:
            await anyio.lowlevel.checkpoint()
            raise LayerUnreachable(self.label, self.problem)
        pending = Pending(packed(*command), 1, open_wake())
        self.outbox.put(pending)
        problem = "its caller was cancelled"
        try:
            with anyio.move_on_after(timeout):
                await over(pending)
            problem = f"no answer within {timeout} s"
        finally:
            if pending.stage is not Stage.OVER:
                self.outbox.withdraw(pending)
                self.fail(problem)
        if pending.error is not None:
            raise pending.error
        if not pending.answers:
            raise LayerUnreachable(self.label, self.problem)
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
        if isinstance(error, OutOfStep):
            raise LayerUnreachable(endpoint.label, f"it does not speak RESP3: it sent {error}") from error
        if isinstance(error, InvalidChannelLayerError):  # files that are being replaced may be there again soon
            raise LayerUnreachable(endpoint.label, str(error)) from error
        if isinstance(error, OSError | ValueError):  # ValueError: a host or path that cannot be one
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


def _reason(error: Exception) -> str:
    """What anyio wraps up: the reason of the last address that was tried."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[-1]
    return str(cause or error)


async def over(pending: Pending) -> None:
    """Wait until it is over."""
    assert pending.wake is not None
    while pending.stage is not Stage.OVER:
        await pending.wake.sleep()


def _malformed(error: Exception) -> OutOfStep:
    return OutOfStep(f"what is not RESP3: {error}" if str(error) else f"what is not RESP3 ({type(error).__name__})")


def _censored(answer: Exception, secret: str | None) -> Exception:
    """Servers that do not know HELLO repeat what we said, and so does many a proxy."""
    return Exception(str(answer).replace(secret, "***")) if secret else answer
