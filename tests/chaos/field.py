"""What a run is fought on: Redis servers of a topology, a proxy before each process, and the server processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.request import ProxyHandler, build_opener

import redis
import trio

from ..ports import free_port
from ..processes import kill_session
from ..proxy import Proxy
from ..redis import topologies
from ..redis.servers import RedisProcess
from ..redis.topologies import RedisCluster, SentinelTrio
from .layers import WORK, settings

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
OPENER = build_opener(ProxyHandler({}))


class Topology(Protocol):
    """The Redis of a run. All methods block: they are run in threads."""

    proxies: list[Proxy]

    @property
    def servers(self) -> list[RedisProcess]:
        """Those that keep data."""

    @property
    def everyone(self) -> list[RedisProcess]:
        """Those, and those that watch them."""

    def masters(self) -> list[RedisProcess]:
        """Those that take writes now, and answer."""

    def url(self, process: int) -> str:
        """Return how the process with that number reaches it."""

    def heal(self) -> None:
        """Let all servers live and answer again."""


class Alone:
    """One server. Each process reaches it through a proxy of its own."""

    def __init__(self, stack: ExitStack, version: str, processes: int, *config: str) -> None:
        self.servers = [stack.enter_context(RedisProcess(version, *config))]
        self.proxies = [stack.enter_context(Proxy(self.servers[0].port)) for _ in range(processes)]

    @property
    def everyone(self) -> list[RedisProcess]:
        return self.servers

    def masters(self) -> list[RedisProcess]:
        return self.servers

    def url(self, process: int) -> str:
        return f"redis://127.0.0.1:{self.proxies[process].port}"

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.resume()
        if not self.servers[0].running:
            self.servers[0].start()


class Watched:
    """A master, its replica, and three sentinels."""

    proxies: list[Proxy] = []  # noqa: RUF012 - there are none: a sentinel tells everybody the same address

    def __init__(self, stack: ExitStack, version: str, processes: int) -> None:
        self.trio = SentinelTrio(stack, version, down_after=1000)

    @property
    def servers(self) -> list[RedisProcess]:
        return self.trio.servers

    @property
    def everyone(self) -> list[RedisProcess]:
        return [*self.trio.servers, *self.trio.sentinels]

    def masters(self) -> list[RedisProcess]:
        return [self.trio.master]

    def url(self, process: int) -> str:
        return self.trio.url

    def heal(self) -> None:
        for server in self.everyone:
            if not server.running:
                server.start()
        self.trio.wait_until_ready()

    def fail_over(self) -> None:
        """The sentinels are told to make the replica the master."""
        self.trio.failover()
        self.trio.wait_until_ready()

    def lose_master(self) -> None:
        """kill -9 of the master; it comes back when the replica has taken over."""
        master = self.trio.master
        master.kill()
        self.trio.wait_for_another(master)
        self.heal()

    def hang_master(self) -> None:
        """SIGSTOP of the master, until the replica has taken over: then there are two for a moment."""
        master = self.trio.master
        master.stop()
        try:
            self.trio.wait_for_another(master)
        finally:
            master.cont()
        self.trio.wait_until_ready()


class Sharded:
    """A cluster of three masters with a replica each."""

    proxies: list[Proxy] = []  # noqa: RUF012 - there are none: a node tells everybody the same address

    def __init__(self, stack: ExitStack, version: str, processes: int) -> None:
        self.cluster = RedisCluster(stack, version, replicas=1)

    @property
    def servers(self) -> list[RedisProcess]:
        return self.cluster.servers

    @property
    def everyone(self) -> list[RedisProcess]:
        return self.servers

    def masters(self) -> list[RedisProcess]:
        return [server for server in self.servers if server.running and server.admin("ROLE")[0] == "master"]

    def url(self, process: int) -> str:
        return self.cluster.url

    def heal(self) -> None:
        for server in self.servers:
            if not server.running:
                server.start()
        until(lambda: all("cluster_state:ok" in server.admin("CLUSTER", "INFO") for server in self.servers))
        until(lambda: len(self._replicas()) == 3)

    def _replicas(self) -> list[RedisProcess]:
        """Return those that follow a master, and are up to date."""
        roles = [(server, server.admin("ROLE")) for server in self.servers]
        return [server for server, role in roles if role[0] == "slave" and role[3] == "connected"]

    def lose_master(self, slot: int) -> None:
        """kill -9 of a master; it comes back when its replica has taken over."""
        master = self.cluster.owner(slot)
        master.kill()
        until(lambda: self.cluster.owner(slot) is not master)
        self.heal()

    def fail_over(self, slot: int) -> None:
        """A replica takes over from its living master."""
        master = self.cluster.owner(slot)
        following = [server for server in self._replicas() if int(server.admin("ROLE")[2]) == master.port]
        for attempt in range(3 if following else 0):  # a node gives up after five seconds
            following[0].admin("CLUSTER", "FAILOVER")
            try:
                topologies.until(lambda: self.cluster.owner(slot) is following[0], "the failover", 7)
            except AssertionError:
                if attempt == 2:
                    raise
            else:
                break
        self.heal()

    def move_slot(self, slot: int, pause: float) -> None:
        """A slot goes to another master, key by key; ``pause``: seconds in the middle of it."""
        source = self.cluster.owner(slot)
        target = random.Random(slot).choice([server for server in self.masters() if server is not source])
        here, there = self.cluster.id_of(source), self.cluster.id_of(target)
        target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        time.sleep(pause)  # in a thread
        while keys := source.admin("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.admin("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for server in (target, source, *(each for each in self.masters() if each not in (source, target))):
            server.admin("CLUSTER", "SETSLOT", slot, "NODE", there)
        until(lambda: all(self._owner_at(server, slot) == target.port for server in self.servers))

    def _owner_at(self, server: RedisProcess, slot: int) -> int:
        for first, last, (_, port, *_rest), *_ in server.admin("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(port)
        return 0


def until(condition: Callable[[], object]) -> None:
    """Wait for something that foreign processes do, and tell nobody of."""
    topologies.until(condition, "what the run waits for")


TOPOLOGIES: dict[str, Callable[[ExitStack, str, int], Topology]] = {
    "standalone": Alone,
    "sentinel": Watched,
    "cluster": Sharded,
}


class Serving:
    """``trichannels serve`` as a process on a port that stays; what it says goes to a file."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        self.number, self.port, self.kills = number, free_port(), 0
        self.gone = False  # killed, and not there again
        self._environment, self.log = environment, folder / f"server{number}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"server {self.number}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Begin; it needs about a second."""
        command = [sys.executable, "-m", "trichannels", "serve", "tests.chaos.app:application"]
        command += ["--bind", f"127.0.0.1:{self.port}", "--log-level", "warning"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self.kills += 1
        self.gone = True
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()

    async def up(self) -> None:
        """Start it, until it answers: while Redis is away, it ends again."""
        with trio.fail_after(PATIENCE):
            while True:
                if not self.running:
                    await trio.to_thread.run_sync(self.start)
                try:
                    await self.numbers()
                except OSError:
                    await trio.sleep(0.05)
                else:
                    self.gone = False
                    return

    async def numbers(self) -> dict[str, int]:
        """Ask it what it holds."""
        found: dict[str, int] = json.loads(await self.page("numbers"))
        return found

    async def page(self, name: str) -> bytes:
        """Return a page that it serves."""
        url = f"http://127.0.0.1:{self.port}/{name}/"
        return await trio.to_thread.run_sync(partial(_get, url))

    async def end(self) -> int:
        """SIGTERM; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await trio.to_thread.run_sync(partial(self._process.wait, PATIENCE))


def _get(url: str) -> bytes:
    with OPENER.open(url, timeout=5) as answer:
        read: bytes = answer.read()
        return read


class Working:
    """``trichannels worker`` as a process; what it says goes to a file."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        self._environment, self.log = environment, folder / f"worker{number}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def start(self) -> None:
        """Start it, unless it is there."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, "-m", "trichannels", "worker", "tests.chaos.app:application", WORK]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--log-level", "warning", "--retries", "1000"], cwd=ROOT, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()

    def stop(self) -> None:
        self._tell(signal.SIGSTOP)

    def cont(self) -> None:
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None:
                os.kill(self._process.pid, number)


class Field:
    """Everything that a fault may touch."""

    def __init__(self, topology: Topology, servings: list[Serving], folder: Path, prefix: str) -> None:
        self.topology, self.servings, self.folder, self.prefix = topology, servings, folder, prefix
        self.workings: list[Working] = []
        self.locks: dict[object, trio.Lock] = {}
        self.snapshots: dict[int, Path] = {}  # by port: an old state of a server's data

    def lock(self, thing: object) -> trio.Lock:
        """Return what keeps two faults from doing things to one server, process or proxy at once."""
        return self.locks.setdefault(thing, trio.Lock())

    def environment(self, process: int) -> dict[str, str]:
        return environment(self.topology.url(process), self.prefix)

    async def heal(self) -> None:
        """End all faults."""
        await trio.to_thread.run_sync(self.topology.heal)
        async with trio.open_nursery() as nursery:
            for serving in self.servings:
                nursery.start_soon(serving.up)

    def admin(self, server: RedisProcess, *command: Any) -> Any:
        """Run a command, if the server is there."""
        try:
            return server.admin(*command)
        except (redis.exceptions.RedisError, OSError) as error:
            return error


def environment(url: str, prefix: str) -> dict[str, str]:
    """Return the environment of a process that has a layer."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", **settings(url, prefix)}


@contextmanager
def open_field(topology: str, version: str, servers: int, others: int, prefix: str) -> Iterator[Field]:
    """Start the Redis of a run; the server processes are made, and not started. ``others``: processes that publish."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redises = TOPOLOGIES[topology](stack, version, servers + others)
        servings = [Serving(number, environment(redises.url(number), prefix), folder) for number in range(servers)]
        for serving in servings:
            stack.callback(serving.kill)
        yield Field(redises, servings, folder, prefix)
