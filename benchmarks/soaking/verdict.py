"""What the numbers must be. Pure: no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Numbers: TypeAlias = Mapping[str, int]

FREE = ("rss", "seconds")
"""Numbers that need not come back. Memory has a rule of its own."""
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How much resident memory may grow between two moments: so many bytes, or so large a part."""

    size: int = 2 * MEBIBYTE
    part: float = 0.03

    def allows(self, before: int, after: int) -> bool:
        """Say whether ``after`` is not too much."""
        return after - before <= max(self.size, self.part * before)


def astray(start: Numbers, now: Numbers) -> dict[str, tuple[int, int]]:
    """Return the numbers in both that are not what they were at the start, with both values."""
    judged = (name for name in start if name in now and name not in FREE)
    return {name: (start[name], now[name]) for name in judged if start[name] != now[name]}


def changed(before: Mapping[str, Numbers], after: Mapping[str, Numbers]) -> dict[str, dict[str, int]]:
    """Return by how much each kind of thing has become more, or fewer, of those that have."""
    return {
        what: {kind: more for kind, count in kinds.items() if (more := count - before[what].get(kind, 0))}
        for what, kinds in after.items()
    }


def faults(start: Numbers, rounds: Sequence[Numbers], growth: Growth) -> list[str]:
    """Return a sentence for each promise that the numbers break: counts after each round, memory from the second on.

    The first round is the warm-up: caches fill, memory is taken that stays. Garbage is collected before each count:
    what waits for the collector in cycles is freed sooner or later, and is no leak.
    """
    found = [
        f"after round {number}: {name} is {after}, was {before}"
        for number, now in enumerate(rounds, 1)
        for name, (before, after) in astray(start, now).items()
    ]
    if len(rounds) > 2 and not growth.allows(before := rounds[1]["rss"], after := rounds[-1]["rss"]):
        grown = (after - before) / MEBIBYTE
        found.append(f"memory grew by {grown:.1f} MiB between round 2 and round {len(rounds)}")
    return found


COLUMNS = {
    "tasks": "tasks",
    "connections": "conns",
    "instances": "instances",
    "channels": "inboxes",
    "groups": "groups",
    "memberships": "members",
    "waiting": "waiting",
    "calls": "calls",
    "goodbyes": "goodbyes",
    "descriptors": "fds",
    "threads": "threads",
    "objects": "objects",
}


def table(start: Numbers, rounds: Sequence[Numbers], every: int) -> str:
    """Return the numbers as a table in Markdown."""
    heads = ["connects", *COLUMNS.values(), "RSS MiB", "seconds"]
    rows = [_row(index * every, numbers) for index, numbers in enumerate([start, *rounds])]
    return "\n".join([_line(heads), _line(["--:"] * len(heads)), *map(_line, rows)])


def _row(connects: int, numbers: Numbers) -> list[Any]:
    counts = [numbers[name] for name in COLUMNS]
    return [connects, *counts, f"{numbers['rss'] / MEBIBYTE:.1f}", numbers["seconds"]]


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
