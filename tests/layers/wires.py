"""Two wires for ``BroadcastLayer``: a hub on a Unix socket, and one in the air of this loop, which breaks on demand."""

import socketserver
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from socket import AF_UNIX, SHUT_RDWR, socket
from typing import Any

import anyio
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectSendStream

from trichannels.layers.broadcast import BroadcastLayer

# ---- a hub: whoever connects says in a line whether it listens or sends, and to which prefix


class Guest(socketserver.StreamRequestHandler):
    """One connection to the hub."""

    server: "Hub"

    def handle(self) -> None:
        kind, prefix = (*self.rfile.readline().split(), b"", b"")[:2]
        listeners = self.server.listeners[prefix]
        if kind == b"listen":
            with self.server.lock:
                listeners.append(self.connection)
                self.connection.sendall(b"+")
            self.rfile.read(1)  # until it is gone
            with self.server.lock:
                listeners.remove(self.connection)
        while kind == b"send" and (size := self.rfile.read(4)):
            frames = self.rfile.read(int.from_bytes(size, "big"))
            with self.server.lock:
                for listener in listeners:
                    with suppress(OSError):  # it is about to leave
                        listener.sendall(frames)
            self.connection.sendall(b"+")


class Hub(socketserver.ThreadingUnixStreamServer):
    """``with Hub(path) as hub``: sends what it gets to all who listen, and says so to the sender when it has."""

    daemon_threads = True
    request_queue_size = 128  # else a connection has to wait, and anyio leaves its socket open if it is cancelled there

    def __init__(self, path: str) -> None:
        super().__init__(path, Guest)
        self.lock = threading.Lock()
        self.listeners: dict[bytes, list[socket]] = defaultdict(list)
        self.guests = 0
        self.gone = threading.Condition()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> "Hub":
        self.thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.wait_until_idle()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def process_request(self, request: Any, address: Any) -> None:
        with self.gone:
            self.guests += 1
        super().process_request(request, address)

    def process_request_thread(self, request: Any, address: Any) -> None:
        super().process_request_thread(request, address)
        with self.gone:
            self.guests -= 1
            self.gone.notify_all()

    def handle_error(self, request: Any, address: Any) -> None:
        """A guest that leaves in the middle of something is nothing to be told."""

    def wait_until_idle(self) -> None:
        """Wait until the connections of all who have left are closed."""
        with socket(AF_UNIX) as last:  # who came before is in before
            last.connect(str(self.server_address))
            last.sendall(b"\n")
            last.recv(1)
        with self.gone:
            assert self.gone.wait_for(lambda: not self.guests, 20)

    def cut(self) -> None:
        """Cut off all who listen."""
        with self.lock:
            for listener in (each for some in self.listeners.values() for each in some):
                listener.shutdown(SHUT_RDWR)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class HubLayer(BroadcastLayer):
    """A layer of all who know the hub's path. This is all that it takes."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path, self.where = path, f"the hub at {path}"

    @asynccontextmanager
    async def connected(self, kind: str) -> AsyncIterator[SocketStream]:
        async with await anyio.connect_unix(self.path) as stream:
            await stream.send(f"{kind} {self.prefix}\n".encode())
            yield stream

    @asynccontextmanager
    async def open_sender(self) -> AsyncIterator[Any]:
        async with self.connected("send") as stream:
            yield partial(self.transmit, stream)

    async def transmit(self, stream: SocketStream, frames: Sequence[bytes]) -> None:
        await stream.send(sized(b"".join(map(sized, frames))))
        await stream.receive(1)

    @asynccontextmanager
    async def open_listener(self) -> AsyncIterator[Any]:
        async with self.connected("listen") as stream:
            incoming = BufferedByteReceiveStream(stream)
            await incoming.receive_exactly(1)
            yield partial(self.hear, incoming)

    async def hear(self, incoming: BufferedByteReceiveStream) -> bytes:
        size = await incoming.receive_exactly(4)
        return await incoming.receive_exactly(int.from_bytes(size, "big"))


# ---- in the air: no I/O, so that every step and every moment is the test's


class Air:
    """Who listens, and what goes wrong: what is put into ``wrong_with`` happens once, in its order."""

    def __init__(self) -> None:
        self.listeners: list[MemoryObjectSendStream[Any]] = []
        self.transmissions: list[list[bytes]] = []
        self.wrong_with: dict[str, list[Callable[[], Awaitable[object]]]] = defaultdict(list)
        self.opened: dict[str, int] = defaultdict(int)
        self.still = False  # nothing is carried

    async def happens(self, what: str) -> None:
        await checkpoint()
        if self.wrong_with[what]:
            await self.wrong_with[what].pop(0)()

    def say(self, *frames: bytes | Exception) -> None:
        """Let all hear frames; an error is raised where they would hear it."""
        for listener in self.listeners if not self.still else ():
            for frame in frames:
                listener.send_nowait(frame)

    def cut(self) -> None:
        """Cut off all who listen."""
        for listener in self.listeners:
            listener.close()


def failing(error: Exception) -> Callable[[], Awaitable[object]]:
    async def fail() -> None:
        raise error

    return fail


class AirLayer(BroadcastLayer):
    """A layer of all in this loop who breathe the same air."""

    where = "the air"

    def __init__(self, air: Air, **options: Any) -> None:
        super().__init__(**options)
        self.air = air

    @asynccontextmanager
    async def open_sender(self) -> AsyncIterator[Any]:
        self.air.opened["sender"] += 1
        await self.air.happens("open_sender")
        yield self.transmit

    async def transmit(self, frames: Sequence[bytes]) -> None:
        await self.air.happens("transmit")
        self.air.transmissions.append(list(frames))
        self.air.say(*frames)
        await self.air.happens("confirm")

    @asynccontextmanager
    async def open_listener(self) -> AsyncIterator[Any]:
        self.air.opened["listener"] += 1
        await self.air.happens("open_listener")
        speak, hear = anyio.create_memory_object_stream[Any](1000)
        self.air.listeners.append(speak)
        with speak, hear:
            try:
                yield partial(self.hear, hear.receive)
            finally:
                self.air.listeners.remove(speak)

    async def hear(self, receive: Callable[[], Awaitable[Any]]) -> bytes:
        frame = await receive()
        if isinstance(frame, Exception):
            raise frame
        return bytes(frame)
