"""What comes to one group of one process: its subscription, in force or not, and where it stands in its history.

Gaps are found and closed here, once for all members. What is to be delivered goes to the layer's one line of
deliveries, so that order is kept whoever found it.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import anyio

from ...backoff import Backoff
from ...exceptions import LayerClosed, LayerRefused, LayerUnreachable
from ...inbox import Envelope
from ..history import History, Position
from ..recovery import Missed, Tracker, Verdict, is_whole, merge
from .history import RedisHistory
from .readings import Reading, Readings
from .server import RedisServer
from .waiter import Waiter

log = logging.getLogger("trichannels.layers.redis")

RETRY = (0.01, 1.0)  # seconds between two attempts to close a gap while the server is away: at most, first and last
SENDERS = 100  # processes whose newest event is remembered, for each group
READS = 3  # of a history that grows faster than it is read, for one newcomer


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands in the line of deliveries where events are missing for good. ``position``: where the group goes on."""

    position: Position | None = None


GAP = Gap()
Delivery: TypeAlias = "Envelope | Gap"


class Deliveries(Protocol):
    """The layer's line of deliveries."""

    def enqueue(self, feed: "GroupFeed", delivery: Delivery) -> None:
        """Put something at its end."""

    async def drain(self) -> None:
        """Return when all that is in it now has been delivered."""

    def start_soon(self, work: Callable[..., Awaitable[object]], *args: Any) -> bool:
        """Start a task of the layer; False if that has closed."""

    def abandoned(self, feed: "GroupFeed") -> None:
        """A feed has begun that nobody wants any more."""


class Unreadable(Envelope):
    """An event of a history that cannot be read: it has its place there, and stands for a gap."""

    def __init__(self, group: str, position: Position) -> None:
        super().__init__(b"", lambda _: {}, group=group, position=position)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a newcomer enters: behind ``events``, and what stands up to ``position`` is kept from it.

    ``recovered``: that is all that it has missed. ``outdated``: the group has not heard yet that a new history began.
    """

    position: Position | None
    events: Sequence[Envelope] = ()
    recovered: bool = True
    outdated: bool = False


class GroupFeed:
    """One group, as long as somebody in this process is in it, or about to enter it."""

    def __init__(
        self, group: str, channel: str, server: RedisServer, deliveries: Deliveries, history: History | None,
        records: RedisHistory | None,
    ) -> None:  # fmt: skip
        self.group, self.channel, self.server = group, channel, server
        self._deliveries, self._history, self._records = deliveries, history, records
        self.tracker: Tracker[Envelope] | None = None if history is None else Tracker()
        self.joiners = 0  # tasks that are about to enter
        self.undelivered = 0  # of its events, in the line of deliveries
        self.over = False
        self._begun = Waiter()
        self._readings = Readings(self._start_reading)
        self._newest: dict[str, int] = {}  # the number of the newest event of each sender, where they are numbered

    def __repr__(self) -> str:
        state = "subscribed" if self.in_force else f"failed: {self._begun.error}" if self.failed else "subscribing"
        return f"<GroupFeed of {self.group}, {state}, {self.tracker!r}>"

    @property
    def in_force(self) -> bool:
        """Whether what is published from now on will come."""
        return self._begun.done.is_set() and not self.failed

    @property
    def failed(self) -> bool:
        """Whether it could not be begun; who wants the group then begins anew."""
        return self._begun.error is not None

    @property
    def position(self) -> Position | None:
        """The position up to which all has been put into the line of deliveries."""
        return self.tracker.top if self.tracker is not None else None

    @property
    def node(self) -> Hashable:
        """The node of the server that it is on for now."""
        return self.server.node_of(self.channel)

    # ---- its life

    async def begin(self) -> None:
        """Subscribe, and find out where the history stands. A task of the layer runs it."""
        try:
            with self._begun.settling():
                await self.server.subscribe([self.channel])
                if self.tracker is not None:
                    await self._close_gap()
        finally:
            if self.over:  # all who wanted it had gone before it was subscribed to
                self._deliveries.abandoned(self)

    async def confirmed(self) -> None:
        """Wait until the subscription is in force; raises what it failed with."""
        await self._begun.outcome()

    # ---- what comes

    def arrive(self, envelope: Envelope) -> bool:
        """Take a live event; True if a history has to be read before anything of the group goes on."""
        if self.tracker is None or envelope.position is None:
            self.put(envelope)
            return False
        verdict = self.tracker.arrive(envelope)
        if verdict is Verdict.DELIVER:
            self.put(envelope)
        return verdict is Verdict.HEAL

    def is_stale(self, sender: str, number: int) -> bool:
        """Say whether a numbered event was here already, or is overtaken by a newer one of its sender.

        A cluster's nodes pass on to each other what is published to them. When another one becomes the master, what
        the old one has passed on may come after what the new one was told, and once more.
        """
        newest = self._newest.pop(sender, 0)  # and put in again: the one that is forgotten has been silent for longest
        self._newest[sender] = max(newest, number)
        if len(self._newest) > SENDERS:
            del self._newest[next(iter(self._newest))]
        return number <= newest

    def put(self, delivery: Delivery) -> None:
        """Put an event into the line of deliveries, and before all who are reading the history meanwhile."""
        self.undelivered += 1
        if isinstance(delivery, Gap) or delivery.position is not None:
            self._readings.collect(None if isinstance(delivery, Gap | Unreadable) else delivery)
        self._deliveries.enqueue(self, delivery)

    def doubt(self) -> bool:
        """Events may be missing; True if the history has to be read. Without a history, that is told.

        While it begins, the history is being read, and will be once more.
        """
        if self.tracker is None:
            self.put(GAP)
            return False
        return self.tracker.doubt() and self.in_force

    async def heal(self) -> None:
        """Close the gap that was found. A task of the layer runs it; while the server is away, it tries on."""
        backoff = Backoff(*RETRY)
        while not self.over:
            try:
                await self._close_gap()
            except (LayerUnreachable, LayerRefused) as error:
                log.warning("the history of %s cannot be read, which is tried again: %s", self.group, error)
                await anyio.sleep(backoff.next())
            else:
                return

    async def _close_gap(self) -> None:
        assert self.tracker is not None
        while not self.over:
            ready, recovered = self.tracker.heal(await self._read(self.tracker.top))
            if not recovered:
                self.put(Gap(self.tracker.top))
            while True:
                for event in ready:
                    self.put(event)
                await self._deliveries.drain()
                settled = self.tracker.settle()
                if settled is None:
                    break  # it has to be read once more
                if not settled:
                    return
                ready = settled

    async def _read(self, since: Position | None) -> Missed[Envelope]:
        assert self._records is not None
        assert self._history is not None
        async with self._records.turn(self.group):
            return await self._records.after(self.group, self._history, since)

    # ---- newcomers

    def _start_reading(self, reading: Reading) -> None:
        if not self._deliveries.start_soon(self._read_for_newcomers, reading):
            reading.fail(LayerClosed("the layer"))

    async def _read_for_newcomers(self, reading: Reading) -> None:
        assert self._records is not None
        assert self._history is not None
        await reading.read(self._records.turn(self.group), partial(self._records.after, self.group, self._history))

    async def entrance(self, since: Position | None) -> "Entrance":
        """Return how a newcomer enters. Whoever gets it must act on it before anything is awaited."""
        if since is None or self.tracker is None:
            return Entrance(self.position, recovered=since is None)
        for attempt in range(READS):
            with self._readings.joined(since, alone=attempt > 0 or self._too_far(since)) as reading:
                from_now = not reading.begun
                missed = await reading.missed(since)
                if not is_whole(since, missed):
                    if from_now and reading.since == since:
                        return self._unproven(since, missed.top)
                    continue  # it may have failed for the sake of others, who have missed more
                merged = None if reading.broken else merge(since, missed, reading.events)
                if merged is not None:
                    return Entrance(_end_of(merged, since), merged)
        return Entrance(self.position, recovered=False)

    def _too_far(self, since: Position) -> bool:
        """Say whether a newcomer has missed more than can be recovered, by what is known here."""
        here, history = self.position, self._history
        assert history is not None
        return here is not None and here.epoch == since.epoch and here.offset - since.offset > history.limit

    def _unproven(self, since: Position, top: Position) -> "Entrance":
        """Nothing can be proven. Where a new history has begun, this group may not have heard of it yet, nor of all
        that the newcomer has seen of the old one, which must not come again.
        """
        here = self.position
        assert here is not None
        outdated = here.epoch != top.epoch
        ahead = outdated and here.epoch == since.epoch and here.offset < since.offset
        return Entrance(since if ahead else here, recovered=False, outdated=outdated)


def _end_of(events: list[Envelope], since: Position) -> Position:
    place = events[-1].position if events else since
    assert place is not None
    return Position(place.offset, place.epoch)
