"""Many sockets in random bursts of all sizes, slow readers, resets and TLS: every byte comes back, in order."""

import gc
import random
from functools import partial

import pytest
import trio

from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.server import Server
from trichannels.testing.live import LiveServer

from .certificates import Certificates
from .support import BINARY, Client, connect, frame, lifespan, small_window

pytestmark = [pytest.mark.once, pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

SIZES = (1, 7, 125, 126, 1000, 4096, 65_535, 65_536, 70_000, 200_000)
LARGEST = 2**20
SOCKETS, SECURE = 140, 60
SOURCE = random.Random(3).randbytes(2 * LARGEST)
PIECES = (1, 3, 100, 5000, 2**17)


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)


async def raw(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """The same without a consumer, and with fragments of its time spent elsewhere."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event["bytes"]})


async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await (raw if scope["path"] == "/raw" else Echo.as_asgi())(scope, receive, send)


class Visitor:
    """A client with its own sequence of random choices."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.path = "/raw" if number % 3 == 0 else "/"
        self.resets, self.rests = number % 10 == 1, number % 7 == 2
        sizes = self.chance.choices(SIZES, k=self.chance.randrange(1, 25)) + [LARGEST] * (number % 40 == 5)
        self.messages = [self._message(size) for size in sizes]
        self.sent = trio.Event()

    def _message(self, size: int) -> bytes:
        start = self.chance.randrange(LARGEST)
        return SOURCE[start : start + size]

    async def visit(self, client: Client) -> None:
        async with client, trio.open_nursery() as nursery:
            assert b" 101 " in await client.upgrade(self.path)
            nursery.start_soon(self._send, client)
            if self.rests:
                await trio.testing.wait_all_tasks_blocked(0.01)  # until nobody can go on without us
            for number, message in enumerate(self.messages):
                if self.resets and number == len(self.messages) - 1:
                    nursery.cancel_scope.cancel()
                    break
                opcode, payload = await client.frame()
                assert (opcode, len(payload)) == (BINARY, len(message))
                assert payload == message
            if self.resets:
                client.reset()
            else:
                await self.sent.wait()
                await client.close()
                assert await client.closing() == (1000, "")
                assert await client.rest() == b""

    async def _send(self, client: Client) -> None:
        data = b"".join(self._framed(message) for message in self.messages)
        for _ in range(20):
            size = self.chance.choice(PIECES)
            await client.send(data[:size])
            data = data[size:]
            await trio.lowlevel.checkpoint()
        await client.send(data)
        self.sent.set()

    def _framed(self, message: bytes) -> bytes:
        if self.chance.random() < 0.8 or len(message) < 2:
            return frame(BINARY, message)
        cut = self.chance.randrange(len(message))
        return frame(BINARY, message[:cut], fin=False) + frame(0, message[cut:])


async def _visit(server: Server, number: int, secure: Certificates | None) -> None:
    if secure is not None:
        client = await connect(server, secure.client)
    else:
        client = await (small_window(server) if number % 5 == 0 else connect(server))
    visitor = Visitor(number)
    visitor.resets = visitor.resets and secure is None
    await visitor.visit(client)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_every_byte_comes_back(secure: bool, tls: Certificates) -> None:
    # These clients answer no pings, and a loaded machine may need longer than the time between two.
    patient = {"ping_interval": 1000, "write_timeout": 100, "close_timeout": 100}
    async with LiveServer(app, **patient, **(tls.options if secure else {})) as live:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(180):
            async with trio.open_nursery() as nursery:
                for number in range(SECURE if secure else SOCKETS):
                    nursery.start_soon(partial(_visit, live.server, number, tls if secure else None))
            while live.statistics().connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        found = live.statistics()
        assert (found.connections, found.websockets, found.failures) == (0, 0, 0)
        assert found.websockets_accepted == (SECURE if secure else SOCKETS)
        assert (found.write_timeouts, found.pong_timeouts, found.close_timeouts) == (0, 0, 0)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    gc.collect()
