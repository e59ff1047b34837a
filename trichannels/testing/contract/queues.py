"""Work queues: each job at least once, retries, delays, dead letters, bounds. What workers rely on."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ...exceptions import BadEvent, ChannelFull, InvalidName, LayerClosed
from ...layers.base import ChannelLayer
from ...layers.queues import Job, JobQueue, QueueStatistics
from .base import ContractBase, message
from .cancellation import STEPS

WORK = "work"


def numbers(jobs: list[Job]) -> list[int]:
    """Return what tells the jobs' messages apart."""
    return [job.open()["number"] for job in jobs]


class QueuesContract(ContractBase):
    """``send`` to a named channel, now or later, ``open_queue``, and ``receive`` from it without a worker."""

    part = "queues"
    late: ClassVar[float] = 5
    """Seconds after which a delayed job must have come, once it is due."""

    @asynccontextmanager
    async def worked(self, **options: object) -> AsyncIterator[tuple[ChannelLayer, JobQueue]]:
        """Open a layer to send from, and a queue to work on."""
        async with self.pair(**options) as (peer, layer), layer.open_queue(WORK) as queue:
            yield peer, queue

    async def fetched(self, queue: JobQueue, most: int = 1) -> list[Job]:
        """Return jobs, which must come within bounds."""
        with anyio.fail_after(self.patience):
            return await queue.fetch(most)

    async def nothing_in(self, queue: JobQueue) -> bool:
        """Say whether no job comes for a moment."""
        with anyio.move_on_after(self.quiet) as patience:
            assert await queue.fetch(10) == []
        return patience.cancelled_caught

    async def depth(self, queue: JobQueue) -> tuple[int, int, int, int]:
        """Return how many jobs wait, run, are delayed and dead."""
        depth: QueueStatistics = await queue.depth()
        return depth.waiting, depth.running, depth.delayed, depth.dead

    # ---- in and out

    async def test_a_job_that_is_done_is_gone(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send(WORK, message(1))
            (job,) = await self.fetched(queue)
            assert (job.channel, job.open(), job.deliveries) == (WORK, message(1), 1)
            assert await self.depth(queue) == (0, 1, 0, 0)
            await queue.done(job)
            await queue.done(job)
            assert await self.depth(queue) == (0, 0, 0, 0)
            assert await self.nothing_in(queue)

    async def test_jobs_come_in_order_and_no_more_than_were_asked_for(self) -> None:
        async with self.worked() as (peer, queue):
            for number in range(5):
                await peer.send(WORK, message(number))
            assert numbers(await self.fetched(queue, 2)) == [0, 1]
            assert numbers(await self.fetched(queue, 10)) == [2, 3, 4]

    async def test_a_worker_waits_for_jobs(self) -> None:
        async with self.worked() as (peer, queue):
            got: list[Job] = []

            async def work() -> None:
                got.extend(await self.fetched(queue, 10))

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(work)
                await self.settle()
                await peer.send(WORK, message(7))
            assert numbers(got) == [7]

    async def test_what_was_sent_before_the_first_worker_came_is_worked_on(self) -> None:
        async with self.pair() as (peer, layer):
            for number in range(3):
                await peer.send(WORK, message(number))
            async with layer.open_queue(WORK) as queue:
                assert numbers(await self.fetched(queue, 10)) == [0, 1, 2]

    async def test_each_job_goes_to_one_of_several_workers(self) -> None:
        async with self.pair() as (peer, layer), layer.open_queue(WORK) as one, layer.open_queue(WORK) as other:
            for number in range(4):
                await peer.send(WORK, message(number))
            jobs = [*await self.fetched(one, 2), *await self.fetched(other, 2)]
            assert sorted(numbers(jobs)) == [0, 1, 2, 3]
            assert len({job.id for job in jobs}) == 4

    async def test_jobs_do_not_expire(self) -> None:
        async with self.opened(expiry=self.brief_expiry) as layer, layer.open_queue(WORK) as queue:
            await layer.send(WORK, message(1))
            await anyio.sleep(2 * self.brief_expiry)
            assert numbers(await self.fetched(queue)) == [1]

    async def test_queues_do_not_mix(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send("play", message(1))
            await peer.send(WORK, message(2))
            assert numbers(await self.fetched(queue, 10)) == [2]

    async def test_a_queue_has_a_name_that_any_process_may_read(self) -> None:
        async with self.opened() as layer:
            with pytest.raises(InvalidName):
                async with layer.open_queue("one!process"):
                    pass

    async def test_without_a_worker_the_channel_is_received_from(self) -> None:
        async with self.pair() as (peer, layer):
            await peer.send(WORK, message(1))
            await peer.send(WORK, message(2))
            assert [await self.received(layer, WORK) for _ in range(2)] == [message(1), message(2)]
            async with layer.open_queue(WORK) as queue:
                with anyio.fail_after(self.patience):
                    while await self.depth(queue) != (0, 0, 0, 0):  # noqa: ASYNC110 - nobody tells of it
                        await anyio.sleep(self.quiet)

    async def test_a_cancelled_receive_from_a_queue_loses_no_message(self) -> None:
        async with self.opened() as layer:
            got: list[int] = []

            async def read(scope: anyio.CancelScope) -> None:
                with scope:
                    got.append((await layer.receive(WORK))["number"])

            for steps in range(STEPS):
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(read, scope)
                    await checkpoint()
                    await layer.send(WORK, message(steps))
                    for _ in range(steps):
                        await checkpoint()
                    scope.cancel()
            with anyio.fail_after(self.patience):
                while len(got) < STEPS:
                    got.append((await layer.receive(WORK))["number"])
            assert sorted(got) == list(range(STEPS))

    # ---- failures

    async def test_a_job_that_is_retried_comes_again_with_its_id_and_counts_it(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send(WORK, message(1))
            (first,) = await self.fetched(queue)
            await queue.retry(first, 0, "it broke")
            assert await self.depth(queue) == (1, 0, 0, 0)
            (second,) = await self.fetched(queue)
            assert (second.id, second.deliveries, second.open()) == (first.id, 2, message(1))
            assert second.enqueued_at == pytest.approx(first.enqueued_at, abs=0.01)

    async def test_a_retry_may_be_delayed(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send(WORK, message(1))
            (job,) = await self.fetched(queue)
            before = anyio.current_time()
            await queue.retry(job, self.brief, "it broke")
            assert await self.depth(queue) == (0, 0, 1, 0)
            (again,) = await self.fetched(queue)
            assert self.brief * 0.9 <= anyio.current_time() - before <= self.brief + self.late
            assert (again.id, again.deliveries) == (job.id, 2)

    async def test_a_job_that_is_given_back_is_not_counted(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send(WORK, message(1))
            for _ in range(3):
                (job,) = await self.fetched(queue)
                assert job.deliveries == 1
                await queue.give_back(job)
            (job,) = await self.fetched(queue)
            await queue.retry(job, 0, "")
            (job,) = await self.fetched(queue)
            await queue.give_back(job)
            assert (await self.fetched(queue))[0].deliveries == 2

    async def test_what_was_not_settled_goes_back_when_the_block_ends(self) -> None:
        async with self.pair() as (peer, layer):
            for number in range(3):
                await peer.send(WORK, message(number))
            async with layer.open_queue(WORK) as queue:
                jobs = await self.fetched(queue, 3)
                await queue.done(jobs[1])
            async with layer.open_queue(WORK) as queue:
                again = await self.fetched(queue, 10)
                assert sorted(numbers(again)) == [0, 2]
                assert [job.deliveries for job in again] == [1, 1]

    async def test_nothing_is_fetched_after_the_block(self) -> None:
        async with self.opened() as layer:
            async with layer.open_queue(WORK) as queue:
                await layer.send(WORK, message(1))
            with pytest.raises(LayerClosed), anyio.fail_after(self.patience):
                await queue.fetch(1)
            assert await self.received(layer, WORK) == message(1)

    async def test_only_who_has_a_job_may_retry_or_bury_it(self) -> None:
        async with self.worked() as (peer, queue):
            await peer.send(WORK, message(1))
            (job,) = await self.fetched(queue)
            assert await queue.renew([job]) == []
            await queue.done(job)
            assert await queue.renew([job]) == [job]
            await queue.retry(job, 0, "")
            await queue.bury(job, "")
            await queue.give_back(job)
            assert await self.depth(queue) == (0, 0, 0, 0)

    # ---- dead letters

    async def bury(self, peer: ChannelLayer, queue: JobQueue, *which: int) -> None:
        """Let jobs come and die."""
        for number in which:
            await peer.send(WORK, message(number))
            (job,) = await self.fetched(queue)
            await queue.bury(job, f"error {number}: ü\n\ud800")

    async def test_a_buried_job_is_a_dead_letter(self) -> None:
        async with self.worked() as (peer, queue):
            await self.bury(peer, queue, 1)
            assert await self.depth(queue) == (0, 0, 0, 1)
            (letter,) = await queue.dead(10)
            assert letter.error.startswith("error 1: ü\n")
            assert (letter.job.open(), letter.job.deliveries, letter.job.channel) == (message(1), 1, WORK)
            assert letter.buried_at >= letter.job.enqueued_at

    async def test_dead_letters_are_listed_page_by_page(self) -> None:
        async with self.worked() as (peer, queue):
            await self.bury(peer, queue, *range(5))
            first = await queue.dead(2)
            rest = await queue.dead(10, after=first[-1].id)
            assert numbers([letter.job for letter in first + rest]) == [0, 1, 2, 3, 4]
            assert await queue.dead(10, after=rest[-1].id) == []

    async def test_dead_letters_are_requeued_as_if_new(self) -> None:
        async with self.worked() as (peer, queue):
            await self.bury(peer, queue, 0, 1, 2)
            letters = await queue.dead(10)
            assert await queue.requeue([letters[1].id, "0-1", "no such letter"]) == 1
            (job,) = await self.fetched(queue, 10)
            assert (job.open(), job.deliveries, job.id) == (message(1), 1, letters[1].job.id)
            assert await queue.requeue() == 2
            assert numbers(await self.fetched(queue, 10)) == [0, 2]
            assert await self.depth(queue) == (0, 3, 0, 0)

    async def test_dead_letters_are_discarded(self) -> None:
        async with self.worked() as (peer, queue):
            await self.bury(peer, queue, 0, 1, 2)
            letters = await queue.dead(10)
            assert await queue.discard([letters[0].id, "no such letter"]) == 1
            assert await queue.discard() == 2
            assert await queue.discard() == 0
            assert await self.depth(queue) == (0, 0, 0, 0)

    # ---- bounds

    async def test_a_full_queue_refuses_and_what_is_worked_on_or_delayed_counts(self) -> None:
        async with self.opened(capacity=3) as layer, layer.open_queue(WORK) as queue:
            await layer.send(WORK, message(0))
            (job,) = await self.fetched(queue)
            await layer.send(WORK, message(1), delay=3600)
            await layer.send(WORK, message(2))
            for delay in (0, 1):
                with pytest.raises(ChannelFull) as caught:
                    await layer.send(WORK, message(3), delay=delay)
                assert (caught.value.channel, caught.value.capacity) == (WORK, 3)
            await queue.retry(job, 0, "")
            assert await self.depth(queue) == (2, 0, 1, 0)
            await queue.done((await self.fetched(queue))[0])
            await layer.send(WORK, message(4))

    async def test_dead_letters_are_requeued_into_a_full_queue(self) -> None:
        async with self.opened(capacity=1) as layer, layer.open_queue(WORK) as queue:
            await self.bury(layer, queue, 0)
            await layer.send(WORK, message(1))
            assert await queue.requeue() == 1
            assert await self.depth(queue) == (2, 0, 0, 0)

    # ---- later

    async def test_a_delayed_job_comes_when_it_is_due(self) -> None:
        async with self.worked() as (peer, queue):
            before = anyio.current_time()
            await peer.send(WORK, message(2), delay=2 * self.brief)
            await peer.send(WORK, message(1), delay=self.brief)
            await peer.send(WORK, message(0))
            assert numbers(await self.fetched(queue, 10)) == [0]
            assert await self.depth(queue) == (0, 1, 2, 0)
            for number in (1, 2):
                assert numbers(await self.fetched(queue)) == [number]
                passed = anyio.current_time() - before
                assert number * self.brief * 0.9 <= passed <= number * self.brief + self.late

    async def test_a_delayed_message_is_received_without_a_worker(self) -> None:
        async with self.pair() as (peer, layer):
            before = anyio.current_time()
            await peer.send(WORK, message(1), delay=self.brief)
            assert await self.received(layer, WORK) == message(1)
            assert self.brief * 0.9 <= anyio.current_time() - before

    async def test_the_delay_of_a_job_is_a_number_of_seconds(self) -> None:
        async with self.opened() as layer:
            for delay in (-1, float("nan"), float("inf"), "1", True):
                with pytest.raises(BadEvent, match="delay"):
                    await layer.send(WORK, message(), delay=delay)  # type: ignore[arg-type]

    # ---- cancellation

    async def test_a_cancelled_fetch_has_taken_nothing(self) -> None:
        async with self.worked() as (peer, queue):
            got: list[Job] = []

            async def work(scope: anyio.CancelScope) -> None:
                with scope:
                    got.extend(await queue.fetch(10))

            for steps in range(2 * STEPS):
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(work, scope)
                    for _ in range(steps % STEPS):
                        await checkpoint()
                    await peer.send(WORK, message(steps))
                    for _ in range(steps // 2):
                        await checkpoint()
                    scope.cancel()
            with anyio.fail_after(self.patience):
                while len(got) < 2 * STEPS:
                    got += await queue.fetch(2 * STEPS)
            assert sorted(numbers(got)) == list(range(2 * STEPS))
            assert len({job.id for job in got}) == 2 * STEPS

    async def test_a_cancelled_settlement_may_be_repeated(self) -> None:
        async with self.worked() as (peer, queue):
            ways: list[Callable[[Job], Coroutine[Any, Any, None]]] = [
                queue.done,
                lambda job: queue.retry(job, 0, ""),
                queue.give_back,
                lambda job: queue.bury(job, ""),
            ]
            for settle in ways:
                for steps in range(STEPS):
                    await peer.send(WORK, message(steps))
                    (job,) = await self.fetched(queue)
                    async with anyio.create_task_group() as nursery:
                        nursery.start_soon(settle, job)
                        for _ in range(steps):
                            await checkpoint()
                        nursery.cancel_scope.cancel()
                    await settle(job)
                    waiting, running, delayed, _ = await self.depth(queue)
                    assert (running, delayed) == (0, 0)
                    if waiting:
                        (again,) = await self.fetched(queue)
                        assert again.open() == message(steps)
                        await queue.done(again)
