"""The load: many sockets of one thread, read by epoll. Each byte that comes is compared with what must come."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from .frames import CLOSE, PAYLOAD, PING, PONG, TEXT, masked, split, unmasked, upgrade

HOST = "127.0.0.1"
AT_ONCE = 64  # connections that knock together; below every server's backlog
PATIENCE = 60.0  # seconds without a single byte, after which the server is given up
MESSAGE, FRAME = masked(TEXT, PAYLOAD), unmasked(TEXT, PAYLOAD)
STREAM = FRAME * 1000
ROOM = len(STREAM) - len(FRAME)


class Stalled(Exception):
    """The server no longer answers, or not with what was agreed."""


class Sockets:
    """WebSockets to one path of one server, and how many bytes of messages each has got."""

    def __init__(self, port: int, path: str) -> None:
        self._address, self._request = (HOST, port), upgrade(path)
        self._epoll = select.epoll()
        self.members: dict[int, socket.socket] = {}
        self._got: dict[int, int] = {}
        self._buffer = bytearray(ROOM)

    def connect(self, count: int) -> None:
        """Open ``count`` more sockets, and wait until the server has accepted them."""
        for start in range(0, count, AT_ONCE):
            fresh = [socket.create_connection(self._address, PATIENCE) for _ in range(min(AT_ONCE, count - start))]
            for sock in fresh:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(self._request)
            for sock in fresh:
                accepted(sock)
                sock.setblocking(False)
                self.members[sock.fileno()] = sock
                self._got[sock.fileno()] = 0
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()
        for sock in self.members.values():
            sock.close()

    def first(self) -> socket.socket:
        return next(iter(self.members.values()))

    def read(self) -> Iterator[tuple[socket.socket, int]]:
        """Wait for bytes; yield each socket that has got some, and how many bytes of messages these were."""
        ready = self._epoll.poll(PATIENCE, 512)
        if not ready:
            raise Stalled(f"not a byte came for {PATIENCE:.0f} s")
        for descriptor, _ in ready:
            sock, got = self.members[descriptor], self._got[descriptor]
            count = sock.recv_into(self._buffer)
            if not count:
                raise Stalled("the server closed the connection")
            data, offset = self._buffer[:count], got % len(FRAME)
            if data != STREAM[offset : offset + count]:
                count = self._other(sock, FRAME[:offset] + bytes(data)) - offset
            self._got[descriptor] = got + count
            yield sock, count

    def _other(self, sock: socket.socket, data: bytes) -> int:
        """Answer pings that came between the messages; return how many bytes of ``data`` are messages."""
        frames, rest = split(data)
        for opcode, payload in frames:
            if opcode == PING:
                sock.sendall(masked(PONG, payload))
            elif payload != PAYLOAD:
                raise Stalled(f"frame {opcode} came, {payload[:60]!r}: not what was sent")
        if not FRAME.startswith(rest):
            raise Stalled(f"the server sent {data[-200:]!r}")
        return sum(opcode == TEXT for opcode, _ in frames) * len(FRAME) + len(rest)

    def echo(self, enough: Callable[[int], bool]) -> int:
        """Keep one message of each socket under way until ``enough(answers)``; return how many answers came."""
        for sock in self.members.values():
            sock.sendall(MESSAGE)
        owed: dict[socket.socket, int] = {}
        sent, answers = len(self.members), 0
        while answers < sent:
            for sock, count in self.read():
                owed[sock] = owed.get(sock, 0) + count
                if owed[sock] < len(FRAME):
                    continue
                owed[sock] -= len(FRAME)
                answers += 1
                if not enough(answers):
                    sock.sendall(MESSAGE)
                    sent += 1
        return answers

    def broadcast(self, in_flight: int, enough: Callable[[int], bool]) -> int:
        """Let one socket send ``in_flight`` messages to all, wait until all have them, again; return deliveries."""
        burst = len(self.members) * in_flight
        deliveries = 0
        while not enough(deliveries):
            self.first().sendall(MESSAGE * in_flight)
            missing = burst * len(FRAME)
            while missing > 0:
                missing -= sum(count for _, count in self.read())
            deliveries += burst
        if len(set(self._got.values())) != 1:
            raise Stalled("some sockets got more than others")
        return deliveries


@contextmanager
def sockets(port: int, path: str, count: int) -> Iterator[Sockets]:
    """Hold so many WebSockets open for the block."""
    crowd = Sockets(port, path)
    try:
        crowd.connect(count)
        yield crowd
    finally:
        crowd.close()


def accepted(sock: socket.socket) -> None:
    """Read the answer to an upgrade."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(4096)
        if not more:
            break
        data += more
    if not data.startswith(b"HTTP/1.1 101 ") or not data.endswith(b"\r\n\r\n"):
        raise Stalled(f"the upgrade was answered with {data[:200]!r}")


def come_and_go(port: int, path: str, count: int) -> int:
    """Connect ``count`` sockets, say goodbye, wait for the server's end of each; return ``count``."""
    request, goodbye = upgrade(path), masked(CLOSE, (1000).to_bytes(2))
    fresh = [socket.create_connection((HOST, port), PATIENCE) for _ in range(count)]
    for sock in fresh:
        sock.sendall(request)
    for sock in fresh:
        accepted(sock)
        sock.sendall(goodbye)
    for sock in fresh:
        while sock.recv(4096):
            pass
        sock.close()
    return count


def until(seconds: float, messages: int) -> Callable[[int], bool]:
    """Return what says that the time is over, or that there were so many messages; looks at the clock each time."""
    end = monotonic() + seconds
    return lambda done: done >= messages or monotonic() >= end
