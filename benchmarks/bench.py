"""Measure every figure of ``docs/performance.md``, and write it there. What ``make bench`` runs; half an hour.

``--again`` only writes the page and the plot anew, from the figures of the last time.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.compare import compare
from benchmarks.comparing import page
from benchmarks.comparing.modes import Plan
from benchmarks.comparing.peers import PEERS
from benchmarks.comparing.process import ROOT, end_in_order
from benchmarks.comparing.report import OURS, as_json, table

EVERYBODY = tuple(PEERS)
GROUPS = (OURS, "channels-uvicorn", "channels-daphne", "channels-hypercorn", "litestar", "starlette")
"""Those with a handler or a task of its own for each member."""
FEW = (OURS, "channels-uvicorn", "litestar", "asgi-uvicorn", "websockets")
"""Where a round takes long."""
PLANS = (
    ("echo", EVERYBODY, Plan()),
    ("fanout", EVERYBODY, Plan(sizes=(100, 1000))),
    ("fanout-handler", GROUPS, Plan(sizes=(100, 1000))),
    ("fanout", FEW, Plan(sizes=(5000,), in_flight=(1,))),
    ("memory", EVERYBODY, Plan(sizes=(2000,))),
    ("churn", EVERYBODY, Plan()),
    ("pause", FEW, Plan(sizes=(2000,))),
    ("http", EVERYBODY, Plan()),
)


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="load for each figure (default: 1)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where performance.md is")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    kept = options.docs / "performance.json"
    runs = []
    for mode, peers, plan in () if options.again else PLANS:
        runs.append(
            compare(mode, peers, options.pairs, replace(plan, seconds=options.seconds), partial(print, flush=True))
        )
        print(f"\n{table(runs[-1])}\n", flush=True)
        kept.write_text(as_json(runs) + "\n")  # what was measured is not lost if the rest is
    page.write(options.docs / "performance.md", kept.read_text())
    page.plot(options.docs / "performance.svg", kept.read_text())
    return 1 if any(run.failures for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
