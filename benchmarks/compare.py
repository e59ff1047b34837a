"""Compare the CPU time and memory of servers that do the same, in pairs.

    python -m benchmarks.compare --mode echo --peers trichannels,channels-uvicorn --pairs 5

Each round starts a fresh server on one core, loads it from the other, and asks the system what it has spent. Rounds of
the peers alternate; medians and ratios are of the same run. ``--json FILE`` keeps every figure.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.comparing.load import Stalled
from benchmarks.comparing.modes import MODES, Plan
from benchmarks.comparing.peers import PEERS
from benchmarks.comparing.process import end_in_order, free_port, raise_limits, served
from benchmarks.comparing.report import Run, as_json, table, versions

QUICK = Plan(seconds=0.2, messages=2_000, sizes=(50,), warm_up=0.02, settle=0.2)
Tell = Callable[[str], None]


def compare(mode: str, peers: Sequence[str], pairs: int, plan: Plan, tell: Tell = lambda line: None) -> Run:
    """Run every peer ``pairs`` times, one after the other. A peer that cannot run is left out, and says why."""
    run = Run(mode=mode, peers=[name for name in peers if not _left_out(name, mode, tell)])
    raise_limits()
    gc.disable()
    try:
        for number in range(pairs):
            # The other way round each time: nobody always runs behind the same one.
            for name in run.peers[:: -1 if number % 2 else 1]:
                _round(run, name, plan, tell)
                gc.collect()
    finally:
        gc.enable()
    return run


def _round(run: Run, name: str, plan: Plan, tell: Tell) -> None:
    port = free_port()
    try:
        with served(PEERS[name].command(port), port) as server:
            figures = MODES[run.mode](server, plan)
    except (Stalled, OSError) as error:
        run.failures.append("\n".join([f"{name}: {error!r}", *getattr(error, "__notes__", ())]))
        tell(f"FAILED {run.failures[-1]}")
    else:
        run.add(name, figures)
        tell(f"{name}: " + "; ".join(f"{figure} {value:.1f}" for figure, value in figures.items()))


def _left_out(name: str, mode: str, tell: Tell) -> bool:
    missing = PEERS[name].missing(mode)
    if missing:
        tell(f"{name} is left out: there is no {missing}")
    return bool(missing)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what reads some of the ``known`` names, or ``all``."""

    def some(text: str) -> list[str]:
        found = list(known) if text == "all" else text.split(",")
        if strange := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(strange)}: there is {', '.join(known)}, or all")
        return found

    return some


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", type=names(list(MODES)), required=True, help=f"some of {','.join(MODES)}, or all")
    parser.add_argument("--peers", type=names(list(PEERS)), default="all", help=f"some of {','.join(PEERS)}, or all")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="load for each figure (default: 1)")
    parser.add_argument("--sizes", type=numbers, default=(1000,), help="sockets of a group (default: 1000)")
    parser.add_argument("--in-flight", type=numbers, default=(1, 8), help="broadcasts at a time (default: 1,8)")
    parser.add_argument("--quick", action="store_true", help="see whether it works; the figures mean nothing")
    parser.add_argument("--tune-gc", action="store_true", help="give the peers the collector's thresholds that we set")
    parser.add_argument("--json", type=Path, help="a file for every figure")
    return parser


def main() -> int:
    end_in_order()
    options = arguments().parse_args()
    plan = QUICK if options.quick else Plan(seconds=options.seconds, sizes=options.sizes, in_flight=options.in_flight)
    if options.tune_gc:
        os.environ["TUNE_GC"] = "1"  # the servers inherit it
    runs = []
    for mode in options.mode:
        runs.append(compare(mode, options.peers, options.pairs, plan, partial(print, flush=True)))
        print(f"\n{table(runs[-1])}\n\nVersions: {versions(runs)}\n", flush=True)
        if options.json:
            options.json.write_text(as_json(runs))
    return 1 if any(run.failures for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
