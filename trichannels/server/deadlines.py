"""Moments that are all equally far ahead when they are set, so that the first set is the first due."""

from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

import trio

from ..seam import Wake
from .contain import LOG

Item = TypeVar("Item")
SLICE = 64  # acted on before others get a turn


class Deadlines(Generic[Item]):
    """Calls ``act(item)`` once, ``seconds`` after ``set(item)``, unless it is set again or cleared. No task an item.

    ``act`` must not wait; what it raises is logged. Items are hashable. ``bell`` rings when there is a first item, and
    when there is none any more.
    """

    def __init__(self, seconds: float, act: Callable[[Item], object], bell: Wake) -> None:
        self.seconds = seconds
        self._act, self._bell = act, bell
        self._due: dict[Item, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set(self, item: Item) -> None:
        """Begin to count for this item, or begin anew."""
        if not self._due:
            self._bell.ring()
        self._due.pop(item, None)
        self._due[item] = trio.current_time() + self.seconds

    def clear(self, item: Item) -> None:
        """Forget this item."""
        if self._due.pop(item, None) is not None and not self._due:
            self._bell.ring()

    def act(self) -> float:
        """Act on the items that are due, at most ``SLICE``; return the next moment at which one may be."""
        now = trio.current_time()
        for _ in range(SLICE):
            item, due = next(iter(self._due.items()), (None, inf))
            if item is None or due > now:
                return due
            del self._due[item]
            try:
                self._act(item)
            except Exception:  # noqa: BLE001 - the other items have deadlines, too
                LOG.exception("%r: failed at its deadline", item)
        return now


async def keep(bell: Wake, *kinds: Deadlines[Item]) -> None:
    """Act on what is due, for ever; ``bell`` is theirs. A cancellation loses nothing but what would have been due."""
    while True:
        # For good while there is nothing: trio keeps the scopes of others for as long as an earlier moment waits.
        with trio.CancelScope(deadline=min(deadlines.act() for deadlines in kinds)):
            await bell.sleep()
