"""All come back at once, each with what it has missed: they read it together, and nothing runs into its deadline."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from trichannels.exceptions import LayerClosed, LayerUnreachable
from trichannels.inbox import Envelope
from trichannels.layers.history import History, Position
from trichannels.layers.recovery import Missed
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.readings import Reading, Readings

from .servers import RedisProcess, fresh_prefix, shared_server

HISTORY = History(size=1000, recovery_limit=1000)
MEMBERS = 500


@asynccontextmanager
async def with_history(url: str, **options: object) -> AsyncIterator[RedisChannelLayer]:
    layer = RedisChannelLayer(url=url, prefix=fresh_prefix(), history={"log*": HISTORY}, **options)  # type: ignore[arg-type]
    async with layer:
        yield layer


async def recovered(layer: RedisChannelLayer, group: str, since: Position, last: int, seen: Counter[str]) -> None:
    """Come back, and read up to the event ``last``."""
    async with layer.subscribe(group, since={group: since}) as events:
        recovery = events.recoveries[group]
        seen["recovered" if recovery.recovered else "not recovered"] += 1
        if not recovery.recovered:
            return
        expected = since.offset
        while expected < last:
            expected += 1
            event = await events.receive()
            assert event == {"type": "note", "number": expected}, expected
        seen["whole"] += 1


@pytest.mark.server
async def test_five_hundred_come_back_to_one_group() -> None:
    with RedisProcess() as server:
        async with with_history(server.url) as layer:
            places = [await layer.group_send("log", {"type": "note", "number": n}) for n in range(1, 1001)]
            server.admin("CONFIG", "RESETSTAT")
            seen: Counter[str] = Counter()
            chance = random.Random(7)
            async with anyio.create_task_group() as crowd:
                for _ in range(MEMBERS):
                    since = chance.choice(places if chance.random() < 0.05 else places[-100:])
                    assert since is not None
                    crowd.start_soon(recovered, layer, "log", since, 1000, seen)
            assert seen == {"recovered": MEMBERS, "whole": MEMBERS}
            reads = server.admin("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
            assert reads < 50, "they have read it together"


@pytest.mark.server
async def test_many_groups_are_read_in_turns_and_published_to_meanwhile() -> None:
    """More than may be read at once; and what comes while they read is theirs, too."""
    async with with_history(shared_server().url) as layer:
        groups = [f"log.{number}" for number in range(60)]
        since = {}
        for group in groups:
            since[group] = await layer.group_send(group, {"type": "note", "number": 1})
            for number in range(2, 21):
                await layer.group_send(group, {"type": "note", "number": number})
        seen: Counter[str] = Counter()
        async with anyio.create_task_group() as crowd:
            for group in groups:
                place = since[group]
                assert place is not None
                for _ in range(3):
                    crowd.start_soon(recovered, layer, group, place, 22, seen)
            for group in groups:
                for number in (21, 22):
                    await layer.group_send(group, {"type": "note", "number": number})
        assert seen == {"recovered": 180, "whole": 180}


@pytest.mark.server
async def test_who_has_missed_too_much_spoils_it_for_nobody() -> None:
    async with with_history(shared_server().url) as layer:
        places = [await layer.group_send("log", {"type": "note", "number": n}) for n in range(1, 1203)]
        seen: Counter[str] = Counter()
        async with anyio.create_task_group() as crowd:
            for place in [*places[:100], *places[-100:]]:
                assert place is not None
                crowd.start_soon(recovered, layer, "log", place, 1202, seen)
        assert seen == {"recovered": 100, "whole": 100, "not recovered": 100}


@pytest.mark.server
async def test_if_none_can_be_read_nobody_waits_for_ever() -> None:
    with RedisProcess() as server:
        async with with_history(server.url, timeout=0.5) as layer:
            since = {}
            for number in range(40):
                since[f"log.{number}"] = await layer.group_send(f"log.{number}", {"type": "note", "number": 1})
                async with layer.subscribe(f"log.{number}"):
                    pass
            failures: Counter[str] = Counter()

            async def come_back(group: str, place: Position) -> None:
                try:
                    async with layer.subscribe(group, since={group: place}):
                        pass
                except LayerUnreachable as error:
                    failures[type(error).__name__] += 1

            server.stop()
            try:
                with anyio.fail_after(10):
                    async with anyio.create_task_group() as crowd:
                        for group, place in since.items():
                            assert place is not None
                            crowd.start_soon(come_back, group, place)
            finally:
                server.cont()
            assert sum(failures.values()) == 40


# ---- who shares what


def events(first: int, last: int) -> list[Envelope]:
    return [
        Envelope(b"", lambda _: {}, group="log", position=Position(offset, "a")) for offset in range(first, last + 1)
    ]


class Shelf:
    """Histories to be read, when the test wants it."""

    def __init__(self) -> None:
        self.started: list[Reading] = []
        self.readings = Readings(self.started.append)
        self.asked: list[Position] = []

    async def read(self, reading: Reading, top: int) -> None:
        async def history(since: Position) -> Missed[Envelope]:
            self.asked.append(since)
            return Missed(Position(top, "a"), events(since.offset + 1, top))

        await reading.read(_free(), history)


@asynccontextmanager
async def _free() -> AsyncIterator[None]:
    yield


async def test_those_who_come_before_it_begins_share_a_reading_from_the_farthest_back() -> None:
    shelf = Shelf()
    with (
        shelf.readings.joined(Position(7, "a"), alone=False) as one,
        shelf.readings.joined(Position(5, "a"), alone=False) as two,
        shelf.readings.joined(Position(6, "b"), alone=False) as of_another_history,
        shelf.readings.joined(Position(6, "a"), alone=True) as alone,
    ):
        assert one is two
        assert len({one, of_another_history, alone}) == 3
        await shelf.read(one, top=9)
        assert shelf.asked == [Position(5, "a")]
        for since, found in ((5, 4), (7, 2), (9, 0)):
            missed = await one.missed(Position(since, "a"))
            assert [event.position.offset for event in missed.events if event.position] == list(range(10 - found, 10))
        with shelf.readings.joined(Position(8, "a"), alone=False) as late:
            assert late not in (one, of_another_history), "that one is over"
    assert repr(shelf.readings) == "<Readings []>"


async def test_nobody_joins_one_who_reads_alone() -> None:
    shelf = Shelf()
    with (
        shelf.readings.joined(Position(7, "a"), alone=True) as alone,
        shelf.readings.joined(Position(5, "a"), alone=False) as other,
    ):
        assert other is not alone
        assert alone.since == Position(7, "a")


async def test_what_cannot_be_begun_keeps_nobody_waiting() -> None:
    readings = Readings(lambda reading: reading.fail(LayerClosed("the layer")))
    with readings.joined(Position(7, "a"), alone=False) as reading, pytest.raises(LayerClosed):
        await reading.missed(Position(7, "a"))


async def test_who_comes_while_it_goes_on_takes_part_if_it_brings_all() -> None:
    shelf = Shelf()
    with shelf.readings.joined(Position(5, "a"), alone=False) as one:
        one.begun = True
        with (
            shelf.readings.joined(Position(6, "a"), alone=False) as newer,
            shelf.readings.joined(Position(4, "a"), alone=False) as older,
        ):
            assert newer is one
            assert older is not one
            assert one.since == Position(5, "a")


async def test_what_is_delivered_meanwhile_is_kept_from_the_beginning_on() -> None:
    shelf = Shelf()
    with shelf.readings.joined(Position(5, "a"), alone=False) as reading:
        early, late = events(6, 7)
        shelf.readings.collect(early)
        assert reading.events == []
        reading.begun = True
        shelf.readings.collect(late)
        assert reading.events == [late]
        shelf.readings.collect(None)
        shelf.readings.collect(late)
        assert reading.broken
        assert reading.events == []


async def test_who_gave_up_is_not_read_for() -> None:
    shelf = Shelf()
    with shelf.readings.joined(Position(5, "a"), alone=False) as reading:
        pass
    await shelf.read(reading, top=9)
    assert shelf.asked == []
    assert reading.is_over
