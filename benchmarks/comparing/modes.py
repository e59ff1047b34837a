"""What is measured: each mode loads one fresh server, and returns its figures by name."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .load import Sockets, come_and_go, sockets, until
from .pages import requests
from .probe import probing
from .process import Server

MICRO = 1e6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much load."""

    seconds: float = 1.0
    """For each figure; a message that is under way is waited for."""
    messages: int = 10**9
    sizes: tuple[int, ...] = (1000,)
    """Sockets of a fan-out."""
    in_flight: tuple[int, ...] = (1, 8)
    echoes: int = 10
    """Sockets that echo at the same time."""
    warm_up: float = 0.5
    settle: float = 5.0
    """How long to wait, at most, for a server to come to rest before its memory or CPU time is read."""


Figures = dict[str, float]
Load = Callable[[Callable[[int], bool]], int]


def cost(server: Server, plan: Plan, load: Load, warm_up: Load | None = None) -> float:
    """Return the server's CPU microseconds for each of what ``load`` counts."""
    (warm_up or load)(until(plan.warm_up, plan.messages))
    server.wait_until_idle(plan.settle)
    before = server.cpu()
    done = load(until(plan.seconds, plan.messages))
    return (server.cpu() - before) / done * MICRO


def echo(server: Server, plan: Plan) -> Figures:
    with sockets(server.port, "/echo", plan.echoes) as crowd:
        return {"echo, µs": cost(server, plan, crowd.echo)}


def _fan_out(server: Server, plan: Plan, path: str, size: int) -> Figures:
    figures: Figures = {}
    with sockets(server.port, path, size) as crowd:
        for in_flight in plan.in_flight:
            name = f"{size:,} sockets, {in_flight} in flight, µs"
            figures[name] = cost(server, plan, _broadcasts(crowd, in_flight), _broadcasts(crowd, 1))
    return figures


def _broadcasts(crowd: Sockets, in_flight: int) -> Load:
    return lambda enough: crowd.broadcast(in_flight, enough)


def fan_out_handler(server: Server, plan: Plan) -> Figures:
    """One socket's message goes to all, and a handler of each socket sends it."""
    return _sizes(server, plan, "/group")


def fan_out(server: Server, plan: Plan) -> Figures:
    """One socket's message goes to all, unchanged; through a handler where a peer has no other way."""
    return _sizes(server, plan, "/unchanged")


def _sizes(server: Server, plan: Plan, path: str) -> Figures:
    figures: Figures = {}
    for size in plan.sizes:
        figures |= _fan_out(server, plan, path, size)
        server.wait_until_idle(plan.settle)
    return figures


def memory(server: Server, plan: Plan) -> Figures:
    """How much the server grows for each socket in a group that is silent."""
    figures: Figures = {}
    with sockets(server.port, "/group", max(plan.sizes) // 10) as crowd:
        server.wait_until_idle(plan.settle)
        before = server.pss()
        crowd.connect(max(plan.sizes))
        server.wait_until_idle(plan.settle)
        figures[f"{max(plan.sizes):,} sockets, KiB each"] = (server.pss() - before) / max(plan.sizes) / 1024
    return figures


def churn(server: Server, plan: Plan) -> Figures:
    """Connect, join a group, leave it, disconnect."""

    def load(enough: Callable[[int], bool]) -> int:
        done = 0
        while not enough(done):
            done += come_and_go(server.port, "/group", plan.echoes)
        time.sleep(0.05)  # the last goodbyes
        return done

    return {"connect, join, leave, close, µs": cost(server, plan, load)}


def http(server: Server, plan: Plan) -> Figures:
    """GET on connections that are kept alive."""
    with requests(server.port, plan.echoes) as load:
        return {"HTTP GET, µs": cost(server, plan, load)}


def pause(server: Server, plan: Plan) -> Figures:
    """How long an innocent socket waits for its echo while there are broadcasts to many."""
    figures: Figures = {}
    for size in plan.sizes:
        with sockets(server.port, "/unchanged", size) as crowd, probing(server.port) as probe:
            crowd.broadcast(1, until(plan.warm_up, plan.messages))
            server.wait_until_idle(plan.settle)
            probe.start()
            crowd.broadcast(1, until(plan.seconds, plan.messages))
            figures[f"{size:,} sockets, longest wait, ms"] = probe.longest() * 1000
    return figures


MODES: dict[str, Callable[[Server, Plan], Figures]] = {
    "echo": echo,
    "fanout": fan_out,
    "fanout-handler": fan_out_handler,
    "memory": memory,
    "churn": churn,
    "pause": pause,
    "http": http,
}
