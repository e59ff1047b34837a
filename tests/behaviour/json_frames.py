"""The consumers whose frames are JSON."""

# mypy: allow-subclassing-any

import json
from typing import Any

from .library import output
from .rows import documented_at

behaviour = documented_at("topics/consumers.html#jsonwebsocketconsumer")
ASYNC = "https://channels.readthedocs.io/en/latest/topics/consumers.html#asyncjsonwebsocketconsumer"


async def _echoed(lib: Any, consumer: Any, frame: Any) -> Any:
    async with lib.socket(consumer) as client:
        await client.send_json_to(frame)
        return await client.receive_json_from()


@behaviour(
    ASYNC, "`receive_json(content)` gets a decoded frame, `send_json(content)` encodes one", same=[{"a": [1, None]}]
)
async def frames_are_json(lib: Any) -> Any:
    class Consumer(lib.AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await self.send_json([content])

    return await _echoed(lib, Consumer, {"a": [1, None]})


@behaviour("", "The blocking one does the same", same=[{"a": [1, None]}])
async def frames_are_json_in_a_blocking_consumer(lib: Any) -> Any:
    class Consumer(lib.JsonWebsocketConsumer):
        def receive_json(self, content: Any) -> None:
            self.send_json([content])

    return await _echoed(lib, Consumer, {"a": [1, None]})


@behaviour(ASYNC, "`encode_json` and `decode_json` are async class methods that may be overridden", same={"it": "1!?"})
async def another_json(lib: Any) -> Any:
    class Consumer(lib.AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await self.send_json(content)

        @classmethod
        async def decode_json(cls, text_data: str) -> Any:
            return f"{text_data}!"

        @classmethod
        async def encode_json(cls, content: Any) -> str:
            return json.dumps({"it": f"{content}?"})

    return await _echoed(lib, Consumer, 1)


@behaviour("", "… and plain class methods in a blocking consumer", same={"it": "1!?"})
async def another_json_in_a_blocking_consumer(lib: Any) -> Any:
    class Consumer(lib.JsonWebsocketConsumer):
        def receive_json(self, content: Any) -> None:
            self.send_json(content)

        @classmethod
        def decode_json(cls, text_data: str) -> Any:
            return f"{text_data}!"

        @classmethod
        def encode_json(cls, content: Any) -> str:
            return json.dumps({"it": f"{content}?"})

    return await _echoed(lib, Consumer, 1)


@behaviour(ASYNC, "`send_json(…, close=True)` closes behind the frame", same=[1, "websocket.close"])
async def send_json_and_close(lib: Any) -> Any:
    class Consumer(lib.AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await self.send_json(content, close=True)

    async with lib.socket(Consumer) as client:
        await client.send_json_to(1)
        return [await client.receive_json_from(), (await client.receive_output())["type"]]


@behaviour(
    ASYNC,
    "A text frame that is not JSON",
    theirs=["JSONDecodeError", "JSONDecodeError"],
    ours=[1007, 1007],
    better="the socket is closed with 1007; in Channels a `JSONDecodeError` ends it",
)
async def not_json(lib: Any) -> Any:
    return [await _closed_by(lib, consumer, text_data="{") for consumer in _both(lib)]


@behaviour(
    ASYNC,
    "A binary frame",
    theirs=["ValueError", "ValueError"],
    ours=[1003, 1003],
    better="the socket is closed with 1003; in Channels a `ValueError` ends it",
)
async def a_binary_frame(lib: Any) -> Any:
    return [await _closed_by(lib, consumer, bytes_data=b"{}") for consumer in _both(lib)]


def _both(lib: Any) -> Any:
    return lib.AsyncJsonWebsocketConsumer, lib.JsonWebsocketConsumer


async def _closed_by(lib: Any, consumer: Any, **frame: Any) -> Any:
    async with lib.socket(consumer) as client:
        await client.send_to(**frame)
        event = await output(client)
        return event["code"] if isinstance(event, dict) else event
