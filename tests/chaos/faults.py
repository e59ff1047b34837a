"""The faults, and the schedule that a seed makes of them. Each fault does its harm, lasts a while, and ends itself."""

import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import trio

from trichannels.layers.redis.slots import slot_of

from ..proxy import Proxy
from ..redis.servers import RedisProcess
from .field import Alone, Field, Sharded, Watched
from .layers import CLAIM, GROUPS, PING, PING_INTERVAL
from .timeline import Timeline

Act: TypeAlias = Callable[[Field, random.Random], Awaitable[None]]

LONGEST = 150.0  # seconds that a fault may take before the run is given up
GIVEN_UP = PING_INTERVAL + PING  # seconds of silence after which a connection is given up
in_thread = trio.to_thread.run_sync


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a schedule. ``seed`` decides everything about it."""

    name: str
    seed: int
    pause: float  # seconds before it
    beside: bool  # the next one does not wait for its end


def make_schedule(
    seed: int, count: int, table: str, rest: float = 0.25, emphasis: Mapping[str, float] = MappingProxyType({})
) -> list[Planned]:
    """Return the faults of a run, and when they come; ``rest`` is the mean of the pauses, in seconds.

    ``emphasis`` says by what a fault's weight is multiplied; 0 leaves it out.
    """
    chance = random.Random(f"schedule {seed}")
    names = list(FAULTS[table])
    weights = [weight * emphasis.get(name, 1) for name, (weight, _) in FAULTS[table].items()]
    return [
        Planned(name, chance.randrange(2**32), chance.uniform(0, 2 * rest), chance.random() < 0.2)
        for name in chance.choices(names, weights, k=count)
    ]


async def make_faults(schedule: Sequence[Planned], field: Field, table: str, timeline: Timeline) -> None:
    """Commit one after the other, some beside the next; returns when all are over."""
    async with trio.open_nursery() as nursery:
        for planned in schedule:
            await trio.sleep(planned.pause)
            if planned.beside:
                nursery.start_soon(_noted, planned, field, table, timeline)
            else:
                await _noted(planned, field, table, timeline)


async def _noted(planned: Planned, field: Field, table: str, timeline: Timeline) -> None:
    with timeline.fault(planned.name, f"{planned.name} ({planned.seed})"), trio.fail_after(LONGEST):
        await commit(planned, field, table)


async def commit(planned: Planned, field: Field, table: str) -> None:
    """Do it; returns when it is over."""
    await FAULTS[table][planned.name][1](field, random.Random(planned.seed))


# ---- a server


def some_server(field: Field, chance: random.Random) -> RedisProcess:
    return chance.choice(field.topology.servers)


def some_master(field: Field, chance: random.Random) -> RedisProcess:
    return chance.choice(field.topology.masters())


@asynccontextmanager
async def held(field: Field, thing: Any) -> AsyncIterator[None]:
    """Where servers look after each other, only one of them is harmed at a time."""
    alone = not isinstance(thing, RedisProcess) or isinstance(field.topology, Alone)
    async with field.lock(id(thing if alone else field.topology)):
        yield


async def _restart(field: Field, server: RedisProcess, chance: random.Random, prepare: Callable[[], object]) -> None:
    async with held(field, server):
        await in_thread(server.kill)
        prepare()
        if chance.random() < 0.5:
            await trio.sleep(chance.uniform(0, 2 * GIVEN_UP))
        await in_thread(server.start)


def _dump(server: RedisProcess) -> Any:
    return server.folder / "dump.rdb"


async def kill_and_forget(field: Field, chance: random.Random) -> None:
    """kill -9; it comes back without its data."""
    server = some_server(field, chance)
    await _restart(field, server, chance, lambda: _dump(server).unlink(missing_ok=True))


async def kill_and_keep(field: Field, chance: random.Random) -> None:
    """kill -9 right after a snapshot; it comes back with that: what came after is lost."""
    server = some_server(field, chance)
    async with held(field, server):
        await in_thread(partial(field.admin, server, "SAVE"))
        await trio.sleep(chance.uniform(0, 0.1))
    await _restart(field, server, chance, lambda: None)


async def kill_and_go_back(field: Field, chance: random.Random) -> None:
    """kill -9; it comes back with a snapshot from some faults ago, and one for the next time is taken."""
    server = some_server(field, chance)
    old = field.folder / f"{server.port}.rdb"

    def take() -> None:
        field.admin(server, "SAVE")
        if _dump(server).exists():
            shutil.copy(_dump(server), old.with_suffix(".new"))

    def go_back() -> None:
        if old.exists():
            shutil.copy(old, _dump(server))
        if old.with_suffix(".new").exists():
            old.with_suffix(".new").replace(old)

    await in_thread(take)
    await _restart(field, server, chance, go_back)


async def hang(field: Field, chance: random.Random) -> None:
    """SIGSTOP, mostly for longer than a ping may take, and SIGCONT."""
    server = some_server(field, chance)
    async with held(field, server):
        server.stop()
        try:
            await trio.sleep(chance.uniform(0.5, 2) * GIVEN_UP)
        finally:
            server.cont()


async def _told(field: Field, chance: random.Random, *command: str) -> None:
    async with held(field, field.topology):
        await in_thread(lambda: field.admin(some_master(field, chance), *command))


async def kill_commands(field: Field, chance: random.Random) -> None:
    await _told(field, chance, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def kill_subscriptions(field: Field, chance: random.Random) -> None:
    await _told(field, chance, "CLIENT", "KILL", "TYPE", "pubsub")


async def kill_all_clients(field: Field, chance: random.Random) -> None:
    await kill_commands(field, chance)
    await kill_subscriptions(field, chance)


async def pause_clients(field: Field, chance: random.Random) -> None:
    """CLIENT PAUSE: it hangs, for some, but answers others."""
    milliseconds = int(1000 * chance.uniform(0.2, 1.5) * GIVEN_UP)
    await _told(field, chance, "CLIENT", "PAUSE", str(milliseconds), chance.choice(["WRITE", "ALL"]))
    await trio.sleep(milliseconds / 1000)


async def flush(field: Field, chance: random.Random) -> None:
    await _told(field, chance, "FLUSHALL")


async def forget_scripts(field: Field, chance: random.Random) -> None:
    await _told(field, chance, "SCRIPT", "FLUSH")


# ---- the way to it


async def _partition(field: Field, chance: random.Random, harm: Callable[[Proxy], None], longest: float) -> None:
    proxy = chance.choice(field.topology.proxies)
    async with held(field, proxy):
        await in_thread(partial(harm, proxy))
        try:
            await trio.sleep(chance.uniform(0, longest))
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(proxy.resume)


async def silence(field: Field, chance: random.Random) -> None:
    """Nothing gets through between one process and Redis, and nobody is told."""
    await _partition(field, chance, Proxy.pause, 2 * GIVEN_UP)


async def cut(field: Field, chance: random.Random) -> None:
    await _partition(field, chance, Proxy.cut, 0)


async def refuse(field: Field, chance: random.Random) -> None:
    await _partition(field, chance, Proxy.refuse, 1.5 * GIVEN_UP)


async def cut_in_the_middle(field: Field, chance: random.Random) -> None:
    """After so many bytes, perhaps between a frame's first and its last."""
    size = int(chance.expovariate(1 / 2000))
    await _partition(field, chance, lambda proxy: proxy.cut_after(size), 0.3)


# ---- the server processes


async def kill_server(field: Field, chance: random.Random) -> None:
    """kill -9 of a process that serves sockets; another one takes its port."""
    serving = chance.choice(field.servings)
    async with held(field, serving):
        if serving.running:
            await in_thread(serving.kill)
        await serving.up()


async def stall_server(field: Field, chance: random.Random) -> None:
    """A process that serves sockets does nothing for a while."""
    serving = chance.choice(field.servings)
    async with held(field, serving):
        with suppress(ProcessLookupError):
            os.kill(serving.pid, signal.SIGSTOP)
            try:
                await trio.sleep(chance.uniform(0, 1.5 * GIVEN_UP))
            finally:
                os.kill(serving.pid, signal.SIGCONT)


# ---- the workers


async def kill_and_return(field: Field, chance: random.Random) -> None:
    """kill -9 of a server that has written all to its disk, and comes back with it."""
    await _restart(field, some_server(field, chance), chance, lambda: None)


async def kill_worker(field: Field, chance: random.Random) -> None:
    """kill -9, in the middle of jobs."""
    working = chance.choice(field.workings)
    async with held(field, working):
        await in_thread(working.kill)
        await trio.sleep(chance.uniform(0, 0.5))
        await in_thread(working.start)


async def stall_worker(field: Field, chance: random.Random) -> None:
    """A worker does nothing, perhaps for so long that it is taken for dead."""
    working = chance.choice(field.workings)
    async with held(field, working):
        working.stop()
        try:
            await trio.sleep(chance.uniform(0, 2 * CLAIM))
        finally:
            working.cont()


# ---- sentinel and cluster


async def fail_over(field: Field, chance: random.Random) -> None:
    """The sentinels are told to make the replica the master."""
    assert isinstance(field.topology, Watched)
    async with held(field, field.topology):
        await in_thread(field.topology.fail_over)


async def lose_master(field: Field, chance: random.Random) -> None:
    """kill -9 of the master; it comes back when the replica has taken over."""
    assert isinstance(field.topology, Watched)
    async with held(field, field.topology):
        await in_thread(field.topology.lose_master)


async def hang_master(field: Field, chance: random.Random) -> None:
    """SIGSTOP of the master, until the replica has taken over: then there are two for a moment."""
    assert isinstance(field.topology, Watched)
    async with held(field, field.topology):
        await in_thread(field.topology.hang_master)


async def lose_sentinel(field: Field, chance: random.Random) -> None:
    assert isinstance(field.topology, Watched)
    sentinel = chance.choice(field.topology.trio.sentinels)
    async with held(field, field.topology):
        await in_thread(sentinel.kill)
        await trio.sleep(chance.uniform(0, 0.5))
        await in_thread(sentinel.start)


async def lose_shard(field: Field, chance: random.Random) -> None:
    """kill -9 of one of the cluster's masters; it comes back as a replica, when its own has taken over."""
    assert isinstance(field.topology, Sharded)
    async with held(field, field.topology):
        await in_thread(partial(field.topology.lose_master, some_slot(chance)))


async def swap_shard(field: Field, chance: random.Random) -> None:
    """A replica is told to take over from its living master."""
    assert isinstance(field.topology, Sharded)
    async with held(field, field.topology):
        await in_thread(partial(field.topology.fail_over, some_slot(chance)))


async def move_slot(field: Field, chance: random.Random) -> None:
    """The slot of a group goes to another master, while the group is in use."""
    assert isinstance(field.topology, Sharded)
    async with held(field, field.topology):
        await in_thread(partial(field.topology.move_slot, some_slot(chance), chance.uniform(0, 0.2)))


def some_slot(chance: random.Random) -> int:
    """Return the slot of a group that is in use."""
    return slot_of(f"{{{chance.choice([group for groups in GROUPS.values() for group in groups])}}}")


SERVER: dict[str, tuple[float, Act]] = {
    "kill_commands": (8, kill_commands),
    "kill_subscriptions": (10, kill_subscriptions),
    "kill_all_clients": (4, kill_all_clients),
    "pause_clients": (4, pause_clients),
    "flush": (6, flush),
    "forget_scripts": (6, forget_scripts),
    "kill_server": (2, kill_server),
    "stall_server": (4, stall_server),
}

NETWORK: dict[str, tuple[float, Act]] = {
    "silence": (10, silence),
    "cut": (10, cut),
    "refuse": (6, refuse),
    "cut_in_the_middle": (10, cut_in_the_middle),
}

FAULTS: dict[str, dict[str, tuple[float, Act]]] = {
    "standalone": {
        **SERVER,
        **NETWORK,
        "kill_and_forget": (6, kill_and_forget),
        "kill_and_keep": (6, kill_and_keep),
        "kill_and_go_back": (6, kill_and_go_back),
        "hang": (6, hang),
    },
    "sentinel": {
        **SERVER,
        "hang": (4, hang),
        "fail_over": (6, fail_over),
        "lose_master": (4, lose_master),
        "hang_master": (4, hang_master),
        "lose_sentinel": (4, lose_sentinel),
    },
    "cluster": {
        **SERVER,
        "hang": (4, hang),
        "lose_shard": (4, lose_shard),
        "swap_shard": (6, swap_shard),
        "move_slot": (10, move_slot),
    },
    "jobs": {  # which lose nothing that was written
        **NETWORK,
        "kill_commands": (8, kill_commands),
        "kill_subscriptions": (4, kill_subscriptions),
        "pause_clients": (4, pause_clients),
        "forget_scripts": (6, forget_scripts),
        "hang": (6, hang),
        "kill_and_return": (8, kill_and_return),
        "kill_worker": (12, kill_worker),
        "stall_worker": (8, stall_worker),
    },
}
