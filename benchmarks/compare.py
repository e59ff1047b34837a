"""Compare the CPU time and memory of servers that do the same, in pairs.

    python -m benchmarks.compare --mode echo --peers trichannels,channels-uvicorn --pairs 5

Each round starts a fresh server on one core, loads it from the other, and asks the system what it has spent. Rounds of
the peers alternate; medians and ratios are of the same run. ``--json FILE`` keeps every figure.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.comparing.load import Stalled
from benchmarks.comparing.modes import MODES, Plan
from benchmarks.comparing.peers import PEERS
from benchmarks.comparing.process import free_port, raise_limits, served
from benchmarks.comparing.report import Run, table

QUICK = Plan(seconds=0.2, messages=2_000, sizes=(50,), warm_up=0.02)


def compare(
    mode: str, peers: Sequence[str], pairs: int, plan: Plan, tell: Callable[[str], None] = lambda line: None
) -> Run:
    """Run every peer ``pairs`` times, one after the other. A peer that cannot run is left out, and says why."""
    run = Run(mode=mode, peers=[name for name in peers if not _left_out(name, tell)])
    raise_limits()
    gc.disable()
    for number in range(pairs):
        # The other way round each time: nobody always runs behind the same one.
        for name in run.peers[:: -1 if number % 2 else 1]:
            port = free_port()
            try:
                with served(PEERS[name].command(port), port) as server:
                    figures = MODES[mode](server, plan)
            except (Stalled, OSError) as error:
                tell(f"{number + 1}/{pairs} {name}: FAILED, {error!r}\n" + "\n".join(error.__notes__))
                run.failures.append(f"{name}: {error!r}")
                continue
            tell(f"{number + 1}/{pairs} {name}: " + "; ".join(f"{key} {value:.1f}" for key, value in figures.items()))
            run.add(name, figures)
            gc.collect()
    return run


def _left_out(name: str, tell: Callable[[str], None]) -> bool:
    missing = PEERS[name].missing()
    if missing:
        tell(f"{name} is left out: there is no {missing}")
    return bool(missing)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", required=True, help=f"some of {','.join(MODES)}, or all")
    parser.add_argument("--peers", default="all", help=f"some of {','.join(PEERS)}, or all")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="load for each figure (default: 1)")
    parser.add_argument("--sizes", type=numbers, default=(1000,), help="sockets of a group (default: 1000)")
    parser.add_argument("--in-flight", type=numbers, default=(1, 8), help="broadcasts at a time (default: 1,8)")
    parser.add_argument("--quick", action="store_true", help="see whether it works; the figures mean nothing")
    parser.add_argument("--json", type=Path, help="a file to which the figures are added")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan(
        seconds=options.seconds, sizes=options.sizes, in_flight=options.in_flight
    )  # fmt: skip
    peers = list(PEERS) if options.peers == "all" else options.peers.split(",")
    failures = 0
    for mode in list(MODES) if options.mode == "all" else options.mode.split(","):
        run = compare(mode, peers, options.pairs, plan, print)
        failures += len(run.failures)
        print(f"\n{table(run)}\n")
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(run.as_json(), ensure_ascii=False) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
