"""A server in the test's own nursery, and a client that speaks bytes, so that it can also misbehave."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from trichannels.events import ASGIApp, Receive, Scope, Send
from trichannels.server import Server, serve

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

WebsocketHandler = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncIterator[Server]:
    """Serve ``app`` on a free port; leaving the block drains the server and fails if that takes too long."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, **{"bind": "127.0.0.1:0", **options}))
        try:
            yield server
        finally:
            server.drain(1)
            with trio.CancelScope(shield=True), trio.fail_after(10):
                while nursery.child_tasks:
                    await trio.sleep(0.01)


class Client:
    """One TCP (or unix, or TLS) connection, byte by byte."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream, self.buffer = stream, bytearray()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await trio.aclose_forcefully(self.stream)

    @property
    def sock(self) -> trio.socket.SocketType:
        assert isinstance(self.stream, trio.SocketStream)
        return self.stream.socket

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(bytes(self.buffer))
        self.buffer += data

    async def read(self, size: int) -> bytes:
        with trio.fail_after(10):
            while len(self.buffer) < size:
                await self._more()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def head(self) -> bytes:
        """Read up to the empty line."""
        with trio.fail_after(10):
            while b"\r\n\r\n" not in self.buffer:
                await self._more()
        end = self.buffer.index(b"\r\n\r\n") + 4
        return await self.read(end)

    async def rest(self) -> bytes:
        """Read to the end of the stream; a reset counts as one."""
        with trio.fail_after(10):
            try:
                while True:
                    await self._more()
            except (EOFError, trio.BrokenResourceError):
                return bytes(self.buffer)

    async def get(self, path: str = "/", *headers: str) -> bytes:
        """Send a GET and return the whole response if it has a content-length."""
        await self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode())
        head = await self.head()
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + (await self.read(int(lengths[0].split(b":")[1])) if lengths else b"")

    async def upgrade(self, path: str = "/", *headers: str, behind: bytes = b"") -> bytes:
        """Ask for a WebSocket and return the head of the answer."""
        await self.send(upgrade_request(path, *headers) + behind)
        return await self.head()

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and payload."""
        first, payload = await self.whole_frame()
        return first & 15, payload

    async def whole_frame(self) -> tuple[int, bytes]:
        """Read one frame: its first byte and payload."""
        first, second = await self.read(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", await self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.read(8))
        return first, await self.read(size)

    async def text(self) -> str:
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    async def closing(self) -> tuple[int, str]:
        """Read on to the server's close frame: its code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.send(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))

    def reset(self) -> None:
        """Leave by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def upgrade_request(path: str = "/", *headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        *("Host: test", "Connection: keep-alive, Upgrade", "Upgrade: websocket"),
        *(f"Sec-WebSocket-Key: {KEY.decode()}", "Sec-WebSocket-Version: 13"),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros and therefore readable."""
    size = len(payload)
    if size < 126:
        length = bytes([128 | size])
    elif size < 65536:
        length = bytes([128 | 126]) + struct.pack("!H", size)
    else:
        length = bytes([128 | 127]) + struct.pack("!Q", size)
    return bytes([(128 if fin else 0) | opcode]) + length + b"\0\0\0\0" + payload


async def connect(server: Server, tls: ssl.SSLContext | None = None, address: int = 0) -> Client:
    """Open a connection to one of the server's addresses."""
    where = server.addresses[address]
    if where.startswith("unix:"):
        return Client(await trio.open_unix_socket(where[5:]))
    host, _, port = where.rpartition("//")[2].rpartition(":")
    if tls is None:
        return Client(await trio.open_tcp_stream(host.strip("[]"), int(port)))
    return Client(await trio.open_ssl_over_tcp_stream(host, int(port), ssl_context=tls, https_compatible=True))


async def small_window(server: Server) -> Client:
    """A client whose kernel takes next to nothing until it reads."""
    host, _, port = server.addresses[0].rpartition("//")[2].rpartition(":")
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect((host, int(port)))
    return Client(trio.SocketStream(sock))


def websocket_app(handler: WebsocketHandler) -> ASGIApp:
    """An application that accepts and then runs ``handler``; it has no lifespan and answers HTTP with "ok"."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "http":
            await respond(send)
        else:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            await handler(scope, receive, send)

    return app


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def respond(send: Send, body: bytes = b"ok", status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"], "bytes": event["bytes"]})


async def still_serves(server: Server) -> None:
    """Check that a newcomer is served as if nothing had happened."""
    async with await connect(server) as client:
        assert (await client.get()).endswith(b"ok")
    async with await connect(server) as client:
        assert b" 101 " in await client.upgrade()
