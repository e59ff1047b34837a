"""A Redis of our own, two servers on it, programs beside them; each on its core. Linux only.

Whatever speaks to Redis has one core; Redis, and the load of the servers, have the other.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.comparing.load import Stalled
from benchmarks.comparing.process import ROOT, Server, cores, free_port, served

EVERYWHERE = os.sched_getaffinity(0)
LOAD_CORE, SERVER_CORE = cores()
PATIENCE = 300.0  # seconds for one program


class Redis(Server):
    """A running redis-server."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Have what is started within the block on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def open_redis() -> Iterator[Redis]:
    """Run a redis-server that keeps nothing, for the block."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with pinned(LOAD_CORE):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        redis = Redis(process, port)
        try:
            redis.wait_until_listening()
            yield redis
        finally:
            redis.kill()


@contextmanager
def open_servers(commands: Sequence[tuple[list[str], int]]) -> Iterator[list[Server]]:
    """Run servers, each a command and the port it listens on, for the block."""
    with ExitStack() as stack:
        servers = []
        for command, port in commands:
            servers.append(stack.enter_context(served(command, port)))
            os.sched_setaffinity(0, EVERYWHERE)  # the next one's core is looked for anew
        with pinned(LOAD_CORE):
            yield servers


def module(name: str, *arguments: object, **environment: str) -> list[str]:
    """Return the command that runs a module with some environment."""
    settings = [f"{key}={value}" for key, value in environment.items()]
    return ["env", *settings, sys.executable, "-m", name, *map(str, arguments)]


def result_of(command: Sequence[str]) -> Any:
    """Run a program on the servers' core; return what it has printed, as JSON."""
    with pinned(SERVER_CORE):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise Stalled(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def redis_version() -> str:
    """Return the version of redis-server."""
    told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return told.partition("v=")[2].partition(" ")[0]
