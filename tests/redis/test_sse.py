"""Event streams over Redis: a client that is lost amid 1,000 events, which other processes send, has each in order;
ids that somebody made up, or that cannot be read."""

import random

import anyio
import pytest

from trichannels.generic.event_stream import key_of
from trichannels.layers.history import History
from trichannels.layers.redis import RedisChannelLayer

from ..generic.test_sse import Room, Source, Telling, say, several, streaming, visit
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


@pytest.mark.parametrize("offset", ["9" * 18, "9007199254740993", "3", None])
async def test_an_id_that_somebody_made_up_is_told_once(offset: str | None) -> None:
    url, history = shared_server().url, {"room": History(size=1000)}
    async with RedisChannelLayer(url=url, prefix=fresh_prefix(), history=history) as layer:
        position = await layer.group_send("room", {"type": "said", "text": "0"})
        assert position is not None
        source = Source("garbage" if offset is None else f"1,{key_of('room')}-{offset}-{position.epoch}")
        async with streaming(Telling, layer, source=source) as client:
            assert await several(client, 2) == ["resync", "state"]
            await say(layer, "1")
            assert (await client.event()).data == "1"
        async with streaming(Telling, layer, source=source) as client:
            await say(layer, "2")
            assert (await client.event()).data == "2"
