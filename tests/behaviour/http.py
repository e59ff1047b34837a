"""The generic HTTP consumer: the body, the answer and its parts, long polls, the end."""

# mypy: allow-subclassing-any

from typing import Any

import anyio

from .library import told, within
from .rows import documented_at

behaviour = documented_at("topics/consumers.html#asynchttpconsumer")

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": [], "http_version": "1.1", "query_string": b""}


@behaviour("", "`handle(body)` gets the whole body, in how many parts it may come", same="onetwo")
async def the_body_comes_whole(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body)

    async with lib.scope(Consumer, SCOPE) as client:
        await client.send_input({"type": "http.request", "body": b"one", "more_body": True})
        await client.send_input({"type": "http.request", "body": b"two"})
        await client.receive_output()
        return (await client.receive_output())["body"]


@behaviour(
    "",
    "`send_response(status, body, headers=…)` answers; headers are pairs in a list, or a dict",
    same=[[201, "made", [["x-a", "b"]]], [201, "made", [["x-a", "b"]]]],
)
async def a_response(lib: Any) -> Any:
    found = []
    for headers in ([(b"x-a", b"b")], {b"x-a": b"b"}):

        class Consumer(lib.AsyncHttpConsumer):
            async def handle(self, body: bytes, headers: Any = headers) -> None:
                await self.send_response(201, b"made", headers=headers)

        async with lib.request(Consumer) as client:
            response = await client.get_response()
            found.append([response["status"], response["body"], response["headers"]])
    return found


@behaviour(
    "",
    "`send_headers()` and `send_body(…, more_body=True)` send an answer part by part",
    same=[
        {"type": "http.response.start", "status": 200, "headers": [["x-a", "b"]]},
        {"type": "http.response.body", "body": "one", "more_body": True},
        {"type": "http.response.body", "body": "two", "more_body": False},
    ],
)
async def an_answer_in_parts(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"x-a", b"b")])
            await self.send_body(b"one", more_body=True)
            await self.send_body(b"two")

    async with lib.scope(Consumer, SCOPE) as client:
        await client.send_input({"type": "http.request"})
        return [await client.receive_output() for _ in range(3)]


@behaviour(
    "",
    "A body that is not bytes",
    theirs="AssertionError",
    ours="TypeError",
    different="a `TypeError`, and not by `assert`",
)
async def a_body_of_text(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, "text")

    async with lib.scope(Consumer, SCOPE) as client:
        await client.send_input({"type": "http.request"})
        return await told(client.wait())


@behaviour("", "A consumer without a `handle()` of its own is a `NotImplementedError`", same="NotImplementedError")
async def nothing_handles(lib: Any) -> Any:
    async with lib.scope(lib.AsyncHttpConsumer, SCOPE) as client:
        await client.send_input({"type": "http.request"})
        return await told(client.wait())


@behaviour("", "`disconnect()` runs when the request is answered", same=[None, ["over"]])
async def disconnect_after_the_answer(lib: Any) -> Any:
    return await _ends(lib, fails=False)


@behaviour("", "… and when `handle()` has failed", same=["LookupError", ["over"]])
async def disconnect_after_a_failure(lib: Any) -> Any:
    return await _ends(lib, fails=True)


async def _ends(lib: Any, *, fails: bool) -> Any:
    ends: list[str] = []

    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            if fails:
                raise LookupError("lost")
            await self.send_response(200, b"")

        async def disconnect(self) -> None:
            ends.append("over")

    async with lib.scope(Consumer, SCOPE) as client:
        await client.send_input({"type": "http.request"})
        return [await told(client.wait()), ends]


@behaviour(
    "",
    "`disconnect()` runs when the client leaves, whether `handle()` has ended or not",
    theirs="runs on",
    ours="has ended, and said so",
    better="it does, and the instance ends; in Channels both wait for `handle()`",
    waits=True,
)
async def disconnect_while_handle_runs(lib: Any) -> Any:
    ends: list[str] = []

    class Consumer(lib.AsyncHttpConsumer):
        disconnect_grace = 0.05

        async def handle(self, body: bytes) -> None:
            await anyio.sleep_forever()

        async def disconnect(self) -> None:
            ends.append("has ended, and said so")

    ended = await lib.ends(Consumer, SCOPE, {"type": "http.request"}, {"type": "http.disconnect"})
    return ends[0] if ended else "runs on"


@behaviour(
    "",
    "A long poll: `handle()` sends the beginning, and a handler of an event of the layer sends the rest. "
    "It is documented so, and has not worked since `handle()` ends the consumer",
    same="the rest does not come",
    waits=True,
)
async def a_long_poll_as_documented(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.channel_layer.group_add("polls", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)

        async def chat_message(self, event: Any) -> None:
            await self.send_body(event["text"].encode())

    return await _polled(lib, Consumer, "polls", 0.5)


@behaviour(
    "",
    "A long poll whose `handle()` waits for an event on a channel of its own",
    same="hello",
)
async def a_long_poll_that_waits(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            channel = await self.channel_layer.new_channel()
            await self.channel_layer.group_add("waits", channel)
            await self.send_headers()
            await self.send_body(b"", more_body=True)
            event = await self.channel_layer.receive(channel)
            await self.send_body(event["text"].encode())

    return await _polled(lib, Consumer, "waits", 5)


async def _polled(lib: Any, consumer: Any, group: str, seconds: float) -> Any:
    async with lib.opened() as layer, lib.scope(consumer, SCOPE) as client:
        await client.send_input({"type": "http.request"})
        await client.receive_output(5)
        await client.receive_output(5)
        await layer.group_send(group, {"type": "chat.message", "text": "hello"})
        rest = await within(seconds, client.receive_output(9))
        return rest["body"] if isinstance(rest, dict) else "the rest does not come"


@behaviour(
    "",
    "The body may have any size",
    theirs=[200, 200],
    ours=[413, 413],
    better="one above `max_body`, 10 MiB unless the class says otherwise, is answered with 413",
)
async def a_body_that_is_too_large(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")

    class Strict(Consumer):
        max_body = 1000

    found = []
    for consumer, size in ((Consumer, 10 * 1024 * 1024 + 1), (Strict, 1001)):
        async with lib.request(consumer, method="POST", body=b"x" * size) as client:
            found.append((await client.get_response(5))["status"])
    return found
