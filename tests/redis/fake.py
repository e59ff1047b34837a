"""A Redis in memory that speaks RESP3, for what a real one does only when it pleases: every step of it is a test's.

It knows the few commands that the client's tests use. Streams take no time and no task; all waiting is ours.
"""

from collections.abc import Callable

import anyio
import hiredis
import pytest
from anyio.abc import ByteStream

from trichannels.layers.redis import connection
from trichannels.layers.redis.address import Endpoint

MISSING = object()


def bulk(data: str | bytes | int) -> bytes:
    """Return what is sent for a string."""
    raw = data if isinstance(data, bytes) else str(data).encode()
    return b"$%d\r\n%s\r\n" % (len(raw), raw)


def push(*parts: str | bytes | int) -> bytes:
    """Return what is sent unasked."""
    return b">%d\r\n" % len(parts) + b"".join(b":%d\r\n" % p if isinstance(p, int) else bulk(p) for p in parts)


class FakeStream(ByteStream):
    """A connection, seen from the client. ``say`` is the server's side of it."""

    def __init__(self, server: "FakeRedis") -> None:
        self.server = server
        self.closed = self.broken = False
        self.channels: set[tuple[str, bytes]] = set()
        self._parser = hiredis.Reader(notEnoughData=MISSING)
        self._coming: list[bytes] = []
        self._news = anyio.Event()

    def say(self, data: bytes) -> None:
        """Send to the client; it reads this in one piece."""
        if data:
            self._coming.append(data)
        self._news.set()
        self._news = anyio.Event()

    def cut(self) -> None:
        """Break it: what was said can still be read."""
        self.broken = True
        self.say(b"")

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.closed:
            raise anyio.ClosedResourceError
        if self.broken:
            raise anyio.BrokenResourceError
        self._parser.feed(item)
        answers = []
        while (command := self._parser.gets()) is not MISSING:
            answers.append(self.server.obey(self, command))
        if not self.server.silent:
            self.say(b"".join(answers))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._coming:
            if self.closed:
                raise anyio.ClosedResourceError
            if self.broken:
                raise anyio.EndOfStream
            await self._news.wait()
        data = self._coming.pop(0)
        if len(data) > max_bytes:
            self._coming.insert(0, data[max_bytes:])
        return data[:max_bytes]

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = self.broken = True
        if self in self.server.streams:
            self.server.streams.remove(self)
        await anyio.lowlevel.checkpoint()


class FakeRedis:
    """``FakeRedis(monkeypatch)``: all connections that are opened go to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.streams: list[FakeStream] = []
        self.connects = 0
        self.away = self.silent = False
        self.seen: list[list[bytes]] = []
        self.counters: dict[bytes, int] = {}
        self.scripts: set[bytes] = set()
        self.refused: dict[bytes, str] = {}  # errors, by a command's name or a channel
        self.told: list[Callable[[list[bytes]], object]] = []
        if monkeypatch is not None:
            self.install(monkeypatch)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "_connect", self.connect)

    async def connect(self, endpoint: Endpoint) -> ByteStream:
        await anyio.lowlevel.checkpoint()
        if self.away:
            raise ConnectionRefusedError("nobody is there")
        self.connects += 1
        self.streams.append(FakeStream(self))
        return self.streams[-1]

    def cut(self) -> None:
        """Break all connections."""
        for stream in list(self.streams):
            stream.cut()

    @property
    def subscribed(self) -> list[str]:
        """All subscriptions that are in force here."""
        return sorted(channel.decode() for stream in self.streams for _, channel in stream.channels)

    def obey(self, stream: FakeStream, command: list[bytes]) -> bytes:
        """Do what a command says, and return the answer."""
        self.seen.append(command)
        for listener in self.told:
            listener(command)
        name, *args = command
        name = name.upper()
        refusal = self.refused.get(name) or next((self.refused[arg] for arg in args if arg in self.refused), None)
        if refusal is not None:
            return b"-%s\r\n" % refusal.encode()
        verb = name.lower().decode().removeprefix("un").replace("unsub", "sub")
        if verb.endswith("subscribe"):
            return self._subscribing(stream, name.lower(), args)
        answers: dict[bytes, Callable[[], bytes]] = {
            b"HELLO": lambda: b"%1\r\n" + bulk("proto") + b":3\r\n",
            b"SELECT": lambda: b"+OK\r\n",
            b"PING": lambda: bulk(args[0]) if args else b"+PONG\r\n",
            b"ECHO": lambda: bulk(args[0]),
            b"INCR": lambda: b":%d\r\n" % self._incr(args[0]),
            b"PUBLISH": lambda: b":%d\r\n" % self.publish(args[0], args[1]),
            b"EVALSHA": lambda: bulk(args[-1]) if args[0] in self.scripts else b"-NOSCRIPT No matching script.\r\n",
            b"EVAL": lambda: bulk(args[-1]),
        }
        return answers[name]()

    def _incr(self, key: bytes) -> int:
        self.counters[key] = self.counters.get(key, 0) + 1
        return self.counters[key]

    def _subscribing(self, stream: FakeStream, verb: bytes, channels: list[bytes]) -> bytes:
        kind = verb.decode().removesuffix("subscribe").removesuffix("un")
        for channel in channels:
            known = {(kind, channel)}
            stream.channels = stream.channels - known if b"un" in verb else stream.channels | known
        return b"".join(push(verb, channel, len(stream.channels)) for channel in channels)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish to plain channels."""
        found = [stream for stream in self.streams if ("", channel) in stream.channels and not stream.broken]
        for stream in found:
            stream.say(push("message", channel, payload))
        return len(found)


async def soon(condition: Callable[[], object]) -> None:
    """Let other tasks run until something holds. In memory that takes turns, and no time but that of a backoff."""
    for turn in range(6000):
        if condition():
            return
        await (anyio.lowlevel.checkpoint() if turn < 1000 else anyio.sleep(0.001))
    raise AssertionError("it did not come about")
