"""Workers on queues in memory, mostly on a virtual clock: what becomes of each job, and how a worker ends."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from trio.testing import MockClock

import trichannels
from trichannels.consumer import AsyncConsumer, SyncConsumer
from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.exceptions import (
    ConfigError,
    ConnectionClosed,
    InvalidChannelLayerError,
    LayerClosed,
    LayerRefused,
    LayerUnreachable,
    StopConsumer,
    UnreadableMessage,
)
from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.memory_queue import MemoryJobQueue
from trichannels.layers.queues import Job, QueueStatistics, Retry
from trichannels.layers.serializers import MsgpackSerializer
from trichannels.nursery import collapsed
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter
from trichannels.seam import backend
from trichannels.worker import JobEvent, Worker, WorkerStatistics, run_worker

from .checkpoints import AtStep, awaits_in, every_iteration, every_step

WORK = "work"


class Diary:
    """What became of all jobs, and when; waits for what is to come."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.times: list[float] = []
        self._news = anyio.Event()

    def note(self, event: JobEvent) -> None:
        self.events.append(event)
        self.times.append(anyio.current_time())
        self._news.set()
        self._news = anyio.Event()

    def of(self, *kinds: str) -> list[JobEvent]:
        return [event for event in self.events if event.kind in kinds]

    async def until(self, count: int, *kinds: str) -> list[JobEvent]:
        """Wait until there are so many events of these kinds; return them."""
        with anyio.fail_after(100_000):
            while len(self.of(*kinds)) < count:
                await self._news.wait()
        return self.of(*kinds)


class Shop:
    """An open layer, a diary, and what a test needs to run workers."""

    def __init__(self, layer: InMemoryChannelLayer, nursery: TaskGroup) -> None:
        self.layer, self.nursery, self.diary = layer, nursery, Diary()

    async def send(self, *numbers: int, channel: str = WORK, kind: str = "task.do") -> None:
        for number in numbers:
            await self.layer.send(channel, {"type": kind, "number": number})

    async def work(self, application: ASGIApp, channels: str | Iterable[str] = WORK, **options: Any) -> Worker:
        start = partial(run_worker, application, self.layer, channels, on_event=self.diary.note, **options)
        worker: Worker = await self.nursery.start(start)
        return worker

    async def depth(self, channel: str = WORK) -> tuple[int, int, int, int]:
        """Return how many jobs wait, run, are delayed and dead."""
        async with self.layer.open_queue(channel) as queue:
            depth: QueueStatistics = await queue.depth()
        return depth.waiting, depth.running, depth.delayed, depth.dead


@asynccontextmanager
async def open_shop(**options: Any) -> AsyncIterator[Shop]:
    """Open a layer; at the end, cancel whatever works there."""
    async with InMemoryChannelLayer(**options) as layer, collapsed(), anyio.create_task_group() as nursery:
        yield Shop(layer, nursery)
        nursery.cancel_scope.cancel()


def consumer(do: Callable[[AsyncConsumer, Event], Any]) -> ASGIApp:
    """Return a consumer that has ``do`` as its handler ``task_do``."""
    return type("Tasks", (AsyncConsumer,), {"task_do": do}).as_asgi()  # type: ignore[attr-defined,no-any-return]


def failing(times: int, error: Callable[[], BaseException] = lambda: ValueError("not now")) -> ASGIApp:
    """Return a consumer whose handler raises that many times."""
    left = [times]

    async def do(self: AsyncConsumer, event: Event) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error()

    return consumer(do)


async def sleep(self: AsyncConsumer, event: Event) -> None:
    """As a handler, take as many seconds as the message says."""
    await anyio.sleep(event["number"])


# What an application gets


async def test_an_application_gets_a_scope_its_message_and_the_end() -> None:
    seen: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        seen.extend([await receive() for _ in range(3)])
        with pytest.raises(RuntimeError, match="a job has nobody to send 'x' to"):
            await send({"type": "x"})

    async with open_shop() as shop:
        await shop.work(application)
        await shop.send(7)
        (done,) = await shop.diary.until(1, "done")
        assert await shop.depth() == (0, 0, 0, 0)
        layers = {"default": shop.layer}
    assert seen[0] == {
        "type": "channel",
        "asgi": {"version": "3.0", "spec_version": "1.0"},
        "channel": WORK,
        "job": {"id": done.job.id, "deliveries": 1},
        "channel_layers": layers,
    }
    assert seen[1:] == [{"type": "task.do", "number": 7}, {"type": "channel.end"}, {"type": "channel.end"}]


async def test_a_consumer_handles_its_message_with_an_instance_of_its_own() -> None:
    seen: list[tuple[int, int, bool]] = []

    async def do(self: AsyncConsumer, event: Event) -> None:
        seen.append((id(self), event["number"], bool(self.channel_layer)))
        await self.channel_layer.send("answers", {"type": "answer", "number": event["number"] + 1})

    async with open_shop() as shop:
        await shop.work(consumer(do), concurrency=1)
        await shop.send(1, 2)
        assert [(await shop.layer.receive("answers"))["number"] for _ in range(2)] == [2, 3]
        await shop.diary.until(2, "done")
        assert shop.layer.statistics().instances == 0
    assert [(number, layer) for _, number, layer in seen] == [(1, True), (2, True)]


async def test_a_sync_consumer_works_in_threads() -> None:
    class Tasks(SyncConsumer):
        def task_do(self, event: Event) -> None:
            self.nursery.start_soon(anyio.sleep, 0)
            if event["number"] == 2 and self.scope["job"]["deliveries"] == 1:
                raise ValueError("not now")

    async with open_shop() as shop:
        await shop.work(Tasks.as_asgi(), retry=Retry(first=0))
        await shop.send(1, 2)
        assert len(await shop.diary.until(2, "done")) == 2
        assert [event.error for event in shop.diary.of("retried")] == ["ValueError: not now"]


async def test_a_router_chooses_by_the_channel() -> None:
    seen = Counter[str]()

    def named(name: str) -> ASGIApp:
        async def do(self: AsyncConsumer, event: Event) -> None:
            seen[f"{name} at {self.scope['channel']}"] += 1

        return consumer(do)

    layer = InMemoryChannelLayer()
    routes = ChannelNameRouter({"one": named("first"), "two": named("second")})
    application = ProtocolTypeRouter({"channel": routes}, layers={"default": layer})
    async with application.opened(), anyio.create_task_group() as nursery:
        shop = Shop(layer, nursery)
        await shop.work(application, ["one", "two", "one"])
        await shop.send(1, 2, channel="one")
        await shop.send(3, channel="two")
        await shop.diary.until(3, "done")
        nursery.cancel_scope.cancel()
    assert seen == {"first at one": 2, "second at two": 1}


async def test_a_handler_has_all_the_time_it_takes(autojump_clock: object) -> None:
    async with open_shop() as shop:
        await shop.work(consumer(sleep))
        await shop.send(3600)
        (done,) = await shop.diary.until(1, "done")
        assert done.seconds == pytest.approx(3600)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_with_its_handler_the_instance_ends_and_so_does_what_it_started(
    autojump_clock: object, concurrency: int
) -> None:
    ended: list[str] = []

    class Tasks(AsyncConsumer):
        async def task_do(self, event: Event) -> None:
            self.nursery.start_soon(self.linger)
            await self.join("group")
            await self.channel_layer.group_send("group", {"type": "task.aside"})
            await anyio.sleep(10)

        async def linger(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(self._instance.state)

        async def task_aside(self, event: Event) -> None:
            """An event that came while the job was worked on, and may be handled after it."""

        async def channel_disconnect(self, event: Event) -> None:
            ended.append(f"disconnect {self._instance.state}")

    Tasks.concurrency = concurrency
    async with open_shop() as shop:
        await shop.work(Tasks.as_asgi())
        await shop.send(1)
        (done,) = await shop.diary.until(1, "done")
        assert done.seconds == pytest.approx(10)
        assert shop.layer.statistics().groups == 0
    assert ended == ["stopped", "disconnect stopped"]


async def test_stop_consumer_is_done() -> None:
    async with open_shop() as shop:
        await shop.work(failing(1, StopConsumer))
        await shop.send(1)
        await shop.diary.until(1, "done")


# Failures


async def test_a_job_that_fails_is_tried_again_after_growing_delays(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    async with open_shop() as shop:
        await shop.work(failing(3), retry=Retry(retries=5, first=1, most=3))
        begin = anyio.current_time()
        await shop.send(1)
        (done,) = await shop.diary.until(1, "done")
        assert done.job.deliveries == 4
        assert len({event.job.id for event in shop.diary.events}) == 1
        assert [event.delay for event in shop.diary.of("retried")] == [1, 2, 3]
        assert anyio.current_time() - begin == pytest.approx(6)
        assert await shop.depth() == (0, 0, 0, 0)
    assert "failed (ValueError: not now): it is tried again in 1.0 s" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_job_that_always_fails_becomes_a_dead_letter(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop() as shop:
        worker = await shop.work(failing(99, lambda: ValueError("never")), retry=Retry(retries=2))
        await shop.send(1)
        await shop.diary.until(1, "buried")
        async with shop.layer.open_queue(WORK) as queue:
            (letter,) = await queue.dead(9)
        assert (letter.error, letter.job.deliveries) == ("ValueError: never", 3)
        assert worker.statistics() == WorkerStatistics(running=0, done=0, retried=2, buried=1, returned=0)
    assert "is a dead letter now: ValueError: never" in caplog.text


async def test_an_error_in_the_nursery_is_the_jobs_error(autojump_clock: object) -> None:
    async def fail() -> None:
        raise ValueError("in the background")

    async def do(self: AsyncConsumer, event: Event) -> None:
        self.nursery.start_soon(fail)
        await anyio.sleep_forever()

    async with open_shop() as shop:
        await shop.work(consumer(do), retry=Retry(retries=0))
        await shop.send(1)
        (buried,) = await shop.diary.until(1, "buried")
        assert buried.error == "ValueError: in the background"


async def test_a_closed_connection_is_an_error_here(autojump_clock: object) -> None:
    async with open_shop() as shop:
        await shop.work(failing(1, ConnectionClosed))
        await shop.send(1)
        await shop.diary.until(1, "retried")
        await shop.diary.until(1, "done")


async def test_sending_is_an_error() -> None:
    async def do(self: AsyncConsumer, event: Event) -> None:
        await self.send({"type": "websocket.send", "text": "hello?"})

    async with open_shop() as shop:
        await shop.work(consumer(do), retry=Retry(retries=0))
        await shop.send(1)
        (buried,) = await shop.diary.until(1, "buried")
        assert buried.error.startswith("OutOfTurn: a job has nobody to send 'websocket.send' to")


async def test_several_errors_are_all_told(autojump_clock: object) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise ExceptionGroup("", [ValueError("one"), ExceptionGroup("", [OSError("two")])])

    async with open_shop() as shop:
        await shop.work(application, retry=Retry(retries=0))
        await shop.send(1)
        (buried,) = await shop.diary.until(1, "buried")
        assert buried.error == "ValueError: one; OSError: two"


async def test_system_exit_ends_only_the_job(autojump_clock: object) -> None:
    async with open_shop() as shop:
        await shop.work(failing(1, SystemExit))
        await shop.send(1)
        await shop.diary.until(1, "done")
        assert [event.error for event in shop.diary.of("retried")] == ["SystemExit:"]


@pytest.mark.trio_only  # asyncio lets Ctrl-C out of its loop, past everybody
async def test_ctrl_c_ends_the_worker_and_the_job_goes_back() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()])

    async with open_shop() as shop:
        await shop.send(1)
        with pytest.raises(KeyboardInterrupt):
            await run_worker(application, shop.layer, WORK)
        assert await shop.depth() == (1, 0, 0, 0)


async def test_a_cancellation_that_nobody_meant_is_an_error() -> None:
    if backend() == "trio":
        return

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.get_running_loop().create_task(anyio.sleep_forever())
        task.cancel()
        await task

    async with open_shop() as shop:
        await shop.work(application, retry=Retry(retries=0))
        await shop.send(1)
        (buried,) = await shop.diary.until(1, "buried")
        assert "nobody has cancelled the job" in buried.error


# Jobs that nobody will ever do


class Strict(MsgpackSerializer):
    """Cannot read messages that say so."""

    def decode(self, payload: bytes) -> dict[str, Any]:
        message = super().decode(payload)
        if message["number"] == 13:
            raise UnreadableMessage("thirteen")
        return message


@pytest.mark.parametrize(
    ("number", "kind", "channel", "error"),
    [
        (1, "task.unheard_of", "known", "NoHandler: No handler for message type task.unheard_of"),
        (1, "task.do", "unknown", "NoRoute: No application configured for channel name 'unknown'"),
        (13, "task.do", "known", "UnreadableMessage: a message cannot be read: thirteen"),
        (1, "", "known", "it has no 'type' that could name a handler"),
        (1, "channel.end", "known", "its type 'channel.end' is the worker's own"),
        (1, "channel.disconnect", "known", "its type 'channel.disconnect' is the worker's own"),
    ],
)
async def test_what_nobody_can_do_is_a_dead_letter_at_once(number: int, kind: str, channel: str, error: str) -> None:
    async with open_shop(serializer=Strict()) as shop:
        await shop.work(ChannelNameRouter({"known": failing(0)}), [channel])
        await shop.send(number, kind=kind, channel=channel)
        (buried,) = await shop.diary.until(1, "buried")
        assert buried.error.startswith(error)
        assert await shop.depth(channel) == (0, 0, 0, 1)


async def test_a_job_that_was_delivered_too_often_is_not_tried_again() -> None:
    async with open_shop() as shop:
        await shop.send(1)
        async with shop.layer.open_queue(WORK) as queue:
            for _ in range(2):  # as if its worker had been killed
                await queue.retry((await queue.fetch(1))[0], 0, "")
        await shop.work(failing(0), retry=Retry(retries=1))
        (buried,) = await shop.diary.until(1, "buried")
        assert buried.error.startswith("it was delivered 2 times and never came to an end")


# Slots


async def test_no_more_are_taken_than_may_run(autojump_clock: object) -> None:
    async with open_shop() as shop:
        worker = await shop.work(consumer(sleep), concurrency=2)
        await shop.send(10, 20, 10, 10)
        await anyio.sleep(1)
        assert await shop.depth() == (2, 2, 0, 0)
        assert worker.statistics().running == 2
        await anyio.sleep(10)  # the third runs, in place of the first
        assert await shop.depth() == (1, 2, 0, 0)
        await shop.diary.until(4, "done")
        assert anyio.current_time() == pytest.approx(shop.diary.times[0] + 30)


async def test_each_channel_has_its_own_slots(autojump_clock: object) -> None:
    async with open_shop() as shop:
        await shop.work(consumer(sleep), ["slow", "quick"], concurrency=1)
        await shop.send(100, 100, channel="slow")
        await shop.send(1, 1, 1, channel="quick")
        events = await shop.diary.until(3, "done")
        assert {event.job.channel for event in events} == {"quick"}


# How a worker ends


async def test_a_drained_worker_takes_no_more_and_finishes_what_it_has(autojump_clock: object) -> None:
    async with open_shop() as shop, anyio.create_task_group() as staff:
        shop.nursery = staff
        worker = await shop.work(consumer(sleep), concurrency=2)
        await shop.send(5, 9, 1)
        await anyio.sleep(1)
        worker.drain()
        assert "draining" in repr(worker)
    assert sorted(event.seconds for event in shop.diary.of("done")) == pytest.approx([5, 9])
    assert shop.diary.of("returned") == []


async def test_what_does_not_end_in_the_drain_time_goes_back_uncounted(autojump_clock: object) -> None:
    async with open_shop() as shop:
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            worker = await shop.work(consumer(sleep), drain_time=10)
            await shop.send(5, 50)
            await anyio.sleep(1)
            begin = anyio.current_time()
            worker.drain()
        assert anyio.current_time() - begin == pytest.approx(10)
        assert worker.statistics() == WorkerStatistics(running=0, done=1, retried=0, buried=0, returned=1)
        async with shop.layer.open_queue(WORK) as queue:
            (job,) = await queue.fetch(9)
        assert (job.open()["number"], job.deliveries) == (50, 1)


async def test_a_second_drain_can_only_shorten_the_first(autojump_clock: object) -> None:
    async with open_shop() as shop:
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            worker = await shop.work(consumer(sleep))
            await shop.send(1000)
            await anyio.sleep(1)
            begin = anyio.current_time()
            worker.drain(100)
            worker.drain(5)
            worker.drain(50)
        assert anyio.current_time() - begin == pytest.approx(5)


async def test_an_idle_worker_drains_at_once(autojump_clock: object) -> None:
    async with open_shop() as shop:
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            (await shop.work(consumer(sleep), ["a", "b"])).drain()
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            worker = await shop.work(consumer(sleep))
            await anyio.sleep(1)
            begin = anyio.current_time()
            worker.drain()
        assert anyio.current_time() == pytest.approx(begin)


async def test_a_cancelled_worker_gives_its_jobs_back_at_once(autojump_clock: object) -> None:
    said_goodbye: list[str] = []

    class Tasks(AsyncConsumer):
        async def task_do(self, event: Event) -> None:
            await anyio.sleep_forever()

        async def channel_disconnect(self, event: Event) -> None:
            await anyio.sleep(1)
            said_goodbye.append(self._instance.state)

    async with open_shop() as shop:
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            await shop.work(Tasks.as_asgi())
            await shop.send(1, 2)
            await shop.diary.until(2, "started")
            await anyio.wait_all_tasks_blocked()
            staff.cancel_scope.cancel()
        assert said_goodbye == ["cancelled", "cancelled"]
        assert await shop.depth() == (2, 0, 0, 0)


async def test_an_error_while_a_job_is_cancelled_does_not_count(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(anyio.sleep_forever)
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("while it was cancelled")

    async with open_shop() as shop:
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            worker = await shop.work(application, drain_time=0)
            await shop.send(1)
            await shop.diary.until(1, "started")
            await anyio.wait_all_tasks_blocked()
            worker.drain()
        (event,) = shop.diary.of("returned", "retried")
        if event.kind == "returned":
            assert "failed while it was cancelled" in caplog.text


async def test_a_worker_ends_with_its_layer() -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        with pytest.raises(LayerClosed):
            await run_worker(failing(0), layer, WORK)

    async with anyio.create_task_group() as nursery, layer:
        nursery.start_soon(work)
        await anyio.wait_all_tasks_blocked()


# Queues with a server behind them


class Remote(MemoryJobQueue):
    """A queue whose jobs have to be renewed, and whose server may be away."""

    def __init__(self, queue: MemoryJobQueue, log: list[str], claim: float) -> None:
        super().__init__(queue._queue)
        self._mine = queue._mine
        self.log, self.claim = log, claim
        self.errors: list[Exception] = []
        self.lost: list[Job] = []

    def fail(self, call: str) -> None:
        self.log.append(call)
        if self.errors:
            raise self.errors.pop(0)

    async def renew(self, jobs: Iterable[Job]) -> list[Job]:
        await anyio.sleep(0)
        self.fail(f"renew {[job.open()['number'] for job in jobs]}")
        return self.lost

    async def done(self, job: Job) -> None:
        await anyio.sleep(0)
        self.fail("done")
        await super().done(job)

    async def give_back(self, job: Job) -> None:
        await anyio.sleep(0)
        self.fail("give back")
        await super().give_back(job)


class RemoteLayer(InMemoryChannelLayer):
    def __init__(self, claim: float = 30) -> None:
        super().__init__()
        self.claim = claim
        self.log: list[str] = []
        self.remote: Remote

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[Any]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Remote]:
            async with InMemoryChannelLayer.open_queue(self, channel) as queue:
                assert isinstance(queue, MemoryJobQueue)
                self.remote = Remote(queue, self.log, self.claim)
                yield self.remote

        return opened()


@asynccontextmanager
async def open_remote_shop() -> AsyncIterator[tuple[Shop, RemoteLayer]]:
    async with RemoteLayer() as layer, collapsed(), anyio.create_task_group() as nursery:
        yield Shop(layer, nursery), layer
        nursery.cancel_scope.cancel()


UNREACHABLE = partial(LayerUnreachable, "redis", "no answer")


async def test_what_runs_is_renewed_three_times_a_claim(autojump_clock: object) -> None:
    async with open_remote_shop() as (shop, layer):
        await shop.work(consumer(sleep))
        await anyio.sleep(25)
        await shop.send(24)
        await shop.diary.until(1, "done")
        assert layer.log == ["renew [24]", "renew [24]", "done"]
        await anyio.sleep(100)
        assert layer.log[-1] == "done"


async def test_a_claim_that_cannot_be_renewed_or_is_lost_is_logged(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_remote_shop() as (shop, layer):
        await shop.work(consumer(sleep))
        await shop.send(35)
        (started,) = await shop.diary.until(1, "started")
        layer.remote.errors = [UNREACHABLE()]
        await anyio.sleep(11)
        assert "the claims of 1 jobs of 'work' were not renewed: redis: no answer" in caplog.text
        layer.remote.lost = [started.job]
        await shop.diary.until(1, "done")
    assert "was given to another worker" in caplog.text


async def test_a_queue_that_is_away_is_told_when_it_is_back(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_remote_shop() as (shop, layer):
        worker = await shop.work(failing(0), concurrency=1)
        layer.remote.errors = [UNREACHABLE(), LayerRefused("redis", "OOM no room"), UNREACHABLE()]
        begin = anyio.current_time()
        await shop.send(1, 2)
        await shop.diary.until(1, "done")
        assert anyio.current_time() - begin == pytest.approx(0.5 + 1 + 2)
        assert worker.statistics().done == 1
        await shop.diary.until(2, "done")
    assert caplog.text.count("the queue was not told that it is done") == 3


async def test_a_queue_that_is_away_at_the_end_is_told_no_more(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_remote_shop() as (shop, layer):
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            await shop.work(consumer(sleep))
            await shop.send(1000)
            await shop.diary.until(1, "started")
            layer.remote.errors = [UNREACHABLE()] * 9
            staff.cancel_scope.cancel()
        assert "redis: no answer" in caplog.text
        assert "the queue could not be told that it is returned: it will run again" in caplog.text
        assert shop.diary.of("returned") == []


async def test_what_was_done_is_told_for_a_last_time_when_the_worker_is_cancelled(autojump_clock: object) -> None:
    async with open_remote_shop() as (shop, layer):
        async with anyio.create_task_group() as staff:
            shop.nursery = staff
            await shop.work(failing(0))
            layer.remote.errors = [UNREACHABLE()] * 3
            await shop.send(1)
            await anyio.sleep(2)
            assert shop.diary.of("done") == []
            layer.remote.errors = []
            staff.cancel_scope.cancel()
        assert len(shop.diary.of("done")) == 1
        assert await shop.depth() == (0, 0, 0, 0)


# Options


@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        ([], {}, "at least one channel"),
        (["a!b"], {}, "cannot work on"),
        ("white space", {}, "cannot work on"),
        (WORK, {"concurrency": 0}, "concurrency is a whole number above 0, not 0"),
        (WORK, {"concurrency": True}, "concurrency"),
        (WORK, {"retry": 3}, "retry is a Retry"),
        (WORK, {"drain_time": -1}, "drain_time is a number of seconds"),
    ],
)
async def test_wrong_options_are_refused(channels: Any, options: dict[str, Any], text: str) -> None:
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(ConfigError, match=text):
            await run_worker(failing(0), layer, channels, **options)


async def test_a_layer_must_be_open_and_have_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LayerClosed):
        await run_worker(failing(0), InMemoryChannelLayer(), WORK)
    monkeypatch.setattr(InMemoryChannelLayer, "open_queue", ChannelLayer.open_queue)
    async with InMemoryChannelLayer() as layer:
        with pytest.raises(InvalidChannelLayerError, match="no work queues"):
            await run_worker(failing(0), layer, WORK)


async def test_an_observer_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with open_shop() as shop, anyio.create_task_group() as nursery:

        def note(event: JobEvent) -> None:
            shop.diary.note(event)
            raise ValueError("not interested")

        await nursery.start(partial(run_worker, failing(0), shop.layer, WORK, on_event=note))
        await shop.send(1)
        await shop.diary.until(1, "done")
        nursery.cancel_scope.cancel()
    assert caplog.text.count("on_event failed") == 2


# Cancelled anywhere


class Run:
    """A worker with jobs of every kind, cancelled at some point; then another worker does the rest."""

    def __init__(self) -> None:
        self.stop: Callable[[], object] | None = None
        self.interrupted = False
        self.handled = Counter[int]()
        self.layer = RemoteLayer(claim=3.9)
        self.problem: str | None = None

    def interrupt(self) -> None:
        """Cancel the worker; on asyncio by ``task.cancel()``, which knows no scopes and no shields."""
        self.interrupted = True
        if self.stop is not None:
            self.stop()

    async def do(self, consumer: AsyncConsumer, event: Event) -> None:
        await anyio.sleep(1)
        if event["number"] == 2 and consumer.scope["job"]["deliveries"] == 1:
            raise ValueError("not now")
        self.handled[event["number"]] += 1

    async def go(self) -> None:
        application = consumer(lambda consumer, event: self.do(consumer, event))
        retry = Retry(retries=2, first=2)
        async with self.layer:
            for number in range(6):
                await self.layer.send(WORK, {"type": "task.do" if number else "nobody.knows", "number": number})
            start = partial(run_worker, application, self.layer, WORK, concurrency=2, retry=retry)
            if backend() == "trio":
                with anyio.CancelScope() as scope:
                    self.stop = scope.cancel
                    await self.work(start)
            else:
                task = asyncio.get_running_loop().create_task(self.work(start))
                self.stop = task.cancel
                await asyncio.wait([task])
            self.stop = None
            await self.check(application, retry)

    async def work(self, start: Callable[..., Any]) -> None:
        async with anyio.create_task_group() as nursery:
            worker = await nursery.start(start)
            await worker.depth()
            await anyio.sleep(1.5)
            self.layer.remote.errors = [UNREACHABLE()]
            await anyio.sleep(1.2)
            worker.drain(0.2)

    async def check(self, application: ASGIApp, retry: Retry) -> None:
        async with anyio.create_task_group() as nursery:
            worker: Worker = await nursery.start(partial(run_worker, application, self.layer, WORK, retry=retry))
            await anyio.sleep(15)
            worker.drain(0)
        async with InMemoryChannelLayer.open_queue(self.layer, WORK) as queue:
            left = await queue.depth()
            letters = [letter.job.open()["number"] for letter in await queue.dead(9)]
        if left != QueueStatistics(waiting=0, running=0, delayed=0, dead=1) or letters != [0]:
            self.problem = f"{left}, {letters}"
        if set(self.handled) != {1, 2, 3, 4, 5} or max(self.handled.values()) > 2:
            self.problem = f"handled: {self.handled}"
        if self.layer.statistics().waiting_messages or self.layer.statistics().instances:
            self.problem = f"left behind: {self.layer.statistics()}"


async def live(run: Run) -> None:
    await run.go()


def interrupted() -> Iterator[tuple[Run, AtStep]]:
    runs: list[Run] = []

    def make() -> Run:
        runs.append(Run())
        return runs[-1]

    for instrument in every_step(live, make, clock=partial(MockClock, autojump_threshold=0)):
        yield runs[-1], instrument


@pytest.mark.exhaustive
@pytest.mark.trio_only
def test_cancelled_at_every_await_no_job_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("random.random", lambda: 0.6)  # each run is to have the same steps
    file = Path(trichannels.__file__).parent / "worker.py"
    wanted = awaits_in(file)
    steps = 0
    for run, instrument in interrupted():
        assert run.problem is None
        wanted -= instrument.lines
        steps += 1
    assert steps > 50
    source = file.read_text().splitlines()
    missed = [f"{line}: {source[line - 1].strip()}" for _, line in sorted(wanted)]
    assert missed == []


@pytest.mark.exhaustive
def test_cancelled_by_asyncio_at_every_iteration_no_job_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("random.random", lambda: 0.6)
    runs: list[Run] = []

    def make() -> Run:
        runs.append(Run())
        return runs[-1]

    iterations = 0
    for _ in every_iteration(live, make):
        assert runs[-1].problem is None
        iterations += 1
    assert iterations > 50
