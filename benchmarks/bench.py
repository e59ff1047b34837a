"""Measure every figure of ``docs/performance.md``, and write it there. What ``make bench`` runs; an hour.

``--only fanout,churn`` measures these modes, and keeps the other figures. ``--only ''`` writes page and plot anew.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.compare import compare
from benchmarks.comparing import page
from benchmarks.comparing.modes import Plan
from benchmarks.comparing.peers import PEERS
from benchmarks.comparing.process import ROOT, end_in_order
from benchmarks.comparing.report import OURS, Run, as_json, from_json, table

EVERYBODY = tuple(PEERS)
GROUPS = (OURS, "channels-uvicorn", "channels-daphne", "channels-hypercorn", "litestar", "starlette")
"""Those with a handler or a task of its own for each member."""
FEW = (OURS, "channels-uvicorn", "litestar", "asgi-uvicorn", "websockets")
"""Where a round takes long."""
FEW_GROUPS = (OURS, "channels-uvicorn", "litestar")
PLANS = (
    ("echo", EVERYBODY, Plan()),
    ("churn", EVERYBODY, Plan()),
    ("http", EVERYBODY, Plan()),
    ("memory", EVERYBODY, Plan(sizes=(5000,))),
    ("fanout", EVERYBODY, Plan(sizes=(100,))),
    ("fanout", EVERYBODY, Plan(sizes=(1000,))),
    ("fanout-handler", GROUPS, Plan(sizes=(100,))),
    ("fanout-handler", GROUPS, Plan(sizes=(1000,))),
    ("fanout", FEW, Plan(sizes=(5000,), in_flight=(1,))),
    ("fanout-handler", FEW_GROUPS, Plan(sizes=(5000,), in_flight=(1,))),
    ("pause", FEW, Plan(sizes=(10_000,))),
)


def joined(runs: list[Run], run: Run) -> list[Run]:
    """Return the runs with this one instead of an older one of the same figures."""
    return [old for old in runs if (old.mode, [*old.figures]) != (run.mode, [*run.figures])] + [run]


def inside() -> Run:
    """Return what an echo costs without its sockets."""
    found = subprocess.run([sys.executable, "-m", "benchmarks.inside"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    run = Run(mode="inside", peers=[OURS])
    run.add(OURS, json.loads(found.stdout))
    return run


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="load for each figure (default: 1)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where performance.md is")
    parser.add_argument("--only", help="some modes, separated by commas")
    options = parser.parse_args()
    kept, failed = options.docs / "performance.json", False
    runs = from_json(kept.read_text())[1] if kept.exists() and options.only is not None else []
    for mode, peers, planned in PLANS:
        if options.only is None or mode in options.only.split(","):
            plan = replace(planned, seconds=options.seconds)
            run = compare(mode, peers, options.pairs, plan, partial(print, flush=True))
            print(f"\n{table(run)}\n", flush=True)
            runs, failed = joined(runs, run), failed or bool(run.failures)
            kept.write_text(as_json(runs) + "\n")  # what was measured is not lost if the rest is
    if options.only is None or "inside" in options.only.split(","):
        runs = joined(runs, inside())
        kept.write_text(as_json(runs) + "\n")
    page.write(options.docs / "performance.md", kept.read_text())
    page.plot(options.docs / "performance.svg", kept.read_text())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
