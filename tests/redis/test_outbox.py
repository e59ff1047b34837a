"""What waits to be written, and what waits for answers: in order, bounded, and nothing counted twice. No I/O."""

import random
from typing import Any

import anyio
import hiredis
import pytest

from trichannels.exceptions import LayerUnreachable, OutcomeUnknown
from trichannels.layers.redis.outbox import CHUNK, Due, Outbox, OutOfStep, Pending, Stage, packed, packed_all
from trichannels.seam import open_wake


def pending(data: bytes = b"x", count: int = 1) -> Pending:
    return Pending(data, count, open_wake())


async def others() -> None:
    """Let all other tasks run until they wait: anyio's own way takes time on asyncio."""
    for _ in range(8):
        await anyio.lowlevel.checkpoint()


async def test_what_comes_first_is_written_first_in_parts() -> None:
    box = Outbox(1000, 2**30)
    put = [pending(b"%d" % number * (CHUNK // 3)) for number in range(10)]
    for each in put:
        box.put(each)
    assert (box.waiting, box.under_way, box.bytes) == (10, 10, 10 * (CHUNK // 3))
    taken = box.take()
    assert taken == put[: len(taken)]
    assert CHUNK <= sum(len(each.data) for each in taken) < 2 * CHUNK
    assert {each.stage for each in taken} == {Stage.WRITTEN}
    assert {each.stage for each in put[len(taken) :]} == {Stage.QUEUED}
    while more := box.take():
        taken += more
    assert taken == put
    assert (box.waiting, box.under_way) == (0, 10), "it is under way until it is answered"


async def test_what_is_withdrawn_leaves_nothing_behind() -> None:
    box = Outbox(10_000, 2**30)
    put = [pending() for _ in range(1000)]
    for each in put:
        box.put(each)
    dice = random.Random(1)
    withdrawn = dice.sample(put, 500)
    for each in withdrawn:
        assert box.withdraw(each)
        assert not box.withdraw(each), "only once"
    assert (box.waiting, box.under_way, box.bytes) == (500, 500, 500)
    assert box.take() == [each for each in put if each.stage is not Stage.OVER]
    assert not box.withdraw(next(each for each in put if each.stage is Stage.WRITTEN)), "it is too late"
    never = pending()
    assert box.withdraw(never), "one that was not put yet costs nothing either"
    assert (box.waiting, box.under_way, box.bytes) == (0, 500, 500)


async def test_answers_find_who_asked() -> None:
    box, due = Outbox(100, 2**20), Due()
    one, three, two = pending(count=1), pending(count=3), pending(count=2)
    for each in (one, three, two):
        box.put(each)
    due.extend(box.take())
    for number in range(5):
        due.answer(number)
    assert (one.answers, three.answers, two.answers) == ([0], [1, 2, 3], [4])
    assert (one.stage, three.stage, two.stage) == (Stage.OVER, Stage.OVER, Stage.WRITTEN)
    assert box.under_way == 2
    due.fail("the server", "it broke")
    assert isinstance(two.error, OutcomeUnknown)
    assert two.answers == [4]
    assert (len(due), box.under_way, box.bytes) == (0, 0, 0)
    with pytest.raises(OutOfStep, match="nobody had asked"):
        due.answer("more")


async def test_it_wakes_who_waits() -> None:
    box, due = Outbox(100, 2**20), Due()
    asked = pending()
    box.put(asked)
    due.extend(box.take())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            assert asked.wake is not None
            group.start_soon(asked.wake.sleep)
            await others()
            due.answer(b"OK")
    assert asked.stage is Stage.OVER


async def test_who_is_dropped_is_told_by_who_drops() -> None:
    box = Outbox(100, 2**20)
    put = [pending() for _ in range(3)]
    for each in put:
        box.put(each)
    box.withdraw(put[1])
    dropped = box.drop()
    assert dropped == [put[0], put[2]]
    for each in dropped:
        each.finish(LayerUnreachable("the server", "it is over"))
    assert (box.waiting, box.under_way, box.bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("commands", "size", "data", "most"),
    [(3, 1000, b"x", 3), (100, 25, b"x" * 10, 3), (1, 1, b"x" * 1000, 1)],
)
async def test_its_bounds_hold_and_nobody_overtakes(commands: int, size: int, data: bytes, most: int) -> None:
    box, due = Outbox(commands, size), Due()
    let_in: list[int] = []
    seen: list[int] = []

    async def caller(number: int) -> None:
        if box.crowded:
            await box.room()
        let_in.append(number)
        box.put(pending(data))
        seen.append(box.under_way)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(caller, number)
                await others()
            while len(let_in) < 20:
                due.extend(box.take())
                due.answer(b"OK")
                await others()
    assert let_in == list(range(20))
    assert max(seen) == most


async def test_who_waits_for_room_and_is_cancelled_holds_up_nobody() -> None:
    box, due = Outbox(1, 1000), Due()
    box.put(pending())
    dice = random.Random(3)
    through: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(40)]

    async def caller(number: int) -> None:
        with scopes[number]:
            if box.crowded:
                await box.room()
            through.append(number)
            box.put(pending())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(caller, number)
            await others()
            cancelled = set(dice.sample(range(40), 20))
            for number in cancelled:
                scopes[number].cancel()
                if dice.random() < 0.5:  # in the very moment in which it is its turn
                    due.extend(box.take())
                    if due:
                        due.answer(b"OK")
                await anyio.lowlevel.checkpoint()
            while len(through) < 20 or set(range(40)) - cancelled - set(through):
                due.extend(box.take())
                if due:
                    due.answer(b"OK")
                await others()
    assert set(range(40)) - cancelled <= set(through)
    assert not box._line


def test_what_is_packed_can_be_read() -> None:
    def read(data: bytes) -> list[Any]:
        parser = hiredis.Reader(notEnoughData=read)
        parser.feed(data)
        found = []
        while (command := parser.gets()) is not read:
            found.append(command)
        return found

    command = ("SET", "kéy", b"\x00\r\n\xff", 12, -1, 1.5, "", 2**70)
    expected = [b"SET", "kéy".encode(), b"\x00\r\n\xff", b"12", b"-1", b"1.5", b"", b"%d" % 2**70]
    assert read(packed(*command)) == [expected]
    assert read(packed_all([command, ["PING"]])) == [expected, [b"PING"]]
    assert packed_all([]) == b""
