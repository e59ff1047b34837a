"""The two kinds of end that a connection has on our side: a plain socket (TCP or unix), and TLS on top of one."""

import select
import socket
import ssl
import struct
from contextlib import suppress

import trio

# Linux tells by poll that the peer has shut its side, even behind unread data (as TCP_INFO's CLOSE_WAIT does, and on
# unix sockets too); elsewhere only a reset shows before everything has been read.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


def _reset_on_close(sock: socket.socket | trio.socket.SocketType) -> None:
    """Let close() drop what the kernel still holds for a peer that does not read (SO_LINGER of 0 seconds)."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _has_left(descriptor: int) -> bool:
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, GONE)
    return bool(poller.poll(0))


class SocketEnd:
    """A plain socket: tries at once, waits only if the kernel says so."""

    __slots__ = ("descriptor", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.descriptor = sock, sock.fileno()

    def receive_nowait(self, buffer: memoryview) -> bytes | None:
        try:
            return bytes(buffer[: self.sock.recv_into(buffer)])
        except BlockingIOError:
            return None

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    async def send_some(self, data: memoryview) -> int:
        while True:
            await trio.lowlevel.wait_writable(self.sock)
            sent = self.send_nowait(data)
            if sent:
                return sent

    async def receive_some(self, size: int) -> bytes:
        """Always a checkpoint, and one only: waiting for bytes is one itself."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            pass
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()  # cancelled from here on, what was read would be lost
            return data
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            try:
                return self.sock.recv(size)
            except BlockingIOError:
                continue

    def finish_nowait(self) -> bool:
        self.sock.shutdown(socket.SHUT_WR)
        return True

    async def finish(self) -> None:
        self.finish_nowait()

    def peer_has_left(self) -> bool:
        return _has_left(self.sock.fileno())

    def abort(self) -> None:
        if self.sock.fileno() >= 0:
            _reset_on_close(self.sock)
            self.close()

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


class TLSEnd:
    """TLS: all writes go through the stream, and so through the writer task, all reads through a reader's."""

    descriptor = -1

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.stream = trio.SSLStream(trio.SocketStream(self.sock), context, server_side=True, https_compatible=True)

    async def handshake(self) -> str | None:
        """Do the handshake and return the protocol that ALPN chose; raises what trio raises for a broken one."""
        await self.stream.do_handshake()
        chosen: str | None = self.stream.selected_alpn_protocol()
        return chosen

    def receive_nowait(self, buffer: memoryview) -> bytes | None:
        return None

    def finish_nowait(self) -> bool:
        return False

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    async def send_some(self, data: memoryview) -> int:
        await self.stream.send_all(data)
        return len(data)

    async def receive_some(self, size: int) -> bytes:
        return bytes(await self.stream.receive_some(size))

    async def finish(self) -> None:
        # close_notify, then the socket: https_compatible means that nobody waits for the peer's.
        await self.stream.aclose()

    def peer_has_left(self) -> bool:
        return _has_left(self.sock.fileno())

    def abort(self) -> None:
        if self.sock.fileno() >= 0:
            _reset_on_close(self.sock)
            self.close()

    def close(self) -> None:
        self.sock.close()
