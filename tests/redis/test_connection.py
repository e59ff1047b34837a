"""One connection: its greeting, its answers in whatever pieces they come, and servers that talk nonsense."""

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.redis.address import TLS, Endpoint, Standalone, parse_url
from trichannels.layers.redis.connection import Connection, hopeless, open_connection, refused
from trichannels.layers.redis.outbox import Pending, Stage, packed
from trichannels.seam import open_wake

from .fake import FakeRedis, bulk, push, soon
from .servers import RedisProcess, fresh_prefix, shared_server

SECRET = "s3cr3t"


def endpoint_of(url: str) -> Endpoint:
    target = parse_url(url)
    assert isinstance(target, Standalone)
    return target.endpoint


# ---- the greeting, on real servers


@pytest.mark.server
@pytest.mark.parametrize("version", ["7", "8"])
async def test_who_we_are_and_whom_we_talk_to(version: str) -> None:
    server = shared_server(version)
    async with open_connection(endpoint_of(f"{server.url}/5"), timeout=5) as connection:
        assert await connection.ask("CLIENT", "GETNAME") == b"trichannels"
        assert b" db=5 " in await connection.ask("CLIENT", "INFO")
        assert b" resp=3" in await connection.ask("CLIENT", "INFO")
        key = fresh_prefix()
        assert await connection.ask("SET", key, 1.5) == b"OK"
        assert await connection.ask("GET", key) == b"1.5"
        assert await connection.ask("GET", "no such key") is None
        with pytest.raises(LayerRefused, match="WRONGTYPE"):
            await connection.ask("LPUSH", key, 1)
        assert await connection.ask("DEL", key) == 1


@pytest.mark.server
async def test_a_unix_socket() -> None:
    server = shared_server()
    async with open_connection(endpoint_of(f"unix://{server.path}?db=2"), timeout=5) as connection:
        assert await connection.ask("PING") == b"PONG"
        assert connection.label == f"unix://{server.path}"


USERS = (
    "--user", "default", "on", f">{SECRET}", "~*", "&*", "+@all",
    "--user", "some", "on", ">other", "~mine:*", "&mine:*", "+@all",
    "--user", "idle", "on", ">other", "~*", "&*", "+get",
    "--user", "mute", "on", ">other", "~*", "&*", "+@all", "-ping",
    "--user", "open", "on", "nopass", "~*", "&*", "+@all",
)  # fmt: skip


@pytest.mark.server
async def test_users_and_passwords(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    with RedisProcess("7", *USERS) as server:
        place = Endpoint("127.0.0.1", server.port)
        for username, password in ((None, SECRET), ("default", SECRET), ("some", "other"), ("open", None)):
            async with open_connection(replace(place, username=username, password=password), timeout=5) as connection:
                assert await connection.ask("ACL", "WHOAMI") == (username or "default").encode()
                texts.append(repr(connection))
        wrong = [
            (None, None, "NOAUTH", "give the layer a password"),
            (None, SECRET + "!", "WRONGPASS", "not right"),
            ("nobody", SECRET, "WRONGPASS", "not right"),
            ("idle", "other", "NOPERM", "ACL"),
            ("mute", "other", "NOPERM", "ACL"),
        ]
        for username, password, code, advice in wrong:
            with pytest.raises(LayerRefused, match=advice) as caught:
                async with open_connection(replace(place, username=username, password=password), timeout=5):
                    pass
            assert caught.value.code == code
            assert hopeless(caught.value)
            texts += [str(caught.value), repr(caught.value)]
        with pytest.raises(LayerRefused, match="no database of this number") as caught:
            async with open_connection(replace(place, password=SECRET, database=99), timeout=5):
                pass
        assert hopeless(caught.value)
    assert SECRET not in "".join(texts) + caplog.text


@pytest.mark.server
async def test_tls(tmp_path: Path) -> None:
    authority, foreign = trustme.CA(), trustme.CA()
    files = {}
    for name, blobs in {
        "ca": [authority.cert_pem],
        "foreign": [foreign.cert_pem],
        "server": (issued := authority.issue_cert("127.0.0.1")).cert_chain_pems,
        "server-key": [issued.private_key_pem],
        "client": (ours := authority.issue_cert("client.example")).cert_chain_pems,
        "client-key": [ours.private_key_pem],
    }.items():
        files[name] = str(tmp_path / f"{name}.pem")
        for blob in blobs:
            blob.write_to_path(files[name], append=True)
    options = (
        "--tls-cert-file",
        files["server"],
        "--tls-key-file",
        files["server-key"],
        "--tls-ca-cert-file",
        files["ca"],
    )
    us = TLS(files["ca"], files["client"], files["client-key"])
    with RedisProcess("7", tls=options) as server:
        place = Endpoint("127.0.0.1", server.port, tls=us)
        async with open_connection(place, timeout=5) as connection:
            assert await connection.ask("ECHO", "x" * 300_000) == b"x" * 300_000
        strangers = {
            "without a certificate of ours": replace(place, tls=TLS(files["ca"])),
            "with an authority that is not the server's": replace(place, tls=replace(us, ca_file=files["foreign"])),
            "by a name that is not the server's": replace(place, host="localhost"),
            "without TLS": replace(place, tls=None),
            "with files that are gone": replace(place, tls=replace(us, cert_file=files["client"] + "x")),
        }
        for endpoint in strangers.values():
            with anyio.fail_after(5), pytest.raises(LayerUnreachable):
                async with open_connection(endpoint, timeout=3) as connection:
                    await connection.ask("PING", timeout=3)
        async with open_connection(replace(place, host="localhost", tls=replace(us, check_hostname=False)), timeout=5):
            pass
    with anyio.fail_after(5), pytest.raises(LayerUnreachable):  # it speaks no TLS
        async with open_connection(Endpoint("127.0.0.1", shared_server().port, tls=us), timeout=1):
            pass


# ---- servers that cannot be talked to


Talk = Callable[[anyio.abc.ByteStream], Any]


@asynccontextmanager
async def server_that(talk: Talk) -> AsyncIterator[Endpoint]:
    """Serve with ``talk`` on loopback for the block."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def one(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await talk(stream)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, one)
        yield Endpoint("127.0.0.1", port, password=SECRET)
        group.cancel_scope.cancel()


def saying(*parts: bytes) -> Talk:
    """Answer the greeting so, and hang up."""

    async def talk(stream: anyio.abc.ByteStream) -> None:
        await stream.receive()
        for part in parts:
            await stream.send(part)

    return talk


async def silent(stream: anyio.abc.ByteStream) -> None:
    await anyio.sleep_forever()


async def closing(stream: anyio.abc.ByteStream) -> None:
    pass


ECHOED = f"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `{SECRET}`, \r\n".encode()


@pytest.mark.server
@pytest.mark.parametrize(
    ("talk", "kind", "problem"),
    [
        (silent, LayerUnreachable, "no connection within 0.3 s"),
        (closing, LayerUnreachable, "closed the connection"),
        (saying(b"+OK\r\n+PO"), LayerUnreachable, "closed the connection"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), LayerUnreachable, "does not speak RESP3"),
        (saying(b"*4294967295\r\n"), LayerUnreachable, "does not speak RESP3"),
        (saying(b"$200000\r\n", b"x" * 200_000), LayerUnreachable, "an answer of more than 100000 bytes"),
        (saying(ECHOED), LayerRefused, "Redis 7 does"),
        (saying(f"-ERR do not know HELLO 3 AUTH default {SECRET}\r\n".encode()), LayerRefused, r"default \*\*\*"),
        (saying(b"-ERR max number of clients reached\r\n"), LayerRefused, "max number of clients"),
        (saying(b"-DENIED Redis is running in protected mode\r\n"), LayerRefused, "protected mode"),
        (saying(b"%0\r\n-LOADING Redis is loading\r\n"), LayerRefused, "has just started"),
        (saying(b">1\r\n+hi\r\n%0\r\n-MASTERDOWN Link\r\n"), LayerRefused, "MASTERDOWN"),
    ],
)
async def test_a_greeting_that_fails(talk: Talk, kind: type[Exception], problem: str) -> None:
    async with server_that(talk) as endpoint:
        with anyio.fail_after(5), pytest.raises(kind, match=problem) as caught:
            async with open_connection(endpoint, timeout=0.3 if talk is silent else 5, reply_bytes=100_000):
                pass
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.server
async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(LayerUnreachable, match=r"cannot connect: .*(refused|Errno 111)"):
            async with open_connection(Endpoint("127.0.0.1", taken.getsockname()[1]), timeout=5):
                pass
    with pytest.raises(LayerUnreachable, match="No such file"):
        async with open_connection(Endpoint(path="/no/such/socket"), timeout=5):
            pass


def test_which_refusals_are_hopeless() -> None:
    def of(text: str) -> bool:
        return hopeless(refused("r", Exception(text)))

    assert of("WRONGPASS invalid username-password pair or user is disabled.")
    assert of("ERR unknown command 'HELLO', with args beginning with: '3'")
    assert not of("LOADING Redis is loading the dataset in memory")
    assert not of("ERR max number of clients reached")


# ---- answers


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    return FakeRedis(monkeypatch)


def asked(connection: Connection, count: int = 1, data: bytes = b"") -> Pending:
    """Put commands into the outbox of a connection."""
    pending = Pending(data or packed("ECHO", "x") * count, count, open_wake())
    connection.outbox.put(pending)
    return pending


def _written(pending: Pending) -> bool:
    return pending.stage is Stage.WRITTEN


ANSWERS: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-12\r\n", -12),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"$-1\r\n", None),
    (b"_\r\n", None),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b"*2\r\n*0\r\n%1\r\n+k\r\n$0\r\n\r\n", [[], {b"k": b""}]),
    (b"=5\r\ntxt:a\r\n", b"a"),
    (b"*3\r\n:1\r\n-ERR inside\r\n:2\r\n", None),
    (b"(123456789012345678901234567890\r\n", b"123456789012345678901234567890"),
]
PUSHED = push("message", "c", "p")
STREAM = PUSHED.join(raw for raw, _ in ANSWERS) + PUSHED


async def answered_in(fake: FakeRedis, parts: list[bytes]) -> None:
    pushes: list[Any] = []
    async with open_connection(Endpoint(), timeout=5, on_push=pushes.append) as connection:
        fake.silent = True
        pending = asked(connection, len(ANSWERS))
        await soon(lambda: pending.stage is Stage.WRITTEN)
        for part in parts:
            fake.streams[0].say(part)
        await soon(lambda: len(pushes) == len(ANSWERS))
        assert not connection.problem
        assert len(pending.answers) == len(ANSWERS)
        for got, (raw, expected) in zip(pending.answers, ANSWERS, strict=True):
            assert got == expected or b"inside" in raw, raw
        assert pushes == [[b"message", b"c", b"p"]] * len(ANSWERS)


async def test_answers_cut_at_each_byte(fake: FakeRedis) -> None:
    for cut in range(1, len(STREAM)):
        fake.silent, fake.streams = False, []
        await answered_in(fake, [STREAM[:cut], STREAM[cut:]])


async def test_answers_byte_by_byte(fake: FakeRedis) -> None:
    await answered_in(fake, [bytes([byte]) for byte in STREAM])


async def test_an_answer_that_ends_at_each_byte_is_no_answer(fake: FakeRedis) -> None:
    raw = b"".join(raw for raw, _ in ANSWERS)
    ends = {sum(len(raw) for raw, _ in ANSWERS[: index + 1]) for index in range(len(ANSWERS))}
    for cut in range(len(raw)):
        fake.silent, fake.streams = False, []
        async with open_connection(Endpoint(), timeout=5) as connection:
            fake.silent = True
            pendings = [asked(connection) for _ in ANSWERS]
            await soon(partial(_written, pendings[-1]))
            fake.streams[0].say(raw[:cut])
            fake.streams[0].cut()
            with anyio.fail_after(5):
                await connection.over.wait()
            whole = len([end for end in ends if end <= cut])
            assert [len(pending.answers) for pending in pendings] == [1] * whole + [0] * (len(ANSWERS) - whole)
            for pending in pendings[whole:]:
                assert isinstance(pending.error, OutcomeUnknown)
            assert connection.outbox.under_way == connection.outbox.bytes == 0


NONSENSE = [
    b"HTTP/1.1 200 OK\r\n",
    b"$-7\r\n",
    b":12a\r\n",
    b"#x\r\n",
    b"*4294967295\r\n",  # hiredis raises MemoryError
    b"%1\r\n*0\r\n:1\r\n",  # and here TypeError: a list cannot be a key
    b"\x00\x00\x00\x00",
    b"+one\r\n+two\r\n",
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
async def test_nonsense_ends_the_connection(fake: FakeRedis, nonsense: bytes) -> None:
    async with open_connection(Endpoint(), timeout=5) as connection:
        fake.silent = True
        pending = asked(connection)
        await soon(lambda: pending.stage is Stage.WRITTEN)
        fake.streams[0].say(nonsense)
        with anyio.fail_after(5):
            await connection.over.wait()
        assert connection.problem.startswith("the server sent ")
        assert pending.answers == [b"one"] if b"one" in nonsense else isinstance(pending.error, OutcomeUnknown)
        with pytest.raises(LayerUnreachable, match="the server sent"):
            await connection.ask("PING")


async def test_an_answer_of_any_length_is_bounded(fake: FakeRedis) -> None:
    """Whether it is one long string, or says that it will be one, or a list of many that are short."""
    for part, times in ((b"$999999999\r\n", 1), (b"x" * 4096, 9), (b"*100000\r\n", 1), (b":1\r\n" * 1000, 9)):
        fake.silent, fake.streams = False, []
        async with open_connection(Endpoint(), timeout=5, reply_bytes=30_000) as connection:
            fake.silent = True
            pending = asked(connection)
            await soon(partial(_written, pending))
            fake.streams[0].say(b"$999999999\r\n" if part[:1] == b"x" else b"*100000\r\n" if part[:1] == b":" else b"")
            for _ in range(times):
                fake.streams[0].say(part)
            if times == 1:
                continue  # it has said what it will say; that alone costs nothing
            with anyio.fail_after(5):
                await connection.over.wait()
            assert "more than 30000 bytes" in connection.problem
            assert isinstance(pending.error, OutcomeUnknown)


async def test_many_answers_are_not_one_long_one(fake: FakeRedis) -> None:
    async with open_connection(Endpoint(), timeout=5, reply_bytes=30_000) as connection:
        fake.silent = True
        pending = asked(connection, 1000)
        await soon(lambda: pending.stage is Stage.WRITTEN)
        for _ in range(10):
            fake.streams[0].say(bulk("x" * 200) * 100)
        await soon(lambda: pending.stage is Stage.OVER)
        assert pending.answers == [b"x" * 200] * 1000


# ---- a connection of one's own


async def test_who_gives_up_an_answer_gives_up_the_connection(fake: FakeRedis) -> None:
    async with open_connection(Endpoint(), timeout=5) as connection:
        fake.silent = True
        with anyio.move_on_after(0.01):
            await connection.ask("ECHO", "mine")
        with pytest.raises(LayerUnreachable, match="its caller was cancelled"):
            await connection.ask("ECHO", "yours")
    fake.silent = False
    async with open_connection(Endpoint(), timeout=5) as connection:
        fake.silent = True
        with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.01 s"):
            await connection.ask("ECHO", "mine", timeout=0.01)
    fake.silent = False
    with pytest.raises(LayerUnreachable, match="no answer within"):
        await connection.ask("ECHO", "late")
    async with open_connection(Endpoint(), timeout=5) as connection:
        fake.cut()
        with pytest.raises(LayerUnreachable, match="closed the connection"):
            await connection.ask("ECHO", "x")
    assert not fake.streams


async def test_an_error_in_the_block_leaves_it_as_it_is(fake: FakeRedis) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_connection(Endpoint(), timeout=5):
            raise ZeroDivisionError
    assert not fake.streams
