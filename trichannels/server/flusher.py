"""Writes that may be joined: what is posted to a wire within one turn of the event loop goes out together."""

from collections import deque
from typing import Protocol

import trio

from ..seam import open_wake
from .contain import cut

SLICE = 64  # wires written to before others get a turn; meanwhile more is posted, and joined


class Posted(Protocol):
    """A wire with something to write (``wire.Wire``)."""

    def flush(self) -> None: ...
    def lose(self) -> None: ...


class Flusher:
    """Writes for all wires of one server. Without a running task nothing is written but by the wire's next write."""

    def __init__(self) -> None:
        self._wires: deque[Posted] = deque()
        self._bell = open_wake()

    def add(self, wire: Posted) -> None:
        """See to it that ``wire.flush()`` is called soon."""
        if not self._wires:
            self._bell.ring()
        self._wires.append(wire)

    async def run(self) -> None:
        """Write, for ever."""
        while True:
            while not self._wires:
                await self._bell.sleep()
            for _ in range(min(SLICE, len(self._wires))):
                wire = self._wires.popleft()
                try:
                    wire.flush()
                except Exception:  # noqa: BLE001 - logged
                    cut(wire, "it was written to")
            await trio.lowlevel.checkpoint()
