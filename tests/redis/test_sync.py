"""The blocking twin: what it sends arrives, it asks other processes, survives fork(), and refuses to stop a loop."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from trichannels.exceptions import (
    ChannelFull,
    InvalidChannelLayerError,
    InvalidName,
    LayerRefused,
    LayerUnreachable,
    OutcomeUnknown,
    UnserializableMessage,
)
from trichannels.layers.history import History, Position
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.sync import SyncChannelLayer
from trichannels.testing.contract.base import mailbox, message

from ..ports import free_port
from .servers import RedisProcess, fresh_prefix, shared_server

pytestmark = pytest.mark.server


def options(**more: Any) -> dict[str, Any]:
    return {"url": shared_server().url, "prefix": fresh_prefix(), **more}


async def in_thread(call: Callable[[], Any]) -> Any:
    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(call)


async def _next(box: Any) -> Any:
    with anyio.fail_after(10):
        return (await box.get()).open()


@pytest.mark.parametrize("more", [{}, {"symmetric_encryption_keys": ["k"], "serializer_format": "json"}])
async def test_what_it_sends_arrives(more: dict[str, Any]) -> None:
    given = options(**more)
    async with RedisChannelLayer(**given) as layer:
        box = mailbox()
        channel = layer.attach(box)
        with SyncChannelLayer(**given) as sync:
            await in_thread(lambda: sync.group_add("group", channel))
            assert layer.groups_of(channel) == ("group",)
            assert await in_thread(lambda: sync.group_send("group", message(1))) is None
            assert await _next(box) == message(1)
            await in_thread(lambda: sync.send(channel, message(2)))
            assert await _next(box) == message(2)
            await in_thread(lambda: sync.group_discard("group", channel))
            assert layer.groups_of(channel) == ()
            layer.detach(channel)
            await in_thread(lambda: sync.send(channel, message(3)))
            await in_thread(lambda: sync.group_add("group", channel))


async def test_histories_are_those_of_the_layer() -> None:
    given = options(history={"log.*": History(size=10)})
    async with RedisChannelLayer(**given) as layer, layer.subscribe("log.a") as events:
        with SyncChannelLayer(**given) as sync:
            first = await in_thread(lambda: sync.group_send("log.a", message(1), idempotency_key="k"))
            assert await in_thread(lambda: sync.group_send("log.a", message(1), idempotency_key="k")) == first
            second = await layer.group_send("log.a", message(2))
            third = await in_thread(lambda: sync.group_send("log.a", message(3)))
            assert second == Position(first.offset + 1, first.epoch)
            assert third == Position(first.offset + 2, first.epoch)
            with anyio.fail_after(10):
                assert [await events.receive() for _ in range(3)] == [message(1), message(2), message(3)]
            with pytest.raises(InvalidChannelLayerError, match="no history"):
                await in_thread(lambda: sync.group_send("plain", message(1), idempotency_key="k"))


async def test_work_queues_take_what_it_sends() -> None:
    given = options(capacity=2)
    async with RedisChannelLayer(**given) as layer:
        with SyncChannelLayer(**given) as sync:
            await in_thread(lambda: sync.send("work", message(1), delay=0.1))
            await in_thread(lambda: sync.send("work", message(2)))
            with pytest.raises(ChannelFull):
                await in_thread(lambda: sync.send("work", message(3)))
            with anyio.fail_after(10):
                assert await layer.receive("work") == message(2)
                assert await layer.receive("work") == message(1)


async def test_it_refuses_the_thread_of_a_loop() -> None:
    sync = SyncChannelLayer(**options())
    calls: tuple[Callable[[], object], ...] = (
        lambda: sync.group_send("group", message()),
        lambda: sync.send("a.b!c", message()),
        lambda: sync.group_add("group", "a.b!c"),
        lambda: sync.group_discard("group", "a.b!c"),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="would stop the"):
            call()


def test_bad_names_and_messages() -> None:
    with SyncChannelLayer(**options()) as sync:
        with pytest.raises(InvalidName):
            sync.group_send("bad name", message())
        with pytest.raises(UnserializableMessage):
            sync.group_send("group", {"type": "a", "set": {1}})
        with pytest.raises(ValueError, match=r"layer\."):
            sync.group_send("group", {"type": "layer.dropped"})
        with pytest.raises(InvalidChannelLayerError, match="no channel whose process"):
            sync.group_add("group", "plain")
        with pytest.raises(InvalidChannelLayerError, match="delay"):
            sync.send("a.b!c", message(), delay=1)
    with pytest.raises(InvalidChannelLayerError, match="'prefx': did you mean 'prefix'"):
        SyncChannelLayer(prefx="x")


def test_errors_are_those_of_the_layer() -> None:
    nowhere = SyncChannelLayer(url=f"redis://127.0.0.1:{free_port()}", timeout=1)
    with pytest.raises(LayerUnreachable) as caught:
        nowhere.group_send("group", message())
    assert not isinstance(caught.value, OutcomeUnknown)
    with RedisProcess(password="secret") as server:
        wrong = SyncChannelLayer(url=server.url.replace("secret", "wrong"), timeout=1)
        with pytest.raises((LayerRefused, LayerUnreachable), match=r"WRONGPASS|invalid"):
            wrong.group_send("group", message())
        wrong.close()
        with SyncChannelLayer(url=server.url, timeout=1) as right:
            right.group_send("group", message())
            server.stop()
            with pytest.raises(OutcomeUnknown):
                right.group_send("group", message())
            server.cont()
            right.group_send("group", message())
            server.restart()
            right.group_send("group", message())  # a connection that has ended is replaced


async def test_its_process_does_not_answer() -> None:
    given = options()
    with SyncChannelLayer(**given, timeout=0.3) as sync:
        async with RedisChannelLayer(**given) as layer:
            channel = layer.attach(mailbox())

            def ask() -> None:
                with pytest.raises(LayerUnreachable, match="not answered in time"):
                    sync.group_add("group", channel)

            with stopped_loop(ask):
                pass


@contextmanager
def stopped_loop(work: Callable[[], None]) -> Iterator[None]:
    """Run ``work`` in a thread while the loop of the caller stands still."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    if failed:
        raise failed[0]
    yield


def test_both_sides_of_a_fork_go_on() -> None:
    with SyncChannelLayer(**options(history={"*": History()})) as sync:
        first = sync.group_send("group", message(0))
        assert first is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where there are idle threads
            pid = os.fork()
        if not pid:
            code = 1
            try:
                for number in range(50):
                    sync.group_send("group", message(number))
                code = 0
            finally:
                os._exit(code)
        for number in range(50):
            sync.group_send("group", message(number))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        last = sync.group_send("group", message(0))
        assert last == Position(first.offset + 101, first.epoch)


def test_many_threads_may_share_one() -> None:
    with SyncChannelLayer(**options(history={"*": History()})) as sync:
        positions: list[Position | None] = []

        def work() -> None:
            for number in range(20):
                positions.append(sync.group_send("group", message(number)))

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(position.offset for position in positions if position) == list(range(1, 101))
