"""What came out: every figure of every round, kept as JSON; the medians as a table."""

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .peers import PEERS

OURS = "trichannels"


@dataclass(kw_only=True)
class Run:
    """The rounds of one mode. ``figures``: by figure, then by peer, a value for each round."""

    mode: str
    peers: list[str]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, peer: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, {}).setdefault(peer, []).append(value)


def as_json(runs: list[Run]) -> str:
    """Return every figure, and where it was measured."""
    facts = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(runs)}
    return json.dumps({**facts, "runs": [asdict(run) for run in runs]}, ensure_ascii=False, indent=1)


def from_json(text: str) -> tuple[dict[str, Any], list[Run]]:
    """Return the facts, and the runs, of what :func:`as_json` has written."""
    facts = json.loads(text)
    return facts, [Run(**run) for run in facts.pop("runs")]


def machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{os.cpu_count()} cores, {name}, {platform.system()} {platform.release().partition('-')[0]}"


def versions(runs: Iterable[Run]) -> str:
    found = {"Python": platform.python_version()}
    for peer in {peer for run in runs for peer in run.peers}:
        found |= PEERS[peer].versions()
    return ", ".join(f"{name} {number}" for name, number in sorted(found.items()))


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return how many times as dear as we a peer was, round by round."""
    return [their / our for our, their in zip(ours, theirs, strict=False) if our > 0]


def cell(values: list[float], ours: list[float] | None) -> str:
    """Return the median, in brackets the least and the most, and the median of the ratios to ours."""
    text = f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"
    if ours and (found := ratios(ours, values)):
        text += f" ×{median(found):.2f}"
    return text


def table(run: Run) -> str:
    """Return a Markdown table: a row for each peer, a column for each figure."""
    lines = [f"| | {' | '.join(run.figures)} |", "|---" * (len(run.figures) + 1) + "|"]
    for peer in run.peers:
        cells = [
            cell(values[peer], values.get(OURS) if peer != OURS else None) if peer in values else "–"
            for values in run.figures.values()
        ]
        lines.append(f"| {PEERS[peer].title} | {' | '.join(cells)} |")
    return "\n".join(lines)
