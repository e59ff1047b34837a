"""Threads lent to code on an island: what it runs on "the" bridge is done where asgiref's own would be.

So it is on the connection, and in the transaction, of the blocking code that waits for it; and it takes no lane more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class Lent:
    """The threads that tasks of one loop may use, while they are lent, by ``run``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Run) -> None:
        self._loop, self._run, self.open = loop, run, True

    def __repr__(self) -> str:
        return f"<Lent threads{'' if self.open else ', taken back'}>"

    def is_here(self) -> bool:
        """Say whether the running loop may use them, now."""
        return self.open and asyncio._get_running_loop() is self._loop

    async def run(self, work: Callable[[], T], otherwise: Callable[[], Awaitable[T]]) -> T:
        """Run a function there and return its result; raises what it raises.

        If they are taken back before it has begun, it is ``await otherwise()`` that is returned.
        """
        begun = False

        def first_say_so() -> T:
            nonlocal begun
            begun = True
            return work()

        try:
            result: T = await self._run(first_say_so)
        except RuntimeError:
            if begun:
                raise
            return await otherwise()
        return result


_LENT: ContextVar[Lent | None] = ContextVar("trichannels_lent_threads", default=None)


def lent_threads() -> Lent | None:
    """Return what is lent to the calling task; None in almost all tasks."""
    lent = _LENT.get()
    return lent if lent is not None and lent.is_here() else None


@contextmanager
def lending(loop: asyncio.AbstractEventLoop, run: Run) -> Iterator[None]:
    """For the block, lend threads to what is started from it on that loop; tasks that stay longer have them no more."""
    lent = Lent(loop, run)
    token = _LENT.set(lent)
    try:
        yield
    finally:
        lent.open = False
        _LENT.reset(token)
