"""What the numbers must be. Pure: no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Numbers: TypeAlias = Mapping[str, int]

FREE = ("blocks", "rss", "rss_untrimmed", "seconds")
"""Numbers that need not come back. Memory has a rule of its own."""
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How much memory may grow between two moments: resident, by so many bytes or so large a part; blocks, a client."""

    size: int = 2 * MEBIBYTE
    part: float = 0.03
    blocks: float = 0.5
    """Less than one, because a leak keeps at least one for each. Caches that fill, and our own counts, take 0.1."""

    def faults(self, before: Numbers, after: Numbers, clients: int) -> list[str]:
        """Return a sentence for each kind of memory that has grown too much."""
        resident, blocks = (after[name] - before[name] for name in ("rss", "blocks"))
        found = []
        if resident > max(self.size, self.part * before["rss"]):
            found.append(f"resident memory grew by {resident / MEBIBYTE:.1f} MiB over the last {clients} clients")
        if blocks > self.blocks * clients:
            found.append(f"{blocks} more blocks of memory are in use after the last {clients} clients")
        return found


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


def faults(start: Numbers, rounds: Sequence[Numbers], growth: Growth, every: int) -> list[str]:
    """Return a sentence for each promise that the numbers break: counts after each round, memory from the second on.

    The first round is the warm-up: caches fill, memory is taken that stays. Before each count garbage is collected, and
    the C library gives back what it has free: what waits for either is no leak.
    """
    found = [
        f"after round {number}: {name} is {after}, was {before}"
        for number, now in enumerate(rounds, 1)
        for name, (before, after) in astray(start, now).items()
    ]
    if len(rounds) > 2:
        found += growth.faults(rounds[1], rounds[-1], every * (len(rounds) - 2))
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
    heads = ["connects", *COLUMNS.values(), "blocks", "RSS MiB", "untrimmed", "seconds"]
    rows = [_row(index * every, numbers) for index, numbers in enumerate([start, *rounds])]
    return "\n".join([_line(heads), _line(["--:"] * len(heads)), *map(_line, rows)])


def _row(connects: int, numbers: Numbers) -> list[Any]:
    counts = [numbers[name] for name in COLUMNS]
    sizes = [f"{numbers[name] / MEBIBYTE:.1f}" for name in ("rss", "rss_untrimmed")]
    return [connects, *counts, numbers["blocks"], *sizes, numbers["seconds"]]


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
