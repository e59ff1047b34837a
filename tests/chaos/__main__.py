"""``python -m tests.chaos --seed N --faults M --topology standalone|sentinel|cluster --redis 7|8 [--group KIND]``.

Prints what was counted, and exits with 1 if anything is wrong. The same arguments make the same schedule of faults.
"""

import argparse
import random
import sys

import trio

from .faults import FAULTS
from .layers import GROUPS
from .run import Plan, chaos


def read_plan(arguments: list[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one, which is told")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--topology", choices=tuple(FAULTS), default="standalone")
    parser.add_argument("--redis", choices=("7", "8"), default="7")
    parser.add_argument("--group", choices=tuple(GROUPS), action="append", help="default: history and plain")
    parser.add_argument("--rest", type=float, default=0.25, help="mean of the seconds between two faults")
    told = parser.parse_args(arguments)
    return Plan(
        seed=told.seed, faults=told.faults, topology=told.topology, version=told.redis, rest=told.rest,
        groups=tuple(told.group or GROUPS),
    )  # fmt: skip


def main() -> int:
    plan = read_plan()
    print(f"chaos {plan}", flush=True)  # noqa: T201
    result = trio.run(chaos, plan)
    print(result)  # noqa: T201
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
