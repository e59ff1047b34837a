"""The basic consumers: event types and handlers, instances, the end of an instance, threads, the channel layer."""

# mypy: allow-subclassing-any

import json
import threading
from typing import Any

import anyio
import anyio.lowlevel

from .library import as_json, blocking, thread, told, within
from .rows import documented_at

behaviour = documented_at("topics/consumers.html")

EVENTS = {"type": "test", "path": "/"}
SOCKET = {"type": "websocket", "path": "/", "headers": [], "subprotocols": []}
CONNECT = {"type": "websocket.connect"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1001}


@behaviour(
    "#basic-layout",
    "The type of an event, its dots replaced by underscores, names the method that handles it",
    same={"type": "answer", "handled": "chat.join"},
)
async def dots_become_underscores(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def chat_join(self, event: Any) -> None:
            await self.send({"type": "answer", "handled": event["type"]})

    async with lib.scope(Consumer, EVENTS) as client:
        await client.send_input({"type": "chat.join"})
        return await client.receive_output()


@behaviour("#basic-layout", "An event of a type for which there is no method is a `ValueError`", same="ValueError")
async def no_handler(lib: Any) -> Any:
    async with lib.scope(lib.AsyncConsumer, EVENTS) as client:
        await client.send_input({"type": "nobody.handles"})
        return await told(client.wait())


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/worker.html#sending",
    "An event has to have a type: one without ends the consumer with a `ValueError`",
    same="ValueError",
)
async def no_type(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await layer.group_send("all", {"text": "?"})
        return await told(client.wait())


@behaviour(
    "#basic-layout",
    "A type that begins with a dot or an underscore reaches no private method: it is a `ValueError`",
    same=["ValueError", "ValueError"],
)
async def private_methods(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def _secret(self, event: Any) -> None:
            await self.send({"type": "reached"})

    found = []
    for kind in ("_secret", ".secret"):
        async with lib.scope(Consumer, EVENTS) as client:
            await client.send_input({"type": kind})
            found.append(await told(client.wait()))
    return found


@behaviour(
    "#basic-layout",
    "`SyncConsumer` runs its handlers, which are plain methods, in a thread; `self.send` is a plain call",
    same={"type": "answer", "on the loop": False},
)
async def blocking_handlers_run_in_a_thread(lib: Any) -> Any:
    loop = thread()

    class Consumer(lib.SyncConsumer):
        def test_ask(self, event: Any) -> None:
            self.send({"type": "answer", "on the loop": thread() == loop})

    async with lib.scope(Consumer, EVENTS) as client:
        await client.send_input({"type": "test.ask"})
        return await client.receive_output()


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/databases.html#database-connections",
    "Blocking consumers run in a pool of threads",
    theirs=["take turns", 1],
    ours=["meet", 2],
    better="they do, side by side; in Channels they take turns in one thread",
)
async def blocking_consumers_run_side_by_side(lib: Any) -> Any:
    barrier = threading.Barrier(2, timeout=lib.patience)
    threads = set()

    class Consumer(lib.SyncConsumer):
        def test_meet(self, event: Any) -> None:
            threads.add(thread())
            try:
                barrier.wait()
            except threading.BrokenBarrierError:
                self.send({"type": "take turns"})
            else:
                self.send({"type": "meet"})

    async with lib.scope(Consumer, EVENTS) as first, lib.scope(Consumer, EVENTS) as second:
        for client in (first, second):
            await client.send_input({"type": "test.meet"})
        found = {(await client.receive_output(9))["type"] for client in (first, second)}
        return [*found, len(threads)]


@behaviour(
    "#scope",
    "`self.scope` has the path, the query, the headers and the method",
    same={"path": "/a b/", "query": "c=d", "headers": [["x-e", "f"]], "method": "GET"},
)
async def the_scope(lib: Any) -> Any:
    class Consumer(lib.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            seen = {
                "path": self.scope["path"],
                "query": self.scope["query_string"].decode(),
                "headers": [[name.decode(), value.decode()] for name, value in self.scope["headers"]],
                "method": self.scope["method"],
            }
            await self.send_response(200, as_json(seen).encode())

    async with lib.request(Consumer, "/a%20b/?c=d", headers=[(b"x-e", b"f")]) as client:
        return json.loads((await client.get_response())["body"])


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/routing.html",
    "`as_asgi()` makes one instance for each connection: `self` belongs to it alone",
    same=[1, 1],
)
async def an_instance_for_each_connection(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        count = 0

        async def test_count(self, event: Any) -> None:
            self.count += 1
            await self.send({"type": "count", "count": self.count})

    application = Consumer.as_asgi()
    found = []
    for _ in range(2):
        async with lib.scope(application, EVENTS) as client:
            await client.send_input({"type": "test.count"})
            found.append((await client.receive_output())["count"])
    return found


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/routing.html",
    "`as_asgi(**initkwargs)` gives its arguments to each instance, and keeps the name and the docstring of the class",
    same=["blue", "Painter", "Paints.", True, {"colour": "blue"}],
)
async def arguments_of_as_asgi(lib: Any) -> Any:
    class Painter(lib.AsyncConsumer):
        """Paints."""

        def __init__(self, colour: str) -> None:
            self.colour = colour

        async def test_ask(self, event: Any) -> None:
            await self.send({"type": self.colour})

    app = Painter.as_asgi(colour="blue")
    async with lib.scope(app, EVENTS) as client:
        await client.send_input({"type": "test.ask"})
        colour = (await client.receive_output())["type"]
    return [colour, app.__name__, app.__doc__, app.consumer_class is Painter, app.consumer_initkwargs]


@behaviour(
    "#basic-layout",
    "An instance handles one event after the other, in the order in which they came",
    same=["begin 1", "end 1", "begin 2", "end 2"],
)
async def one_after_the_other(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def test_do(self, event: Any) -> None:
            await self.send({"type": f"begin {event['number']}"})
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            await self.send({"type": f"end {event['number']}"})

    async with lib.scope(Consumer, EVENTS) as client:
        for number in (1, 2):
            await client.send_input({"type": "test.do", "number": number})
        return [(await client.receive_output())["type"] for _ in range(4)]


@behaviour("#closing-consumers", "`StopConsumer` ends the instance, and is no error", same=None)
async def stop_consumer(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def test_stop(self, event: Any) -> None:
            raise lib.StopConsumer

    async with lib.scope(Consumer, EVENTS) as client:
        await client.send_input({"type": "test.stop"})
        return await told(client.wait())


@behaviour(
    "#closing-consumers",
    "After its disconnect a consumer must raise `StopConsumer`, or the server has to kill it",
    theirs="runs on",
    ours="ends",
    better="an instance ends by itself after its disconnect",
    waits=True,
)
async def without_stop_consumer(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def websocket_connect(self, event: Any) -> None:
            await self.send({"type": "websocket.accept"})

        async def websocket_disconnect(self, event: Any) -> None:
            pass

    return "ends" if await lib.ends(Consumer, SOCKET, CONNECT, DISCONNECT) else "runs on"


@behaviour(
    "#closing-consumers",
    "A handler that blocks keeps the consumer from closing, until the server kills it",
    theirs=["runs on", []],
    ours=["ends", [1001]],
    better="the disconnect is noticed at once: the handler has `disconnect_grace` seconds and is cancelled, "
    "then `disconnect()` runs",
    tests=("tests/test_consumer.py::test_a_handler_gets_its_grace_and_disconnect_its_timeout",),
    waits=True,
)
async def a_handler_that_never_ends(lib: Any) -> Any:
    goodbyes: list[int] = []

    class Consumer(lib.AsyncWebsocketConsumer):
        disconnect_grace = 0.05

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await anyio.sleep_forever()

        async def disconnect(self, code: int) -> None:
            goodbyes.append(code)

    frame = {"type": "websocket.receive", "text": "wait"}
    ended = await lib.ends(Consumer, SOCKET, CONNECT, frame, DISCONNECT)
    return ["ends" if ended else "runs on", goodbyes]


@behaviour(
    "#closing-consumers",
    "Who starts background tasks must end them with the connection, or they leak",
    theirs="still runs",
    ours="has ended",
    better="tasks in `self.nursery` end with the socket, by themselves",
)
async def background_tasks(lib: Any) -> Any:
    ended = anyio.Event()
    tasks = []

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            tasks.append(lib.spawn(self, self.tick))
            await self.accept()

        async def tick(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

    async with lib.socket(Consumer) as client:
        await client.disconnect()
        return "has ended" if ended.is_set() else "still runs"


@behaviour(
    "#closing-consumers",
    "An error in a handler ends the instance, and reaches the server as it is",
    same="LookupError",
)
async def an_error_reaches_the_server(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            raise LookupError("lost")

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        return await told(client.wait())


@behaviour(
    "#websocketconsumer",
    "`disconnect()` is called when the socket closes",
    theirs=[],
    ours=[1011],
    better="also when a handler has failed: then with 1011; in Channels it is not called",
)
async def goodbye_after_an_error(lib: Any) -> Any:
    goodbyes: list[int] = []

    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            raise LookupError("lost")

        async def disconnect(self, code: int) -> None:
            goodbyes.append(code)

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        await told(client.wait())
        return goodbyes


@behaviour(
    "#channel-layers",
    "A consumer has `channel_layer` and `channel_name`: what is sent to that name is handled as an event of its own",
    same="hello",
)
async def sent_to_a_channel_name(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(self.channel_name)

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await layer.send(await client.receive_from(), {"type": "chat.message", "text": "hello"})
        return await client.receive_from()


@behaviour("#channel-layers", "The `channel_name` of each instance is another", same=True)
async def names_are_unique(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(self.channel_name)

    async with lib.socket(Consumer) as first, lib.socket(Consumer) as second:
        return await first.receive_from() != await second.receive_from()


@behaviour(
    "#channel-layers",
    "`channel_layer_alias` of the class chooses another layer than `default`",
    same=["of the second", "nothing"],
    waits=True,
)
async def another_layer(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        channel_layer_alias = "second"

        async def connect(self) -> None:
            await self.channel_layer.group_add("of-two-layers", self.channel_name)
            await self.accept()

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    async with lib.opened("second") as second, lib.opened() as default, lib.socket(Consumer) as client:
        await second.group_send("of-two-layers", {"type": "chat.message", "text": "of the second"})
        first = await client.receive_from(5)
        await default.group_send("of-two-layers", {"type": "chat.message", "text": "of the default"})
        return [first, await within(0.25, client.receive_from(5))]


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/channel_layers.html",
    "Where no layer is configured a consumer runs without one",
    same={"truth": False},
)
async def without_a_layer(lib: Any) -> Any:
    from django.test import override_settings

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(as_json(bool(self.channel_layer)))

    with override_settings(CHANNEL_LAYERS={}):
        async with lib.socket(Consumer) as client:
            return {"truth": await client.receive_json_from()}


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/channel_layers.html",
    "Without a layer, `self.channel_layer` is `None`",
    theirs=[True, "AttributeError"],
    ours=[False, "InvalidChannelLayerError"],
    different="it is false, but not `None`: using it is an `InvalidChannelLayerError`. "
    "Write `if not self.channel_layer`",
)
async def no_layer_is_none(lib: Any) -> Any:
    from django.test import override_settings

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            try:
                await self.channel_layer.group_send("all", {"type": "x"})
            except (AttributeError, lib.InvalidChannelLayerError) as error:
                await self.send(as_json([self.channel_layer is None, type(error).__name__]))

    with override_settings(CHANNEL_LAYERS={}):
        async with lib.socket(Consumer) as client:
            return await client.receive_json_from()


@behaviour(
    "#basic-layout",
    "A blocking consumer may use the ORM as it is",
    same="ada of the consumer",
)
async def the_orm_in_a_blocking_consumer(lib: Any) -> Any:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects

    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            users.create_user(text_data)
            self.send(users.get(username=text_data).username)

    async with lib.socket(Consumer) as client:
        await client.send_to("ada of the consumer")
        seen = await client.receive_from()
    await blocking(lambda: users.filter(username=seen).delete())
    return seen
