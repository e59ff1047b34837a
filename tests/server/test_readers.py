"""Who reads, with real sockets: numbers that pass on, sockets that break, and that nothing is polled in vain."""

import gc
import logging
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from trichannels.server.ends import SocketEnd
from trichannels.server.engine import Engine
from trichannels.server.flusher import Flusher
from trichannels.server.pulse import Limits
from trichannels.server.readers import BATCH, Poller, TaskReader
from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

pytestmark = [
    pytest.mark.trio_only,
    pytest.mark.usefixtures("descriptors"),
]


class Counting:
    """An epoll that counts how often it is asked."""

    def __init__(self, epoll: select.epoll) -> None:
        self.epoll, self.polls = epoll, 0

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.polls += 1
        return self.epoll.poll(timeout, most)

    def __getattr__(self, name: str) -> object:
        return getattr(self.epoll, name)


class Far:
    """A socket of the server: its other side, and what is fed of it."""

    paused = False

    def __init__(self, nursery: trio.Nursery, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        self.theirs = theirs
        self.wire = Wire(SocketEnd(ours), nursery, Counters(), Flusher(), limit=1000, timeout=5)
        self.came, self.ends = b"", 0
        self.told = trio.Event()
        self.on_feed: Callable[[], None] = lambda: None
        self.on_eof: Callable[[], None] = lambda: None

    def feed(self, data: bytes) -> None:
        self.came += data
        self.told.set()
        self.on_feed()

    def eof(self) -> None:
        self.ends += 1
        self.told.set()
        self.on_eof()

    async def news(self) -> None:
        with trio.fail_after(5):
            await self.told.wait()
        self.told = trio.Event()

    def close(self) -> None:
        self.wire.close()
        self.theirs.close()

    def reset(self) -> None:
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


class House:
    """A poller, and sockets that end with it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery, self.poller = nursery, Poller()
        self.epoll = Counting(self.poller._epoll)
        self.poller._epoll = self.epoll  # type: ignore[assignment]
        self.fars: list[Far] = []

    def far(self, pair: tuple[socket.socket, socket.socket] | None = None, *, watched: bool = True) -> Far:
        far = Far(self.nursery, *(pair or socket.socketpair()))
        far.on_eof = lambda: self.poller.forget(far.wire)
        self.fars.append(far)
        if watched:
            self.poller.watch(far.wire, far)
        return far

    def begin(self) -> None:
        self.nursery.start_soon(self.poller.run)

    async def rests(self) -> None:
        """Check that nothing is done where nothing is to do."""
        await trio.testing.wait_all_tasks_blocked()
        polls = self.epoll.polls
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked()
        assert self.epoll.polls == polls, "it spins"


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        found = House(nursery)
        try:
            yield found
        finally:
            nursery.cancel_scope.cancel()
            for far in found.fars:
                far.close()
            found.poller.close()


async def test_what_comes_is_fed_and_then_the_end() -> None:
    async with house() as h:
        far = h.far()
        h.begin()
        for number in range(3):
            far.theirs.send(b"%d" % number)
            await far.news()
        assert (far.came, far.ends) == (b"012", 0)
        await h.rests()
        far.on_feed = lambda: h.poller.forget(far.wire)
        far.theirs.send(b"last")
        await far.news()
        far.theirs.close()
        await h.rests()
        assert far.ends == 0
        h.poller.watch(far.wire, far)
        await far.news()
        assert (far.came, far.ends) == (b"012last", 1)


@pytest.mark.parametrize("forgets", [True, False], ids=["forgotten", "closed without a word"])
async def test_a_number_that_passes_on_within_a_batch(forgets: bool) -> None:
    """Whichever of the two is read first closes the other, and somebody else gets its number."""
    async with house() as h:
        one, two = h.far(), h.far()
        newcomers: list[Far] = []

        def replace(old: Far) -> None:
            number = old.wire.descriptor
            if forgets:
                h.poller.forget(old.wire)
            old.close()
            ours, theirs = socket.socketpair()
            if ours.fileno() != number:
                os.dup2(ours.fileno(), number)
                ours.close()
                ours = socket.socket(fileno=number)
            newcomers.append(h.far((ours, theirs)))
            theirs.send(b"for the newcomer")

        one.on_feed, two.on_feed = lambda: replace(two), lambda: replace(one)
        one.theirs.send(b"x")
        two.theirs.send(b"x")
        h.begin()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted([one.came, two.came]) == [b"", b"x"]
        (newcomer,) = newcomers
        assert (newcomer.came, newcomer.ends) == (b"for the newcomer", 0)
        h.poller.forget((two if one.came else one).wire)  # late, and of no effect on the newcomer
        newcomer.theirs.send(b", again")
        await trio.testing.wait_all_tasks_blocked()
        assert newcomer.came == b"for the newcomer, again"
        assert (one.ends, two.ends) == (0, 0)


async def test_one_that_is_forgotten_within_a_batch_is_not_read() -> None:
    async with house() as h:
        one, two = h.far(), h.far()
        one.on_feed, two.on_feed = lambda: h.poller.forget(two.wire), lambda: h.poller.forget(one.wire)
        for far in (one, two):
            far.theirs.send(b"x")
        h.begin()
        await h.rests()
        assert sorted([one.came, two.came]) == [b"", b"x"]


async def test_a_failure_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("as no peer should")

    async with house() as h:
        bad, good = h.far(), h.far()
        bad.on_feed = fail
        h.begin()
        for _ in range(3):
            bad.theirs.send(b"x")
            good.theirs.send(b"y")
            await good.news()
            if bad.wire.lost:
                break
        assert bad.wire.lost
        await h.rests()
        good.theirs.send(b"!")
        await good.news()
        assert good.came.endswith(b"!")
        assert bad.came == b"x"
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "trichannels.server")
    assert record.exc_info is not None
    assert "as no peer should" in str(record.exc_info[1])


async def test_many_that_are_ready_leave_turns_to_others() -> None:
    fed = most = 0

    def count() -> None:
        nonlocal fed
        fed += 1

    async def look() -> None:
        nonlocal fed, most
        while True:
            most, fed = max(most, fed), 0
            await trio.lowlevel.checkpoint()

    async with house() as h:
        for number in range(3 * BATCH):
            far = h.far()
            far.on_feed = count
            far.theirs.send(b"%d" % number)
        h.begin()
        h.nursery.start_soon(look)
        with trio.fail_after(5):
            for far in h.fars:
                await far.told.wait()
        assert [far.came for far in h.fars] == [b"%d" % number for number in range(3 * BATCH)]
        # A turn of the others may come before or behind a batch of the same round.
        assert 0 < most <= 2 * BATCH


async def test_some_that_never_fall_silent_do_not_starve_the_others() -> None:
    async with house() as h:
        loud = [h.far() for _ in range(BATCH + 10)]
        for far in loud:
            far.on_feed = lambda far=far: far.theirs.send(b"x")  # type: ignore[misc]
            far.theirs.send(b"x")
        h.begin()
        quiet = h.far()
        for _ in range(3):
            quiet.theirs.send(b"q")
            await quiet.news()
        assert min(len(far.came) for far in loud) > 0


async def test_one_that_is_paused_costs_nothing() -> None:
    async with house() as h:
        far = h.far()
        far.on_feed = lambda: h.poller.forget(far.wire)
        h.begin()
        far.theirs.send(b"1")
        await far.news()
        far.theirs.send(b"2")
        await h.rests()
        assert far.came == b"1"
        h.poller.watch(far.wire, far)
        h.poller.watch(far.wire, far)
        await far.news()
        assert far.came == b"12"
        await h.rests()


@pytest.mark.parametrize("way", ["half-closed", "closed", "reset"])
async def test_one_that_leaves_while_it_is_paused_costs_nothing(way: str) -> None:
    async with house() as h:
        far = h.far(tcp())
        far.on_feed = lambda: h.poller.forget(far.wire)
        h.begin()
        far.theirs.send(b"1")
        await far.news()
        if way == "half-closed":
            far.theirs.shutdown(socket.SHUT_WR)
        elif way == "closed":
            far.theirs.close()
        else:
            far.reset()
        await h.rests()
        assert far.ends == 0
        h.poller.watch(far.wire, far)
        await far.news()
        assert (far.came, far.ends) == (b"1", 1)
        h.poller.forget(far.wire)
        await h.rests()


async def test_a_closed_poller_watches_nobody() -> None:
    async with house() as h:
        before, after = h.far(), h.far(watched=False)
        h.poller.close()
        h.poller.watch(after.wire, after)
        h.poller.forget(before.wire)
        h.poller.forget(after.wire)
        h.poller.close()
        assert not h.poller._watched


async def test_an_engine_that_is_cancelled_leaves_no_descriptor() -> None:
    gc.collect()
    before = set(Path("/proc/self/fd").iterdir())
    limits = Limits(ping_interval=20, pong_timeout=20, close_timeout=5, max_message_size=1000)
    for when in (None, "running"):
        async with trio.open_nursery() as nursery:
            engine = Engine(limits, Counters())
            if when == "running":
                await nursery.start(engine.run)
                await trio.testing.wait_all_tasks_blocked()
            else:
                nursery.start_soon(engine.run)
            nursery.cancel_scope.cancel()
        assert set(Path("/proc/self/fd").iterdir()) == before


# -- a task for one connection


@asynccontextmanager
async def read_by_a_task() -> AsyncIterator[tuple[TaskReader, Far]]:
    async with trio.open_nursery() as nursery:
        far, reader = Far(nursery, *socket.socketpair()), TaskReader(nursery)
        try:
            yield reader, far
        finally:
            nursery.cancel_scope.cancel()
            far.close()


async def test_a_task_reads_no_more_than_it_should() -> None:
    async with read_by_a_task() as (reader, far):
        reader.watch(far.wire, far)
        far.on_feed = lambda: reader.forget(far.wire)
        far.theirs.send(b"1")
        await far.news()
        far.theirs.send(b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert far.came == b"1"
        reader.watch(far.wire, far)
        reader.watch(far.wire, far)
        await far.news()
        assert far.came == b"12"
        reader.watch(far.wire, far)
        await trio.testing.wait_all_tasks_blocked()
        far.theirs.close()
        await far.news()
        assert far.ends == 1
        reader.watch(far.wire, far)
        await trio.testing.wait_all_tasks_blocked()
        assert far.ends == 1


async def test_the_end_waits_behind_what_there_is_no_room_for() -> None:
    """The pause comes while the task waits for bytes already: what it reads then is kept, the end comes in its turn."""
    async with read_by_a_task() as (reader, far):
        reader.watch(far.wire, far)
        await trio.testing.wait_all_tasks_blocked()
        reader.forget(far.wire)
        far.theirs.close()
        await trio.testing.wait_all_tasks_blocked()
        assert far.ends == 0
        reader.watch(far.wire, far)
        await far.news()
        assert far.ends == 1
