"""``python -m tests.chaos --seed N --faults M --topology standalone|sentinel|cluster --redis 7|8 [--group KIND]``.

Prints what was counted, and exits with 1 if anything is wrong. The same arguments make the same schedule of faults.
"""

import argparse
import random
import sys

import trio

from .faults import FAULTS
from .field import TOPOLOGIES
from .jobs import JobResult, chaos_jobs
from .layers import GROUPS
from .run import Plan, Result, chaos


def read_plan(arguments: list[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one, which is told")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--topology", choices=tuple(TOPOLOGIES), default="standalone")
    parser.add_argument("--redis", choices=("7", "8"), default="7")
    parser.add_argument("--group", choices=(*GROUPS, "worker"), action="append", help="default: all but worker")
    parser.add_argument("--rest", type=float, default=0.25, help="mean of the seconds between two faults")
    parser.add_argument("--pause", type=float, default=0.05, help="mean of the seconds between two sends of a sender")
    parser.add_argument("--only", metavar="FAULT", action="append", help="leave out all others; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="tell of each fault as it happens")
    told = parser.parse_args(arguments)
    if unknown := set(told.only or ()) - set(FAULTS[told.topology]):
        parser.error(
            f"no faults of {told.topology}: {', '.join(unknown)}; there are {', '.join(FAULTS[told.topology])}"
        )
    if "worker" in (told.group or ()) and (len(told.group) > 1 or told.topology != "standalone"):
        parser.error("--group worker goes alone, and with one server: it needs a Redis that loses nothing")
    return Plan(
        seed=told.seed, faults=told.faults, topology=told.topology, version=told.redis, rest=told.rest,
        pause=told.pause, groups=tuple(told.group or GROUPS), only=tuple(told.only or ()), verbose=told.verbose,
    )  # fmt: skip


def main() -> int:
    plan = read_plan()
    print(f"chaos {plan}", flush=True)  # noqa: T201
    result: Result | JobResult
    if plan.groups == ("worker",):
        result = trio.run(chaos_jobs, plan.seed, plan.faults, plan.version, plan.rest)
    else:
        result = trio.run(chaos, plan)
    print(result)  # noqa: T201
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
