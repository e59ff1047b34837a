"""The slots of a cluster: which one a key is in, who has it, where a redirection points. Pure.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SLOTS = 16384

Place = tuple[str, int]


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: by its hash tag, the first ``{…}`` that is not empty, or else by all of it."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return crc_hqx(data, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Redirection:
    """``MOVED`` (for good) or ``ASK`` (this once) to the node at ``place``; the host is "" for the one that said it."""

    kind: str
    slot: int
    place: Place


def redirection(answer: str) -> Redirection | None:
    """Read an error answer; None if it redirects nowhere."""
    kind, _, rest = answer.partition(" ")
    if kind not in ("MOVED", "ASK"):
        return None
    slot, _, place = rest.partition(" ")
    host, _, port = place.rpartition(":")
    if not slot.isdigit() or not port.isdigit():
        return None
    return Redirection(kind, int(slot), (host, int(port)))


class SlotTable:
    """Which master has which slots, as a node has told it."""

    def __init__(self, ranges: Sequence[tuple[int, int, Place]] = ()) -> None:
        self._ranges = sorted(ranges)
        self._starts = [first for first, _, _ in self._ranges]

    def __repr__(self) -> str:
        return f"<SlotTable of {len(self.places)} masters>"

    @property
    def places(self) -> set[Place]:
        """Where the masters are."""
        return {place for _, _, place in self._ranges}

    def owner(self, slot: int) -> Place | None:
        """Return where the master of a slot is; None if nobody has it."""
        index = bisect_right(self._starts, slot) - 1
        if index >= 0 and slot <= self._ranges[index][1]:
            return self._ranges[index][2]
        return None

    def with_owner(self, slot: int, place: Place) -> "SlotTable":
        """Return a table in which one slot is at ``place``: what a redirection has told."""
        ranges: list[tuple[int, int, Place]] = [(slot, slot, place)]
        for first, last, owner in self._ranges:
            ranges += [(first, min(last, slot - 1), owner)] if first < slot else []
            ranges += [(max(first, slot + 1), last, owner)] if last > slot else []
        return SlotTable(ranges)


def read_slots(answer: Any, asked: str) -> SlotTable:
    """Read the answer to CLUSTER SLOTS of the node at host ``asked``: an empty host means that very one."""
    ranges = []
    for first, last, master, *_ in answer:
        host = master[0].decode() if isinstance(master[0], bytes) else ""
        ranges.append((int(first), int(last), (host if host not in ("", "?") else asked, int(master[1]))))
    return SlotTable(ranges)
