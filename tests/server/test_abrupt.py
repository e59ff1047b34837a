"""Many clients that leave in the middle of everything: nothing of them remains, and nothing is reported."""

import gc
import logging
import random
from functools import partial

import pytest
import trio

from trichannels.events import Receive, Scope, Send
from trichannels.server import Server

from .support import TEXT, connect, frame, serving, upgrade_request, websocket_app

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

CLIENTS = 300


async def chatty(scope: Scope, receive: Receive, send: Send) -> None:
    async def chat() -> None:
        while True:
            await send({"type": "websocket.send", "text": "x" * random.randrange(20_000)})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chat)
        while (await receive())["type"] == "websocket.receive":
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def visit(server: Server, limiter: trio.CapacityLimiter, how: int) -> None:
    async with limiter, await connect(server) as client:
        request = upgrade_request()
        whole = request + frame(TEXT, b"hello") * 20
        await client.send(
            [request[: random.randrange(len(request))], request, whole, whole[:-3], b"\x16\x03\x01"][how % 5]
        )
        if how % 3 == 0:
            with trio.move_on_after(0.01):
                await client.stream.receive_some(random.randrange(1, 1000))
        if how % 2 == 0:
            client.reset()


async def test_abrupt_ends_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(websocket_app(chatty)) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        limiter = trio.CapacityLimiter(30)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(partial(visit, server, limiter, number))
        with trio.fail_after(20):
            while server.statistics().connections:
                await trio.sleep(0.01)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert server.statistics().accepted == CLIENTS
        assert server.statistics().failures == 0
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and record.name != "trio"]
