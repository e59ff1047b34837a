"""Moments that are all equally far ahead when they are set, so that the first set is the first due."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from .contain import LOG

Item = TypeVar("Item")
SLICE = 64  # acted on before others get a turn


class Deadlines(Generic[Item]):
    """Calls ``act(item)`` once, ``seconds`` after ``set(item)``, unless it is set again or cleared. No task an item.

    ``act`` must not wait; what it raises is logged. Items are hashable.
    """

    def __init__(self, seconds: float, act: Callable[[Item], object]) -> None:
        self.seconds = seconds
        self._act = act
        self._due: dict[Item, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set(self, item: Item) -> None:
        """Begin to count for this item, or begin anew."""
        self._due.pop(item, None)
        self._due[item] = trio.current_time() + self.seconds

    def clear(self, item: Item) -> None:
        """Forget this item."""
        self._due.pop(item, None)

    def act(self) -> float:
        """Act on the items that are due, at most ``SLICE``; return the next moment at which one may be."""
        now = trio.current_time()
        for _ in range(SLICE):
            item, due = next(iter(self._due.items()), (None, now + self.seconds))
            if item is None or due > now:
                return due
            del self._due[item]
            try:
                self._act(item)
            except Exception:  # noqa: BLE001 - the other items have deadlines, too
                LOG.exception("%r: failed at its deadline", item)
        return now


async def keep(*kinds: Deadlines[Item]) -> None:
    """Act on what is due, for ever. Nothing is lost by cancelling it but what would have been due."""
    while True:
        due = min(deadlines.act() for deadlines in kinds)
        await trio.sleep_until(due)
