"""What a layer keeps while its server is away: in order, whole batches or none, and gone as fast as may be."""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from trichannels.exceptions import LayerClosed, LayerRefused, LayerUnreachable, OutcomeUnknown, TrichannelsError
from trichannels.layers.redis.backlog import TOGETHER, Backlog, Event
from trichannels.layers.redis.options import Buffer

Send = Callable[[Sequence[Event]], Awaitable[Sequence[TrichannelsError | None]]]


class Far:
    """A server that takes events, or answers with an error."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: Callable[[int], TrichannelsError | None] = lambda number: None
        self.tried = 0

    async def send(self, events: Sequence[Event]) -> list[TrichannelsError | None]:
        self.tried += 1
        await anyio.sleep(0.01)
        numbers = [int(sealed) for _, sealed, _ in events]
        errors = [self.error(number) for number in numbers]
        self.batches.append([number for number, error in zip(numbers, errors, strict=True) if error is None])
        return errors

    @property
    def got(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


def event(number: int, group: str = "g") -> Event:
    return (group, b"%d" % number, None)


def away(_: int) -> TrichannelsError:
    return LayerUnreachable("there", "it is away")


async def test_it_is_sent_in_order_and_ever_more_at_once(autojump_clock: object) -> None:
    far = Far()
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(messages=10_000), far.send, _starter(group), 1)
        assert backlog.keep([(0, event(number)) for number in range(2000)])
        assert backlog.blocks(0)
        assert not backlog.blocks(1)
        await backlog.sent()
        assert far.got == list(range(2000))
        assert [len(batch) for batch in far.batches][:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, TOGETHER]
        assert len(backlog) == 0
        await anyio.wait_all_tasks_blocked()
        assert not backlog.blocks(0)


async def test_who_publishes_on_cannot_keep_it_for_ever(autojump_clock: object) -> None:
    """More comes than it could send, ten at once; while it is away they are kept, and then they wait for its end."""
    far, kept, passed = Far(), list[int](), list[int]()
    far.error = away
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(messages=100_000), far.send, _starter(group), 1)

        async def publish(number: int) -> None:
            await backlog.passed(0)
            if backlog.blocks(0):
                backlog.keep([(0, event(number))])
                kept.append(number)
            else:
                passed.append(number)

        backlog.keep([(0, event(0))])
        for number in range(1, 1000):
            if number == 300:
                far.error = lambda number: None
            group.start_soon(publish, number)
            await anyio.sleep(0.001)
    assert far.got == [0, *kept]
    assert sorted(kept + passed) == list(range(1, 1000))
    assert 299 <= len(kept) <= 330


async def test_an_absence_is_waited_for_and_begun_again_with_one(autojump_clock: object) -> None:
    far = Far()
    far.error = away
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(), far.send, _starter(group), 1)
        backlog.keep([(0, event(number)) for number in range(10)])
        await anyio.sleep(1)
        assert far.tried > 10
        assert repr(backlog) == "<Backlog of 10 events in 1 lanes>"
        far.error = lambda number: away(number) if number >= 3 else None
        far.batches.clear()
        await anyio.sleep(1)
        assert far.got == [0, 1, 2]
        far.error = lambda number: None
        far.batches.clear()
        await backlog.sent()
        assert [len(batch) for batch in far.batches if batch] == [1, 2, 4]
        assert far.got == list(range(3, 10))


async def test_lanes_do_not_wait_for_each_other(autojump_clock: object) -> None:
    far = Far()
    far.error = lambda number: away(number) if number % 2 else None
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(), far.send, _starter(group), 1)
        backlog.keep([(number % 2, event(number)) for number in range(10)])
        await anyio.sleep(1)
        assert far.got == [0, 2, 4, 6, 8]
        assert len(backlog) == 5
        assert backlog.blocks(1)
        assert not backlog.blocks(0)
        group.cancel_scope.cancel()


async def test_all_are_kept_or_none(autojump_clock: object) -> None:
    far = Far()
    far.error = away
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(messages=3, bytes=5), far.send, _starter(group), 1)
        assert backlog.keep([(0, event(1)), (0, event(2))])
        assert not backlog.keep([(0, event(3)), (1, event(4))])
        assert len(backlog) == 2
        assert not backlog.blocks(1)
        assert not backlog.keep([(0, event(10_000))])
        assert backlog.keep([(1, event(3))])
        assert not backlog.keep([(1, event(4))])
        group.cancel_scope.cancel()


async def test_what_will_not_be_taken_is_told_and_given_up(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    far = Far()
    errors = {1: OutcomeUnknown("there", "the answer was lost"), 2: LayerRefused("there", "ERR no", "")}
    far.error = errors.get
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(), far.send, _starter(group), 1)
        backlog.keep([(0, event(number)) for number in range(5)])
        await backlog.sent()
    assert far.got == [0, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "2 events that were kept while the server was away, for g: there: the answer was lost"
    ]


async def test_a_refusal_that_passes_is_waited_for(autojump_clock: object) -> None:
    far = Far()
    far.error = lambda number: LayerRefused("there", "LOADING", "") if far.tried < 3 else None
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(), far.send, _starter(group), pause=100)
        began = anyio.current_time()
        backlog.keep([(0, event(1))])
        await backlog.sent()
        assert 200 <= anyio.current_time() - began < 201
        assert far.got == [1]


async def test_a_layer_that_closes_keeps_nothing(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    far = Far()
    far.error = away
    backlog = Backlog(Buffer(), far.send, lambda *_: False, 1)
    with pytest.raises(LayerClosed):
        backlog.keep([(0, event(1)), (1, event(2))])
    assert len(backlog) == 0
    assert not backlog.blocks(0)
    async with anyio.create_task_group() as group:
        backlog = Backlog(Buffer(), far.send, _starter(group), 1)
        backlog.keep([(0, event(1)), (0, event(2)), (1, event(3))])
        await anyio.sleep(1)
        far.error = lambda number: None
        backlog.give_up()
        backlog.give_up()
    lost = "events that were kept while the server was away are lost: the layer closes"
    assert [record.getMessage() for record in caplog.records] == [f"3 {lost}"]
    assert len(backlog) == 0


def _starter(group: anyio.abc.TaskGroup) -> Callable[..., bool]:
    def start_soon(*args: object) -> bool:
        group.start_soon(*args)  # type: ignore[arg-type]
        return True

    return start_soon
