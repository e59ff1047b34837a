"""Several Redis servers as one: three sentinels with a master and its replica, and a cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import Any

import redis

from ..ports import free_port
from .servers import RedisProcess

PATIENCE = 90.0  # a sentinel that was stopped for two seconds acts no more for thirty (its "TILT mode")
FAILOVER = 8.0  # seconds after which a failover that did not come about is asked for again
BUS = 10_000  # by so much is the port higher on which the nodes of a cluster talk to each other


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for something that foreign processes do, and tell nobody of."""
    end = time.monotonic() + patience
    while True:
        with suppress(redis.exceptions.RedisError, OSError):
            if condition():
                return
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.02)


class SentinelTrio:
    """A master, a replica, and three sentinels that watch them under the name ``mymaster``."""

    name = "mymaster"

    def __init__(self, stack: ExitStack, version: str = "7", down_after: int = 500) -> None:
        self.servers = [stack.enter_context(RedisProcess(version)) for _ in range(2)]
        first, second = self.servers
        second.admin("REPLICAOF", "127.0.0.1", first.port)
        self.sentinels = [
            stack.enter_context(
                RedisProcess(
                    version,
                    f"sentinel monitor {self.name} 127.0.0.1 {first.port} 2",
                    f"sentinel down-after-milliseconds {self.name} {down_after}",
                    f"sentinel failover-timeout {self.name} 3000",
                    f"sentinel parallel-syncs {self.name} 1",
                    sentinel=True,
                )
            )
            for _ in range(3)
        ]
        self.wait_until_ready()

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{self.name}"

    def ask(self, *command: Any) -> Any:
        """Ask the first sentinel that lives."""
        for sentinel in self.sentinels:
            if sentinel.running:
                client = redis.Redis(port=sentinel.port, decode_responses=True)
                try:
                    return client.execute_command("SENTINEL", *command)  # type: ignore[no-untyped-call]
                finally:
                    client.close()
        raise AssertionError("no sentinel lives")

    @property
    def master(self) -> RedisProcess:
        """The server that the sentinels call the master."""
        _, port = self.ask("GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self.servers if server.port == int(port))

    def wait_until_ready(self) -> None:
        """Wait until all know of each other, and the replica has all that the master has."""
        until(lambda: all(len(self._seen(s, "REPLICAS")) == 1 for s in self.sentinels), "the replica's discovery")
        until(lambda: all(len(self._seen(s, "SENTINELS")) == 2 for s in self.sentinels), "the sentinels' meeting")
        until(
            lambda: (
                sorted(server.admin("ROLE")[0] for server in self.servers) == ["master", "slave"]
                and next(r for r in (s.admin("ROLE") for s in self.servers) if r[0] == "slave")[3] == "connected"
            ),
            "the replication",
        )

    def _seen(self, sentinel: RedisProcess, what: str) -> Any:
        client = redis.Redis(port=sentinel.port, decode_responses=True)
        try:
            return client.execute_command("SENTINEL", what, self.name)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def failover(self) -> None:
        """Have the replica made the master, and wait until it is."""
        before, asked_at = self.master, -inf

        def done() -> bool:
            nonlocal asked_at
            if self._another_than(before):
                return True
            if time.monotonic() > asked_at + FAILOVER:  # sentinels give one up that takes them too long
                self.ask("FAILOVER", self.name)
                asked_at = time.monotonic()
            return False

        until(done, "the failover")
        self.demote(before)

    def demote(self, former: RedisProcess) -> None:
        """Make a former master a replica, as the sentinels would after eight seconds."""
        former.admin("REPLICAOF", "127.0.0.1", self.master.port)

    def wait_for_another(self, before: RedisProcess) -> None:
        """Wait until another server is the master."""
        until(lambda: self._another_than(before), "the failover")

    def _another_than(self, before: RedisProcess) -> bool:
        return self.master is not before and self.master.admin("ROLE")[0] == "master"


class RedisCluster:
    """Three masters, each with as many replicas as wanted."""

    def __init__(self, stack: ExitStack, version: str = "7", replicas: int = 0) -> None:
        config = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        config += ["--cluster-replica-validity-factor", "0"]
        servers = [
            stack.enter_context(RedisProcess(version, *config, port=free_port(and_above=BUS)))
            for _ in range(3 + 3 * replicas)
        ]
        self.masters, self.replicas = servers[:3], servers[3:]
        for number, server in enumerate(self.servers, 1):
            server.admin("CLUSTER", "SET-CONFIG-EPOCH", number)
        for index, server in enumerate(self.masters):
            server.admin("CLUSTER", "ADDSLOTSRANGE", index * 16384 // 3, (index + 1) * 16384 // 3 - 1)
        for server in self.servers[1:]:
            server.admin("CLUSTER", "MEET", "127.0.0.1", self.masters[0].port)
        self._wait("cluster_state:ok", "cluster_slots_ok:16384", f"cluster_known_nodes:{len(self.servers)}")
        for index, replica in enumerate(self.replicas):
            master = self.id_of(self.masters[index % 3])
            until(lambda r=replica, m=master: r.admin("CLUSTER", "REPLICATE", m), "the replication's beginning")  # type: ignore[misc]
        for replica in self.replicas:
            until(lambda r=replica: r.admin("INFO", "replication")["master_link_status"] == "up", "the replication")  # type: ignore[misc]
        if replicas:
            until(lambda: self.masters[0].admin("CLUSTER", "NODES").count(" slave ") >= len(self.replicas), "the news")

    def _wait(self, *facts: str) -> None:
        for server in self.servers:
            until(lambda s=server: all(fact in s.admin("CLUSTER", "INFO") for fact in facts), f"{facts}")  # type: ignore[misc]

    @property
    def servers(self) -> list[RedisProcess]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.masters)}"

    def id_of(self, server: RedisProcess) -> str:
        return str(server.admin("CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisProcess:
        """Return the master that has a slot, as the first living server sees it."""
        alive = next(server for server in self.servers if server.running)
        for first, last, (_, port, *_rest), *_ in alive.admin("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    @contextmanager
    def migrating(self, slot: int) -> Iterator[tuple[RedisProcess, RedisProcess]]:
        """For the block, a slot is on its way to another master, and keys that are gone answer ASK; then it moves."""
        source = self.owner(slot)
        target = next(server for server in self.masters if server is not source and server.running)
        target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        yield source, target
        while keys := source.admin("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.admin("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for server in (target, source, *(s for s in self.masters if s not in (source, target) and s.running)):
            server.admin("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def migrate(self, slot: int) -> None:
        """Move a slot to another master."""
        with self.migrating(slot):
            pass


@contextmanager
def sentinel_trio(version: str = "7") -> Iterator[SentinelTrio]:
    with ExitStack() as stack:
        yield SentinelTrio(stack, version)


@contextmanager
def redis_cluster(version: str = "7", replicas: int = 0) -> Iterator[RedisCluster]:
    with ExitStack() as stack:
        yield RedisCluster(stack, version, replicas)
