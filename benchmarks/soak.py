"""Soak a server: thousands of clients that connect and vanish, after which it must hold what it held at the start.

    python benchmarks/soak.py --connects 10000

A process serves the application of ``soaking/app.py``; this one sends the clients of ``soaking/mix.py`` and asks for
the numbers of ``soaking/census.py`` at the start and after each thousand, once they have come to rest. Exit code 1 if a
number has not come back, memory has grown, a client was surprised, or the log says what it should not.

``--server uvicorn`` and the like look at the library on other servers: there, only what the library itself answers for
is judged, with the clients that these servers can stand.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import trio

if str(Path(__file__).resolve().parent.parent) not in sys.path:  # as a script, Python looks only beside this file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.soaking.load import Crowd
from benchmarks.soaking.mix import clients
from benchmarks.soaking.orderly import echo_and_close, echo_and_close_threads, page
from benchmarks.soaking.peer import Site
from benchmarks.soaking.served import Served, served
from benchmarks.soaking.verdict import Growth, Numbers, astray, changed, faults, table

FIRST = (page, echo_and_close, echo_and_close_threads)
REST = 45.0  # seconds for the numbers to come back; an idle worker thread is kept for ten
PAUSE = 0.25
OURS = "trichannels"
SERVERS = (OURS, "hypercorn-trio", "hypercorn-asyncio", "uvicorn")
THE_LIBRARYS = ("instances", "channels", "groups", "memberships", "waiting", "calls", "goodbyes")
"""What the library answers for on any server; on ours, for everything."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many clients, how many between two looks, how many at once; on which server; how much memory may grow."""

    connects: int = 10_000
    every: int = 1_000
    at_once: int = 100
    server: str = OURS
    growth: Growth = field(default_factory=Growth)
    patient: bool = True
    """Wait after each round, not only after the last, for worker threads to end: they are kept for ten seconds."""

    @property
    def rounds(self) -> int:
        return self.connects // self.every

    def judgement(self, number: int) -> Callable[[Numbers], Numbers]:
        """Return what leaves those numbers that count after that round."""
        return partial(self.judged, threads=self.patient or number == self.rounds)

    def judged(self, numbers: Numbers, *, threads: bool = True) -> Numbers:
        """Leave out what nobody has promised, of this server or so soon."""
        kept = set(numbers) if self.server == OURS else {*THE_LIBRARYS, "blocks", "rss"}
        if not threads:
            kept -= {"threads"}
        return {name: number for name, number in numbers.items() if name in kept}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the server held at the start and after each round, what happened in all, and what is wrong with it."""

    plan: Plan
    start: Numbers
    rounds: list[Numbers]
    crowd: dict[str, int]
    tally: dict[str, Any]
    faults: list[str]

    def __str__(self) -> str:
        facts = [f"clients, {kind}: {count}" for kind, count in self.crowd.items()]
        facts += [f"server, {name}: {value}" for name, value in self.tally["server"].items()]
        facts += [f"application, {name}: {self.tally[name]}" for name in ("consumers", "failures")]
        verdict = [f"FAULT: {fault}" for fault in self.faults] or ["Everything is back, and the log says nothing else."]
        return "\n".join([table(self.start, self.rounds, self.plan.every), "", *facts, "", *verdict])


async def soak(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Result:
    """Run the plan, each part of it with a deadline; ``tell`` is called with a line after each round."""
    async with served(plan.server) as (server, site):
        crowd = Crowd(site, clients(ours=plan.server == OURS), at_once=plan.at_once)
        start = await _first_numbers(plan, server, site)
        known = await server.ask("who")
        rounds: list[Numbers] = []
        while len(rounds) < plan.rounds:
            began = trio.current_time()
            await crowd.come(plan.every)
            spent = round(trio.current_time() - began)
            numbers = await _at_rest(server, start, plan.judgement(len(rounds) + 1))
            rounds.append({**numbers, "seconds": spent, **await _memory(server, numbers)})
            tell(f"{len(rounds) * plan.every} clients have come and gone, the last {plan.every} in {spent} s")
        if astray(start, plan.judged(rounds[-1])):
            tell(f"too many, or too few: {changed(known, await server.ask('who'))}")
        tally = await server.ask("tally")
        code = await server.stop()
    found = faults(
        start, [plan.judgement(number)(numbers) for number, numbers in enumerate(rounds, 1)], plan.growth, plan.every
    )
    found += [f"{times} times: {surprise}" for surprise, times in crowd.surprises.items()]
    found += tally["complaints"]
    found += [f"the server ended with exit code {code}"] if code else []
    found += [f"the server wrote to standard error: {server.errors}"] if server.errors else []
    return Result(plan=plan, start=start, rounds=rounds, crowd=dict(crowd.gone), tally=tally, faults=found)


async def _first_numbers(plan: Plan, server: Served, site: Site) -> Numbers:
    """Return what a fresh server holds; but its objects are counted when it has made what it makes on first use."""
    fresh = await server.ask("census")
    del fresh["objects"]
    for client in FIRST:
        await client(site)
    warm = await _at_rest(server, fresh, partial(plan.judged, threads=False))
    return {**fresh, "objects": warm["objects"], "seconds": 0, **await _memory(server, fresh)}


async def _memory(server: Served, numbers: Numbers) -> Numbers:
    """Return resident memory as it was found, and without what is free."""
    return {"rss_untrimmed": numbers["rss"], **await server.ask("trimmed")}


async def _at_rest(server: Served, start: Numbers, judged: Callable[[Numbers], Numbers]) -> Numbers:
    """Ask until the numbers are back, or are not in time; return the last ones."""
    deadline = trio.current_time() + REST
    while True:
        numbers: Numbers = await server.ask("census")
        if not astray(start, judged(numbers)) or trio.current_time() > deadline:
            return numbers
        await trio.sleep(PAUSE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {option.name: option.default for option in fields(Plan)}
    for name in ("connects", "every", "at_once"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name])
    parser.add_argument("--server", choices=SERVERS, default=OURS)
    result = trio.run(soak, Plan(**vars(parser.parse_args())), print)
    print(f"\n{result}")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
