"""The sockets of one group, spread over several servers; and how long their messages take."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from benchmarks.comparing.frames import PAYLOAD, TEXT, unmasked
from benchmarks.comparing.load import HOST, MESSAGE, Sockets

FRAME = unmasked(TEXT, PAYLOAD)


class Crowd(Sockets):
    """So many sockets on each server. The servers take turns: the first socket of one sends, then that of the next."""

    def __init__(self, ports: Sequence[int], path: str) -> None:
        super().__init__(ports[0], path)
        self._ports = ports
        self._senders: list[socket.socket] = []
        self._port_of: dict[int, int] = {}
        self._turn = 0

    def connect(self, count: int) -> None:
        for port in self._ports:
            self._address = (HOST, port)
            known = set(self.members)
            super().connect(count)
            fresh = [descriptor for descriptor in self.members if descriptor not in known]
            self._port_of |= dict.fromkeys(fresh, port)
            self._senders.append(self.members[fresh[0]])

    def first(self) -> socket.socket:
        self._turn = (self._turn + 1) % len(self._senders)
        return self._senders[self._turn]

    def latencies(self, enough: Callable[[int], bool]) -> tuple[list[float], list[float]]:
        """Send one message after the other to all; return the seconds until each delivery was read here, of sockets on
        the sender's own server, and of those on the others.
        """
        here: list[float] = []
        there: list[float] = []
        while not enough(len(here) + len(there)):
            sender = self.first()
            home = self._port_of[sender.fileno()]
            missing = len(self.members) * len(FRAME)
            began = perf_counter()
            sender.sendall(MESSAGE)
            while missing > 0:
                for sock, count in self.read():
                    missing -= count
                    (here if self._port_of[sock.fileno()] == home else there).append(perf_counter() - began)
        return here, there


@contextmanager
def crowd(ports: Sequence[int], path: str, count: int) -> Iterator[Crowd]:
    """Hold ``count`` WebSockets to each server open for the block."""
    held = Crowd(ports, path)
    try:
        held.connect(count)
        yield held
    finally:
        held.close()
