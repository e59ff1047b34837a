"""The bytes of one connection: reading, and writing through a bounded outbox with a deadline. No protocol lives here.

A write never blocks and is never torn: what the kernel does not take at once waits in the outbox, and a writer task
exists only while something waits. So a cancelled ``send`` leaves no half frame behind. What is posted waits in the
outbox too, until the flusher writes it together with whatever else was posted meanwhile. The deadline: a peer that
takes no byte for ``write_timeout`` seconds is cut off.
"""

from collections.abc import Callable
from typing import Protocol

import trio

from .flusher import Flusher
from .statistics import Counters

READ_SIZE = 2**16
PIECE = 2**16  # bytes given to the kernel, or to TLS, under one deadline


class End(Protocol):
    """Our end of a connection: a plain socket or TLS (``ends.py``). ``descriptor`` is -1 if only tasks can read it."""

    descriptor: int

    def receive_nowait(self, buffer: memoryview) -> bytes | None: ...
    def finish_nowait(self) -> bool: ...
    def send_nowait(self, data: bytes | memoryview) -> int: ...
    async def send_some(self, data: memoryview) -> int: ...
    async def receive_some(self, size: int) -> bytes: ...
    async def finish(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...
    def peer_has_left(self) -> bool: ...


BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


def nothing() -> None:
    """Do nothing."""


class Wire:
    """One connection's bytes. ``lost`` is true once nothing more can be written; ``on_lost`` is called then, once.

    ``on_room`` is called whenever a full outbox is within its limit again. Of the outbox's bytes, either the writer
    task takes care, or the flusher.
    """

    __slots__ = (
        "_counters",
        "_finishing",
        "_flusher",
        "_limit",
        "_nursery",
        "_outbox",
        "_room",
        "_timeout",
        "_waiting",
        "_writing",
        "descriptor",
        "end",
        "lost",
        "on_lost",
        "on_room",
    )

    def __init__(
        self, end: End, nursery: trio.Nursery, counters: Counters, flusher: Flusher, *, limit: int, timeout: float
    ) -> None:
        self.end, self.lost, self.descriptor = end, False, end.descriptor
        self.on_lost: Callable[[], None] = nothing
        self.on_room: Callable[[], None] = nothing
        self._nursery, self._counters, self._flusher = nursery, counters, flusher
        self._limit, self._timeout = limit, timeout
        self._outbox: list[bytes | memoryview] = []
        self._waiting = 0  # bytes in the outbox and in the writer's hands
        self._writing = self._finishing = False
        self._room: trio.lowlevel.ParkingLot | None = None

    def __repr__(self) -> str:
        return f"<Wire {'lost' if self.lost else 'open'}, {self._waiting} bytes waiting>"

    @property
    def full(self) -> bool:
        """Whether more waits than the limit, so that whoever writes should wait too."""
        return self._waiting > self._limit

    @property
    def busy(self) -> bool:
        """Whether anything waits for the peer at all."""
        return self._waiting > 0

    async def read(self) -> bytes:
        """Return what has come, or ``b""`` once no more will come, for whatever reason. Cancelling loses nothing."""
        try:
            return await self.end.receive_some(READ_SIZE)
        except BROKEN:
            return b""

    def write_nowait(self, data: bytes) -> None:
        """Write, or queue, all of ``data``; does nothing once the wire is lost or finishing."""
        if self.lost or self._finishing or not data:
            return
        if self._waiting:
            self._outbox.append(data)
            self._waiting += len(data)
            self.flush()
            return
        try:
            sent = self.end.send_nowait(data)
        except BROKEN:
            self.lose()
            return
        if sent < len(data):
            self._outbox.append(memoryview(data)[sent:] if sent else data)
            self._waiting = len(data) - sent
            self._start_writer()

    def post(self, data: bytes) -> None:
        """Queue ``data``, to be written soon, and together with what else is posted until then."""
        if self.lost or self._finishing:
            return
        if not self._waiting:
            self._flusher.add(self)
        self._outbox.append(data)
        self._waiting += len(data)

    def flush(self) -> None:
        """Write now what was posted."""
        if self._writing or not self._outbox:
            return
        data = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
        self._outbox.clear()
        try:
            sent = self.end.send_nowait(data)
        except BROKEN:
            self.lose()
            return
        if sent < len(data):
            self._outbox.append(memoryview(data)[sent:])
            self._start_writer()
        self._sent(sent)

    def _sent(self, size: int) -> None:
        full = self.full
        self._waiting -= size
        if full and not self.full:
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        if self._room is not None:
            self._room.unpark_all()
        self.on_room()

    async def _park(self) -> None:
        self._room = self._room or trio.lowlevel.ParkingLot()
        await self._room.park()

    async def room(self) -> None:
        """Wait until the outbox is within its limit, or the wire is lost; no checkpoint if it is so already."""
        while self.full and not self.lost:
            await self._park()

    async def flushed(self) -> None:
        """Wait until everything has gone to the kernel, or the wire is lost."""
        self.flush()
        while self.busy and not self.lost:
            await self._park()

    def finish(self) -> None:
        """Tell the peer, after all that is queued, that nothing more will come; further writes are ignored."""
        if self._finishing or self.lost:
            return
        self.flush()
        self._finishing = True
        try:
            if self.busy or not self.end.finish_nowait():
                self._start_writer()
        except BROKEN:
            self.lose()

    def lose(self) -> None:
        """Cut the connection now: drop what is queued, free the kernel's buffers, wake whoever waits."""
        if not self.lost:
            self.lost = True
            self.end.abort()
            self._outbox.clear()
            self._waiting = 0
            if self._room is not None:
                self._room.unpark_all()
            self.on_lost()

    def close(self) -> None:
        """Let the descriptor go; the peer has gone, or has been told all that there was to tell."""
        self.lost = True
        self.end.close()
        if self._room is not None:
            self._room.unpark_all()

    def _start_writer(self) -> None:
        if not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        try:
            while self._outbox and not self.lost:
                data = memoryview(b"".join(self._outbox))
                self._outbox.clear()
                await self._write_all(data)
            if self._finishing and not self.lost:
                with trio.fail_after(self._timeout):
                    await self.end.finish()
        except trio.TooSlowError:
            self._counters.write_timeouts += not self.lost
            self.lose()
        except BROKEN:
            self.lose()
        except BaseException:
            # Cancelled in the middle of a frame: what the peer has is torn, so the connection ends here.
            self.lose()
            raise
        finally:
            self._writing = False

    async def _write_all(self, data: memoryview) -> None:
        while data and not self.lost:
            with trio.fail_after(self._timeout):
                sent = await self.end.send_some(data[:PIECE])
            if self.lost:
                return
            data = data[sent:]
            self._sent(sent)
            if not self.busy and self._room is not None:
                self._room.unpark_all()
