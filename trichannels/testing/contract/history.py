"""Groups with history: positions, recovery all or nothing, idempotency keys, readers who were too slow."""

from typing import Any

import anyio
import pytest

from ...exceptions import InvalidChannelLayerError
from ...inbox import Inbox
from ...layers.history import History, Position
from .base import ContractBase, mailbox, message

LOG = "log.one"
KEPT = History(size=20, seconds=60)


class HistoryContract(ContractBase):
    """``join(since=)``, ``subscribe(since=)``, positions."""

    part = "history"

    def recorded(self) -> Any:
        """Open two layers that keep the last 20 events of ``log.*``."""
        return self.pair(histories={"log.*": KEPT})

    async def test_each_event_has_the_position_that_its_sender_got(self) -> None:
        async with self.recorded() as (peer, layer), layer.subscribe(LOG, "plain") as events:
            assert events.positions[LOG].offset == 0
            for number in range(1, 4):
                position = await peer.group_send(LOG, message(number))
                assert position is not None
                assert position.offset == number
                with anyio.fail_after(self.patience):
                    assert await events.receive() == message(number)
                assert events.positions[LOG] == position
            assert await peer.group_send("plain", message()) is None
            assert list(events.positions) == [LOG]

    async def test_who_comes_back_gets_all_that_was_missed_then_what_is_new(self) -> None:
        async with self.recorded() as (peer, layer):
            async with layer.subscribe(LOG) as events:
                await peer.group_send(LOG, message(1))
                with anyio.fail_after(self.patience):
                    await events.receive()
                left = events.positions[LOG]
            for number in range(2, 12):
                await peer.group_send(LOG, message(number))
            async with layer.subscribe(LOG, since={LOG: left}) as events:
                recovery = events.recoveries[LOG]
                assert (recovery.recovered, recovery.count) == (True, 10)
                assert events.positions[LOG] == left
                await peer.group_send(LOG, message(12))
                with anyio.fail_after(self.patience):
                    got = [(await events.receive())["number"] for _ in range(11)]
                assert got == list(range(2, 13))

    async def test_nothing_missed_is_recovered_too(self) -> None:
        async with self.recorded() as (peer, layer):
            last = await peer.group_send(LOG, message(1))
            box = mailbox()
            recovery = await layer.join(LOG, layer.attach(box), last)
            assert (recovery.position, recovery.recovered, recovery.count) == (last, True, 0)
            assert await self.rest_of(box) == []

    async def test_all_or_nothing(self) -> None:
        async with self.recorded() as (peer, layer):
            first = await peer.group_send(LOG, message(1))
            assert first is not None
            for number in range(2, 31):
                await peer.group_send(LOG, message(number))
            for since in (first, Position(29, "another"), Position(31, first.epoch), Position(0, first.epoch)):
                box = mailbox()
                recovery = await layer.join(LOG, layer.attach(box), since)
                assert (recovery.recovered, recovery.count) == (False, 0)
                assert recovery.position == Position(30, first.epoch)
                assert await self.rest_of(box) == []

    async def test_a_group_without_history_recovers_nothing(self) -> None:
        async with self.recorded() as (_, layer):
            recovery = await layer.join("plain", layer.attach(mailbox()), Position(1, "e"))
            assert (recovery.position, recovery.recovered) == (None, False)
            assert (await layer.join("plain", layer.attach(mailbox()))).recovered

    async def test_since_is_for_newcomers(self) -> None:
        async with self.recorded() as (_, layer):
            channel = layer.attach(mailbox())
            position = (await layer.join(LOG, channel)).position
            with pytest.raises(InvalidChannelLayerError, match="in the group already"):
                await layer.join(LOG, channel, position)
            assert (await layer.join(LOG, channel)).recovered
            with pytest.raises(InvalidChannelLayerError, match="not subscribed"):
                async with layer.subscribe("plain", since={LOG: Position(1, "e")}):
                    pass

    async def test_what_is_recovered_is_in_no_bound(self) -> None:
        async with self.recorded() as (peer, layer):
            await layer.join(LOG, layer.attach(mailbox()))
            start = (await layer.join(LOG, layer.attach(mailbox()))).position
            for number in range(20):
                await peer.group_send(LOG, message(number))
            box = mailbox(Inbox(messages=1))
            assert (await layer.join(LOG, layer.attach(box), start)).count == 20
            assert [m["number"] for m in await self.rest_of(box)] == list(range(20))

    async def test_a_slow_subscription_reads_the_rest_from_the_history(self) -> None:
        async with self.recorded() as (peer, layer), layer.subscribe(LOG, inbox=Inbox(messages=3)) as events:
            for number in range(15):
                await peer.group_send(LOG, message(number))
            await self.settle()
            assert events.statistics().layer_messages == 3
            with anyio.fail_after(self.patience):
                assert [(await events.receive())["number"] for _ in range(15)] == list(range(15))
                await peer.group_send(LOG, message(15))
                assert await events.receive() == message(15)
            assert events.statistics().dropped == 0

    async def test_a_subscription_that_is_too_slow_is_told(self) -> None:
        async with self.recorded() as (peer, layer), layer.subscribe(LOG, inbox=Inbox(messages=3)) as events:
            for number in range(40):
                await peer.group_send(LOG, message(number))
            await self.settle()
            with anyio.fail_after(self.patience):
                assert [(await events.receive())["number"] for _ in range(3)] == [0, 1, 2]
                assert await events.receive() == {"type": "layer.resync", "group": LOG, "recovered": False}
                await peer.group_send(LOG, message(40))
                assert await events.receive() == message(40)
            assert events.positions[LOG].offset == 41

    async def test_an_instance_that_is_too_slow_is_sent_away(self) -> None:
        async with self.recorded() as (peer, layer):
            cut: list[bool] = []
            box = mailbox(Inbox(messages=2))
            box.overrun = lambda: cut.append(True)
            await layer.join(LOG, layer.attach(box))
            for number in range(3):
                await peer.group_send(LOG, message(number))
            await self.settle()
            assert cut

    async def test_one_key_one_event(self) -> None:
        async with self.recorded() as (peer, layer), layer.subscribe(LOG) as events:
            first = await layer.group_send(LOG, message(1), idempotency_key="order 7")
            assert await peer.group_send(LOG, message(1), idempotency_key="order 7") == first
            second = await peer.group_send(LOG, message(2), idempotency_key="order 8")
            assert first is not None
            assert second == Position(first.offset + 1, first.epoch)
            with anyio.fail_after(self.patience):
                assert [(await events.receive())["number"] for _ in range(2)] == [1, 2]
            with pytest.raises(InvalidChannelLayerError, match="idempotency_key"):
                await layer.group_send("plain", message(), idempotency_key="k")

    async def test_two_histories_do_not_mix(self) -> None:
        async with self.recorded() as (peer, layer):
            one = await peer.group_send(LOG, message(1))
            other = await peer.group_send("log.two", message(2))
            assert one is not None
            assert other is not None
            assert (one.offset, other.offset) == (1, 1)
            box = mailbox()
            await layer.join("log.two", layer.attach(box), Position(0, other.epoch))
            assert await self.rest_of(box) == [message(2)]

    async def test_a_flush_begins_a_new_history(self) -> None:
        async with self.recorded() as (peer, layer):
            before = await peer.group_send(LOG, message(1))
            await layer.flush()
            recovery = await layer.join(LOG, layer.attach(mailbox()), before)
            assert not recovery.recovered
            after = await peer.group_send(LOG, message(2))
            assert before is not None
            assert after is not None
            assert after.epoch != before.epoch

    async def test_newcomers_under_fire_miss_nothing(self) -> None:
        """Many join from a position while events keep coming: each sees every later event once, in order."""
        async with self.recorded() as (peer, layer):
            results: list[list[int]] = []
            start = (await layer.join(LOG, layer.attach(mailbox()))).position
            assert start is not None
            total = 15

            async def talk() -> None:
                for number in range(1, total + 1):
                    await peer.group_send(LOG, message(number))

            async def listen() -> None:
                async with layer.subscribe(LOG, since={LOG: start}) as events:
                    assert events.recoveries[LOG].recovered
                    results.append([(await events.receive())["number"] for _ in range(total)])

            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(talk)
                    for _ in range(10):
                        nursery.start_soon(listen)
            assert results == [list(range(1, total + 1))] * 10
