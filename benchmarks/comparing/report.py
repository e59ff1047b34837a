"""What came out: every figure of every round, and the medians as a table."""

import platform
from dataclasses import dataclass, field
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

    def versions(self) -> dict[str, str]:
        found = {"Python": platform.python_version()}
        for peer in self.peers:
            found |= PEERS[peer].versions()
        return found

    def as_json(self) -> dict[str, Any]:
        return {"mode": self.mode, "figures": self.figures, "failures": self.failures, "versions": self.versions()}


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return how many times as dear as we a peer was, round by round."""
    return [their / our for our, their in zip(ours, theirs, strict=False) if our]


def cell(values: list[float], ours: list[float] | None) -> str:
    """Return the median, in brackets the least and the most, and the median of the ratios to ours."""
    text = f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"
    if ours and (found := ratios(ours, values)):
        text += f" ×{median(found):.2f}"
    return text


def table(run: Run) -> str:
    """Return a Markdown table: a row for each peer, a column for each figure."""
    names = list(run.figures)
    lines = [f"| {run.mode} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for peer in run.peers:
        cells = [
            cell(values[peer], values.get(OURS) if peer != OURS else None) if peer in values else "–"
            for values in run.figures.values()
        ]
        lines.append(f"| {PEERS[peer].title} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {number}" for name, number in sorted(run.versions().items()))
    return "\n".join([*lines, "", f"Versions: {versions}"])
