"""Events that are kept while a server is away, to be sent once it is back: the option ``unreachable=Buffer(...)``."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

import anyio

from ...exceptions import LayerClosed, LayerRefused, TrichannelsError
from .options import Buffer
from .refusals import not_sent, passing

log = logging.getLogger("trichannels.layers.redis")

Event: TypeAlias = tuple[str, bytes, str | None]  # a group, what is for it, and an idempotency key

TOGETHER = 256  # events that are sent at once, when all goes well
TOGETHER_BYTES = 1024 * 1024


class Lane:
    """What is kept for one part, in order. ``flows``: the last that was sent was taken, so the end is in sight."""

    __slots__ = ("events", "flows", "news")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.flows = False
        self.news = anyio.Event()  # it is empty, or flows no more

    def tell(self) -> None:
        """Let those look who wait for news."""
        self.news.set()
        self.news = anyio.Event()


class Backlog:
    """The events for one Redis, within the bounds of a :class:`Buffer`: a lane for each part of it, in order.

    Each lane has a task of the layer, which sends one event when the server is back, then twice as many each time.
    While it does, who comes waits; so whoever publishes on does not keep it from coming to its end. ``send`` sends
    events of one lane, and returns the error of each, or None. ``pause``: seconds after a refusal that will pass. An
    event that is refused so comes behind those of its batch that were not.
    """

    def __init__(
        self,
        limits: Buffer,
        send: Callable[[Sequence[Event]], Awaitable[Sequence[TrichannelsError | None]]],
        start_soon: Callable[..., bool],
        pause: float,
    ) -> None:
        self._limits, self._send, self._start_soon, self._pause = limits, send, start_soon, pause
        self._lanes: dict[int, Lane] = {}
        self._count = self._size = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Backlog of {self._count} events in {len(self._lanes)} lanes>"

    def blocks(self, part: int) -> bool:
        """Say whether something waits for this part, behind which all that is newer has to wait too."""
        return part in self._lanes

    def fits(self, events: Iterable[Event]) -> bool:
        """Say whether there is room for all of them."""
        sizes = [len(sealed) for _, sealed, _ in events]
        return self._count + len(sizes) <= self._limits.messages and self._size + sum(sizes) <= self._limits.bytes

    async def passed(self, part: int) -> None:
        """Wait until nothing of a part is kept any more, or that does not flow."""
        while (lane := self._lanes.get(part)) is not None and lane.flows:
            await lane.news.wait()

    def keep(self, events: Sequence[tuple[int, Event]]) -> bool:
        """Keep events, each with its part; False if there is no room for all of them: then none is kept."""
        if not self.fits(event for _, event in events):
            return False
        begun: dict[int, Lane] = {}
        for part, event in events:
            lane = self._lanes.get(part)
            if lane is None:
                lane = self._lanes[part] = begun[part] = Lane()
            lane.events.append(event)
            self._count_in([event], 1)
        for part, lane in begun.items():
            if not self._start_soon(self._work_off, part, lane):
                for lost in begun:
                    self._end(lost)
                raise LayerClosed("the layer")
        return True

    def _count_in(self, events: Iterable[Event], sign: int) -> None:
        for _, sealed, _ in events:
            self._count += sign
            self._size += sign * len(sealed)

    def _end(self, part: int) -> None:
        lane = self._lanes.pop(part)
        self._count_in(lane.events, -1)
        lane.events.clear()
        lane.tell()

    async def sent(self) -> None:
        """Wait until nothing is kept any more."""
        while self._lanes:
            await next(iter(self._lanes.values())).news.wait()

    def give_up(self) -> None:
        """Forget what is still kept, and say so: the layer closes."""
        if self._count:
            log.error("%d events that were kept while the server was away are lost: the layer closes", self._count)
        for part in list(self._lanes):
            self._end(part)

    # ---- the tasks

    async def _work_off(self, part: int, lane: Lane) -> None:
        """Send all of a lane. A task of the layer."""
        most = 1
        try:
            while lane.events:
                batch = _first(lane.events, most)
                errors = await self._send(batch)
                if self._lanes.get(part) is not lane:
                    return  # given up meanwhile
                again = [event for event, error in zip(batch, errors, strict=True) if _to_be_tried_again(error)]
                for _ in batch:
                    lane.events.popleft()
                lane.events.extendleft(reversed(again))
                self._count_in(batch, -1)
                self._count_in(again, 1)
                _report(batch, errors)
                lane.flows = not again
                if lane.flows:
                    most = min(2 * most, TOGETHER)
                    continue
                lane.tell()
                most = 1
                if any(isinstance(error, LayerRefused) and passing(error) for error in errors):
                    await anyio.sleep(self._pause)  # of an attempt that did not get there, the deadline was the pause
        finally:
            if self._lanes.get(part) is lane:
                self._end(part)


def _first(events: deque[Event], most: int) -> list[Event]:
    """Return the oldest events, as many as are to be sent at once; at least one."""
    batch: list[Event] = []
    size = 0
    for event in islice(events, most):
        size += len(event[1])
        if batch and size > TOGETHER_BYTES:
            break
        batch.append(event)
    return batch


def _to_be_tried_again(error: TrichannelsError | None) -> bool:
    return passing(error) if isinstance(error, LayerRefused) else not_sent(error)


def _report(batch: Sequence[Event], errors: Sequence[TrichannelsError | None]) -> None:
    """Tell of what may not have arrived, and will not be tried again."""
    pairs = zip(batch, errors, strict=True)
    lost = [(event, error) for event, error in pairs if error is not None and not _to_be_tried_again(error)]
    if lost:
        groups = ", ".join(sorted({group for (group, _, _), _ in lost})[:5])
        log.error("%d events that were kept while the server was away, for %s: %s", len(lost), groups, lost[0][1])
