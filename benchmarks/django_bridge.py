"""Django on the bridge, next to Channels, uvicorn and daphne: queries, requests, sends, and calls. Linux only.

    python -m benchmarks.django_bridge [--rounds N] [--seconds S] [--only queries|requests|sends|calls]

The server, or the program that is measured, has a core; PostgreSQL, Redis and the load have the other. The peers take
turns, round by round; medians are printed, each as a ratio to one of them in the same run. CPU time is that of the
server alone, without PostgreSQL or Redis.
"""

import argparse
from collections.abc import Sequence
from statistics import median

from benchmarks.across.processes import LOAD_CORE, SERVER_CORE, module, open_redis, redis_version, result_of
from benchmarks.bridging.postgres import open_postgres
from benchmarks.bridging.servers import ASKERS, PAGES, ask, get
from benchmarks.comparing.modes import Figures, Plan
from benchmarks.comparing.process import end_in_order, raise_limits
from benchmarks.redis_layer import Rows, rounds_of, table

RATE, BARE, WHOLE = "queries a second", "select 1", "ORM, five middleware"
SEND = "a send: CPU, ms"
SENDS = {
    "in-lane": "trichannels, in a lane of a server",
    "without-loop": "trichannels, without a loop",
    "theirs-without-loop": "Channels, async_to_sync, without a loop",
    "theirs-in-view": "Channels, async_to_sync, in a view under ASGI",
}
ON_TRIO = {"bridge-trio": "Bridge.run, trio", "anyio-trio": "anyio.to_thread.run_sync, trio"}
ON_ASYNCIO = {
    "bridge-asyncio": "Bridge.run, asyncio",
    "anyio-asyncio": "anyio.to_thread.run_sync, asyncio",
    "asgiref": "asgiref, sync_to_async(thread_sensitive=True)",
}


def share(rows: Rows, figure: str, ours: str, theirs: str) -> float:
    """Return the ratio of two medians."""
    return median(rows[ours][figure]) / median(rows[theirs][figure])


def told(goal: str, value: float, reached: bool) -> None:
    print(f"  goal: {goal}: {value:.2f}, {'reached' if reached else 'MISSED'}")


def queries(rounds: int, plan: Plan) -> None:
    """50 consumers that wait for PostgreSQL."""
    with open_postgres() as postgres:
        rows = rounds_of(list(ASKERS), rounds, lambda name: ask(ASKERS[name], postgres, plan))
    table(rows, {name: peer.title for name, peer in ASKERS.items()}, "channels")
    for name, times in (("ours-10", 8), ("ours-40", 25)):
        found = share(rows, RATE, name, "channels")
        told(f"{ASKERS[name].title}, at least {times} × the queries of Channels", found, found >= times)


def requests(rounds: int, plan: Plan) -> None:
    """A page that takes one query."""
    with open_postgres() as postgres:

        def once(name: str) -> Figures:
            bare = get(PAGES[name], postgres, plan, BARE)
            return bare | get(PAGES[name], postgres, plan, WHOLE, MIDDLEWARE="1")

        rows = rounds_of(list(PAGES), rounds, once)
    table(rows, {name: peer.title for name, peer in PAGES.items()}, "ours")
    for what in (BARE, WHOLE):
        for name in ("uvicorn", "daphne"):
            found = share(rows, f"{what}: CPU, µs", "ours", name)
            told(f"{what}, at most 0.7 of the CPU time of {PAGES[name].title}", found, found <= 0.7)


def sends(rounds: int, plan: Plan) -> None:
    """group_send, from blocking code."""
    with open_redis() as redis:
        rows = rounds_of(list(SENDS), rounds, lambda name: program(name, plan.seconds, redis.url))
    table(rows, SENDS, "in-lane")
    for name in ("in-lane", "without-loop"):
        found = median(rows[name][SEND])
        told(f"{SENDS[name]}, at most 0.5 ms of CPU", found, found <= 0.5)


def calls(rounds: int, plan: Plan) -> None:
    """What it costs to have nothing done in a thread."""
    rows = rounds_of([*ON_TRIO, *ON_ASYNCIO], rounds, lambda name: program(name, plan.seconds))
    for titles in (ON_TRIO, ON_ASYNCIO):
        table({name: rows[name] for name in titles}, titles, next(iter(titles)))


def program(name: str, *arguments: object) -> Figures:
    found: Figures = result_of(module("benchmarks.bridging.programs", name, *arguments))
    return found


PARTS = {"queries": queries, "requests": requests, "sends": sends, "calls": calls}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args(arguments)
    raise_limits()
    end_in_order()
    where = f"servers on core {SERVER_CORE}; PostgreSQL, Redis {redis_version()} and the load on core {LOAD_CORE}"
    print(f"{where}; {options.rounds} rounds of {options.seconds:g} s a figure")
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(options.rounds, Plan(seconds=options.seconds))


if __name__ == "__main__":
    main()
