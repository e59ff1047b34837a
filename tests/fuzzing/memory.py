"""A connection's end in memory (``wire.End``), and a look at how much the server holds on its behalf."""

import gc
from collections import deque
from types import GeneratorType
from typing import Any

import trio

CONTAINERS = (list, tuple, dict, set, frozenset, deque, GeneratorType)
BYTES = (bytes, bytearray, str)
OURS = ("trichannels.server.", "websockets.")
OF_THE_SERVER = ("Shared", "ServerConfig", "Wall", "Connection", "Engine", "Counters", "Limits")


class MemoryEnd:
    """The server's end; a test puts bytes in, and says how many it takes out."""

    descriptor = -1

    def __init__(self) -> None:
        self.sent, self.given, self.taken = bytearray(), 0, 2**16
        self.left = self.broken = self.gone = self.finished = False
        self._coming: deque[bytes] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    # -- the client's side

    def put(self, data: bytes) -> None:
        self._coming.append(data)
        self._changed.unpark_all()

    def leave(self, *, broken: bool = False) -> None:
        self.left, self.broken = True, self.broken or broken
        self._changed.unpark_all()

    def take(self, size: int) -> None:
        self.taken = size
        self._changed.unpark_all()

    # -- the server's

    def _check(self) -> None:
        if self.gone:
            raise trio.ClosedResourceError
        if self.broken:
            raise ConnectionResetError

    def receive_nowait(self, buffer: memoryview) -> bytes | None:
        return None

    def finish_nowait(self) -> bool:
        return False

    async def receive_some(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._coming:
                data, rest = self._coming[0][:size], self._coming[0][size:]
                self._coming.popleft()
                if rest:
                    self._coming.appendleft(rest)
                self.given += len(data)
                if data:
                    return data
            elif self.left:
                return b""
            else:
                await self._changed.park()

    def send_nowait(self, data: bytes | memoryview) -> int:
        self._check()
        assert not self.finished, "nothing may follow the last byte"
        piece = bytes(data[: self.taken])
        self.sent += piece
        return len(piece)

    async def send_some(self, data: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while not self.taken:
            self._check()
            await self._changed.park()
        return self.send_nowait(data)

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self.finished = True

    def peer_has_left(self) -> bool:
        return self.left or self.gone

    def abort(self) -> None:
        self.gone = True
        self._changed.unpark_all()

    def close(self) -> None:
        self.abort()


def held(*roots: object) -> tuple[int, int]:
    """Return how many bytes, and how many objects, are reachable from ``roots`` within the server's own objects."""
    size, seen, waiting = 0, set[int](), list[Any](roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, BYTES):
            size += len(thing)
        elif isinstance(thing, memoryview):
            waiting.append(thing.obj)
        elif isinstance(thing, CONTAINERS) or _is_of_a_connection(thing):
            waiting += gc.get_referents(thing)
    return size, len(seen)


def _is_of_a_connection(thing: object) -> bool:
    kind = type(thing)
    return kind.__module__.startswith(OURS) and kind.__name__ not in OF_THE_SERVER
