"""Who reads: one task for all plain sockets of a server, or a task for a connection that cannot be read at once.

trio has one task wait for each socket, and arms its poller anew each time. All sockets in a poller of our own, which is
a descriptor that trio can wait for, cost one wake for as many sockets as have something to read, and one system call
for each.
"""

import select
from contextlib import suppress
from typing import Protocol

import trio

from .contain import cut
from .wire import BROKEN, READ_SIZE, Wire

BATCH = 64  # sockets read before others get a turn


class Fed(Protocol):
    """What bytes are given to (``peer.Peer``)."""

    @property
    def paused(self) -> bool: ...
    def feed(self, data: bytes) -> None: ...
    def eof(self) -> None: ...


class Reader(Protocol):
    """Reads for whom it watches. ``forget`` is needed before the connection closes."""

    def watch(self, wire: Wire, fed: Fed) -> None: ...
    def forget(self, wire: Wire) -> None: ...


class Poller:
    """Reads all plain sockets of one server, in one task."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._watched: dict[int, tuple[Wire, Fed]] = {}

    def watch(self, wire: Wire, fed: Fed) -> None:
        descriptor = wire.descriptor
        watched = self._watched.get(descriptor)
        if self._epoll.closed or (watched is not None and watched[0] is wire):
            return
        if watched is not None:  # a socket that was closed without a word, and whose number has passed on
            self.forget(watched[0])
        self._watched[descriptor] = wire, fed
        self._epoll.register(descriptor, select.EPOLLIN)

    def forget(self, wire: Wire) -> None:
        watched = self._watched.get(wire.descriptor)
        if watched is not None and watched[0] is wire:  # else the number has passed on to another
            del self._watched[wire.descriptor]
            with suppress(OSError, ValueError):  # closed already, the socket or the poller
                self._epoll.unregister(wire.descriptor)

    async def run(self) -> None:
        """Read, for ever."""
        while True:
            ready = self._epoll.poll(0, BATCH)
            if ready:
                for descriptor, _ in ready:
                    self._read(descriptor)
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())

    def close(self) -> None:
        """Let go of the descriptor; nobody is read any more."""
        self._epoll.close()

    def _read(self, descriptor: int) -> None:
        watched = self._watched.get(descriptor)
        if watched is None:  # forgotten since the poll
            return
        wire, fed = watched
        try:
            try:
                data = wire.end.receive_nowait(self._buffer)
            except BROKEN:
                data = b""
            if data:
                fed.feed(data)
            elif data is not None:
                fed.eof()
        except Exception:  # noqa: BLE001 - logged
            cut(wire, "it was read")


class TaskReader:
    """Reads one connection in a task of its own: TLS, and systems without epoll."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._wanted = trio.lowlevel.ParkingLot()
        self._started = self._reading = False

    def watch(self, wire: Wire, fed: Fed) -> None:
        self._reading = True
        self._wanted.unpark_all()
        if not self._started:
            self._started = True
            self._nursery.start_soon(self._run, wire, fed)

    def forget(self, wire: Wire) -> None:
        self._reading = False

    async def _run(self, wire: Wire, fed: Fed) -> None:
        data = b"x"
        while data:
            await self._until_wanted()
            data = await wire.read()
            if data:
                fed.feed(data)
        await self._until_wanted()  # what came before the end may wait for room
        fed.eof()

    async def _until_wanted(self) -> None:
        while not self._reading:
            await self._wanted.park()
