"""Who may read, and in which order; and how long one waits for a server that answers nobody."""

import anyio

from trichannels.exceptions import LayerUnreachable
from trichannels.inbox import Envelope
from trichannels.layers.history import Position
from trichannels.layers.recovery import Missed
from trichannels.layers.redis.readings import Readings
from trichannels.layers.redis.turns import Turns


async def test_so_many_at_once_in_the_order_of_coming(autojump_clock: object) -> None:
    turns, order, inside = Turns(2, "there", 5), list[int](), 0

    async def take(number: int) -> None:
        nonlocal inside
        async with turns.turn():
            inside += 1
            assert inside <= 2
            order.append(number)
            await anyio.sleep(1)
            inside -= 1

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        assert repr(turns) == "<Turns, 0 free, 18 in line>"
    assert order == list(range(20))
    assert anyio.current_time() >= 10
    assert repr(turns) == "<Turns, 2 free, 0 in line>"


async def test_who_waits_long_keeps_the_place_as_long_as_others_come_to_an_end(autojump_clock: object) -> None:
    turns, ended = Turns(1, "there", 2), list[int]()

    async def take(number: int) -> None:
        async with turns.turn():
            await anyio.sleep(1.5)
            ended.append(number)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
    assert ended == list(range(10))


async def test_failures_are_no_end(autojump_clock: object) -> None:
    turns, failures = Turns(1, "there", 2), 0
    began = anyio.current_time()

    async def take() -> None:
        nonlocal failures
        try:
            async with turns.turn():
                await anyio.sleep(1.5)
                raise LayerUnreachable("there", "away")
        except LayerUnreachable:
            failures += 1

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(take)
    assert failures == 10
    assert anyio.current_time() - began <= 3.5


async def test_who_gives_up_in_line_lets_the_next_one_in(autojump_clock: object) -> None:
    turns, ended = Turns(1, "there", 50), list[str]()

    async def take(name: str, patience: float) -> None:
        with anyio.move_on_after(patience):
            async with turns.turn():
                await anyio.sleep(10)
                ended.append(name)

    async with anyio.create_task_group() as group:
        for name, patience in (("first", 99), ("second", 10), ("third", 99)):
            group.start_soon(take, name, patience)
            await anyio.wait_all_tasks_blocked()
    assert ended == ["first", "third"]


async def test_a_reading_that_nobody_waits_for_gives_up_its_place(autojump_clock: object) -> None:
    turns = Turns(1, "there", 50)

    async def history(_: Position) -> Missed[Envelope]:
        raise AssertionError("nobody wants to know")

    async with anyio.create_task_group() as group, turns.turn():
        readings = Readings(lambda reading: group.start_soon(reading.read, turns.turn(), history))
        with readings.joined(Position(1, "a"), alone=False):
            await anyio.wait_all_tasks_blocked()
            assert repr(turns) == "<Turns, 0 free, 1 in line>"
        await anyio.wait_all_tasks_blocked()
        assert repr(turns) == "<Turns, 0 free, 0 in line>"
