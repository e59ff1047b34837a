"""Work queues on Redis: the contract, and what becomes of jobs when workers, connections and servers die."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from trichannels.consumer import AsyncConsumer
from trichannels.events import Event
from trichannels.exceptions import LayerClosed, LayerRefused, LayerUnreachable, UnreadableMessage
from trichannels.layers.base import ChannelLayer
from trichannels.layers.queues import Job, QueueStatistics, Retry
from trichannels.layers.redis import queue as module
from trichannels.layers.redis import queue_bell
from trichannels.layers.redis.names import Native
from trichannels.layers.redis.queue import RedisQueue, open_redis_queue
from trichannels.layers.redis.scripts import Script
from trichannels.nursery import collapsed
from trichannels.seam import backend
from trichannels.testing.contract.base import message
from trichannels.testing.contract.queues import QueuesContract
from trichannels.worker import run_worker

from ..processes import PATIENCE, Running, running
from ..proxy import Proxy
from .queue_layers import QueueLayer, opened
from .servers import RedisProcess, fresh_prefix, shared_server

pytestmark = pytest.mark.server

WORK = "work"


class TestOnRedis8(QueuesContract):
    """What one layer sends, another one's worker gets; on Redis 7 the layer's own contract looks at that."""

    pytestmark = pytest.mark.once

    def make_layer(self) -> ChannelLayer:
        return QueueLayer(url=shared_server("8").url)

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, QueueLayer)
        return QueueLayer(url=layer.url, prefix=layer.prefix)


def layer_at(server: RedisProcess | None = None, **options: Any) -> QueueLayer:
    return QueueLayer(url=(server or shared_server()).url, **{"capacity": 10_000, **options})


async def fetched(queue: RedisQueue, most: int = 1, within: float = 20) -> list[Job]:
    with anyio.fail_after(within):
        return await queue.fetch(most)


def numbers(jobs: list[Job]) -> list[int]:
    return [job.open()["number"] for job in jobs]


def jobs_key(layer: QueueLayer) -> str:
    return Native(layer.prefix).key(WORK, "jobs")


async def nothing_comes(queue: RedisQueue, seconds: float = 0.1) -> bool:
    with anyio.move_on_after(seconds) as patience:
        assert await queue.fetch(9) == []
    return patience.cancelled_caught


# Workers that die, and workers that are slow


async def test_jobs_of_a_dead_worker_are_handed_out_again() -> None:
    async with layer_at(claim=0.3, poll=0.05) as layer, opened(layer) as other:
        await layer.send(WORK, message(1))
        async with anyio.create_task_group() as nursery:
            dead = layer.queues._queue(WORK, None)  # not in a block: it does not give back what it has
            (lost,) = await fetched(dead)
            nursery.cancel_scope.cancel()
        before = anyio.current_time()
        (job,) = await fetched(other)
        assert (job.id, job.deliveries) == (lost.id, 2)
        assert 0.2 < anyio.current_time() - before < 5
        await dead.retry(lost, 0, "")  # too late: it is not its job any more
        await dead.bury(lost, "")
        assert await dead.renew([lost]) == [lost]
        await other.retry(job, 0, "")
        assert (await fetched(other))[0].deliveries == 3


async def test_a_worker_that_renews_keeps_its_jobs() -> None:
    async with layer_at(claim=0.4, poll=0.05) as layer, opened(layer) as slow, opened(layer) as other:
        await layer.send(WORK, message(1))
        jobs = await fetched(slow)
        for _ in range(8):
            assert await nothing_comes(other)
            assert await slow.renew(jobs) == []
        await slow.done(jobs[0])
        assert await slow.depth() == QueueStatistics(waiting=0, running=0, delayed=0, dead=0)


async def test_a_worker_is_not_handed_what_it_has_already() -> None:
    """Its loop stood still for longer than a claim."""
    async with layer_at(claim=0.1, poll=0.05) as layer, opened(layer) as queue:
        await layer.send(WORK, message(1))
        (job,) = await fetched(queue)
        assert await nothing_comes(queue, 0.5)
        await queue.done(job)


async def test_a_worker_with_a_name_begins_with_what_it_had() -> None:
    async with layer_at() as layer:
        make = partial(
            RedisQueue, layer.server, Native(layer.prefix), WORK, decode=layer.serializer.decode, consumer="one"
        )
        for number in range(3):
            await layer.send(WORK, message(number))
        before = make()
        jobs = await fetched(before, 2)
        await before.done(jobs[0])
        async with open_redis_queue(make()) as again:
            found = await fetched(again, 9)
            assert [(job.open()["number"], job.deliveries) for job in found] == [(1, 2), (2, 1)]


async def test_workers_that_have_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def consumers() -> list[str]:
        with shared_server().client() as client:
            return [found["name"] for found in client.xinfo_consumers(jobs_key(layer), "workers")]

    async with layer_at() as layer:
        await layer.send(WORK, message(1))
        async with opened(layer) as queue:
            await queue.done((await fetched(queue))[0])
            assert consumers() == [queue.consumer]
        assert consumers() == []
        with shared_server().client() as client:
            client.xgroup_createconsumer(jobs_key(layer), "workers", "of long ago")
        await layer.send(WORK, message(1))
        async with opened(layer) as queue:
            await fetched(queue)
            assert sorted(consumers()) == sorted(["of long ago", queue.consumer])
        impatient = Script("fetch", module.FETCH.text.replace("> 3600000", ">= 0"))
        monkeypatch.setattr(module, "FETCH", impatient)
        async with opened(layer) as queue:
            await fetched(queue)
            assert consumers() == [queue.consumer]


# Servers that forget, restart, hang, refuse


async def test_flushall_ends_no_worker() -> None:
    with RedisProcess() as server:
        async with layer_at(server) as layer, opened(layer) as queue:
            await layer.send(WORK, message(1))
            (job,) = await fetched(queue)
            got: list[Job] = []

            async def work() -> None:
                got.extend(await fetched(queue))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(work)
                await anyio.sleep(0.1)
                server.admin("FLUSHALL")
                await layer.send(WORK, message(2))
            assert numbers(got) == [2]
            assert await queue.renew([job]) == [job]
            await queue.retry(job, 0, "")  # it is gone, and stays so
            await queue.bury(job, "")
            await queue.done(job)
            await queue.done(got[0])
            assert await queue.depth() == QueueStatistics(waiting=0, running=0, delayed=0, dead=0)
            server.admin("FLUSHALL")
            for call in (queue.retry(job, 0, ""), queue.bury(job, ""), queue.give_back(job), queue.done(job)):
                await call
            assert await queue.renew([job]) == [job]
            assert await queue.depth() == QueueStatistics(waiting=0, running=0, delayed=0, dead=0)


async def test_a_server_that_restarts_loses_no_job() -> None:
    with RedisProcess("7", "--appendonly", "yes", "--appendfsync", "always") as server:
        async with layer_at(server) as layer, opened(layer) as queue:
            for number in range(3):
                await layer.send(WORK, message(number))
            await layer.send(WORK, message(3), delay=0.5)
            (first,) = await fetched(queue)
            await queue.bury(first, "dead")
            (second,) = await fetched(queue)
            server.restart()
            assert numbers(await fetched(queue)) == [2]
            assert numbers(await fetched(queue)) == [3]
            await queue.done(second)
            (letter,) = await queue.dead(9)
            assert letter.job.id == first.id


async def test_a_worker_waits_while_its_server_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with RedisProcess() as server:
        async with layer_at(server, timeout=0.3) as layer, opened(layer) as queue:
            got: list[Job] = []

            async def work() -> None:
                got.extend(await fetched(queue))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(work)
                await anyio.sleep(0.1)
                server.kill()
                while "no jobs of 'work' can be fetched" not in caplog.text:
                    await anyio.sleep(0.05)
                with pytest.raises(LayerUnreachable):
                    await layer.send(WORK, message(1))
                server.start()
                with anyio.fail_after(10):
                    while True:
                        try:
                            await layer.send(WORK, message(2))
                            break
                        except LayerUnreachable:
                            await anyio.sleep(0.05)
            assert numbers(got) == [2]
    assert caplog.text.count("no jobs of 'work' can be fetched") == 1


async def test_a_worker_that_leaves_while_its_server_hangs_does_so_in_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RELEASE_TIME", 0.2)
    with RedisProcess() as server:
        async with layer_at(server) as layer:
            async with opened(layer) as queue:
                await layer.send(WORK, message(1))
                await fetched(queue)
                server.stop()
                before = time.monotonic()
            assert time.monotonic() - before < 3
            server.cont()
    assert "1 jobs of 'work' were not given back" in caplog.text


async def test_a_refusal_for_good_is_raised() -> None:
    async with layer_at() as layer:
        with shared_server().client() as client:
            client.set(jobs_key(layer), "no stream")
        async with opened(layer) as queue:
            with pytest.raises(LayerRefused, match="WRONGTYPE"):
                await queue.fetch(1)
            with pytest.raises(LayerRefused, match="WRONGTYPE"):
                await queue.depth()
        with pytest.raises(LayerRefused, match="WRONGTYPE"):
            await layer.receive(WORK)
        with pytest.raises(LayerRefused, match="WRONGTYPE"):
            await layer.send(WORK, message())


async def test_a_refusal_for_now_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with layer_at() as layer, opened(layer) as queue:
        run, left = layer.server.run, ["LOADING the server has just started", "READONLY", "OOM"]

        async def refuse(script: Script, *args: Any, **options: Any) -> Any:
            if left and script is module.FETCH:
                raise LayerRefused("redis", left.pop())
            return await run(script, *args, **options)

        monkeypatch.setattr(layer.server, "run", refuse)
        monkeypatch.setattr(module, "BACKOFF", (0.01, 0.02))
        got: list[Job] = []

        async def work() -> None:
            got.extend(await fetched(queue))

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(work)
            await anyio.sleep(0.1)
            await layer.send(WORK, message(1))
        assert numbers(got) == [1]


async def test_the_end_of_the_layer_is_heard_by_all_who_wait() -> None:
    heard: list[str] = []

    async def expect(call: Callable[[], Any], name: str) -> None:
        with pytest.raises(LayerClosed):
            await call()
        heard.append(name)

    async with layer_at() as layer:
        opening = layer.open_queue(WORK)
        queue = await opening.__aenter__()
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(expect, lambda: queue.fetch(1), "worker")
            nursery.start_soon(expect, lambda: layer.receive("other"), "receiver")
            await anyio.sleep(0.2)
            before = anyio.current_time()
            await layer.__aexit__(None, None, None)
        assert anyio.current_time() - before < 1
        assert sorted(heard) == ["receiver", "worker"]
        await opening.__aexit__(None, None, None)
        assert anyio.current_time() - before < 4
        await layer.__aenter__()


# Whatever is in the stream


async def test_an_entry_that_is_not_ours_is_a_job_that_cannot_be_read() -> None:
    async with layer_at() as layer, opened(layer) as queue:
        with shared_server().client() as client:
            entry = client.xadd(jobs_key(layer), {"what": "is this"})
        (job,) = await fetched(queue)
        assert (job.id, job.deliveries) == (entry, 1)
        assert job.enqueued_at == pytest.approx(time.time(), abs=60)
        with pytest.raises(UnreadableMessage):
            job.open()
        await queue.give_back(job)
        (job,) = await fetched(queue)
        await queue.bury(job, "unreadable")
        (letter,) = await queue.dead(9)
        assert (letter.job.id, letter.error) == (entry, "unreadable")


@pytest.mark.parametrize("payload", [b"", b"\x00 \xff\r\n %s {} ", b"1 2 3 4", bytes(range(256)) * 100])
async def test_any_bytes_survive_all_ways(payload: bytes) -> None:
    async with layer_at() as layer, opened(layer) as queue:
        await layer.queues.put(WORK, payload, 0.01)
        (job,) = await fetched(queue)
        await queue.retry(job, 0.01, "")
        (job,) = await fetched(queue)
        await queue.retry(job, 0, "")
        (job,) = await fetched(queue)
        await queue.give_back(job)
        (job,) = await fetched(queue)
        assert job.deliveries == 3
        await queue.bury(job, "")
        await queue.requeue()
        (job,) = await fetched(queue)
        await queue.release(leaving=True)
        (job,) = await fetched(queue)
        assert (job.payload, job.deliveries) == (payload, 1)


async def test_of_too_many_dead_letters_the_oldest_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async with layer_at() as layer, opened(layer) as queue:
        queue._dead_letters = 3
        for number in range(5):
            await layer.send(WORK, message(number))
            await queue.bury((await fetched(queue))[0], "")
        assert numbers([letter.job for letter in await queue.dead(9)]) == [2, 3, 4]
    assert caplog.text.count("too many dead letters") == 2


async def test_many_dead_letters_are_moved_by_parts() -> None:
    async with layer_at() as layer, opened(layer) as queue:
        count = 2 * module.BATCH + 5
        for number in range(count):
            await layer.send(WORK, message(number))
        for job in await fetched(queue, count):
            await queue.bury(job, "")
        letters = await queue.dead(count)
        assert await queue.requeue([letter.id for letter in letters[:150]]) == 150
        assert await queue.requeue() == count - 150
        jobs = await fetched(queue, count)
        assert sorted(numbers(jobs)) == list(range(count))
        assert len(jobs) == count
        for job in jobs[:250]:
            await queue.bury(job, "")
        assert len(await queue.dead(count)) == len(jobs[:250])


# Waiting


async def test_who_waits_is_woken_and_does_not_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async with layer_at(poll=1000) as layer, opened(layer) as queue, opened(layer) as other:
        for number in range(20):
            got: list[Job] = []

            async def work(queue: RedisQueue, got: list[Job] = got) -> None:
                got.extend(await fetched(queue, 1))

            async with anyio.create_task_group() as nursery:
                for each in (queue, queue, other):
                    nursery.start_soon(work, each)
                await anyio.sleep(0.01 * (number % 3))
                for each_number in range(3):
                    await layer.send(WORK, message(each_number))
            assert sorted(numbers(got)) == [0, 1, 2]


async def test_without_its_bell_a_worker_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    async with layer_at(poll=0.1) as layer:

        def nowhere(key: str) -> Any:
            raise LayerUnreachable("redis", "no more connections")

        monkeypatch.setattr(layer.server, "dedicated", nowhere)
        async with opened(layer) as queue:
            got: list[Job] = []

            async def work() -> None:
                got.extend(await fetched(queue))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(work)
                await anyio.sleep(0.3)
                await layer.send(WORK, message(1))
            assert numbers(got) == [1]


async def test_a_receiver_that_has_gone_gives_its_connection_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_bell, "IDLE", 0.1)
    monkeypatch.setattr(queue_bell, "BLOCK", 0.1)

    def connections() -> int:
        with shared_server().client() as client:
            return len([found for found in client.client_list() if found["cmd"] == "xread"])

    async with layer_at() as layer:
        before = connections()
        with anyio.move_on_after(0.3):
            await layer.receive(WORK)
        assert layer.queues._received
        with anyio.fail_after(20):
            while layer.queues._received:
                await anyio.sleep(0.05)
        assert connections() == before
        await layer.send(WORK, message(1))
        assert await layer.receive(WORK) == message(1)


async def test_what_cannot_be_read_is_no_receivers_but_a_dead_letter() -> None:
    async with layer_at() as layer:
        await layer.queues.put(WORK, b"\xc1 no msgpack")
        await layer.send(WORK, message(1))
        assert await layer.receive(WORK) == message(1)
        async with opened(layer) as queue:
            with anyio.fail_after(20):
                while not (letters := await queue.dead(9)):
                    await anyio.sleep(0.02)
            assert "a message cannot be read" in letters[0].error


async def test_an_acknowledgement_that_is_lost_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", (0.01, 0.02))
    async with layer_at() as layer:
        run, failures = layer.server.run, [0]

        async def lose(script: Script, *args: Any, **options: Any) -> Any:
            if script.name == "queue_done" and failures[0] < 3:
                failures[0] += 1
                raise LayerUnreachable("redis", "no answer")
            return await run(script, *args, **options)

        monkeypatch.setattr(layer.server, "run", lose)
        await layer.send(WORK, message(1))
        assert await layer.receive(WORK) == message(1)
        async with opened(layer) as queue:
            with anyio.fail_after(20):
                while (await queue.depth()).running:
                    await anyio.sleep(0.02)
        assert failures == [3]


# Cancelled, cut, killed: at least once, all the same


class Tally:
    """Counts what was done; waits until all is."""

    def __init__(self) -> None:
        self.done = Counter[int]()
        self._news = anyio.Event()

    def application(self, seconds: float = 0) -> Any:
        tally = self

        class Tasks(AsyncConsumer):
            async def test_message(self, event: Event) -> None:
                await anyio.sleep(seconds)
                tally.done[event["number"]] += 1
                tally._news.set()
                tally._news = anyio.Event()

        return Tasks.as_asgi()

    async def until(self, count: int, within: float = 60) -> None:
        with anyio.fail_after(within):
            while len(self.done) < count:
                await self._news.wait()


@pytest.mark.parametrize("seed", [1, 2])
async def test_fetches_and_receives_that_are_cancelled_at_any_time_lose_nothing(seed: int) -> None:
    dice = random.Random(seed)
    async with layer_at() as layer, opened(layer) as queue:
        got: list[int] = []

        async def fetch(scope: anyio.CancelScope) -> None:
            with scope:
                for job in await queue.fetch(3):
                    got.append(job.open()["number"])

        async def receive(scope: anyio.CancelScope) -> None:
            with scope:
                got.append((await layer.receive(WORK))["number"])

        count = 150
        for number in range(count):
            async with anyio.create_task_group() as nursery:
                scopes = [anyio.CancelScope(), anyio.CancelScope()]
                nursery.start_soon(fetch, scopes[0])
                nursery.start_soon(receive, scopes[1])
                await anyio.sleep(dice.random() * 0.002)
                await layer.send(WORK, message(number))
                await anyio.sleep(dice.random() * 0.002)
                for scope in scopes:
                    scope.cancel()
        with anyio.fail_after(20):
            while len(set(got)) < count:
                got += numbers(await queue.fetch(count))
        assert sorted(got) == list(range(count))  # and nothing twice: nothing had to be given up


async def test_receives_that_asyncio_itself_cancels_lose_nothing() -> None:
    """``task.cancel()`` knows no shield; a message that was acknowledged for nobody comes again."""
    if backend() == "trio":
        return
    dice = random.Random(5)
    async with layer_at() as layer:
        got: list[int] = []

        async def receive() -> None:
            got.append((await layer.receive(WORK))["number"])

        count = 200
        for number in range(count):
            task = asyncio.get_running_loop().create_task(receive())
            await anyio.sleep(0.002 if number % 2 else 0)
            await layer.send(WORK, message(number))
            for _ in range(dice.randrange(20)):
                await anyio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        with anyio.fail_after(20):
            while len(set(got)) < count:
                got.append((await layer.receive(WORK))["number"])
        assert len(got) < count + 20


async def test_answers_that_are_cut_off_at_any_byte_lose_no_job() -> None:
    """What was handed out and never arrived is found again at once, not after the claim."""
    dice = random.Random(3)
    tally = Tally()
    with Proxy(shared_server().port) as proxy:
        layer = QueueLayer(url=f"redis://127.0.0.1:{proxy.port}", capacity=10_000, claim=600)
        patient = Retry(retries=1000)  # every cut may cost the same job a delivery
        async with layer_at(prefix=layer.prefix) as sender, layer, collapsed(), anyio.create_task_group() as nursery:
            await nursery.start(partial(run_worker, tally.application(), layer, WORK, concurrency=4, retry=patient))
            for number in range(60):
                proxy.cut_after(dice.randrange(1, 400))
                for part in range(3):
                    await sender.send(WORK, message(3 * number + part))
                await anyio.sleep(0.01)
            proxy.cut_after(10**9)
            await tally.until(180)  # the claim is ten minutes
            nursery.cancel_scope.cancel()


async def test_jobs_are_done_while_connections_are_killed() -> None:
    tally, count = Tally(), 300
    with RedisProcess() as server:
        async with layer_at(server) as layer, collapsed(), anyio.create_task_group() as nursery:
            for number in range(count):
                await layer.send(WORK, message(number))
            for _ in range(2):
                await nursery.start(partial(run_worker, tally.application(0.005), layer, WORK, concurrency=3))
            for _ in range(15):
                await anyio.sleep(0.02)
                server.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await tally.until(count, within=25)
            nursery.cancel_scope.cancel()


APP = """
import os
import anyio
from trichannels.consumer import AsyncConsumer
from trichannels.layers.redis import RedisChannelLayer
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter
import redis

client = redis.Redis.from_url(os.environ["REDIS_URL"])

class Tasks(AsyncConsumer):
    async def task_do(self, event):
        await anyio.sleep(0.002)
        client.hincrby("tally", event["number"])

    async def task_fail(self, event):
        raise ValueError("not now")

    async def task_wait(self, event):
        client.hincrby("tally", "waiting")
        await anyio.sleep(event["seconds"])
        client.hincrby("tally", "waited")

claim = float(os.environ.get("CLAIM", "30"))
layer = RedisChannelLayer(url=os.environ["REDIS_URL"], capacity=10_000, queue_claim=claim)
application = ProtocolTypeRouter({"channel": ChannelNameRouter({"work": Tasks.as_asgi()})}, layers={"default": layer})
"""


def worker(server: RedisProcess, folder: Path, *options: str, claim: str = "30") -> Any:
    (folder / "site_app.py").write_text(APP)
    return running(
        *("worker", "site_app:application", WORK, *options),
        cwd=folder,
        environment={"REDIS_URL": server.url, "CLAIM": claim},
    )


def await_tally(server: RedisProcess, ready: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    end = time.monotonic() + PATIENCE
    with server.client() as client:
        while True:
            tally: dict[str, str] = client.hgetall("tally")
            if ready(tally):
                return tally
            assert time.monotonic() < end, tally
            time.sleep(0.02)  # a foreign process offers no event


async def fill(server: RedisProcess, *messages: dict[str, Any], delay: float = 0) -> None:
    async with QueueLayer(url=server.url, prefix="asgi", capacity=10_000) as layer:
        for each in messages:
            await layer.send(WORK, each, delay=delay)


async def depth(server: RedisProcess) -> tuple[int, int, int, int]:
    async with QueueLayer(url=server.url, prefix="asgi") as layer, opened(layer) as queue:
        found = await queue.depth()
    return found.waiting, found.running, found.delayed, found.dead


@pytest.mark.once
async def test_a_worker_killed_in_the_middle_of_a_thousand_jobs(tmp_path: Path) -> None:
    """Each of them is done at least once; what it had in hand, by the other one after the claim."""
    with RedisProcess() as server:
        await fill(server, *({"type": "task.do", "number": number} for number in range(1000)))
        with worker(server, tmp_path, claim="1") as one, worker(server, tmp_path, claim="1") as other:
            for each in (one, other):
                each.heard("working on 'work'")
            await_tally(server, lambda tally: len(tally) >= 300)
            one.tell(signal.SIGKILL)
            tally = await_tally(server, lambda tally: len(tally) == 1000)
            twice = [number for number, times in tally.items() if times != "1"]
            assert len(twice) <= 10  # no more than were in hand
            assert other.end(signal.SIGTERM) == 0
        assert await depth(server) == (0, 0, 0, 0)


@pytest.mark.once
async def test_a_worker_process_drains_and_gives_back_what_it_cannot_finish(tmp_path: Path) -> None:
    with RedisProcess() as server:
        waits = ({"type": "task.wait", "seconds": seconds} for seconds in (1, 1000))
        await fill(server, *waits)
        with worker(server, tmp_path, "--drain-time", "2", "--stats") as process:
            await_tally(server, lambda tally: tally.get("waiting") == "2")
            before = time.monotonic()
            assert process.end(signal.SIGTERM) == 0
            assert time.monotonic() - before < 10
        assert await_tally(server, bool)["waited"] == "1"
        assert await depth(server) == (1, 0, 0, 0)
        assert "1 done" in process.out
        with worker(server, tmp_path) as process:
            await_tally(server, lambda tally: tally.get("waiting") == "3")
            assert process.end(signal.SIGINT) == 0
        assert await depth(server) == (1, 0, 0, 0)


@pytest.mark.once
async def test_dead_letters_are_listed_requeued_and_discarded_by_the_command(tmp_path: Path) -> None:
    def dead(*options: str, code: int = 0) -> Running:
        line = ("dead", "site_app:application", WORK, *options)
        with running(*line, cwd=tmp_path, environment={"REDIS_URL": server.url}) as process:
            assert process.end() == code, process.err
        return process

    with RedisProcess() as server:
        await fill(server, {"type": "task.fail", "number": 1}, {"type": "task.unknown"}, {"type": "task.fail"})
        with worker(server, tmp_path, "--retries", "0") as process:
            process.heard("is a dead letter now", 3)
            assert process.end(signal.SIGTERM) == 0
        lines = dead().out.splitlines()
        assert len(lines) == 6
        ids = [line.partition(" ")[0] for line in lines[::2]]
        assert sum("delivered 1 times: ValueError: not now" in line for line in lines) == 2
        assert "    {'type': 'task.fail', 'number': 1}" in lines
        assert dead("--requeue", ids[0]).out == "1 dead letter is waiting again\n"
        missing = dead("--discard", ids[0], ids[1], code=1)
        assert missing.out == "1 dead letter is discarded\n"
        assert missing.err.startswith("trichannels: 1 of the 2 ids are none of a dead letter in 'work'")
        assert dead("--requeue", "all").out == "1 dead letter is waiting again\n"
        assert dead().out == "there are no dead letters in 'work'\n"
        assert await depth(server) == (2, 0, 0, 0)


async def test_retries_over_processes_count(tmp_path: Path) -> None:
    """A job that kills its worker is delivered as often as it may, and then buried without being run."""
    with RedisProcess() as server:
        async with layer_at(server, claim=0.1, poll=0.05) as layer:
            await layer.send(WORK, message(1))
            for _ in range(3):
                dead = layer.queues._queue(WORK, None)
                await fetched(dead)
            tally = Tally()
            events: list[Any] = []
            async with collapsed(), anyio.create_task_group() as nursery:
                work = partial(run_worker, tally.application(), layer, WORK, retry=Retry(retries=2))
                await nursery.start(partial(work, on_event=events.append))
                with anyio.fail_after(20):
                    while not [event for event in events if event.kind == "buried"]:
                        await anyio.sleep(0.02)
                nursery.cancel_scope.cancel()
            assert tally.done == {}
            assert events[-1].error.startswith("it was delivered 3 times and never came to an end")


def test_prefixes_do_not_mix() -> None:
    assert Native("a").key(WORK, "jobs") == "a:{work}:jobs"
    assert fresh_prefix() != fresh_prefix()
