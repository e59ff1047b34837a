"""A consumer in a group with history: where its events stand, and what its client gets when it comes back."""

from typing import Any

import anyio
import pytest

from trichannels.events import Event
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trichannels.inbox import Inbox
from trichannels.layers.history import History, Position
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.registry import registered
from trichannels.testing.websocket import WebsocketCommunicator

LOG = "log"


def layer_with_history(**options: Any) -> InMemoryChannelLayer:
    return InMemoryChannelLayer(history={LOG: History(size=10)}, **options)


def as_json(position: Position | None) -> dict[str, Any] | None:
    return None if position is None else {"offset": position.offset, "epoch": position.epoch}


class Reader(AsyncJsonWebsocketConsumer):
    """Joins where its client says, and tells it where each event stands."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        recovery = await self.join(LOG, since=Position(**content) if content else None)
        await self.send_json({"recovered": recovery.recovered, "count": recovery.count})

    async def told(self, event: Event) -> None:
        await self.send_json({"n": event["n"], "at": as_json(self.position)})

    async def direct(self, event: Event) -> None:
        await self.send_json({"direct": as_json(self.position)})


class BesideReader(Reader):
    concurrency = 4


class BlockingReader(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        recovery = self.join(LOG, since=Position(**content) if content else None)
        self.send_json({"recovered": recovery.recovered, "count": recovery.count})

    def told(self, event: Event) -> None:
        self.send_json({"n": event["n"], "at": as_json(self.position)})


async def answers(client: WebsocketCommunicator, count: int) -> list[Any]:
    return [await client.receive_json_from() for _ in range(count)]


@pytest.mark.parametrize("consumer", [Reader, BesideReader, BlockingReader])
async def test_a_client_comes_back_and_misses_nothing(consumer: Any) -> None:
    async with layer_with_history() as layer:
        with registered({"default": layer}):
            async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
                await client.send_json_to(None)
                assert await client.receive_json_from() == {"recovered": True, "count": 0}
                first = await layer.group_send(LOG, {"type": "told", "n": 1})
                left = (await client.receive_json_from())["at"]
                assert left == as_json(first)
            for n in range(2, 6):
                await layer.group_send(LOG, {"type": "told", "n": n})
            async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
                await client.send_json_to(left)
                got = await answers(client, 5)
                assert {"recovered": True, "count": 4} in got
                told = [answer for answer in got if "n" in answer]
                in_order = told if consumer is not BesideReader else sorted(told, key=lambda answer: answer["n"])
                assert [answer["n"] for answer in in_order] == [2, 3, 4, 5]
                assert [answer["at"]["offset"] for answer in in_order] == [2, 3, 4, 5]
            async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
                await client.send_json_to({"offset": 1, "epoch": "another"})
                assert await client.receive_json_from() == {"recovered": False, "count": 0}


async def test_an_event_without_history_has_no_position() -> None:
    async with layer_with_history() as layer:
        with registered({"default": layer}):
            async with WebsocketCommunicator(Reader.as_asgi(), "/") as client:
                await client.send_json_to(None)
                await client.receive_json_from()
                await layer.group_send(LOG, {"type": "told", "n": 1})
                assert (await client.receive_json_from())["at"] is not None
                (channel,) = layer.board.mailboxes
                await layer.send(channel, {"type": "direct"})
                assert await client.receive_json_from() == {"direct": None}


async def test_who_is_too_slow_is_sent_away_and_recovers() -> None:
    gate = anyio.Event()

    class Slow(Reader):
        inbox = Inbox(messages=2)

        async def told(self, event: Event) -> None:
            await gate.wait()
            await super().told(event)

    async with layer_with_history() as layer:
        with registered({"default": layer}):
            client = WebsocketCommunicator(Slow.as_asgi(), "/")
            assert (await client.connect())[0]
            await client.send_json_to(None)
            await client.receive_json_from()
            start = await layer.group_send(LOG, {"type": "told", "n": 1})
            await anyio.wait_all_tasks_blocked()  # its handler has it now, and waits
            for n in range(2, 6):
                await layer.group_send(LOG, {"type": "told", "n": n})
            gate.set()
            while (output := await client.receive_output())["type"] != "websocket.close":
                pass
            assert output["code"] == 1013
            await client.wait()
            async with WebsocketCommunicator(Slow.as_asgi(), "/") as again:
                await again.send_json_to(as_json(start))
                got = await answers(again, 5)
                assert [answer["n"] for answer in got if "n" in answer] == [2, 3, 4, 5]
