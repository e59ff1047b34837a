"""The Redis layer next to channels_redis and Litestar: fan-out over two processes, publishing, a burst. Linux only.

    python -m benchmarks.redis_layer [--rounds N] [--seconds S] [--only fan-out|publish|burst]

Two servers of 500 sockets each share a core; the load and a Redis of its own have the other. The peers take turns,
round by round; medians are printed, each as a ratio to ours in the same run. CPU time is that of both servers together.
"""

import argparse
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.across.fanout import fan_out
from benchmarks.across.peers import PEERS
from benchmarks.across.processes import LOAD_CORE, SERVER_CORE, module, open_redis, pinned, redis_version, result_of
from benchmarks.comparing.frames import PAYLOAD
from benchmarks.comparing.load import Stalled
from benchmarks.comparing.modes import Plan
from benchmarks.comparing.process import end_in_order, raise_limits

SOCKETS = 500
BURST = 10_000
Rows = Mapping[str, Mapping[str, Sequence[float]]]


def rounds_of(names: Sequence[str], rounds: int, once: Callable[[str], Mapping[str, float]]) -> Rows:
    """Let each have its turn in each round; return what was found, by name and figure."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        for name in names:
            try:
                for figure, value in once(name).items():
                    found[name][figure].append(value)
            except Stalled as error:
                print(f"round {number + 1}: {name} was left out: {str(error)[:300]}")
    return found


def table(rows: Rows, titles: Mapping[str, str], against: str) -> None:
    """Print medians, and beside each how many times ours it is."""
    figures = list(rows[against])
    for figure in figures:
        print(f"\n{figure}")
        ours = median(rows[against][figure])
        for name, columns in rows.items():
            if columns.get(figure):
                value = median(columns[figure])
                print(f"  {titles.get(name, name):<46}{value:>12,.2f}{value / ours:>9.2f} x")


def fan_outs(rounds: int, seconds: float) -> None:
    plan = Plan(seconds=seconds, sizes=(SOCKETS,), in_flight=(1, 8))
    rows = rounds_of(list(PEERS), rounds, lambda name: fan_out(PEERS[name], plan))
    table(rows, {name: peer.title for name, peer in PEERS.items()}, "ours")


def publish(name: str, seconds: float) -> Mapping[str, float]:
    with open_redis() as redis:
        if name == "redis-benchmark -P 100":
            return {"published a second": redis_benchmark(redis.port)}
        found = result_of(module("benchmarks.across.programs", name, redis.url, seconds))
        return {"published a second": found["rate"], "CPU, µs": found["cpu"]}


def redis_benchmark(port: int) -> float:
    """Return how many messages a second redis-benchmark publishes, on the core that ours has."""
    command = [
        "redis-benchmark",
        "-p",
        str(port),
        "-P",
        "100",
        "-n",
        "1000000",
        "-q",
        "PUBLISH",
        "all",
        PAYLOAD.decode(),
    ]

    with pinned(SERVER_CORE):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"([\d.]+) requests per second", output)[-1])


def publishing(rounds: int, seconds: float) -> None:
    names = [
        "publish-many", "redis-benchmark -P 100", "publish-tasks", "publish-history", "publish-core", "publish-pubsub",
    ]  # fmt: skip
    table(rounds_of(names, rounds, lambda name: publish(name, seconds)), {}, "publish-many")


def bursts(rounds: int, seconds: float) -> None:
    def once(name: str) -> Mapping[str, float]:
        with open_redis() as redis:
            arrived = result_of(module("benchmarks.across.programs", name, redis.url, BURST))["arrived"]
            return {f"of a burst of {BURST:,}, arrived": arrived}

    table(rounds_of(["burst-ours", "burst-core", "burst-pubsub"], 1, once), {}, "burst-ours")


PARTS = {"fan-out": fan_outs, "publish": publishing, "burst": bursts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    raise_limits()
    end_in_order()
    print(f"Redis {redis_version()} on core {LOAD_CORE}, {options.rounds} rounds of {options.seconds:g} s a figure")
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
