"""The load of plain HTTP: the same GET again and again on a few connections."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .load import HOST, PATIENCE, Stalled

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BODY = b"a page that never changes."
"""What every peer answers to GET /."""


@contextmanager
def requests(port: int, connections: int) -> Iterator[Callable[[Callable[[int], bool]], int]]:
    """Hold connections open for the block; what it gives sends requests until enough, and counts the answers."""
    sockets = {sock.fileno(): sock for sock in (socket.create_connection((HOST, port)) for _ in range(connections))}
    epoll = select.epoll()
    for sock in sockets.values():
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(sock.fileno(), select.EPOLLIN)

    def load(enough: Callable[[int], bool]) -> int:
        for sock in sockets.values():
            sock.sendall(REQUEST)
        sent, answers = len(sockets), 0
        while answers < sent:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise Stalled("a request was not answered")
            for descriptor, _ in ready:
                sock = sockets[descriptor]
                answer(sock)
                answers += 1
                if not enough(answers):
                    sock.sendall(REQUEST)
                    sent += 1
        return answers

    try:
        yield load
    finally:
        epoll.close()
        for sock in sockets.values():
            sock.close()


def answer(sock: socket.socket) -> None:
    """Read one answer; the body comes last."""
    data = b""
    while not data.endswith((BODY, BODY + b"\r\n0\r\n\r\n")):
        more = sock.recv(4096)
        if not more:
            raise Stalled(f"the connection ended after {data[-200:]!r}")
        data += more
    if not data.startswith(b"HTTP/1.1 200 "):
        raise Stalled(f"the request was answered with {data[:200]!r}")
