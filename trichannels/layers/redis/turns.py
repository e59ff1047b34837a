"""Places for so many at once, taken in the order of coming: no I/O of its own."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import anyio

from ...exceptions import LayerUnreachable
from ...seam import Wake, loop_clock, open_wake


class Turns:
    """So many may do something at once; the others wait in line, for as long as some of those come to an end.

    ``label`` names in errors whom they want something of. ``patience``: seconds in which nothing comes to an end, after
    which who waits gives up.
    """

    def __init__(self, places: int, label: str, patience: float) -> None:
        self._free, self._label, self._patience = places, label, patience
        self._line: deque[Wake] = deque()
        self._now = loop_clock()
        self._ended = -inf  # when one has come to an end

    def __repr__(self) -> str:
        return f"<Turns, {self._free} free, {len(self._line)} in line>"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a place for the block. What fails with :class:`LayerUnreachable` has not come to an end.

        Raises :class:`LayerUnreachable` if nothing came to an end for too long.
        """
        await self._wait()
        self._free -= 1
        try:
            yield
        except LayerUnreachable:
            raise
        except BaseException:
            self._ended = self._now()
            raise
        else:
            self._ended = self._now()
        finally:
            self._free += 1
            self._call()

    async def _wait(self) -> None:
        if self._free and not self._line:
            return
        wake = open_wake()
        self._line.append(wake)
        came = self._now()
        try:
            while not self._free or self._line[0] is not wake:
                until = max(came, self._ended) + self._patience
                if self._now() >= until:
                    raise LayerUnreachable(self._label, f"no history could be read within {self._patience:g} s")
                with anyio.CancelScope(deadline=until):
                    await wake.sleep()
        finally:
            self._line.remove(wake)
            self._call()

    def _call(self) -> None:
        if self._line and self._free:
            self._line[0].ring()
