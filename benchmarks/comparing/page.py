"""The figures in ``docs/performance.md``: between two marks of the page, so that its text stays; and the plot."""

from pathlib import Path
from statistics import median

from .goals import table_of_goals
from .peers import PEERS
from .report import Run, from_json, table

BEGIN, END = "<!-- figures: written by make bench -->\n", "<!-- end of figures -->\n"
TITLES = {
    "echo": "Echo",
    "fanout": "Fan-out of an event that members send unchanged",
    "fanout-handler": "Fan-out through a handler of each member",
    "memory": "Memory of an idle socket in a group",
    "churn": "Connect, join, leave, disconnect",
    "pause": "The longest wait of an innocent socket during broadcasts",
    "http": "HTTP GET",
    "inside": "An echo without its sockets, fed from memory",
}


def figures(text: str) -> str:
    """Return what stands between the marks, from what ``as_json`` has written."""
    facts, runs = from_json(text)
    parts = [
        f"Measured {facts['date']} on {facts['machine']}. {facts['versions']}.",
        "## Goals",
        table_of_goals(runs),
    ]
    for mode in TITLES:
        measured = [run for run in runs if run.mode == mode and run.figures]
        if measured:
            parts += [f"## {TITLES[mode]}", *map(table, measured)]
    return "\n\n".join(parts) + "\n"


def write(page: Path, text: str) -> None:
    """Put the figures into the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{figures(text)}\n{END}{after}")


def points(runs: list[Run]) -> dict[str, list[tuple[int, float]]]:
    """Return by peer: sockets, and what a delivery to one of them costs, one in flight."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        for name, values in run.figures.items():
            if run.mode == "fanout" and "1 in flight" in name:
                size = int(name.partition(" ")[0].replace(",", ""))
                for peer, costs in values.items():
                    found.setdefault(peer, {})[size] = median(costs)
    return {peer: sorted(costs.items()) for peer, costs in found.items()}


def plot(image: Path, text: str) -> None:
    """Draw what a delivery costs against the number of sockets, both logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "trichannels"  # the same figures make the same file
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(9, 5))
    for peer, costs in points(from_json(text)[1]).items():
        axes.loglog(*zip(*costs, strict=True), marker="o", label=PEERS[peer].title)
    axes.set_xlabel("sockets in the group")
    axes.set_ylabel("server CPU for each delivery, µs")
    axes.set_ylim(bottom=1)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside, where it hides nothing
    canvas.tight_layout()
    canvas.savefig(image, metadata={"Date": None})
