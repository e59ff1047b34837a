"""What the script of the presence says: its answers, and the diffs that it publishes. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...exceptions import UnreadableMessage
from ..history import Position
from ..presence import Diff, open_entries
from ..serializers import Serializer

MARK = b"="  # in front of an entry: what the script itself keeps beside entries begins with something else


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a group stands. ``lapsed``: the asking process was taken for dead, ``held``: how many connections it has,
    ``count``: how many keys are present, ``again``: seconds after which something ends there, below 0 for nothing.
    """

    lapsed: bool
    held: int
    count: int
    again: float
    position: Position

    @classmethod
    def of(cls, raw: list[Any]) -> "Answer":
        """Read it."""
        lapsed, held, count, again, offset, epoch = raw[:6]
        return cls(bool(lapsed), held, count, again / 1000, Position(int(offset), epoch.decode()))


def read_entries(raw: list[Any]) -> list[bytes]:
    """Return the entries in the answer to a question who is there."""
    return [entry[1:] for part in raw[6:] for entry in part if entry[:1] == MARK]


def read_diff(body: bytes, serializer: Serializer) -> Diff:
    """Read what the script published, without its first byte; raises :class:`UnreadableMessage`."""
    head, _, rest = body.partition(b"\n")
    try:
        offset, epoch, joined, left = head.split(b" ")
        position, joins, leaves = Position(int(offset), epoch.decode()), int(joined), int(left)
        entries = list(_cut(rest))
        if joins < 0 or leaves < 0 or joins + leaves != len(entries):
            raise ValueError(f"{joins} joins and {leaves} leaves in {len(entries)} entries")
    except ValueError as error:
        raise UnreadableMessage(f"a diff of the presence is broken: {error}") from error
    return Diff(open_entries(serializer, entries[:joins]), open_entries(serializer, entries[joins:]), position)


def _cut(joined: bytes) -> Iterator[bytes]:
    """Yield the entries: each has its length, four bytes, in front of it."""
    at = 0
    while at < len(joined):
        start = at + 4
        at = start + int.from_bytes(joined[start - 4 : start], "big")
        if at > len(joined) or joined[start : start + 1] != MARK:
            raise ValueError(f"an entry of {at - start} bytes is cut off")
        yield joined[start + 1 : at]
