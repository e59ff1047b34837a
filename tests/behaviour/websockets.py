"""The generic WebSocket consumers: accepting and refusing, frames, closing, groups."""

# mypy: allow-subclassing-any

from typing import Any

from asgiref.sync import async_to_sync

from .library import as_json, name_of, output, told, within
from .rows import documented_at

behaviour = documented_at("topics/consumers.html#websocketconsumer")
LAYERS = "https://channels.readthedocs.io/en/latest/topics/channel_layers.html"
NOTHING = 0.25  # seconds in which nothing may come
ASYNC = "https://channels.readthedocs.io/en/latest/topics/consumers.html#asyncwebsocketconsumer"


@behaviour("", "A consumer without a `connect()` of its own accepts", same=[True, None])
async def accepts_by_itself(lib: Any) -> Any:
    async with lib.opened(), lib.client(lib.AsyncWebsocketConsumer) as client:
        return await client.connect()


@behaviour("", "The blocking one does so too", same=[True, None])
async def the_blocking_one_accepts_by_itself(lib: Any) -> Any:
    async with lib.opened(), lib.client(lib.WebsocketConsumer) as client:
        return await client.connect()


@behaviour(
    "", "`accept(subprotocol)` chooses one of `scope['subprotocols']`, which the client offers", same=[True, "second"]
)
async def a_subprotocol(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(self.scope["subprotocols"][-1])

    async with lib.opened(), lib.client(Consumer, subprotocols=["first", "second"]) as client:
        return await client.connect()


@behaviour("", "`accept(headers=…)` sends headers with the acceptance", same=[["x-a", "b"]])
async def headers_of_the_acceptance(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(headers=[(b"x-a", b"b")])

    async with lib.socket(Consumer) as client:
        return client.response_headers


@behaviour("", "`close()` before the accept refuses the socket", same=[False, 1000])
async def close_refuses(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.close()

    async with lib.opened(), lib.client(Consumer) as client:
        return await client.connect()


@behaviour("", "`close(code=…)` before the accept refuses it with that code", same=[False, 4123])
async def close_refuses_with_a_code(lib: Any) -> Any:
    class Consumer(lib.WebsocketConsumer):
        def connect(self) -> None:
            self.close(code=4123)

    async with lib.opened(), lib.client(Consumer) as client:
        return await client.connect()


@behaviour("", "`AcceptConnection`, raised anywhere in `connect()`, accepts", same=[[True, None], [True, None]])
async def accept_connection(lib: Any) -> Any:
    return [await _raised_in_connect(lib, lib.AcceptConnection, blocking) for blocking in (False, True)]


@behaviour("", "`DenyConnection`, raised anywhere in `connect()`, refuses", same=[[False, 1000], [False, 1000]])
async def deny_connection(lib: Any) -> Any:
    return [await _raised_in_connect(lib, lib.DenyConnection, blocking) for blocking in (False, True)]


async def _raised_in_connect(lib: Any, error: Any, blocking: bool) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise error

    class Blocking(lib.WebsocketConsumer):
        def connect(self) -> None:
            raise error

    async with lib.opened(), lib.client(Blocking if blocking else Consumer) as client:
        return await client.connect()


@behaviour("", "`receive()` gets the frames of the client as `text_data` or `bytes_data`", same=["str", "bytes"])
async def frames_come(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(type(text_data or bytes_data).__name__)

    async with lib.socket(Consumer) as client:
        await client.send_to(text_data="a")
        await client.send_to(bytes_data=b"a")
        return [await client.receive_from(), await client.receive_from()]


@behaviour(
    "https://channels.readthedocs.io/en/latest/releases/4.2.0.html",
    "A frame whose `text` is there and `None`, as hypercorn sends it, is a binary one",
    same="b",
)
async def a_text_of_none(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(bytes_data=bytes_data)

    async with lib.socket(Consumer) as client:
        await client.send_input({"type": "websocket.receive", "text": None, "bytes": b"b"})
        return await client.receive_from()


@behaviour("", "`send()` sends text or bytes", same=["a", "b"])
async def frames_go(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data="a")
            await self.send(bytes_data=b"b")

    async with lib.socket(Consumer) as client:
        return [await client.receive_from(), await client.receive_from()]


@behaviour("", "`send()` with neither is a `ValueError`", same="ValueError")
async def sending_nothing(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(str(await told(self.send())))

    async with lib.socket(Consumer) as client:
        return await client.receive_from()


@behaviour(
    "",
    "The blocking consumer has the same methods, as plain calls",
    same=["echo", {"type": "websocket.close", "code": 4001}, [4001]],
)
async def blocking_methods(lib: Any) -> Any:
    goodbyes: list[int] = []

    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.send(text_data)
            self.close(code=4001)

        def disconnect(self, code: int) -> None:
            goodbyes.append(code)

    async with lib.socket(Consumer) as client:
        await client.send_to("echo")
        seen = [await client.receive_from(), await client.receive_output()]
        await client.disconnect(4001)  # as a server answers
        return [*seen, goodbyes]


@behaviour(
    ASYNC,
    "`close(code=…, reason=…)` closes with that code and that reason",
    same={"type": "websocket.close", "code": 4123, "reason": "enough"},
)
async def close_with_code_and_reason(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.close(code=4123, reason="enough")

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        return await client.receive_output()


@behaviour(ASYNC, "`send(…, close=code)` sends a frame and closes behind it", same=["bye", "websocket.close", 4001])
async def send_and_close(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send("bye", close=4001)

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        frame, close = await client.receive_from(), await client.receive_output()
        return [frame, close["type"], close["code"]]


@behaviour(ASYNC, "`disconnect(code)` gets the code with which the client has closed", same=[4321])
async def the_code_of_the_client(lib: Any) -> Any:
    goodbyes: list[int] = []

    class Consumer(lib.AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            goodbyes.append(code)

    async with lib.socket(Consumer) as client:
        await client.disconnect(4321)
        return goodbyes


@behaviour(
    ASYNC,
    "A frame must not be sent before the accept",
    theirs="nothing is raised",
    ours="RuntimeError",
    better="`send()` raises `OutOfTurn`, a `RuntimeError`, in tests and under `trichannels serve`",
    tests=("tests/server/test_websocket.py::test_malformed_events_are_refused_and_the_socket_lives",),
)
async def a_frame_before_the_accept(lib: Any) -> Any:
    seen = []

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            try:
                await self.send("too early")
                seen.append("nothing is raised")
            except Exception as error:
                seen.append(name_of(error))
                raise

    async with lib.opened(), lib.client(Consumer) as client:
        await client.send_input({"type": "websocket.connect"})
        await output(client)
        return seen[0]


@behaviour(
    ASYNC,
    "What is sent after the client has left",
    theirs="nothing is raised",
    ours="OSError",
    different="`send()` raises `ConnectionClosed`, an `OSError`, so that a loop that sends ends; "
    "let it pass, it counts as the normal end",
    tests=("tests/test_consumer.py::test_connection_closed_is_a_normal_end",),
)
async def a_frame_after_the_end(lib: Any) -> Any:
    seen = []

    class Consumer(lib.AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            seen.append(await told(self.send("too late")) or "nothing is raised")

    async with lib.socket(Consumer) as client:
        await client.disconnect()
        return seen[0]


@behaviour(
    "",
    "`groups` of the class are joined before `connect()` runs",
    same=["to all", "to some"],
)
async def groups_of_the_class(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all", "some")

        async def connect(self) -> None:
            await self.accept()
            for group in self.groups:
                await self.channel_layer.group_send(group, {"type": "chat.message", "text": f"to {group}"})

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    async with lib.socket(Consumer) as client:
        return [await client.receive_from(), await client.receive_from()]


@behaviour("", "… of a blocking consumer as well", same="to all")
async def groups_of_a_blocking_class(lib: Any) -> Any:
    class Consumer(lib.WebsocketConsumer):
        groups = ["all"]  # noqa: RUF012 - as users write it

        def chat_message(self, event: Any) -> None:
            self.send(event["text"])

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await layer.group_send("all", {"type": "chat.message", "text": "to all"})
        return await client.receive_from()


@behaviour("", "`groups` are left with the disconnect", same=[1, 0])
async def groups_are_left(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        before = lib.members(layer, "all")
        await client.disconnect()
        return [before, lib.members(layer, "all")]


@behaviour(
    LAYERS + "#groups",
    "A group that is joined in `connect()` has to be left in `disconnect()`",
    theirs=1,
    ours=0,
    better="an instance that ends leaves all its groups by itself",
)
async def a_group_that_nobody_leaves(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.channel_layer.group_add("all", self.channel_name)
            await self.accept()

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await client.disconnect()
        return lib.members(layer, "all")


@behaviour(
    "",
    "`groups` without a layer are an `InvalidChannelLayerError`, a `ValueError`",
    same=["InvalidChannelLayerError", "InvalidChannelLayerError"],
)
async def groups_without_a_layer(lib: Any) -> Any:
    from django.test import override_settings

    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

    class Blocking(lib.WebsocketConsumer):
        groups = ("all",)

    found = []
    with override_settings(CHANNEL_LAYERS={}):
        for consumer in (Consumer, Blocking):
            async with lib.opened(), lib.client(consumer) as client:
                await client.send_input({"type": "websocket.connect"})
                try:
                    await client.wait()
                except lib.InvalidChannelLayerError as error:
                    found.append("InvalidChannelLayerError" if isinstance(error, ValueError) else "no ValueError")
    return found


@behaviour(
    "",
    "`groups` is an iterable of names",
    theirs="the letters are joined",
    ours="ValueError",
    better="one `str` is refused where the class is made; Channels joins a group for each of its letters",
)
async def groups_that_are_a_str(lib: Any) -> Any:
    try:

        class Consumer(lib.AsyncWebsocketConsumer):
            groups = "all"

    except ValueError:
        return "ValueError"
    async with lib.opened() as layer, lib.socket(Consumer):
        return "the letters are joined" if lib.members(layer, "a", "l") == 2 else "?"


@behaviour(
    LAYERS + "#groups",
    "A chat: `group_add` in `connect()`, `group_send` in `receive()`, a handler, `group_discard` in `disconnect()`",
    same=[["hello", "hello"], 0],
)
async def a_chat(lib: Any) -> Any:
    class Chat(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.channel_layer.group_add("chat", self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard("chat", self.channel_name)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.channel_layer.group_send("chat", {"type": "chat.message", "text": text_data})

        async def chat_message(self, event: Any) -> None:
            await self.send(text_data=event["text"])

    return await _chats(lib, Chat)


@behaviour(
    LAYERS + "#groups",
    "The same chat, blocking, with `async_to_sync` around each call of the layer",
    same=[["hello", "hello"], 0],
)
async def a_blocking_chat(lib: Any) -> Any:
    class Chat(lib.WebsocketConsumer):
        def connect(self) -> None:
            async_to_sync(self.channel_layer.group_add)("chat", self.channel_name)
            self.accept()

        def disconnect(self, code: int) -> None:
            async_to_sync(self.channel_layer.group_discard)("chat", self.channel_name)

        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            async_to_sync(self.channel_layer.group_send)("chat", {"type": "chat.message", "text": text_data})

        def chat_message(self, event: Any) -> None:
            self.send(text_data=event["text"])

    return await _chats(lib, Chat)


async def _chats(lib: Any, chat: Any) -> Any:
    async with lib.opened() as layer, lib.socket(chat) as first, lib.socket(chat) as second:
        await first.send_to("hello")
        seen = [await first.receive_from(), await second.receive_from()]
        for client in (first, second):
            await client.disconnect()
        return [seen, lib.members(layer, "chat")]


@behaviour(
    LAYERS + "#synchronous-functions",
    "In blocking code the layer's methods need `async_to_sync`",
    theirs="a coroutine",
    ours="done",
    better="in a blocking consumer they block by themselves",
)
async def the_layer_of_a_blocking_consumer(lib: Any) -> Any:
    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            result = self.channel_layer.group_send("nobody", {"type": "x"})
            if hasattr(result, "close"):
                result.close()  # it would complain that it was never awaited
            self.send("a coroutine" if result is not None else "done")

    async with lib.socket(Consumer) as client:
        await client.send_to("go")
        return await client.receive_from()


@behaviour(
    LAYERS + "#what-to-send-over-the-channel-layer",
    "Events of a layer go to handlers, not to the client",
    theirs=["ValueError", "ValueError"],
    ours=["to all", "to all"],
    better="`websocket.send`, sent to a group, is a frame for each of its sockets, made once for all of them",
    tests=("tests/server/test_broadcast.py::test_an_event_for_many_is_framed_once",),
)
async def a_frame_for_a_group(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

    async with lib.opened() as layer, lib.socket(Consumer) as first, lib.socket(Consumer) as second:
        await layer.group_send("all", {"type": "websocket.send", "text": "to all"})
        events = [await output(client) for client in (first, second)]
        return [event["text"] if isinstance(event, dict) else event for event in events]


@behaviour(
    LAYERS + "#what-to-send-over-the-channel-layer",
    "An event of a layer for which a consumer has no handler ends it with a `ValueError`",
    same="ValueError",
)
async def an_event_that_nobody_handles(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await layer.group_send("all", {"type": "nobody.handles"})
        return await told(client.wait())


@behaviour(
    LAYERS + "#what-to-send-over-the-channel-layer",
    "The handler gets the event as it was sent, with its type",
    same={"type": "chat.message", "room": 7, "who": ["a", None], "deep": {"b": True}},
)
async def the_event_as_it_was_sent(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

        async def chat_message(self, event: Any) -> None:
            await self.send(as_json(event))

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        event = {"type": "chat.message", "room": 7, "who": ["a", None], "deep": {"b": True}}
        await layer.group_send("all", event)
        return await client.receive_json_from()


@behaviour(
    LAYERS + "#groups",
    "A socket that has left a group hears nothing of it any more",
    same=["in", "nothing"],
    waits=True,
)
async def out_of_the_group(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("leavers",)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.channel_layer.group_discard("leavers", self.channel_name)
            await self.send("out")

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    async with lib.opened() as layer, lib.socket(Consumer) as client:
        await layer.group_send("leavers", {"type": "chat.message", "text": "in"})
        seen = await client.receive_from(5)
        await client.send_to("leave")
        await client.receive_from(5)
        await layer.group_send("leavers", {"type": "chat.message", "text": "again"})
        return [seen, await within(NOTHING, client.receive_from(5))]
