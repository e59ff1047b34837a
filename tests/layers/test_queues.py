"""The rules of work queues, what is postponed inside a process, and what only the queues in memory do."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as some

from trichannels.exceptions import ChannelFull, InvalidChannelLayerError, LayerClosed
from trichannels.inbox import Inbox
from trichannels.layers import memory_queue
from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.queues import JobQueue, QueueStatistics, Retry
from trichannels.testing.contract.base import mailbox, message

WORK = "work"

# Retry


def test_delays_double_up_to_the_most() -> None:
    retry = Retry(first=1, most=10)
    assert [retry.delay(deliveries, 1.0) for deliveries in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [retry.delay(3, chance) for chance in (0, 0.25, 0.5)] == [0, 1, 2]


def test_so_many_retries_are_allowed() -> None:
    assert [Retry(retries=2).allows(deliveries) for deliveries in (1, 2, 3, 4)] == [True, True, False, False]
    assert not Retry(retries=0).allows(1)
    assert Retry(retries=2).deliveries == 3


@pytest.mark.once
@given(some.integers(0, 10**9), some.floats(0, 1), some.floats(0, 1e6), some.floats(0, 1e6))
def test_a_delay_is_within_its_bounds(deliveries: int, chance: float, first: float, most: float) -> None:
    assert 0 <= Retry(first=first, most=most).delay(deliveries, chance) <= most


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"retries": 1.5}, {"retries": True}, {"first": -1}, {"most": float("inf")}, {"most": "1"}],
)
def test_a_wrong_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=next(iter(options))):
        Retry(**options)


# A layer without queues


async def test_a_layer_without_queues_says_so() -> None:
    with pytest.raises(InvalidChannelLayerError, match="has no work queues"):
        ChannelLayer.open_queue(InMemoryChannelLayer(), WORK)


# Later, inside the process


async def test_messages_come_in_the_order_in_which_they_are_due(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        channel = await layer.new_channel()
        for number, delay in enumerate((30, 10, 20, 10, 0.5)):
            await layer.send(channel, message(number), delay=delay)
        came = []
        begin = anyio.current_time()
        for _ in range(5):
            came.append(((await layer.receive(channel))["number"], round(anyio.current_time() - begin, 6)))
        assert came == [(4, 0.5), (1, 10), (3, 10), (2, 20), (0, 30)]


async def test_an_hour_passes_without_a_task_when_nothing_is_left(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        for _ in range(3):
            await layer.send(WORK, message(), delay=3600)
            assert await layer.receive(WORK) == message()
            assert len(layer._postponed) == 0
            await anyio.wait_all_tasks_blocked()
            assert not layer._postponed._running


async def test_what_is_delayed_expires_from_when_it_is_due(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(expiry=60) as layer:
        box = mailbox()
        attached, loose = layer.attach(box), await layer.new_channel()
        for channel in (attached, loose, WORK):
            await layer.send(channel, message(), delay=100)
        await anyio.sleep(159)
        for channel in (loose, WORK):
            assert await layer.receive(channel) == message()
        item = await box.get()
        assert item is not None
        assert item.open() == message()
        for channel in (loose, WORK):
            await layer.send(channel, message(), delay=100)
        await anyio.sleep(161)
        for channel in (loose, WORK):
            with anyio.move_on_after(1) as patience:
                await layer.receive(channel)
            assert patience.cancelled_caught
        assert layer.statistics().expired == 2
        assert layer.statistics().waiting_messages == 0


async def test_what_is_delayed_is_bounded_in_messages_and_bytes(autojump_clock: object) -> None:
    async with InMemoryChannelLayer(capacity=2, buffer_bytes=2000) as layer:
        channel = await layer.new_channel()
        for _ in range(2):
            await layer.send(channel, message(), delay=10)
        with pytest.raises(ChannelFull):
            await layer.send(channel, message(), delay=10)
        other = await layer.new_channel()
        with pytest.raises(ChannelFull):
            await layer.send(other, {"type": "large", "text": "x" * 1500}, delay=10)
        await anyio.sleep(11)
        assert layer._postponed.bytes == 0
        await layer.send(other, {"type": "large", "text": "x" * 1500}, delay=10)


async def test_a_delayed_message_to_a_full_channel_is_dropped_and_counted(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        box = mailbox(Inbox(messages=1))
        attached, loose = layer.attach(box), await layer.new_channel()
        layer.channel_capacity = [("*!*", 1)]
        for channel in (attached, loose):
            await layer.send(channel, message(1), delay=10)
            await layer.send(channel, message(0))
        await anyio.sleep(11)
        assert layer.statistics().dropped == 2
        assert await layer.receive(loose) == message(0)


async def test_a_delayed_message_to_an_instance_that_has_ended_is_counted(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        channel = layer.attach(mailbox())
        await layer.send(channel, message(), delay=10)
        layer.detach(channel)
        await anyio.sleep(11)
        assert layer.statistics().undeliverable == 1


async def test_flush_forgets_what_is_delayed_and_all_jobs(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer, layer.open_queue(WORK) as queue:
        channel = await layer.new_channel()
        await layer.send(channel, message(), delay=10)
        for number in range(4):
            await layer.send(WORK, message(number))
        await layer.send(WORK, message(), delay=10)
        running, retried, dead = await queue.fetch(3)
        await queue.retry(retried, 5, "")
        await queue.bury(dead, "")
        await layer.flush()
        assert await queue.depth() == QueueStatistics(waiting=0, running=0, delayed=0, dead=0)
        assert layer.statistics().waiting_messages == layer.statistics().waiting_bytes == 0
        await anyio.sleep(20)
        assert await queue.renew([running]) == [running]
        await queue.done(running)
        assert await queue.depth() == QueueStatistics(waiting=0, running=0, delayed=0, dead=0)
        assert layer.statistics().waiting_messages == layer.statistics().waiting_bytes == 0
        await layer.send(WORK, message(9))
        assert [job.open()["number"] for job in await queue.fetch(9)] == [9]


# What only the queues in memory do


async def counted(layer: InMemoryChannelLayer) -> tuple[int, int]:
    """Return how many messages wait, and in how many channels."""
    statistics = layer.statistics()
    assert (statistics.waiting_bytes > 0) == (statistics.waiting_messages > 0)
    return statistics.waiting_messages, statistics.channels


async def test_each_job_is_accounted_for_until_it_is_gone() -> None:
    async with InMemoryChannelLayer() as layer:
        await layer.send(WORK, message())
        assert await counted(layer) == (1, 1)
        async with layer.open_queue(WORK) as queue:
            for _ in range(3):
                await layer.send(WORK, message())
            assert await counted(layer) == (4, 1)
            done, buried, retried, back = await queue.fetch(9)
            await queue.done(done)
            assert await counted(layer) == (3, 1)
            await queue.bury(buried, "")
            assert await counted(layer) == (2, 1)
            await queue.requeue()
            await queue.retry(retried, 0, "")
            await queue.give_back(back)
            assert await counted(layer) == (3, 1)
            for job in await queue.fetch(9):
                await queue.done(job)
            assert await counted(layer) == (0, 1)


async def test_a_channel_that_had_only_a_delayed_message_is_an_ordinary_one_again(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        await layer.send(WORK, message(), delay=10)
        assert layer.board.queues
        assert await layer.receive(WORK) == message()
        assert await counted(layer) == (0, 0)


async def test_a_reader_who_waits_gets_what_is_sent_after_the_channel_became_a_queue(autojump_clock: object) -> None:
    async with InMemoryChannelLayer() as layer:
        got = []

        async def read() -> None:
            got.append(await layer.receive(WORK))

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await layer.send(WORK, message(1), delay=10)
        assert got == [message(1)]
        assert await counted(layer) == (0, 0)


async def test_a_group_sends_into_a_queue() -> None:
    async with InMemoryChannelLayer(capacity=1) as layer, layer.open_queue(WORK) as queue:
        await layer.group_add("group", WORK)
        for number in range(2):
            await layer.group_send("group", message(number))
        (job,) = await queue.fetch(9)
        assert job.open() == message(0)
        assert layer.statistics().dropped == 1


async def test_who_waits_for_jobs_learns_that_the_layer_has_closed() -> None:
    async with InMemoryChannelLayer() as layer:
        opened = layer.open_queue(WORK)
        queue = await opened.__aenter__()

        async def work() -> None:
            with pytest.raises(LayerClosed):
                await queue.fetch(1)

        async def receive() -> None:
            with pytest.raises(LayerClosed):
                await layer.receive(WORK)

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await layer.__aexit__(None, None, None)
        with pytest.raises(LayerClosed):
            await queue.fetch(1)
        await opened.__aexit__(None, None, None)
        await layer.__aenter__()


async def test_a_queue_of_jobs_is_bounded_in_bytes() -> None:
    async with InMemoryChannelLayer(buffer_bytes=1000) as layer, layer.open_queue(WORK) as queue:
        await layer.send(WORK, {"type": "large", "text": "x" * 900})
        (job,) = await queue.fetch(1)
        with pytest.raises(ChannelFull):
            await layer.send(WORK, {"type": "large", "text": "x" * 900})
        await queue.done(job)
        await layer.send(WORK, {"type": "large", "text": "x" * 900})


async def kill(layer: ChannelLayer, queue: JobQueue, number: int) -> None:
    await layer.send(WORK, message(number))
    (job,) = await queue.fetch(1)
    await queue.bury(job, "")


async def test_of_too_many_dead_letters_the_oldest_are_forgotten_and_it_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_queue, "DEAD_LETTERS", 3)
    async with InMemoryChannelLayer() as layer, layer.open_queue(WORK) as queue:
        for number in range(5):
            await kill(layer, queue, number)
        assert [letter.job.open()["number"] for letter in await queue.dead(9)] == [2, 3, 4]
        assert "too many dead letters" in caplog.text
        monkeypatch.setattr(memory_queue, "DEAD_BYTES", 1)
        await kill(layer, queue, 5)
        assert await queue.dead(9) == []
        assert (await queue.depth()).dead == 0


async def test_jobs_go_back_in_their_order_when_a_worker_is_cancelled() -> None:
    async with InMemoryChannelLayer() as layer:
        for number in range(4):
            await layer.send(WORK, message(number))

        async def work() -> None:
            async with layer.open_queue(WORK) as queue:
                await queue.fetch(3)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(work)
            for _ in range(5):
                await checkpoint()
            nursery.cancel_scope.cancel()
        async with layer.open_queue(WORK) as queue:
            jobs = await queue.fetch(9)
            assert [(job.open()["number"], job.deliveries) for job in jobs] == [(0, 1), (1, 1), (2, 1), (3, 1)]
