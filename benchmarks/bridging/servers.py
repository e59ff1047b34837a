"""Who serves the Django project, and what consumers and requests cost each of them."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.comparing.load import Stalled, sockets, until
from benchmarks.comparing.modes import MICRO, Figures, Load, Plan
from benchmarks.comparing.pages import requests
from benchmarks.comparing.process import START, Server, free_port, served

from .postgres import Postgres

CONSUMERS, CONNECTIONS = 50, 12
WARM_UP = 150
"""Answers to get before anything is measured: the first of each server are dear, and some give few a second."""
REST = 2.0  # seconds at most until a server has come to rest


@dataclass(frozen=True, kw_only=True)
class Peer:
    """``command``: what serves on a port. ``environment``: for the project."""

    title: str
    command: Callable[[int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def ours(app: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *_module("trichannels"), "serve", f"benchmarks.peers.{app}", "--bind", f"127.0.0.1:{port}",
        "--log-level", "warning",
    ]  # fmt: skip


def uvicorn(app: str, http: str = "h11", loop: str = "asyncio") -> Callable[[int], list[str]]:
    """By default as ``pip install uvicorn`` gives it."""
    return lambda port: [
        *_module("uvicorn"), f"benchmarks.peers.{app}", "--port", str(port), "--http", http, "--loop", loop,
        "--ws", "websockets-sansio", "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip


def daphne(app: str) -> Callable[[int], list[str]]:
    return lambda port: [*_module("daphne"), f"benchmarks.peers.{app}", "--port", str(port), "--verbosity", "0"]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


ASKERS = {
    "channels": Peer(title="Channels, uvicorn", command=uvicorn("django_channels:consumers")),
    "ours-10": Peer(
        title="trichannels, 10 lanes", command=ours("django_ours:consumers"), environment={"LANES": "10"}
    ),
    "ours-40": Peer(
        title="trichannels, 40 lanes", command=ours("django_ours:consumers"), environment={"LANES": "40"}
    ),
}  # fmt: skip
PAGES = {
    "ours": Peer(title="trichannels serve", command=ours("django_ours:http")),
    "uvicorn": Peer(title="uvicorn, h11", command=uvicorn("django_asgi:http")),
    "daphne": Peer(title="daphne", command=daphne("django_asgi:http")),
    "uvicorn-best": Peer(
        title="uvicorn, httptools, uvloop", command=uvicorn("django_asgi:http", "httptools", "uvloop")
    ),
    "uvicorn-pool": Peer(
        title="the same, with Django's pool", command=uvicorn("django_asgi:http", "httptools", "uvloop"),
        environment={"POOL": "1"},
    ),
}  # fmt: skip


@contextmanager
def serving(peer: Peer, postgres: Postgres, **more: str) -> Iterator[tuple[Server, str]]:
    """Run a server for the block; gives what its sessions are called, too."""
    port = free_port()
    name = f"served-{port}"
    # No time for TLS that nobody has: who connects often would pay for the question.
    environment = {"POSTGRES_PORT": str(postgres.port), "PGAPPNAME": name, "PGSSLMODE": "disable"}
    settings = [f"{key}={value}" for key, value in {**environment, **peer.environment, **more}.items()]
    try:
        with served(["env", *settings, *peer.command(port)], port) as server:
            yield server, name
    except Stalled as error:
        last_words = "".join(getattr(error, "__notes__", ())).strip().rpartition("\n")[2]
        raise Stalled(f"{error}: {last_words}") from error


def ask(peer: Peer, postgres: Postgres, plan: Plan) -> Figures:
    """Consumers that wait for a query of 20 ms, again and again."""
    with serving(peer, postgres) as (server, name), sockets(server.port, "/ask", CONSUMERS) as crowd:
        figures = loaded(server, plan, crowd.echo, "queries a second", "a query: CPU, µs")
        return {**figures, "sessions of PostgreSQL": postgres.sessions(name)}


def get(peer: Peer, postgres: Postgres, plan: Plan, what: str, **environment: str) -> Figures:
    """GET of a page that takes one query, on connections that are kept alive."""
    with serving(peer, postgres, **environment) as (server, name), requests(server.port, CONNECTIONS) as load:
        figures = loaded(server, plan, load, f"{what}: requests a second", f"{what}: CPU, µs")
        return {**figures, f"{what}: sessions of PostgreSQL": postgres.sessions(name)}


def loaded(server: Server, plan: Plan, load: Load, rate: str, cost: str) -> Figures:
    """Return how much a second, and the server's CPU microseconds for each."""
    load(until(START, WARM_UP))
    server.wait_until_idle(REST)
    spent, began = server.cpu(), time.monotonic()
    done = load(until(plan.seconds, plan.messages))
    took = time.monotonic() - began
    return {rate: done / took, cost: (server.cpu() - spent) / done * MICRO}
