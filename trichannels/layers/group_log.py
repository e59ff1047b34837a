"""The histories of the memory layer: what each group's last events were, and where a reader can go on. No I/O."""

import secrets
from collections import OrderedDict, deque
from itertools import islice

from ..inbox import Envelope
from .history import History, Position
from .recovery import Missed

MEMORY_OF = 2.0  # how many times longer than its events the number of the last one is kept


class GroupLog:
    """The history of one group. ``offset`` is that of its newest event, 0 if there has been none."""

    __slots__ = ("_events", "_keys", "_until", "epoch", "history", "offset", "sent")

    def __init__(self, history: History, now: float) -> None:
        self.history, self.epoch, self.offset = history, secrets.token_hex(8), 0
        self.sent = 0  # the newest event that has gone to all members
        self._events: deque[Envelope] = deque(maxlen=history.size)
        self._keys: OrderedDict[str, Position] = OrderedDict()
        self._until = now + history.seconds

    def __repr__(self) -> str:
        return f"<GroupLog of {len(self._events)} events up to {self.offset}>"

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.offset, self.epoch)

    def known(self, key: str | None, now: float) -> Position | None:
        """Return the position of the event that was sent with this idempotency key, if it is still remembered."""
        self.expire(now)
        return None if key is None else self._keys.get(key)

    def append(self, envelope: Envelope, key: str | None, now: float) -> Position:
        """Give the event its position and keep it."""
        self.expire(now)
        self.offset += 1
        position = self.position
        envelope.position = position
        self._events.append(envelope)
        self._until = now + self.history.seconds
        if key is not None:
            self._keys[key] = position
            if len(self._keys) > self.history.size:
                self._keys.popitem(last=False)
        return position

    def after(self, since: Position, now: float) -> Missed[Envelope]:
        """Return what came after ``since``, if that is within the limit of a recovery."""
        self.expire(now)
        count = self.offset - since.offset
        if since.epoch != self.epoch or not 0 <= count <= self.history.limit:
            return Missed(self.position, whole=False)
        return Missed(self.position, tuple(islice(self._events, max(0, len(self._events) - count), None)))

    def expire(self, now: float) -> None:
        """Forget the events, but not their number, once they are too old."""
        if now >= self._until:
            self._events.clear()
            self._keys.clear()

    def forgettable(self, now: float) -> bool:
        """Whether so much time has passed that a new history may begin."""
        return now >= self._until + (MEMORY_OF - 1) * self.history.seconds and self.sent == self.offset


class GroupLogs:
    """The logs of all groups that have one; those of groups that were forgotten long ago are swept."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, GroupLog] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._logs)

    def of(self, group: str, history: History, now: float) -> GroupLog:
        """Return the log of a group, a new one if need be."""
        for name, oldest in list(islice(self._logs.items(), 2)):
            if name != group and oldest.forgettable(now):
                del self._logs[name]
        log = self._logs.get(group)
        if log is None:
            log = self._logs[group] = GroupLog(history, now)
        self._logs.move_to_end(group)
        return log
