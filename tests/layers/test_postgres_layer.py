"""The example of a layer from outside keeps the contract, but for what it leaves out, and outlives its PostgreSQL."""

import os
from base64 import b64encode
from collections.abc import Iterator
from itertools import count

import anyio
import psycopg
import pytest
from anyio import to_thread

from examples.postgres_layer import LONGEST, PostgresChannelLayer
from trichannels.exceptions import (
    BadEvent,
    InvalidChannelLayerError,
    LayerClosed,
    LayerRefused,
    LayerUnreachable,
    OutcomeUnknown,
)
from trichannels.layers.base import ChannelLayer, Subscription
from trichannels.layers.broadcast import BlockingBroadcast
from trichannels.layers.broadcast_frames import LONGEST_HEAD, TO_GROUP, write_frame
from trichannels.layers.history import History, Position
from trichannels.layers.serializers import Message
from trichannels.testing.contract.base import ContractBase, mailbox, message
from trichannels.testing.layers import LayerContract

from ..database.postgres import PostgresProcess

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("descriptors")]

NUMBERS = count()
GAP = {"type": "layer.resync", "group": "group", "recovered": False}
LARGE = message(7) | {"text": "x" * LONGEST}


def dsn_of(server: PostgresProcess) -> str:
    return f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


def fresh_prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"test-{os.getpid()}-{next(NUMBERS)}"


def make(server: PostgresProcess, prefix: str = "", **options: object) -> PostgresChannelLayer:
    return PostgresChannelLayer(dsn_of(server), prefix=prefix or fresh_prefix(), **options)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as server:
        yield server


def line_of(frame: bytes) -> str:
    """Return a notification, as the layer writes it."""
    return f"{'0' * 16} {b64encode(frame).decode()}"


def pointer() -> str:
    """Return what a notification says of a frame that waits in the table."""
    return b64encode(write_frame(TO_GROUP, "group", bytes(LONGEST))[:LONGEST_HEAD]).decode()


def notify(server: PostgresProcess, layer: PostgresChannelLayer, line: str) -> None:
    server.ask(f"select pg_notify('{layer.prefix}', '{line}')")


async def received(events: Subscription) -> Message:
    with anyio.fail_after(20):
        return await events.receive()


# ---- the contract


class OnARealServer(ContractBase):
    quiet = 0.03
    server: PostgresProcess
    made: list[PostgresChannelLayer]

    @pytest.fixture(autouse=True)
    def served(self, postgres: PostgresProcess) -> None:
        self.server, self.made = postgres, []

    def make(self, prefix: str) -> PostgresChannelLayer:
        self.made.append(PostgresChannelLayer(dsn_of(self.server), prefix=prefix, capacity=3))
        return self.made[-1]

    def make_layer(self) -> ChannelLayer:
        return self.make(fresh_prefix())

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, PostgresChannelLayer)
        return self.make(layer.prefix)

    async def settle(self) -> None:
        """Notifications come in the order of the transactions: what was sent before has come before the echo."""
        for layer in self.made:
            if layer.opened:
                await layer.echo()


class TestPostgresLayer(OnARealServer, LayerContract):
    """All parts but histories, presence and queues."""

    queues = history = presence = False


# ---- over the wire


async def test_two_processes_hear_each_other(postgres: PostgresProcess) -> None:
    one = make(postgres)
    async with (
        one,
        make(postgres, one.prefix) as two,
        make(postgres) as stranger,
        one.subscribe("group") as first,
        two.subscribe("group") as second,
        stranger.subscribe("group") as third,
    ):
        for number, sender in enumerate((one, two)):
            await sender.group_send("group", message(number))
            assert await received(first) == await received(second) == message(number)
        channel = await one.new_channel()
        await two.send(channel, message(1), delay=0.05)
        with anyio.fail_after(20):
            assert await one.receive(channel) == message(1)
        assert third.statistics().layer_messages == 0


async def test_large_messages_keep_their_place(postgres: PostgresProcess) -> None:
    one = make(postgres)
    async with one, make(postgres, one.prefix) as two, one.subscribe("group") as events:
        channel = await one.new_channel()
        for content in (message(1), LARGE, message(2), LARGE | {"text": "y" * 3_000_000}, message(3)):
            await two.group_send("group", content)
            if content["number"] != 7:
                await two.send(channel, content | {"text": "z" * LONGEST})
        assert [len((await received(events)).get("text", "")) for _ in range(3)] == [0, LONGEST, 0]
        told = await received(events)  # larger than an inbox may be
        assert (told["type"], told["count"]) == ("layer.dropped", 1)
        assert await received(events) == message(3)
        with anyio.fail_after(20):
            assert [(await one.receive(channel))["number"] for _ in range(3)] == [1, 2, 3]


async def test_the_longest_line_that_is_sent_as_it_is(postgres: PostgresProcess) -> None:
    async with make(postgres) as layer, layer.subscribe("group") as events:
        for length in range(LONGEST * 3 // 4 - 120, LONGEST * 3 // 4 - 20):
            await layer.group_send("group", {"text": "x" * length})
            assert await received(events) == {"text": "x" * length}
        kept = postgres.ask(f'select count(*) from "{layer.prefix}"')[0][0]
        assert isinstance(kept, int)
        assert 0 < kept < 100


async def test_the_longest_prefix(postgres: PostgresProcess) -> None:
    one = make(postgres, "p" * 63)
    async with one, make(postgres, "p" * 62) as stranger, one.subscribe("group") as events:
        for content in (message(1), LARGE):
            await stranger.group_send("group", message(2))
            await one.group_send("group", content)
            assert await received(events) == content


async def test_what_is_too_old_is_deleted_and_that_is_told(postgres: PostgresProcess) -> None:
    async with make(postgres, expiry=0.1) as layer, layer.subscribe("group") as events:
        await layer.group_send("group", LARGE)
        assert await received(events) == LARGE
        (number,) = postgres.ask(f'select id from "{layer.prefix}"')[0]
        await anyio.sleep(0.2)
        await layer.group_send("group", LARGE)
        assert await received(events) == LARGE
        assert postgres.ask(f'select count(*) from "{layer.prefix}"') == [(1,)]
        notify(postgres, layer, f"{number}*{pointer()}")
        assert await received(events) == GAP
        assert layer.statistics().undeliverable == 1


async def test_what_is_no_message_is_thrown_away_and_told(
    postgres: PostgresProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(postgres) as layer, layer.subscribe("group") as events:
        forged = write_frame(TO_GROUP, "group", layer.serializer.encode({"type": "layer.resync", "group": "b"}))
        number = "0" * 16
        for line in ("", "1 group", f"{number} not-base64", f"{number} eA==", f"{number}*eA==", line_of(forged)):
            notify(postgres, layer, line)
        assert await received(events) == GAP
        await layer.group_send("group", message(1))
        while (event := await received(events)) == GAP:
            pass
        assert event == message(1)
        assert layer.statistics().undeliverable == 6
    assert "a frame was thrown away" in caplog.text


# ---- when PostgreSQL is away


async def test_a_restart_is_survived_and_told() -> None:
    with PostgresProcess() as server:
        one = make(server, timeout=20)
        async with (
            one,
            make(server, one.prefix, timeout=20) as two,
            one.subscribe("group") as first,
            two.subscribe("group") as second,
        ):
            await two.group_send("group", message(1))
            assert await received(first) == await received(second) == message(1)
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(to_thread.run_sync, server.restart)
                assert await received(first) == await received(second) == GAP
                async with two.subscribe("another") as late:  # which waits until it can be in force
                    await one.group_send("another", LARGE)
                    assert await received(late) == LARGE
            assert await received(first) == await received(second) == GAP  # once more when it is back
            await two.group_send("group", message(2))
            assert await received(first) == await received(second) == message(2)


async def test_a_lost_connection_is_told_twice(postgres: PostgresProcess) -> None:
    async with make(postgres) as layer, layer.subscribe("group", "other") as events:
        query = f"select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen \"{layer.prefix}\"'"
        for _ in range(2):
            assert postgres.ask(query) == [(True,)]
            assert sorted([(await received(events))["group"] for _ in range(2)]) == ["group", "other"]
            await layer._heard_of_all()
            with anyio.fail_after(20):  # it is told again once it is back, unless the first one is still unread
                assert sorted([(await received(events))["group"] for _ in range(2)]) == ["group", "other"]
            await layer.group_send("group", message(1))
            assert await received(events) == message(1)


async def test_away_every_call_fails_in_time() -> None:
    with PostgresProcess() as server:
        layer, late = make(server, timeout=0.3), make(server, timeout=0.3)
        async with anyio.create_task_group() as nursery, layer, layer.subscribe("group") as events:
            channel = layer.attach(mailbox())
            server.__exit__()
            assert await received(events) == GAP
            begin = anyio.current_time()
            for call in (
                lambda: layer.group_send("group", message()),
                lambda: layer.group_add("group", channel),
                lambda: layer.group_add("group", "specific.other!i1"),
                lambda: layer.send("specific.other!i1", message()),
                late.__aenter__,
            ):
                with pytest.raises(LayerUnreachable, match=r"not reached within 0\.3 s: .*refused"):
                    await call()
            assert anyio.current_time() - begin < 5 * 2
            await layer.send(channel, message(1))  # for this, nobody is needed
            layer.timeout = 20

            async def join() -> None:
                with pytest.raises(LayerClosed):
                    await layer.group_add("group", channel)

            nursery.start_soon(join)
            await anyio.wait_all_tasks_blocked()
            await layer.group_discard("group", channel)


async def test_an_answer_that_does_not_come(postgres: PostgresProcess) -> None:
    async with make(postgres, timeout=0.3) as layer, layer.subscribe("group") as events:
        with psycopg.connect(dsn_of(postgres)) as other:
            other.execute(f'lock table "{layer.prefix}"'.encode())
            with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.3 s"):
                await layer.group_send("group", LARGE)
            layer.timeout = 20

            async def send() -> None:
                with pytest.raises(OutcomeUnknown, match="lost before it has answered"):
                    await layer.group_send("group", LARGE)

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(send)
                waiting = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
                for _ in range(2):  # the one that was given up waits there too
                    while not postgres.ask(waiting):
                        await anyio.sleep(0.01)
                    await anyio.sleep(0.1)
        await layer.group_send("group", message(1))
        assert await received(events) == message(1)


async def test_a_refusal(postgres: PostgresProcess) -> None:
    async with make(postgres) as layer, layer.subscribe("group") as events:
        postgres.ask(f'drop table "{layer.prefix}"')
        with pytest.raises(LayerRefused, match="does not exist"):
            await layer.group_send("group", LARGE)
        notify(postgres, layer, f"{'0' * 16}*{pointer()}")
        assert await received(events) == GAP
        await layer.group_send("group", message(1))
        assert await received(events) == message(1)


# ---- what it does not do, and code without a loop


async def test_what_it_leaves_out_is_refused(postgres: PostgresProcess) -> None:
    with pytest.raises(InvalidChannelLayerError, match="keeps no history"):
        make(postgres, history={"*": History()})
    with pytest.raises(InvalidChannelLayerError, match="dsn"):
        PostgresChannelLayer("host=a color=red")
    with pytest.raises(InvalidChannelLayerError, match="prefix: PostgreSQL's names have at most 63 characters"):
        make(postgres, "p" * 64)
    async with make(postgres) as layer:
        assert not (await layer.join("group", layer.attach(mailbox()), Position(1, "e"))).recovered
        for refused in (
            lambda: layer.send("work", message()),
            lambda: layer.group_add("group", "work"),
            lambda: layer.presence("group"),
            lambda: layer.group_send("group", message(), "key"),
            lambda: layer.send("work", message(), delay=1),
        ):
            with pytest.raises(InvalidChannelLayerError):
                await refused()
        with pytest.raises(InvalidChannelLayerError, match="has no work queues"):
            layer.open_queue("work")
        await layer.group_discard("group", "work")
        with pytest.raises(BadEvent, match="delay"):
            await layer.send(await layer.new_channel(), message(), delay=-1)


async def test_code_without_a_loop(postgres: PostgresProcess) -> None:
    prefix = fresh_prefix()
    sync = PostgresChannelLayer.blocking(dsn=dsn_of(postgres), prefix=prefix)
    assert isinstance(sync, BlockingBroadcast)
    await to_thread.run_sync(sync.group_send, "group", LARGE)  # nobody has opened such a layer yet
    async with make(postgres, prefix) as layer, layer.subscribe("group") as events:
        for content in (message(1), LARGE):
            await to_thread.run_sync(sync.group_send, "group", content)
            assert await received(events) == content
        channel = await layer.new_channel()
        await to_thread.run_sync(sync.send, channel, message(2))
        with anyio.fail_after(20):
            assert await layer.receive(channel) == message(2)
        with pytest.raises(InvalidChannelLayerError):
            sync.send(channel, message(), delay=1)
        postgres.ask(f'drop table "{prefix}"; create view "{prefix}" as select 1')
        with pytest.raises(LayerRefused):
            await to_thread.run_sync(sync.group_send, "group", LARGE)
    sync.close()
    away = PostgresChannelLayer.blocking(dsn="host=127.0.0.1 port=1", timeout=0.2)
    with pytest.raises(LayerUnreachable, match="not reached"):
        await to_thread.run_sync(away.group_send, "group", message())
    with pytest.raises(RuntimeError, match="in this thread"):
        away.group_send("group", message())
