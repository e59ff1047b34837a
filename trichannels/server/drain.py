"""How a server stops: the wall, the moment by which everything must be down, and who is held to it."""

from math import inf

import trio
from anyio import CancelScope

RESERVE = 0.2  # the part of the drain that is kept for goodbyes, after what still runs has been cancelled
MOST_RESERVED = 1.0  # seconds


class Wall:
    """The moment by which a draining server must be down. It only ever moves forward in time's favour: nearer."""

    def __init__(self) -> None:
        self.moment = inf
        self.drained = trio.Event()
        self.connections = trio.CancelScope()
        """Holds all connections; cancelled a little before the wall, so that ``disconnect()`` still has its moment."""
        self._bounds: set[CancelScope] = set()

    @property
    def draining(self) -> bool:
        return self.drained.is_set()

    def bring_to(self, seconds: float) -> None:
        """Begin the drain, or shorten the one that has begun."""
        now = trio.current_time()
        if now + seconds < self.moment:
            self.moment = now + seconds
            self.connections.deadline = self.moment - min(MOST_RESERVED, seconds * RESERVE)
            for scope in self._bounds:
                self._shorten(scope)
        self.drained.set()

    def bound(self, scope: CancelScope) -> None:
        """Hold ``scope`` to the wall, now and whenever it moves."""
        self._bounds.add(scope)
        self._shorten(scope)

    def release(self, scope: CancelScope) -> None:
        self._bounds.discard(scope)

    def _shorten(self, scope: CancelScope) -> None:
        if self.moment < scope.deadline:
            scope.deadline = self.moment
