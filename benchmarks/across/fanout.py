"""Two server processes, one group: what a delivery costs both, what it costs Redis, and how long it takes."""

from statistics import quantiles

from benchmarks.comparing.load import until
from benchmarks.comparing.modes import MICRO, Figures, Plan
from benchmarks.comparing.process import Server, free_port

from .crowd import Crowd, crowd
from .peers import Peer
from .processes import Redis, open_redis, open_servers

FEW = 5
"""Sockets of each server where the way itself is timed, not the many who wait for their turn."""


def fan_out(peer: Peer, plan: Plan) -> Figures:
    """Start a Redis and two servers, fill them, and load them."""
    ports = [free_port(), free_port()]
    figures: Figures = {}
    with open_redis() as redis, open_servers([(peer.on(redis, port), port) for port in ports]) as servers:
        with crowd(ports, peer.path, max(plan.sizes)) as many:
            many.broadcast(1, until(plan.warm_up, plan.messages))
            for in_flight in plan.in_flight:
                figures |= _costs(servers, redis, plan, many, in_flight)
            figures |= _latencies(many, plan, f"2 × {max(plan.sizes)}")
        _rest(servers, plan)
        with crowd(ports, peer.path, FEW) as few:
            few.broadcast(1, until(plan.warm_up, plan.messages))
            figures |= _latencies(few, plan, f"2 × {FEW}")
    return figures


def _rest(servers: list[Server], plan: Plan) -> None:
    for server in servers:
        server.wait_until_idle(plan.settle)


def _costs(servers: list[Server], redis: Redis, plan: Plan, many: Crowd, in_flight: int) -> Figures:
    _rest(servers, plan)
    spent, redis_spent = sum(server.cpu() for server in servers), redis.cpu()
    done = many.broadcast(in_flight, until(plan.seconds, plan.messages))
    spent, redis_spent = sum(server.cpu() for server in servers) - spent, redis.cpu() - redis_spent
    return {
        f"{in_flight} in flight, µs": spent / done * MICRO,
        f"Redis, {in_flight} in flight, µs": redis_spent / done * MICRO,
    }


def _latencies(held: Crowd, plan: Plan, where: str) -> Figures:
    here, there = held.latencies(until(plan.seconds, plan.messages))
    figures: Figures = {}
    for name, values in (("own", here), ("other", there)):
        cuts = quantiles(values, n=100, method="inclusive")
        figures[f"{where}, {name} process, p50 ms"] = cuts[49] * 1000
        figures[f"{where}, {name} process, p99 ms"] = cuts[98] * 1000
    return figures
