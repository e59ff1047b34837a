"""A TCP proxy on a thread of its own, between a client and a server on loopback: it makes the network's faults."""

import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from .ports import free_port

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, as a machine does that has forgotten the connection


class Leg:
    """One end of a proxied connection; ``other`` is the end that its bytes go to."""

    def __init__(self, sock: socket.socket, from_server: bool) -> None:
        self.sock, self.from_server = sock, from_server
        self.other: Leg = self
        self.waiting = bytearray()


class Proxy:
    """``with Proxy(server.port) as proxy``: what connects to ``proxy.port`` talks to the server's port.

    Any thread may call the methods; each returns when it has taken effect. Every fault ends with ``resume()``.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target, self.host, self.port = target, host, free_port()
        self.connects = 0  # how many connections were made through it
        self._selector = selectors.DefaultSelector()
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._bell, self._ear = socket.socketpair()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._legs: set[Leg] = set()
        self._paused = self._over = False
        self._budget: int | None = None
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"proxy to {target}")

    def __repr__(self) -> str:
        return f"<Proxy {self.port} -> {self.target}: {len(self._legs) // 2} connections>"

    def __enter__(self) -> "Proxy":
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._order(self._end)
        self._thread.join()

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return len(self._legs) // 2

    def pause(self) -> None:
        """Forward nothing more, in either direction, and tell nobody: a cable that is pulled."""
        self._order(lambda: setattr(self, "_paused", True))

    def cut(self) -> None:
        """Reset the connections that there are; new ones are taken."""
        self._order(self._cut)

    def refuse(self) -> None:
        """Reset the connections that there are and refuse new ones."""
        self._order(self._refuse)

    def cut_after(self, count: int) -> None:
        """Reset all connections, once, after ``count`` more bytes have come from the server; these are delivered."""
        self._order(lambda: setattr(self, "_budget", count))

    def resume(self) -> None:
        """Forward again what waits, and take connections again."""
        self._order(self._resume)

    def _order(self, act: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((act, done))
        self._bell.send(b"!")
        assert done.wait(30), f"{self!r} does not answer"

    def _run(self) -> None:
        while not self._over:
            for key, events in self._selector.select():
                if key.fileobj is self._ear:
                    self._obey()
                    break  # what the other events are about may be closed now
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._legs:
                    with suppress(BlockingIOError):
                        self._forward(key.data, events)
        for sock in (self._bell, self._ear):
            sock.close()
        self._selector.close()

    def _obey(self) -> None:
        self._ear.recv(1024)
        while self._orders:
            act, done = self._orders.popleft()
            act()
            for leg in self._legs:
                self._watch(leg)
            done.set()

    def _listen(self) -> None:
        self._listener = socket.create_server((self.host, self.port), backlog=128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            near, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        try:
            far = socket.create_connection((self.host, self.target), timeout=5)
        except OSError:
            self._reset(near)
            return
        self.connects += 1
        client, server = Leg(near, False), Leg(far, True)
        client.other, server.other = server, client
        for leg in (client, server):
            leg.sock.setblocking(False)
            leg.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._legs.add(leg)
            self._watch(leg)

    def _watch(self, leg: Leg) -> None:
        """Wait for what the leg can do now; a leg whose other end is behind is not read."""
        events = 0 if self._paused or leg.other.waiting else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if leg.waiting and not self._paused else 0
        with suppress(KeyError):
            self._selector.unregister(leg.sock)
        if events:
            self._selector.register(leg.sock, events, leg)

    def _forward(self, leg: Leg, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del leg.waiting[: leg.sock.send(leg.waiting)]
            if events & selectors.EVENT_READ:
                self._take(leg)
        except BlockingIOError:
            raise
        except OSError:
            self._close(leg)
            return
        if leg in self._legs:
            self._watch(leg)
            self._watch(leg.other)

    def _take(self, leg: Leg) -> None:
        data = leg.sock.recv(2**16)
        if not data:
            self._close(leg, reset=False)
            return
        if leg.from_server and self._budget is not None:
            data, self._budget = data[: self._budget], max(0, self._budget - len(data))
        leg.other.waiting += data
        with suppress(BlockingIOError):
            del leg.other.waiting[: leg.other.sock.send(leg.other.waiting)]
        if leg.from_server and self._budget == 0:
            self._budget = None
            self._cut(reset=False)  # RST would throw away what the client has not read yet

    def _close(self, leg: Leg, reset: bool = True) -> None:
        for end in {leg, leg.other} & self._legs:
            self._legs.discard(end)
            with suppress(KeyError):
                self._selector.unregister(end.sock)
            self._reset(end.sock) if reset else end.sock.close()

    def _reset(self, sock: socket.socket) -> None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()

    def _cut(self, reset: bool = True) -> None:
        while self._legs:
            self._close(next(iter(self._legs)), reset)

    def _refuse(self) -> None:
        self._cut()
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _resume(self) -> None:
        self._paused, self._budget = False, None
        if self._listener is None:
            self._listen()

    def _end(self) -> None:
        self._refuse()
        self._over = True
