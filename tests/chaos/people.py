"""Presence under faults: guests that come, go and are cut off, and what they themselves know of who is there."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from math import inf
from typing import Any

import trio

from benchmarks.soaking.peer import BROKEN, Peer, Surprise
from trichannels.testing.client import open_client

from .clients import AWAY, CONNECTING
from .faults import GIVEN_UP
from .field import Field, Serving
from .layers import LEASE
from .timeline import Timeline

KEYS = ("ann", "bob", "cyd", "dan")  # few, so that many have several connections
IN_TIME = LEASE + GIVEN_UP + 1.0  # seconds after the last fault; the last of them for a machine that is busy
COME_IN = 10.0  # seconds in which all guests must get in
GHOST = LEASE + 0.5  # seconds; the last of them as above
STAYS = 1.5  # seconds, in the mean
GONE = (*BROKEN, Surprise, trio.TooSlowError, trio.ClosedResourceError)


class Guest:
    """Is present as a key, with one socket after the other, each of which is a visit that has a number of its own.

    ``there``: it was told that it is present, and its socket is open. A visit of which it was told nothing may be seen
    by others all the same, until its end is known to its server.
    """

    def __init__(self, group: str, number: int, seed: int, visits: Iterator[int]) -> None:
        self.group, self.number, self.key, self._visits = group, number, KEYS[number % len(KEYS)], visits
        self.visit = 0  # the newest
        self.there = False
        self.came_at = 0.0
        self.ended: dict[int, tuple[float, Serving]] = {}  # visits: when, and where
        self._random = random.Random(f"{seed} guest {group} {number}")

    async def run(self, field: Field, truce: "Truce") -> None:
        """Come and go. In a truce, who is out comes in, and who is in stays."""
        while True:
            serving = self._random.choice(field.servings)
            self.visit = next(self._visits)
            try:
                with suppress(*GONE):
                    with trio.fail_after(CONNECTING):
                        sock = await trio.open_tcp_stream("127.0.0.1", serving.port)
                    async with sock:
                        await self._visit(Peer(sock.socket), truce)
            finally:
                self.ended[self.visit] = trio.current_time(), serving
            with trio.move_on_after(self._random.uniform(0.01, 1.0)):
                await truce.declared()

    def is_coming(self, asked_at: float) -> bool:
        """Say whether who asks at that time may see it or not: it was not told yet that it is there."""
        return self.visit not in self.ended and (not self.there or self.came_at >= asked_at)

    async def _visit(self, peer: Peer, truce: "Truce") -> None:
        with trio.fail_after(CONNECTING):
            await peer.opened(f"/guest/{self.group}/{self.key}/{self.visit}/")
            await peer.hears('{"present": true}')
        self.there, self.came_at = True, trio.current_time()
        try:
            with trio.CancelScope() as stay, truce.ending(stay, self._random.expovariate(1 / STAYS)):
                await peer.frame()  # which never comes: only the end
        finally:
            self.there = False
        way = self._random.choice(("close", "reset", "vanish"))
        if way == "close":
            await peer.close()
        elif way == "reset":
            peer.reset()


class Truce:
    """While it is in force nobody leaves by itself."""

    def __init__(self) -> None:
        self._in_force = trio.Event()
        self._stays: set[trio.CancelScope] = set()

    @contextmanager
    def ending(self, stay: trio.CancelScope, seconds: float) -> Iterator[None]:
        """Let a stay end after so many seconds, unless a truce comes before."""
        self._stays.add(stay)
        if not self._in_force.is_set():
            stay.deadline = trio.current_time() + seconds
        try:
            yield
        finally:
            self._stays.discard(stay)

    async def declared(self) -> None:
        """Wait until it is in force."""
        await self._in_force.wait()

    def begin(self) -> None:
        self._in_force.set()
        for stay in self._stays:
            stay.deadline = inf

    def end(self) -> None:
        self._in_force = trio.Event()
        for stay in self._stays:
            stay.deadline = trio.current_time() + random.uniform(0, STAYS)


class Watcher:
    """A socket whose consumer follows a group's presence; it asks what that has come to."""

    def __init__(self, group: str, serving: Serving, look: Callable[["Watcher"], None]) -> None:
        self.group, self.serving, self._look = group, serving, look
        self.told: dict[str, Any] = {}
        self.asked_at = 0.0
        self._doing, self._since = "nothing", 0.0

    @property
    def state(self) -> str:
        return f"{self._doing} for {trio.current_time() - self._since:.2f} s"

    def _does(self, what: str) -> None:
        self._doing, self._since = what, trio.current_time()

    async def run(self) -> None:
        """Ask on and on, on one socket as long as there is one."""
        while True:
            try:
                url = f"ws://127.0.0.1:{self.serving.port}/watcher/{self.group}/"
                self._does("connecting")
                async with open_client(url, timeout=CONNECTING) as socket:
                    while True:
                        self.asked_at = trio.current_time()
                        self._does("waiting for an answer")
                        await socket.send_message('"show"')
                        self.told = json.loads(await socket.get_message())
                        self._does("pausing")
                        self._look(self)
                        await trio.sleep(0.05)
            except AWAY as error:
                self._does(f"away ({error!r})")
                self.told = {}
                await trio.sleep(0.05)


class People:
    """All guests and watchers of a run, and whether those see these."""

    def __init__(self, groups: tuple[str, ...], field: Field, seed: int, timeline: Timeline, guests: int = 8) -> None:
        self.timeline = timeline
        self.field, self.truce = field, Truce()
        visits = count(1)
        self.guests = [Guest(group, number, seed, visits) for group in groups for number in range(guests)]
        self.watchers = [Watcher(group, serving, self.find_ghosts) for group in groups for serving in field.servings]
        self.slowest = self.oldest_ghost = 0.0
        self.truces = 0
        self.problems: list[str] = []

    def start(self, nursery: trio.Nursery) -> None:
        for guest in self.guests:
            nursery.start_soon(guest.run, self.field, self.truce)
        for watcher in self.watchers:
            nursery.start_soon(watcher.run)

    def find_ghosts(self, watcher: Watcher) -> None:
        """At any time: no visit is shown that has ended longer ago than a lease takes, but for the time in which faults
        may have kept anybody from telling. A killed process keeps nobody from it.
        """
        shown = {visit for visits in watcher.told["asked"].values() for visit in visits}
        for guest in self.guests:
            for visit in shown.intersection(guest.ended) if guest.group == watcher.group else ():
                ended, serving = guest.ended[visit]
                age = self.timeline.quiet(ended, watcher.asked_at, apart=("kill_server",))
                self.oldest_ghost = max(self.oldest_ghost, age)
                if age > GHOST and len(self.problems) < 20:
                    ghost = f"visit {visit} of {guest.key}, which ended at {serving} {age:.1f} quiet seconds ago"
                    self.problems.append(f"{watcher.serving} shows {ghost}; {self.timeline.recent()}")

    def differences(self) -> list[str]:
        """Return where what is seen is not what is there."""
        found = []
        for watcher in self.watchers:
            guests = [guest for guest in self.guests if guest.group == watcher.group]
            coming = {guest.visit for guest in guests if guest.is_coming(watcher.asked_at)}
            there = Counter((guest.key, guest.visit) for guest in guests if guest.there and guest.visit not in coming)
            told = watcher.told or {"asked": {}, "followed": []}
            asked = Counter(
                (key, visit) for key, visits in told["asked"].items() for visit in visits if visit not in coming
            )
            if asked != there:
                found.append(
                    f"{watcher.group} at {watcher.serving}: missing {sorted((there - asked).elements())}, "
                    f"ghosts {sorted((asked - there).elements())}"
                )
            elif not coming and told["followed"] != sorted({key for key, _ in there}):
                found.append(f"{watcher.group} at {watcher.serving}: by its diffs {told['followed']}, not {there}")
        return found

    async def converge(self) -> None:
        """After the faults: within the lease, everybody sees who is there."""
        self.truce.begin()
        self.truces += 1
        began = trio.current_time()
        with trio.move_on_after(COME_IN):
            while self.differences() and self.timeline.quiet(began, trio.current_time()) < IN_TIME:
                await trio.sleep(0.02)
        if self.differences():
            states = [f"{watcher.group} at {watcher.serving}: {watcher.state}" for watcher in self.watchers]
            found = "; ".join([*self.differences(), *states, self.timeline.recent(8)])
            self.problems.append(f"not within {IN_TIME:g} s: {found}")
        self.slowest = max(self.slowest, trio.current_time() - began)
        with trio.move_on_after(COME_IN):
            while self.out or self.differences():
                await trio.sleep(0.02)
        if left := [*self.out, *self.differences()]:
            self.problems.append(f"after {trio.current_time() - began:.1f} s of truce: {'; '.join(left)}")
        self.truce.end()

    @property
    def out(self) -> list[str]:
        """Those who have not come in."""
        return [f"{guest.key} {guest.number} of {guest.group} is out" for guest in self.guests if not guest.there]
