"""What is to be done when an event loop ends, for things that belong to no block."""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from anyio.lowlevel import RunVar

from ..seam import of_this_loop

Ending = AsyncGenerator[None, None]

_KEPT: RunVar[set[Ending]] = RunVar("trichannels_endings")


def at_loop_end(callback: Callable[[], object]) -> Ending:
    """Have ``callback`` called when the running loop ends, or when ``forget`` is awaited with what this returns.

    Both backends close the async generators that are not over then. It may block, for a moment.
    """
    ending = _wait(callback)
    of_this_loop(_KEPT, set).add(ending)
    with suppress(StopIteration):
        ending.asend(None).send(None)
    return ending


async def forget(ending: Ending) -> None:
    """It has ended before its loop."""
    _KEPT.get().discard(ending)
    await ending.aclose()


async def _wait(callback: Callable[[], object]) -> Ending:
    try:
        yield
    finally:
        callback()
