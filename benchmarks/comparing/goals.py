"""What the transport shall reach, as a table, and what was reached. Pure."""

from dataclasses import dataclass
from statistics import median

from .report import OURS, Run, ratios

ONE, EIGHT = "1,000 sockets, 1 in flight, µs", "1,000 sockets, 8 in flight, µs"


@dataclass(frozen=True)
class Goal:
    """A peer's figure, divided by ours, is at least ``times``."""

    text: str
    mode: str
    figure: str
    peer: str
    times: float

    def row(self, runs: list[Run]) -> str | None:
        """Return a row of the table, or None if it was not measured."""
        values = figure(runs, self.mode, self.figure)
        found = ratios(values.get(OURS, []), values.get(self.peer, []))
        if not found:
            return None
        spread = f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"
        return _row(self.text, f"at least {self.times:g}", spread, median(found) >= self.times)


GOALS = (
    Goal("echo, Channels on uvicorn to us", "echo", "echo, µs", "channels-uvicorn", 5),
    Goal("echo, bare ASGI on uvicorn to us", "echo", "echo, µs", "asgi-uvicorn", 1),
    Goal("unchanged event to 1,000, one in flight, Channels to us", "fanout", ONE, "channels-uvicorn", 30),
    Goal("the same, eight in flight", "fanout", EIGHT, "channels-uvicorn", 80),
    Goal("unchanged event to 1,000, one in flight, `websockets` to us", "fanout", ONE, "websockets", 1),
    Goal("handler, 1,000, one in flight, Channels to us", "fanout-handler", ONE, "channels-uvicorn", 12),
    Goal("handler, 1,000, one in flight, Litestar to us", "fanout-handler", ONE, "litestar", 1),
    Goal("churn, Channels to us", "churn", "connect, join, leave, close, µs", "channels-uvicorn", 2.2),
)
GREAT, SMALL = "5,000 sockets, 1 in flight, µs", "100 sockets, 1 in flight, µs"


def figure(runs: list[Run], mode: str, name: str) -> dict[str, list[float]]:
    """Return a figure's values by peer."""
    return next((run.figures[name] for run in runs if run.mode == mode and name in run.figures), {})


def table_of_goals(runs: list[Run]) -> str:
    """Return a Markdown table: what was to be reached, and what was."""
    rows = [goal.row(runs) for goal in GOALS] + [_memory(runs), _growth(runs)]
    return "\n".join(["| | goal | measured | |", "|---|---|---|---|", *filter(None, rows)])


def _memory(runs: list[Run]) -> str | None:
    for run in runs:
        for name, values in run.figures.items():
            if run.mode == "memory" and OURS in values:
                kib = median(values[OURS])
                return _row(f"memory, {name}", "at most 18", f"{kib:.1f}", kib <= 18)
    return None


def _growth(runs: list[Run]) -> str | None:
    great, small = (figure(runs, "fanout", name).get(OURS) for name in (GREAT, SMALL))
    if not great or not small:
        return None
    times = median(great) / median(small)
    return _row("unchanged event, cost at 5,000 sockets to cost at 100", "at most 1.5", f"{times:.2f}", times <= 1.5)


def _row(text: str, goal: str, measured: str, reached: bool) -> str:
    return f"| {text} | {goal} | {measured} | {'reached' if reached else '**missed**'} |"
