"""What becomes of groups and histories while the server is away, when it is back, and when a part of it was lost."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from trichannels.events import Event
from trichannels.exceptions import LayerUnreachable, OutcomeUnknown
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.inbox import Inbox, Mailbox
from trichannels.layers.base import Subscription
from trichannels.layers.history import History, Position
from trichannels.layers.redis import Buffer, RedisChannelLayer, Timeouts
from trichannels.layers.redis.backlog import Backlog
from trichannels.layers.serializers import Message
from trichannels.routing import ProtocolTypeRouter
from trichannels.testing import WebsocketCommunicator
from trichannels.testing.contract.base import mailbox, message

from ..proxy import Proxy
from .servers import RedisProcess, fresh_prefix, shared_server

pytestmark = pytest.mark.server

TIMEOUT = 0.5
TIMES = Timeouts(
    connect=TIMEOUT, reply=TIMEOUT, ping_interval=0.1, ping=0.2, backoff_first=0.01, backoff_most=0.05
)  # fmt: skip
CALM = Timeouts()  # for who is not to be harmed: a busy machine is slow to answer pings
HISTORY = {"log*": History(size=100)}


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[RedisChannelLayer]:
    given = {"prefix": fresh_prefix(), "history": HISTORY, "timeout": TIMEOUT, "timeouts": TIMES, **options}
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            while True:
                try:
                    layer = await stack.enter_async_context(RedisChannelLayer(**given))
                except LayerUnreachable:
                    continue  # the short timeout is for what is tested, not for a busy machine
                break
            yield layer


async def following(box: Mailbox | Subscription) -> Message:
    """Return the next thing that comes."""
    with anyio.fail_after(10):
        if isinstance(box, Subscription):
            return await box.receive()
        item = await box.get()
        assert item is not None
        return dict(item.open())


def resync(group: str) -> Message:
    return {"type": "layer.resync", "group": group, "recovered": False}


async def until_taken(send: Callable[[], Awaitable[Position | None]]) -> Position | None:
    """Send until the server takes it. For events of which it does not matter whether one came twice."""
    with anyio.fail_after(10):
        while True:
            try:
                return await send()
            except LayerUnreachable:
                await anyio.sleep(0.01)


async def until_told(box: Mailbox | Subscription, group: str) -> None:
    """Read until a gap is told."""
    while (await following(box)) != resync(group):
        pass


async def until_lost(layer: RedisChannelLayer, host: int = 0) -> None:
    """Wait until it is known that the connections are lost: what is written before that is of unknown outcome."""
    with anyio.fail_after(10):
        while layer.hub.servers[host].statistics().connections:
            await anyio.sleep(0.01)


async def in_force(layer: RedisChannelLayer) -> None:
    """Wait until the layer's subscriptions are in force: when a new one is, so is what was wanted before."""
    with anyio.fail_after(10):
        while True:
            try:
                await layer.hub.servers[0].subscribe(["barrier"])
            except LayerUnreachable:
                continue
            layer.hub.servers[0].unsubscribe(["barrier"])
            return


# ---- sending


@pytest.mark.parametrize("group", ["plain", "log"])
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_sending_fails_within_its_deadline(how: str, group: str) -> None:
    with RedisProcess() as server:
        async with opened(url=server.url) as layer:
            await layer.group_send(group, message(1))
            getattr(server, how)()
            errors = []
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(LayerUnreachable) as caught:
                    await layer.group_send(group, message(2))
                errors.append(type(caught.value))
                assert time.monotonic() - began < TIMEOUT + 0.3
            # Once it is known that nobody is there, nothing is written, and so nothing can have been done.
            assert errors[-1] is LayerUnreachable
            if how == "stop":
                server.cont()
            else:
                server.start()
            await until_taken(lambda: layer.group_send(group, message(3)))


def kept(layer: RedisChannelLayer, host: int = 0) -> Backlog:
    """Return what the layer keeps for one of its hosts."""
    assert layer._publisher is not None
    return layer._publisher.backlogs[layer.hub.servers[host]]


@asynccontextmanager
async def buffered(group: str) -> AsyncIterator[tuple[RedisChannelLayer, Proxy, Subscription]]:
    """A layer that keeps five events, behind a proxy, and what comes to a group for those who are not."""
    async with opened(url=shared_server().url, timeout=10, timeouts=CALM) as peer, peer.subscribe(group) as events:
        with Proxy(shared_server().port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with opened(url=url, prefix=peer.wire.prefix, unreachable=Buffer(messages=5)) as layer:
                yield layer, proxy, events


@pytest.mark.parametrize("group", ["plain", "log"])
async def test_with_a_buffer_it_is_sent_later_and_in_order(group: str) -> None:
    async with buffered(group) as (layer, proxy, events):
        await layer.group_send(group, message(0))
        assert await following(events) == message(0)
        proxy.refuse()
        await until_lost(layer)
        for number in range(1, 6):
            assert await layer.group_send(group, message(number)) is None
        with pytest.raises(LayerUnreachable, match="buffer of events is full"):
            await layer.group_send(group, message(6))
        proxy.resume()
        await until_taken(lambda: layer.group_send(group, message(7)))
        assert [await following(events) for _ in range(6)] == [message(n) for n in (1, 2, 3, 4, 5, 7)]
        await kept(layer).sent()
        assert (await layer.group_send(group, message(8)) is None) == (group == "plain")
        assert await following(events) == message(8)


async def test_a_buffer_is_bounded_in_bytes_too() -> None:
    with RedisProcess() as server:
        async with opened(url=server.url, unreachable=Buffer(bytes=1000)) as layer:
            server.kill()
            await until_lost(layer)
            with pytest.raises(LayerUnreachable):
                await layer.group_send("plain", {"type": "note", "text": "x" * 1000})
            await layer.group_send("plain", message(1))


@pytest.mark.parametrize("group", ["plain", "log"])
async def test_with_a_buffer_many_at_once_wait_their_turn(group: str) -> None:
    async with buffered(group) as (layer, proxy, events):
        proxy.refuse()
        await until_lost(layer)
        assert await layer.group_send_many([(group, message(1)), (group, message(2))]) == [None, None]
        assert await layer.group_send(group, message(3)) is None
        assert await layer.group_send_many([(group, message(4)), (group, message(5))]) == [None, None]
        with pytest.raises(LayerUnreachable, match="buffer of events is full"):
            await layer.group_send_many([(group, message(6))])
        assert repr(kept(layer)) == "<Backlog of 5 events in 1 lanes>"
        proxy.resume()
        assert [await following(events) for _ in range(5)] == [message(n) for n in range(1, 6)]


async def test_one_server_of_several_that_is_away_holds_up_no_other() -> None:
    with RedisProcess() as other:
        async with opened(hosts=[shared_server().url, other.url], url=None, unreachable=Buffer()) as layer:
            groups = [f"plain{number}" for number in range(20)]
            away = [group for group in groups if layer.hub.server_of(group) is layer.hub.servers[1]]
            assert 0 < len(away) < 20
            async with layer.subscribe(*groups) as events:
                other.kill()
                await until_lost(layer, host=1)
                for group in away:
                    assert await layer.group_send(group, {"type": "note", "to": group}) is None
                here = [group for group in groups if group not in away]
                await layer.group_send_many([(group, {"type": "note", "to": group}) for group in groups])
                seen: set[str] = set()
                with anyio.fail_after(5):
                    while seen != set(here):
                        event = await events.receive()
                        if event["type"] == "note":
                            seen.add(event["to"])


# ---- members


async def test_members_are_told_and_stay() -> None:
    with RedisProcess() as server:
        async with opened(url=server.url) as layer, opened(url=server.url, prefix=layer.wire.prefix) as peer:
            boxes = {group: mailbox() for group in ("plain", "plain2", "log", "log2")}
            for group, box in boxes.items():
                await layer.group_add(group, layer.attach(box))
                await peer.group_send(group, message(1))
                assert await following(box) == message(1)
            server.kill()
            for group in ("plain", "plain2"):
                assert await following(boxes[group]) == resync(group)  # at once: nobody knows how long it will take
            server.start()
            for group, box in boxes.items():
                await until_told(box, group)
            await in_force(layer)
            for group, box in boxes.items():
                await until_taken(lambda group=group: peer.group_send(group, message(2)))  # type: ignore[misc]
                while (event := await following(box)) == resync(group):
                    pass
                assert event == message(2)
            assert layer.hub.servers[0].statistics().subscriptions == 5  # and that of the process


class Room(AsyncJsonWebsocketConsumer):
    """Says what it hears, and what it may not have heard."""

    groups = ("plain",)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        try:
            await self.channel_layer.group_send("plain", {"type": "room.told", "text": content})
        except LayerUnreachable:
            await self.send_json("not now")

    async def room_told(self, event: Event) -> None:
        await self.send_json(event["text"])

    async def layer_resync(self, event: Event) -> None:
        await self.send_json("resync")


async def test_a_socket_stays_open_while_the_server_is_away() -> None:
    with RedisProcess() as server:
        layer = RedisChannelLayer(url=server.url, prefix=fresh_prefix(), timeout=TIMEOUT, timeouts=TIMES)
        app = ProtocolTypeRouter({"websocket": Room.as_asgi()}, layers={"default": layer})
        with anyio.fail_after(60):
            async with app.opened(), WebsocketCommunicator(app, "/", timeout=20) as socket:
                await socket.send_json_to("before")
                assert await socket.receive_json_from(20) == "before"
                server.kill()
                assert await socket.receive_json_from(20) == "resync"
                await socket.send_json_to("meanwhile")
                assert await socket.receive_json_from(20) == "not now"
                server.start()
                heard = ""
                while heard != "after":
                    await socket.send_json_to("after")
                    heard = await socket.receive_json_from(20)
                assert layer.members() == {"plain": 1}


async def test_a_membership_of_an_instance_outlives_the_expiry() -> None:
    async with opened(url=shared_server().url, group_expiry=0.05, timeouts=CALM) as layer:
        box = mailbox()
        await layer.join("plain", layer.attach(box))
        await anyio.sleep(0.2)  # four times what it might have been
        await layer.group_send("plain", message(1))
        assert await following(box) == message(1)


async def test_a_gap_closes_by_itself() -> None:
    """The connection of the subscriptions is lost again and again, while others publish: nobody notices."""
    async with opened(url=shared_server().url, timeout=10, timeouts=CALM) as peer:
        with Proxy(shared_server().port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with (
                opened(url=url, prefix=peer.wire.prefix) as layer,
                layer.subscribe("log", inbox=Inbox(messages=1000)) as events,
            ):
                async with anyio.create_task_group() as group:

                    async def publish() -> None:
                        for number in range(100):
                            await peer.group_send("log", message(number))
                            await anyio.sleep(0.005)

                    group.start_soon(publish)
                    for number in range(100):
                        assert await following(events) == message(number)
                        if number % 30 == 10:
                            proxy.cut()
                assert events.positions["log"].offset == 100


async def test_where_a_subscription_stands() -> None:
    async with opened(url=shared_server().url) as layer:
        async with layer.subscribe("log", "plain") as events:
            assert events.positions["log"].offset == 0
            assert events.recoveries["log"].recovered
            assert events.recoveries["plain"].position is None
            for number in range(3):
                position = await layer.group_send("log", message(number))
                assert await following(events) == message(number)
                assert events.positions == {"log": position}
            reached = events.positions["log"]
        for number in range(3, 6):
            await layer.group_send("log", message(number))
        async with layer.subscribe("log", since={"log": reached}) as events:
            assert events.recoveries["log"].recovered
            assert events.recoveries["log"].count == 3
            assert events.positions["log"] == reached  # nothing of it has been read yet
            for number in range(3, 6):
                assert await following(events) == message(number)
            assert events.positions["log"].offset == 6
        async with layer.subscribe("log", since={"log": Position(1, "another")}) as events:
            assert not events.recoveries["log"].recovered
            assert events.positions["log"].offset == 6


async def test_a_key_makes_up_for_a_lost_answer() -> None:
    with RedisProcess() as server, Proxy(server.port) as proxy:
        async with (
            opened(url=server.url) as peer,
            peer.subscribe("log") as events,
            opened(url=f"redis://127.0.0.1:{proxy.port}", prefix=peer.wire.prefix) as layer,
        ):
            first = await layer.group_send("log", message(0), "key 0")
            proxy.cut_after(0)  # the command gets through, its answer does not
            with pytest.raises(OutcomeUnknown):
                await layer.group_send("log", message(1), "key 1")
            assert await until_taken(lambda: layer.group_send("log", message(1), "key 1")) == Position(2, first.epoch)  # type: ignore[union-attr]
            await layer.group_send("log", message(2))
            assert [await following(events) for _ in range(3)] == [message(0), message(1), message(2)]


@pytest.mark.parametrize("group", ["plain", "log"])
async def test_what_cannot_be_decrypted_is_a_gap(group: str) -> None:
    url = shared_server().url
    async with (
        opened(url=url, symmetric_encryption_keys=["ours"]) as layer,
        opened(url=url, prefix=layer.wire.prefix, symmetric_encryption_keys=["theirs", "ours"]) as stranger,
        opened(url=url, prefix=layer.wire.prefix, symmetric_encryption_keys=["ours"]) as friend,
        layer.subscribe(group) as events,
    ):
        await friend.group_send(group, message(1))
        await stranger.group_send(group, message(2))
        await friend.group_send(group, message(3))
        assert [await following(events) for _ in range(3)] == [message(1), resync(group), message(3)]


# ---- a new history


async def flushed_with_a_member(layer: RedisChannelLayer, events: Subscription) -> Position:
    """Send two events, lose all that the server has; returns where the member stood."""
    for number in range(2):
        await layer.group_send("log", message(number))
        assert await following(events) == message(number)
    return events.positions["log"]


async def test_lost_data_is_a_new_history() -> None:
    with RedisProcess() as server:
        async with opened(url=server.url) as layer, layer.subscribe("log") as events:
            reached = await flushed_with_a_member(layer, events)
            server.admin("FLUSHALL")
            after = await layer.group_send("log", message(2))
            assert after is not None
            assert after.epoch != reached.epoch
            assert await following(events) == resync("log")
            assert events.positions["log"] == after  # from there it goes on
            third = await layer.group_send("log", message(3))
            assert await following(events) == message(3)
            assert events.positions["log"] == third
            async with layer.subscribe("log", since={"log": reached}) as newcomer:
                assert not newcomer.recoveries["log"].recovered


async def test_who_comes_to_a_history_that_has_ended_makes_it_known() -> None:
    """Nothing was sent since; and the process that is asked lags behind what the newcomer has seen."""
    with RedisProcess() as server, Proxy(server.port) as proxy:
        async with (
            opened(url=server.url) as peer,
            opened(url=f"redis://127.0.0.1:{proxy.port}", prefix=peer.wire.prefix, timeout=5) as layer,
            layer.subscribe("log") as events,
            peer.subscribe("log") as others,
        ):
            reached = await flushed_with_a_member(peer, others)
            assert [await following(events) for _ in range(2)] == [message(0), message(1)]
            ahead = Position(reached.offset + 1, reached.epoch)  # the event of it is still on its way to the process
            server.admin("FLUSHALL")
            async with layer.subscribe("log", since={"log": ahead}) as newcomer:
                assert not newcomer.recoveries["log"].recovered
                assert newcomer.positions["log"] == ahead  # not behind what it has seen
                assert await following(events) == resync("log")
                assert await following(newcomer) == resync("log")
                assert newcomer.positions["log"] == events.positions["log"] != reached


async def test_a_gap_is_not_told_to_who_came_in_behind_it() -> None:
    with RedisProcess() as server:
        async with opened(url=server.url) as layer, layer.subscribe("log") as events:
            await flushed_with_a_member(layer, events)
            server.admin("FLUSHALL")
            feed = layer.hub.feeds["log"]
            read, has_read, go_on = feed._read, anyio.Event(), anyio.Event()

            async def read_slowly(since: Position | None) -> Any:
                found = await read(since)
                if not has_read.is_set():
                    has_read.set()
                    await go_on.wait()
                return found

            feed._read = read_slowly  # type: ignore[method-assign]
            first = await layer.group_send("log", message(2))
            assert first is not None
            with anyio.fail_after(10):
                await has_read.wait()
            await layer.group_send("log", message(3))
            async with layer.subscribe("log", since={"log": first}) as newcomer:
                assert newcomer.recoveries["log"].recovered
                go_on.set()
                await layer.group_send("log", message(4))
                assert [await following(newcomer) for _ in range(2)] == [message(3), message(4)]
                assert [await following(events) for _ in range(3)] == [resync("log"), message(3), message(4)]


async def test_a_loss_while_a_group_begins_is_no_hole() -> None:
    """The subscription is lost and back again after the history was read, and before the group has begun."""
    with RedisProcess() as server:
        async with opened(url=server.url) as layer, opened(url=server.url, prefix=layer.wire.prefix) as peer:
            hub = layer.hub
            feed = hub.feed("log")
            feed.joiners += 1
            read, back = feed._read, anyio.Event()
            restored = hub.restored

            def tell(channels: Any) -> None:
                restored(channels)
                back.set()

            hub.restored = tell  # type: ignore[method-assign]

            async def read_and_lose(since: Position | None) -> Any:
                found = await read(since)
                if since is None:
                    server.admin("CLIENT", "KILL", "TYPE", "pubsub")
                    await peer.group_send("log", message(1))
                    with anyio.fail_after(10):
                        await back.wait()
                return found

            feed._read = read_and_lose  # type: ignore[method-assign]
            async with layer.subscribe("log") as events:
                # What was sent before the entrance is not the subscription's; but where it stands must be right.
                assert events.positions["log"].offset == 1
                await peer.group_send("log", message(2))
                assert await following(events) == message(2)
            feed.joiners -= 1
