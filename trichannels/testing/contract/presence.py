"""Presence: who is in a group, from when on, until when, and what its members are told."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from ...exceptions import InvalidName, LayerClosed, UnserializableMessage
from ...inbox import Mailbox
from ...layers.base import ChannelLayer, Subscription
from ...layers.presence import Presence, Roster, Step
from ...layers.serializers import Message
from .base import ContractBase, mailbox, message
from .cancellation import STEPS, cancelled_after


def plain(presence: Presence) -> dict[str, list[Any]]:
    """Return who is there, with the metadata in an order of its own."""
    return {key: sorted(metas, key=repr) for key, metas in presence.members.items()}


class PresenceContract(ContractBase):
    """``track``, ``presence``, ``presence_count``, ``enter_presence``, ``leave_presence``, and the diffs."""

    part = "presence"

    async def test_tracked_in_the_block_and_gone_after_it(self) -> None:
        async with self.pair() as (peer, layer):
            assert (await layer.presence("group")).members == {}
            async with peer.track("group", "ada", {"name": "Ada", "since": 7}):
                for one in (layer, peer):
                    presence = await one.presence("group")
                    assert (presence.group, presence.count) == ("group", 1)
                    assert presence.members == {"ada": [{"name": "Ada", "since": 7}]}
                    assert await one.presence_count("group") == 1
                assert (await layer.presence("another")).members == {}
            assert (await peer.presence("group")).members == {}
            assert (await layer.presence("group")).members == {}

    async def test_members_are_told_who_comes_and_goes(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("group", "another") as events:
            async with peer.track("group", "ada", 1):
                joined = await self.told(events)
                assert (joined["group"], joined["joins"], joined["leaves"]) == ("group", {"ada": [1]}, {})
            left = await self.told(events)
            assert (left["joins"], left["leaves"]) == ({}, {"ada": [1]})
            first, second = joined["position"], left["position"]
            assert second == {"offset": first["offset"] + 1, "epoch": first["epoch"]}

    async def test_a_diff_comes_before_what_is_sent_after_track_has_returned(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("group") as events:
            for number in range(20):
                async with peer.track("group", "ada"):
                    await peer.group_send("group", message(number))
                with anyio.fail_after(self.patience):
                    got = [await events.receive() for _ in range(3)]
                assert [event["type"] for event in got if event.get("joins") or "number" in event] == [
                    "presence.diff",
                    "test.message",
                ]

    async def test_three_connections_are_one_presence(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("group") as events:
            async with AsyncExitStack() as tabs:
                for tab, one in enumerate((layer, peer, layer)):
                    await tabs.enter_async_context(one.track("group", "ada", tab))
                assert plain(await layer.presence("group")) == {"ada": [0, 1, 2]}
                assert await peer.presence_count("group") == 1
                assert (await self.told(events))["joins"] == {"ada": [0]}
                await self.nothing(events)
            assert list((await self.told(events))["leaves"]) == ["ada"]
            await self.nothing(events)

    async def test_tracking_again_replaces_the_metadata(self) -> None:
        async with self.attached() as (layer, channel, _), layer.subscribe("group") as events:
            for meta in (1, {"typing": True}, None):
                await layer.enter_presence("group", channel, "ada", meta)
                assert (await layer.presence("group")).members == {"ada": [meta]}
            await layer.enter_presence("group", channel, "bob")
            assert plain(await layer.presence("group")) == {"ada": [None], "bob": [None]}
            assert layer.statistics().presences == 2
            layer.leave_presence("group", channel, "ada")
            layer.leave_presence("group", channel, "ada")
            layer.leave_presence("group", channel, "nobody")
            assert (await layer.presence("group")).members == {"bob": [None]}
            told = [await self.told(events) for _ in range(3)]
            assert [(*event["joins"], *event["leaves"]) for event in told] == [("ada",), ("bob",), ("ada",)]

    async def test_an_instance_that_ends_is_gone_at_once(self) -> None:
        async with self.attached() as (layer, channel, _), layer.subscribe("a") as events:
            for group in ("a", "b"):
                await layer.enter_presence(group, channel, "ada")
                await layer.enter_presence(group, channel, "bob")
            assert layer.statistics().presences == 4
            layer.detach(channel)
            assert layer.statistics().presences == 0
            assert (await layer.presence("a")).members == (await layer.presence("b")).members == {}
            await layer.enter_presence("a", channel, "ada")  # too late: it is nowhere
            assert await layer.presence_count("a") == 0
            gone: set[str] = set()
            with anyio.fail_after(self.patience):
                while gone != {"ada", "bob"}:
                    gone |= set((await events.receive())["leaves"])

    async def test_a_snapshot_and_the_diffs_after_it_agree(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("group") as events:
            done = anyio.Event()

            async def come_and_go(number: int) -> None:
                for turn in range(5):
                    async with (layer, peer)[(turn + number) % 2].track("group", f"key{number % 3}", number):
                        await anyio.sleep(0.001 * (number % 4))

            async def all_of_them() -> None:
                async with anyio.create_task_group() as crowd:
                    for number in range(8):
                        crowd.start_soon(come_and_go, number)
                done.set()

            async with peer.track("group", "stays"), anyio.create_task_group() as nursery:
                nursery.start_soon(all_of_them)
                await anyio.sleep(0.003)
                roster = Roster(await layer.presence("group"))
                await done.wait()
                with anyio.fail_after(self.patience):
                    while (
                        set(roster.members) != {"stays"} or (await layer.presence("group")).position != roster.position
                    ):
                        event = await events.receive()
                        assert event["type"] == "presence.diff"
                        assert roster.apply(event) is not Step.GAP

    async def test_a_reload_within_the_linger_is_no_flap(self) -> None:
        async with self.pair(presence_linger=0.3) as (peer, layer), layer.subscribe("group") as events:
            async with peer.track("group", "ada", 1):
                await self.told(events)
            assert (await layer.presence("group")).members == {"ada": [1]}
            assert await layer.presence_count("group") == 1
            async with layer.track("group", "ada", 2):
                assert (await layer.presence("group")).members == {"ada": [2]}
                await anyio.sleep(0.4)
                await self.nothing(events)
            left = await self.told(events)
            assert (left["joins"], left["leaves"]) == ({}, {"ada": [2]})
            assert await layer.presence_count("group") == 0

    async def test_a_cancelled_track_has_entered_or_not(self) -> None:
        async with self.attached() as (layer, channel, _):
            for steps in range(STEPS):
                cancelled = await cancelled_after(steps, lambda: layer.enter_presence("group", channel, "ada", 1))
                assert (await layer.presence("group")).members == ({} if cancelled else {"ada": [1]})
                layer.leave_presence("group", channel, "ada")
                assert await layer.presence_count("group") == 0
            await layer.enter_presence("group", channel, "ada", 1)
            for steps in range(STEPS):
                cancelled = await cancelled_after(steps, lambda: layer.enter_presence("group", channel, "ada", 2))
                assert (await layer.presence("group")).members == {"ada": [1 if cancelled else 2]}
                await layer.enter_presence("group", channel, "ada", 1)
            assert layer.statistics().presences == 1

    async def test_a_cancelled_block_leaves_nobody_behind(self) -> None:
        async with self.opened() as layer:

            async def be_there() -> None:
                async with layer.track("group", "ada"):
                    await anyio.sleep_forever()

            for steps in range(2 * STEPS):
                assert await cancelled_after(steps, be_there)
                assert layer.statistics().presences == 0
                assert await layer.presence_count("group") == 0
            for steps in range(STEPS):
                await cancelled_after(steps, lambda: layer.presence("group"))
                await cancelled_after(steps, lambda: layer.presence_count("group"))
            assert (await layer.presence("group")).members == {}

    @pytest.mark.parametrize("key", ["", "x" * 257, 7, None, b"ada"])
    async def test_bad_presence_keys(self, key: Any) -> None:
        async with self.attached() as (layer, channel, _):
            with pytest.raises(InvalidName, match="presence key"):
                async with layer.track("group", key):
                    pass
            with pytest.raises(InvalidName, match="presence key"):
                await layer.enter_presence("group", channel, key)
            assert await layer.presence_count("group") == 0

    async def test_bad_groups_and_metadata(self) -> None:
        async with self.opened() as layer:
            with pytest.raises(InvalidName, match="Group name"):
                async with layer.track("not a group", "ada"):
                    pass
            for question in (layer.presence, layer.presence_count):
                with pytest.raises(InvalidName, match="Group name"):
                    await question("not a group")
            with pytest.raises(UnserializableMessage, match=r"meta\['tags'\]"):
                async with layer.track("group", "ada", {"tags": {1, 2}}):
                    pass
            assert await layer.presence_count("group") == 0

    async def test_nobody_is_present_in_a_layer_that_is_not_open(self) -> None:
        layer = self.make_layer()
        for question in (layer.presence, layer.presence_count):
            with pytest.raises(LayerClosed):
                await question("group")
        with pytest.raises(LayerClosed):
            async with layer.track("group", "ada"):
                pass
        layer.leave_presence("group", "specific.x!i1", "ada")

    async def test_a_block_that_outlives_the_layer_ends_quietly(self) -> None:
        async with AsyncExitStack() as stack:
            with suppress(LayerClosed):
                async with self.opened() as layer:
                    await stack.enter_async_context(layer.track("group", "ada"))
        assert layer.statistics().presences == 0

    async def test_many_who_come_at_once_are_all_there(self) -> None:
        async with self.pair() as (peer, layer), layer.subscribe("group") as events:
            roster = Roster(await layer.presence("group"))
            leave = anyio.Event()

            async def be_there(number: int) -> None:
                async with (layer, peer)[number % 2].track("group", f"user{number}", number):
                    await leave.wait()

            async with anyio.create_task_group() as crowd:
                for number in range(200):
                    crowd.start_soon(be_there, number)
                await self.follow(roster, events, 200)
                assert await layer.presence_count("group") == await peer.presence_count("group") == 200
                assert plain(await peer.presence("group")) == {f"user{n}": [n] for n in range(200)}
                leave.set()
                await self.follow(roster, events, 0)
            assert await peer.presence_count("group") == 0

    # ---- helpers

    @asynccontextmanager
    async def attached(self, **options: Any) -> AsyncIterator[tuple[ChannelLayer, str, Mailbox]]:
        """Open a layer with one instance."""
        async with self.opened(**options) as layer:
            box = mailbox()
            channel = layer.attach(box)
            yield layer, channel, box
            layer.detach(channel)

    async def told(self, events: Subscription) -> Message:
        """Return the next event, which must be a diff."""
        with anyio.fail_after(self.patience):
            event = await events.receive()
        assert event["type"] == "presence.diff"
        return event

    async def nothing(self, events: Subscription) -> None:
        """Nothing comes."""
        with anyio.move_on_after(self.quiet):
            raise AssertionError(f"nothing should have come: {await events.receive()}")

    async def follow(self, roster: Roster, events: Subscription, count: int) -> None:
        """Apply diffs until so many are there."""
        with anyio.fail_after(self.patience):
            while len(roster.members) != count:
                assert roster.apply(await events.receive()) is Step.APPLIED
