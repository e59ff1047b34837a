"""One connection as its client has it, byte by byte, so that it can stop, stall or vanish anywhere (RFC 6455)."""

import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
TCP_CLOSE = 7  # the state in which a reset leaves a socket, in the first byte of TCP_INFO (Linux)
SMALL = 2**12
PATIENCE = 15.0  # seconds that the server may take to cut off a client; its deadlines here are a few
BROKEN = (OSError, trio.BrokenResourceError)


class Surprise(Exception):
    """The server did something else than it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the server is. ``trust`` is for its TLS port."""

    port: int
    tls_port: int = 0
    trust: ssl.SSLContext | None = None

    @asynccontextmanager
    async def dialled(self, *, small: bool = False, tls: bool = False) -> AsyncIterator["Peer"]:
        """Connect; ``small`` has a receive window that is soon full. The block's end closes what is still open."""
        with trio.socket.socket() as sock:
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            await sock.connect(("127.0.0.1", self.tls_port if tls else self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Peer(sock)

    @asynccontextmanager
    async def websocket(self, path: str = "", *, small: bool = False) -> AsyncIterator["Peer"]:
        """Connect and open a WebSocket, to a room of the ordinary consumer unless told otherwise."""
        async with self.dialled(small=small) as peer:
            await peer.opened(path or room())
            yield peer

    @asynccontextmanager
    async def secure_websocket(self, path: str = "") -> AsyncIterator["Peer"]:
        """The same over TLS."""
        async with self.dialled(tls=True) as peer:
            assert self.trust is not None
            stream = trio.SSLStream(peer.stream, self.trust, server_hostname="localhost")
            await stream.do_handshake()
            peer.stream = stream
            await peer.opened(path or room())
            yield peer


class Peer:
    """What a client can do, and every way of leaving."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self.stream: trio.abc.Stream = trio.SocketStream(sock)
        self.buffer = bytearray()

    # ---- sending

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, word: str) -> None:
        """Send one text."""
        await self.send(frame(TEXT, word.encode()))

    async def opened(self, path: str) -> None:
        """Ask for a WebSocket and get it."""
        status = await self.asked(upgrade_request(path))
        if status != 101:
            raise Surprise(f"{path} was answered with {status}, not 101")

    async def asked(self, request: bytes) -> int:
        """Send a request and return the status of the answer, whose head is then read."""
        await self.send(request)
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer = bytearray(rest)
        return int(head.split(b" ", 2)[1])

    # ---- reading

    async def _more(self) -> None:
        data = await self.stream.receive_some(2**16)
        if not data:
            raise Surprise(f"the server has left after {bytes(self.buffer[:100])!r}")
        self.buffer += data

    async def read(self, size: int) -> bytes:
        """Return so many bytes."""
        while len(self.buffer) < size:
            await self._more()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; a ping is answered."""
        opcode, payload = await self._any_frame()
        while opcode == PING:
            await self.send(frame(PONG, payload))
            opcode, payload = await self._any_frame()
        return opcode, payload

    async def _any_frame(self) -> tuple[int, bytes]:
        first, second = await self.read(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", await self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.read(8))
        return first & 15, await self.read(size)

    async def hears(self, word: str) -> None:
        """Read on to the answer; texts that begin with ``~`` come unasked."""
        opcode, payload = await self.frame()
        while opcode == TEXT and payload.startswith(b"~"):
            opcode, payload = await self.frame()
        if (opcode, payload) != (TEXT, word.encode()):
            raise Surprise(f"heard {payload!r} ({opcode}) for {word!r}")

    async def closed_with(self, code: int) -> None:
        """Read on to the server's close frame."""
        opcode, payload = 0, b""
        while opcode != CLOSE:
            opcode, payload = await self.frame()
        got = int.from_bytes(payload[:2], "big")
        if got != code:
            raise Surprise(f"closed with {got} {payload[2:].decode()!r}, not {code}")

    async def sees_the_end(self) -> None:
        """Read and throw away until the server has left; a reset will do."""
        self.buffer.clear()
        try:
            with trio.fail_after(PATIENCE):
                while await self.stream.receive_some(2**16):
                    pass
        except BROKEN:
            pass
        except trio.TooSlowError:
            raise Surprise("the server did not cut the connection") from None

    @property
    def _tcp_state(self) -> int:
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    async def is_reset(self) -> None:
        """Wait for the server's reset without reading a byte."""
        with trio.move_on_after(PATIENCE):
            while self._tcp_state != TCP_CLOSE:  # noqa: ASYNC110 - nothing but a read would wake us
                await trio.sleep(0.1)
            return
        raise Surprise("the server did not cut a client that does not read")

    # ---- leaving

    def reset(self) -> None:
        """Vanish: RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Send no more: FIN. Reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    async def close(self, code: int = 1000) -> None:
        """Send a close frame."""
        await self.send(frame(CLOSE, code.to_bytes(2, "big")))


def room() -> str:
    """Return the path of one of twenty rooms."""
    return f"/async/{random.randrange(20)}/"


def upgrade_request(path: str) -> bytes:
    lines = (
        *(f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
        *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
    )
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, announced: int = 0) -> bytes:
    """Return a client's frame, masked with zeros; ``announced`` is a size in its head other than the real one."""
    size, mask = announced or len(payload), 128 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 2**16:
        length = bytes([mask | 126]) + struct.pack("!H", size)
    else:
        length = bytes([mask | 127]) + struct.pack("!Q", size)
    return bytes([(128 if fin else 0) | opcode]) + length + (b"\0\0\0\0" if masked else b"") + payload


async def moment(seconds: float = 0.02) -> None:
    """Let a little time pass, never the same, so that the cut that follows falls anywhere."""
    await trio.sleep(random.uniform(0, seconds))
