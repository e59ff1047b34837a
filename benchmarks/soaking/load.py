"""The crowd: so many clients at a time, each with a deadline; what surprised them is kept."""

from collections import Counter
from collections.abc import Iterator

import trio

from .mix import Part
from .peer import Site, Surprise

DEADLINE = 60.0  # seconds for one client; the longest wait for a deadline of the server


class Crowd:
    """Clients of one site. ``gone`` counts those that have been, by kind."""

    def __init__(self, site: Site, parts: Iterator[Part], *, at_once: int) -> None:
        self._site, self._parts, self._at_once = site, parts, at_once
        self.gone: Counter[str] = Counter()
        self.surprises: Counter[str] = Counter()

    async def come(self, count: int) -> None:
        """Let the next ``count`` clients come, at most ``at_once`` of them at a time; return when all have left."""
        places = trio.CapacityLimiter(self._at_once)
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                part = next(self._parts)
                await places.acquire_on_behalf_of(ticket := object())
                nursery.start_soon(self._one, part, places, ticket)

    async def _one(self, part: Part, places: trio.CapacityLimiter, ticket: object) -> None:
        try:
            with trio.fail_after(DEADLINE):
                await part.client(self._site)
        except (Surprise, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            self.surprises[f"{part.kind}, {part.name}: {type(error).__name__} {error}"] += 1
        finally:
            self.gone[part.kind] += 1
            places.release_on_behalf_of(ticket)
