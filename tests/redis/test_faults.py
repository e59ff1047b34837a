"""Real servers that are killed, stopped, paused, full, read-only or forbidden: a clear error or recovery, never a hang.

Nobody ever gets the answer to what another has asked, and nothing stays behind.
"""

import asyncio
import logging
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.redis.address import Endpoint, parse_url
from trichannels.layers.redis.connection import open_connection
from trichannels.layers.redis.history import READ
from trichannels.layers.redis.outbox import Pending, packed
from trichannels.layers.redis.scripts import Script
from trichannels.layers.redis.server import Bounds, Timeouts, open_server
from trichannels.layers.redis.standalone import StandaloneServer
from trichannels.seam import open_wake

from ..conftest import BACKEND
from ..proxy import Proxy
from .servers import RedisProcess, fresh_prefix, shared_server
from .sinks import Told

pytestmark = pytest.mark.server

QUICK = Timeouts(connect=2, reply=2, ping_interval=0.1, ping=0.5, backoff_first=0.01, backoff_most=0.1)
REFUSED = r"Connect call failed|refused"  # asyncio's words, and the system's
AT_ONCE = 1.0  # seconds, of the 2 that a caller would wait for a server that is away


class Gated(Told):
    """A sink that can be made to take its time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: anyio.Event | None = None

    async def settle(self) -> None:
        if self.gate is not None:
            await self.gate.wait()


@asynccontextmanager
async def opened(
    url: str, sink: Told | None = None, timeouts: Timeouts = QUICK, bounds: Bounds | None = None
) -> AsyncIterator[StandaloneServer]:
    """Open the client of one server; at its end nothing may be under way."""
    async with open_server(parse_url(url), sink or Told(), timeouts=timeouts, bounds=bounds) as server:
        assert isinstance(server, StandaloneServer)
        yield server
        await until(lambda: not server.link.outbox.under_way, "that nothing is under way")
    assert server.link.outbox.under_way == server.link.outbox.bytes == server.link.outbox.waiting == 0
    assert server.statistics().connections == 0


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what a foreign process brings about, and tells nobody of."""
    with anyio.move_on_after(20):
        while not condition():
            await anyio.sleep(0.005)
        return
    raise AssertionError(f"in vain: {what}")


async def works(server: StandaloneServer) -> None:
    """See that commands and answers are in step again, as soon as there is a connection."""
    for _ in range(50):
        try:
            assert await server.execute("ECHO", "first") == b"first"
            break
        except LayerUnreachable:
            continue
    assert [await server.execute("ECHO", number) for number in range(20)] == [b"%d" % n for n in range(20)]


async def outcomes(server: StandaloneServer, count: int, fault: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Have many tasks send commands on and on while a fault happens; each answer must be the caller's own."""
    came: Counter[str] = Counter()
    over = anyio.Event()

    async def caller(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            text = f"{number}-{turn}-{'x' * (number % 7) * 50}"
            try:
                answer = await server.execute("ECHO", text)
            except LayerUnreachable as error:  # OutcomeUnknown is one
                came[type(error).__name__] += 1
            else:
                assert answer == text.encode()
                came["answered"] += 1

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(caller, number)
            await until(lambda: came["answered"] > count, "that all are at work")
            await fault()
            before = came["answered"]
            await until(lambda: came["answered"] > before + count, "that all are at work again")
            over.set()
    return came


async def in_thread(work: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(work)


# ---- away, and back


async def test_killed_and_back(descriptors: None) -> None:
    sink = Told()
    with RedisProcess() as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a", "b"])
            came = await outcomes(server, 100, lambda: in_thread(redis.restart))
            assert came["OutcomeUnknown"] <= 100, "who was not written yet waits for the next connection"
            await until(lambda: sink.events.count(("restored", "a")), "that the subscriptions are back")
            assert sorted(sink.events) == [("lost", "a"), ("lost", "b"), ("restored", "a"), ("restored", "b")]
            await server.execute("PUBLISH", "a", "again")
            await until(lambda: ("message", "a", "again") in sink.events, "a message")
            assert server.statistics().generation == server.link.generation >= 2


async def test_a_server_that_stays_away() -> None:
    with RedisProcess() as redis:
        async with opened(redis.url) as server:
            await server.execute("PING")
            redis.kill()
            await until(lambda: re.search(REFUSED, server.link.problem), "that it is missed")
            began = anyio.current_time()
            with pytest.raises(LayerUnreachable, match=rf"not reached in time \(0\.3 s\): .*({REFUSED})") as caught:
                await server.execute("PING", timeout=0.3)
            assert not isinstance(caught.value, OutcomeUnknown)
            with pytest.raises(LayerUnreachable, match="not subscribed within"):
                await server.subscribe(["a"], timeout=0.3)
            assert anyio.current_time() - began < 2
            for _ in range(100):
                with anyio.move_on_after(0.001):
                    await server.execute("ECHO", "x" * 10_000)
            assert (server.link.outbox.under_way, server.link.outbox.bytes, server.link.outbox.waiting) == (0, 0, 0)
            assert server.subscriber.wanted == set()


async def test_a_stopped_server_is_found_by_its_silence() -> None:
    sink = Told()
    with RedisProcess() as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a"])
            began = anyio.current_time()
            redis.stop()
            with pytest.raises(OutcomeUnknown, match=r"no answer to a ping within 0\.5 s|no answer within 0\.9 s"):
                await server.execute("PING", timeout=0.9)
            await until(lambda: ("lost", "a") in sink.events, "that the subscription is missed")
            assert anyio.current_time() - began < 2
            redis.cont()
            await works(server)
            await until(lambda: ("restored", "a") in sink.events, "that it is back")


async def test_a_stopped_server_keeps_nobody_longer_than_its_deadline() -> None:
    with RedisProcess() as redis:
        async with opened(redis.url, timeouts=Timeouts(ping=20, ping_interval=20)) as server:
            await server.execute("PING")
            redis.stop()
            with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.2 s"):
                await server.execute("ECHO", "late", timeout=0.2)
            redis.cont()
            assert await server.execute("ECHO", "next") == b"next"
            assert server.link.generation == 1, "one that is late is no reason to begin anew"


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_a_client_that_is_killed(kind: str) -> None:
    sink = Told()
    with RedisProcess() as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a"])
            for _ in range(3):
                generations = server.link.generation, server.subscriber.generation
                redis.admin("CLIENT", "KILL", "TYPE", kind)
                await until(lambda: (server.link.generation, server.subscriber.generation) != generations, "a new one")  # noqa: B023
                await works(server)
            assert (server.link.generation, server.subscriber.generation) == ((4, 1) if kind == "normal" else (1, 4))
            expected = [("lost", "a"), ("restored", "a")] * (0 if kind == "normal" else 3)
            await until(lambda: len(sink.events) == len(expected), "all that is to be told")
            assert sink.events == expected


async def test_a_pause() -> None:
    """A short one takes its time; one that is longer than the patience of a ping costs the connection."""
    with RedisProcess() as redis:
        async with opened(redis.url) as server:
            await server.execute("PING")
            redis.admin("CLIENT", "PAUSE", 100, "ALL")
            assert await server.execute("ECHO", "x") == b"x"
            assert server.link.generation == 1
            redis.admin("CLIENT", "PAUSE", 1500, "ALL")
            began = anyio.current_time()
            with pytest.raises(OutcomeUnknown, match="no answer to a ping"):
                await server.execute("ECHO", "y")
            assert anyio.current_time() - began < 1.5
            await works(server)


@pytest.mark.once
async def test_a_server_that_loads_its_data() -> None:
    """Commands wait for the end of that as they wait for a connection."""
    slowly = ("--enable-debug-command", "local", "--key-load-delay", "1500")
    with RedisProcess("7", *slowly) as redis:
        redis.admin("DEBUG", "POPULATE", 1000, "key", 1000)
        redis.admin("CONFIG", "SET", "loading-process-events-interval-bytes", 2048)
        redis.admin("SAVE")
        async with opened(redis.url) as server:
            await server.execute("PING")
            redis.config += ["--loading-process-events-interval-bytes", "2048"]
            redis.kill()
            async with anyio.create_task_group() as group:
                group.start_soon(in_thread, redis.start)
                await until(lambda: "LOADING" in server.link.problem, "that it says that it loads")
                with pytest.raises(LayerUnreachable, match=r"not reached in time \(0\.1 s\): LOADING"):
                    await server.execute("DBSIZE", timeout=0.1)
                assert await server.execute("DBSIZE", timeout=20) == 1000


@pytest.mark.once
async def test_ten_thousand_subscriptions_come_back() -> None:
    channels = [f"channel-{number}" for number in range(10_000)]
    sink = Told()
    with RedisProcess() as redis:
        async with opened(redis.url, sink, Timeouts(backoff_first=0.01, backoff_most=0.1)) as server:
            async with anyio.create_task_group() as group:
                for start in range(0, 10_000, 10):
                    group.start_soon(server.subscribe, channels[start : start + 10])
            await in_thread(redis.restart)
            await until(lambda: sink.times("restored") == 10_000, "that all are back")
            assert Counter(sink.events) == Counter((what, each) for what in ("lost", "restored") for each in channels)
            assert set(redis.admin("PUBSUB", "CHANNELS")) == set(channels)
            server.unsubscribe(channels[1:])
            await until(lambda: redis.admin("PUBSUB", "CHANNELS") == channels[:1], "that the others are left")
            assert server.subscriber.wanted == server.subscriber.confirmed == {("", channels[0])}


# ---- refusals


async def test_a_replica() -> None:
    with RedisProcess() as master, RedisProcess() as replica:
        replica.admin("REPLICAOF", "127.0.0.1", master.port)
        async with opened(replica.url) as server:
            with pytest.raises(LayerRefused, match="name its master") as caught:
                await server.execute("SET", "a", 1)
            assert caught.value.code == "READONLY"
            write = Script("write", "return redis.call('SET', KEYS[1], ARGV[1])")
            with pytest.raises(LayerRefused, match=r"READONLY|can't write against a read only replica"):
                await server.run(write, ["a"], ["1"])
            await works(server)


async def test_a_full_server() -> None:
    with RedisProcess("7", "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as redis:
        async with opened(redis.url) as server:
            commands = [("", ("SET", f"key{number}", "x" * 100_000)) for number in range(100)]
            assert "OOM" in {getattr(answer, "code", "") for answer in await server.pipeline(commands)}
            with pytest.raises(LayerRefused, match="at its maxmemory"):
                await server.execute("SET", "one more", "x" * 100_000)
            answers = await server.pipeline([("", ("ECHO", 1)), ("", ("SET", "a", "x" * 100_000)), ("", ("ECHO", 2))])
            assert isinstance(answers[1], LayerRefused)
            assert (answers[0], answers[1].code, answers[2]) == (b"1", "OOM", b"2")
            await works(server)


@pytest.mark.parametrize("given", [None, "0ld"])
async def test_a_password_that_is_wrong_is_told_at_once_and_mended(
    given: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    code = "NOAUTH" if given is None else "WRONGPASS"
    with RedisProcess("7", password="n3w") as redis:
        async with opened(f"redis://{f':{given}@' if given else ''}127.0.0.1:{redis.port}") as server:
            told = []
            for _ in range(5):
                began = anyio.current_time()
                for call in (server.execute("PING"), server.subscribe(["a"]), server.pipeline([("", ("PING",))])):
                    with pytest.raises(LayerRefused, match="password") as caught:
                        await call
                    assert caught.value.code == code
                    told.append(f"{caught.value!r} {caught.value}")
                assert anyio.current_time() - began < AT_ONCE
            told += [repr(server), repr(server.link), repr(server.subscriber), repr(vars(server.link))]
            assert not any(secret in "".join(told) + caplog.text for secret in ("0ld", "n3w"))
            redis.admin("CONFIG", "SET", "requirepass", given or "")
            redis.password = given
            await until(lambda: server.statistics().connections == 2, "that we are let in")
            await works(server)
            await server.subscribe(["a"])


async def test_a_password_that_is_changed_while_we_are_connected() -> None:
    sink = Told()
    with RedisProcess("7", password="first") as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a"])
            redis.admin("CONFIG", "SET", "requirepass", "second")
            redis.password = "second"
            await works(server)  # who is in stays in
            redis.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            redis.admin("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: server.link.denied and server.subscriber.denied, "that it is not let in")
            with pytest.raises(LayerRefused, match="WRONGPASS"):
                await server.execute("PING")
            assert sink.events == [("lost", "a")]
            redis.admin("CONFIG", "SET", "requirepass", "first")
            redis.password = "first"
            await until(lambda: server.statistics().connections == 2, "that we are let in")
            await until(lambda: ("restored", "a") in sink.events, "that the subscription is back")
            await works(server)


async def test_an_outage_is_no_wrong_password() -> None:
    with RedisProcess("7", password="right") as redis:
        async with opened(f"redis://:wrong@127.0.0.1:{redis.port}") as server:
            with pytest.raises(LayerRefused, match="WRONGPASS"):
                await server.execute("PING")
            redis.kill()
            await until(lambda: server.link.denied is None, "that nobody is there")
            with pytest.raises(LayerUnreachable, match=REFUSED):
                await server.execute("PING", timeout=0.2)


async def test_what_an_acl_forbids() -> None:
    rules = ("reset", "on", ">pw", "+@all", "-info", "-flushall", "~*", "resetchannels", "&open*")
    sink = Told()
    with RedisProcess() as redis:
        redis.admin("ACL", "SETUSER", "ann", *rules)
        async with opened(f"redis://ann:pw@127.0.0.1:{redis.port}", sink) as server:
            with pytest.raises(LayerRefused, match="change its ACL") as caught:
                await server.execute("FLUSHALL")
            assert caught.value.code == "NOPERM"
            with pytest.raises(LayerRefused, match="let the user run INFO") as caught:
                await server.run(READ, ["meta", "log"], ["epoch", 60, "", 0, 10, 10])
            assert caught.value.code == "NOREPLID"
            assert await server.run(Script("plain", "return ARGV[1]"), [], ["x"]) == b"x"
            with pytest.raises(LayerRefused, match="NOPERM"):
                await server.subscribe(["open1", "closed", "open2"])
            assert server.subscriber.wanted == set()
            refusals: list[LayerRefused] = []

            async def subscribe(channel: str) -> None:
                try:
                    await server.subscribe([channel])
                except LayerRefused as error:
                    refusals.append(error)

            async with anyio.create_task_group() as group:  # many of them go into one command
                for number in range(300):
                    group.start_soon(subscribe, f"open{number}" if number % 10 else f"closed{number}")
            assert len(refusals) == 30
            assert server.subscriber.wanted == server.subscriber.confirmed
            assert len(server.subscriber.wanted) == 270
            with pytest.raises(LayerRefused, match="NOPERM"):
                await server.execute("PUBLISH", "closed", "x")
            assert await server.execute("PUBLISH", "open1", "x") == 1
            assert sink.events in ([], [("message", "open1", "x")])
            await works(server)


async def test_a_subscription_that_is_not_granted_again_is_not_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    sink = Told()
    with RedisProcess() as redis:
        redis.admin("ACL", "SETUSER", "ann", "reset", "on", ">pw", "+@all", "~*", "&a", "&b")
        async with opened(f"redis://ann:pw@127.0.0.1:{redis.port}", sink) as server:
            await server.subscribe(["a", "b"])
            redis.admin("ACL", "SETUSER", "ann", "resetchannels", "&a")  # this ends the connection
            await until(lambda: ("restored", "a") in sink.events, "that the one is back")
            await until(lambda: "to b again" in caplog.text, "that it is logged")
            await until(lambda: redis.admin("PUBSUB", "NUMSUB", "a", "b") == ["a", 1, "b", 0], "the state there")
            assert sorted(sink.events) == [("lost", "a"), ("lost", "b"), ("restored", "a")]
            redis.admin("ACL", "SETUSER", "ann", "&b")
            await until(lambda: ("restored", "b") in sink.events, "that the other is back")
            assert len(sink.events) == 4
            assert [record.levelname for record in caplog.records].count("ERROR") == 1


# ---- what is too much


async def test_a_reply_that_is_too_long_costs_the_connection_and_nothing_else() -> None:
    redis, key = shared_server(), fresh_prefix()
    async with opened(redis.url, bounds=Bounds(reply_bytes=100_000)) as server:
        await server.execute("SET", key, "x" * 1_000_000)
        with pytest.raises(OutcomeUnknown, match="more than 100000 bytes"):
            await server.execute("GET", key)
        assert await server.execute("GETRANGE", key, 0, 90_000) == b"x" * 90_001
        assert await server.execute("DEL", key) == 1
        await works(server)


async def test_who_finds_no_room_waits_or_is_told() -> None:
    with RedisProcess() as redis:
        async with opened(redis.url, bounds=Bounds(commands=8, bytes=100_000)) as server:
            seen = []

            async def echo(number: int) -> None:
                text = b"%d" % number + b"x" * 30_000 * (number % 5)
                assert await server.execute("ECHO", text) == text
                seen.append(server.link.outbox.under_way)

            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(echo, number)
            assert len(seen) == 200
            assert max(seen) <= 8
            huge = b"x" * 5_000_000
            assert await server.execute("ECHO", huge) == huge
            redis.stop()
            errors: Counter[str] = Counter()

            async def ping() -> None:
                with pytest.raises(LayerUnreachable) as caught:
                    await server.execute("PING", timeout=0.2)
                errors["no room" if "no room" in str(caught.value) else type(caught.value).__name__] += 1

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(ping)
            assert errors["no room"] >= 12
            redis.cont()
            await works(server)


async def test_a_reader_that_is_slow_is_not_taken_for_a_silent_server() -> None:
    sink = Gated()
    with RedisProcess() as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a"])
            sink.gate = anyio.Event()
            await server.execute("PUBLISH", "a", "first")
            await until(lambda: sink.events, "the first")
            await anyio.sleep(2 * (QUICK.ping + QUICK.ping_interval))
            await server.execute("PUBLISH", "a", "second")
            sink.gate.set()
            await until(lambda: len(sink.events) == 2, "the second")
            assert sink.events == [("message", "a", "first"), ("message", "a", "second")]
            assert server.subscriber.generation == 1


async def test_a_reader_that_is_too_slow_for_the_server_is_told_of_the_gap() -> None:
    sink = Gated()
    with RedisProcess("7", "--client-output-buffer-limit", "pubsub 300000 0 0") as redis:
        async with opened(redis.url, sink) as server:
            await server.subscribe(["a"])
            sink.gate = anyio.Event()
            for number in range(200):
                await server.execute("PUBLISH", "a", f"{number:-<100000}")
            await until(lambda: not redis.admin("PUBSUB", "NUMSUB", "a")[1], "that the server has enough")
            sink.gate.set()
            await until(lambda: ("restored", "a") in sink.events, "that it is back")
            numbers = [int(text.rstrip(b"-")) for text in sink.messages["a"]]
            assert numbers == list(range(len(numbers))), "what came is what was sent first"
            assert len(numbers) < 200
            assert [event for event in sink.events if event[0] != "message"] == [("lost", "a"), ("restored", "a")]


# ---- who is no Redis


@contextmanager
def stranger(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on loopback, as something else than Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = False

        def serve() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    if over:
                        return
                    sock.settimeout(5)
                    try:
                        talk(sock)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over = True
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def http(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def mail(sock: socket.socket) -> None:
    sock.sendall(b"+OK POP3 ready\r\n")
    for _ in sock.recv(4096).splitlines():
        sock.sendall(b"-ERR what?\r\n")


def agreeable(sock: socket.socket) -> None:
    while sock.recv(4096):
        sock.sendall(b"+OK\r\n" * 20)


def talkative(sock: socket.socket) -> None:
    sock.sendall(b"%1\r\n+proto\r\n:3\r\n+PONG\r\n+info\r\n" + b"+unasked\r\n" * 3)
    sock.recv(4096)


def deaf(sock: socket.socket) -> None:
    sock.recv(4096)


@pytest.mark.parametrize("talk", [http, mail, agreeable, talkative, deaf], ids=lambda talk: talk.__name__)
async def test_a_port_where_something_else_answers(talk: Callable[[socket.socket], None]) -> None:
    with stranger(talk) as port:
        async with opened(f"redis://127.0.0.1:{port}") as server:
            await until(lambda: server.link.problem != "no connection yet", "that it is found out")
            with pytest.raises(LayerUnreachable, match=r"RESP3|ERR what|closed the connection") as caught:
                await server.execute("PING", timeout=0.3)
            assert not isinstance(caught.value, OutcomeUnknown)
            with pytest.raises(LayerUnreachable):
                await server.subscribe(["a"], timeout=0.2)
    if talk is http:
        assert "does not speak RESP3" in str(caught.value)


async def test_a_name_that_nobody_has() -> None:
    for place in ("no-such-host.invalid", "a..b", "x" * 70, "ü" * 64):
        with pytest.raises(LayerUnreachable, match="cannot connect"):
            async with open_connection(Endpoint(place), timeout=5):
                pass
    async with opened("redis://no-such-host.invalid") as server:
        with pytest.raises(LayerUnreachable, match=r"not reached in time \(0\.3 s\)"):
            await server.execute("PING", timeout=0.3)
    looking = "getaddrinfo"  # a thread of trio's, which is left to itself when nobody waits for it any more
    await until(lambda: not any(looking in thread.name for thread in threading.enumerate()), "that nobody looks it up")


# ---- cancelled


def cancel(number: int, dice: random.Random, scopes: list[anyio.CancelScope], tasks: list["asyncio.Task[Any]"]) -> None:
    """End one caller: by its scope, or as asyncio does it."""
    if tasks and dice.random() < 0.5:
        tasks[number].cancel()
    else:
        scopes[number].cancel()


@pytest.mark.parametrize("seed", range(2))
async def test_callers_are_cancelled_at_random(seed: int, descriptors: None) -> None:
    """Hundreds of commands at once, cancelled whenever, over connections that are cut: each answer is the caller's."""
    dice = random.Random(seed)
    callers, rounds = 150, 12
    counts: Counter[str] = Counter()
    with Proxy(shared_server().port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}", bounds=Bounds(commands=60, bytes=100_000)) as server:

            async def caller(scope: anyio.CancelScope, text: str) -> None:
                with scope:
                    try:
                        if len(text) % 3:
                            answer = await server.execute("ECHO", text)
                        else:
                            first, answer = await server.pipeline([("", ("ECHO", "1")), ("", ("ECHO", text))])
                            assert first == b"1"
                    except LayerUnreachable as error:
                        counts[type(error).__name__] += 1
                    else:
                        assert answer == text.encode()
                        counts["answered"] += 1

            for round_ in range(rounds):
                scopes = [anyio.CancelScope() for _ in range(callers)]
                texts = [f"{round_}-{number}-{'x' * dice.randrange(2000)}" for number in range(callers)]
                async with anyio.create_task_group() as group:
                    tasks: list[asyncio.Task[Any]] = []
                    for scope, text in zip(scopes, texts, strict=True):
                        if BACKEND == "asyncio":
                            tasks.append(asyncio.create_task(caller(scope, text)))
                        else:
                            group.start_soon(caller, scope, text)
                    for number in dice.sample(range(callers), callers // 3):
                        if dice.random() < 0.2:
                            await anyio.sleep(dice.random() * 0.003)
                        cancel(number, dice, scopes, tasks)
                    if round_ % 4 == 3:
                        await anyio.to_thread.run_sync(proxy.cut)
                    counts["natively"] += sum(
                        isinstance(each, asyncio.CancelledError)
                        for each in (await asyncio.gather(*tasks, return_exceptions=True) if tasks else [])
                    )
                await works(server)
            assert server.link.outbox.under_way == server.link.outbox.bytes == 0
            assert counts["answered"] > callers * rounds / 3
            assert counts["answered"] + counts["OutcomeUnknown"] < callers * rounds, "nobody was cancelled"


async def test_subscribers_are_cancelled_at_random() -> None:
    """What nobody has got is wanted by nobody, here and there; what was got stays."""
    dice = random.Random(7)
    prefix, redis = fresh_prefix(), shared_server()
    with Proxy(redis.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}") as server:
            got: set[str] = set()

            async def subscribe(scope: anyio.CancelScope, channel: str) -> None:
                with scope:
                    await server.subscribe([channel])
                    got.add(channel)

            for round_ in range(10):
                scopes = [anyio.CancelScope() for _ in range(60)]
                async with anyio.create_task_group() as group:
                    for number, scope in enumerate(scopes):
                        group.start_soon(subscribe, scope, f"{prefix}-{number % 40}")
                    if round_ % 3 == 2:
                        await anyio.to_thread.run_sync(proxy.cut)
                    for scope in dice.sample(scopes, 20):
                        if dice.random() < 0.3:
                            await anyio.sleep(dice.random() * 0.002)
                        scope.cancel()
                left = dice.sample(sorted(got), len(got) // 2)
                server.unsubscribe(left)
                got.difference_update(left)
                assert {channel for _, channel in server.subscriber.wanted} == got
            there = partial(redis.admin, "PUBSUB", "CHANNELS", f"{prefix}-*")
            await until(lambda: set(there()) == got, "that the server knows the same")
            assert server.subscriber.confirmed == server.subscriber.wanted


async def test_a_connection_that_is_over_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not written when it broke is not unknown: on a link it goes to the next one, else it is told so."""
    async with opened(shared_server().url) as server:
        await server.execute("PING")
        for _ in range(5):
            pending = Pending(packed("ECHO", "y"), 1, open_wake())
            server.link.outbox.put(pending)
            server.link.drop("it is to be another one")
            with anyio.fail_after(5):
                while not pending.answers:
                    assert pending.wake is not None
                    await pending.wake.sleep()
            assert pending.answers == [b"y"]
            await works(server)
    async with opened(shared_server().url) as server, server.dedicated("") as connection:
        put = connection.outbox.put

        def put_in_vain(pending: Pending) -> None:
            put(pending)
            connection.fail("it has been given up")

        monkeypatch.setattr(connection.outbox, "put", put_in_vain)
        with anyio.fail_after(5), pytest.raises(LayerUnreachable, match="given up") as caught:
            await connection.ask("BLPOP", "nothing", 0)
        assert not isinstance(caught.value, OutcomeUnknown)
