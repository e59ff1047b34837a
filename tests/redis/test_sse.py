"""Event streams over Redis: a client that is lost amid 1,000 events, which other processes send, has each in order."""

import random

import anyio
import pytest

from trichannels.layers.history import History
from trichannels.layers.redis import RedisChannelLayer

from ..generic.test_sse import Room, Source, say, streaming, visit
from .servers import fresh_prefix, shared_server

pytestmark = pytest.mark.server


async def test_a_client_that_is_lost_at_random_has_each_event_in_order() -> None:
    url, history = shared_server().url, {"room": History(size=1000)}
    prefix = fresh_prefix()
    chance, source = random.Random(1), Source()
    got: list[str] = []

    async def publish() -> None:
        for number in range(1000):
            await say(elsewhere, str(number))
            if chance.random() < 0.02:
                await anyio.sleep(chance.random() / 50)

    async with (
        RedisChannelLayer(url=url, prefix=prefix, history=history) as layer,
        RedisChannelLayer(url=url, prefix=prefix, history=history) as elsewhere,
        anyio.create_task_group() as nursery,
    ):
        async with streaming(Room, layer, source=source) as client:
            await client.part()
            await client.part()
        nursery.start_soon(publish)
        while len(got) < 1000:
            await visit(layer, source, chance, got, 20)
    assert got == [str(number) for number in range(1000)]
