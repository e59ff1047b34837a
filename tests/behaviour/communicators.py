"""The testing kit: communicators for any application, for HTTP and for WebSockets."""

# mypy: allow-subclassing-any

import time
from typing import Any

import anyio

from .library import ended, told
from .rows import documented_at

behaviour = documented_at("topics/testing.html")
APPLICATION, HTTP, SOCKET = "#applicationcommunicator", "#httpcommunicator", "#websocketcommunicator"
TEST = {"type": "test"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back whatever comes, until it is to end."""
    while (event := await receive())["type"] != "end":
        await send({**event, "type": "echo"})


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing, for ever."""
    await anyio.sleep_forever()


@behaviour(
    APPLICATION,
    "`send_input()` gives an application an event, `receive_output()` takes one from it",
    same={"type": "echo", "n": 1},
)
async def in_and_out(lib: Any) -> Any:
    async with lib.scope(echo, TEST) as client:
        await client.send_input({"type": "x", "n": 1})
        return await client.receive_output()


@behaviour(
    APPLICATION,
    "`receive_nothing()` says whether nothing comes, and keeps what does",
    same=[True, False, 1, True],
    waits=True,
)
async def nothing_comes(lib: Any) -> Any:
    async with lib.scope(echo, TEST) as client:
        before = await client.receive_nothing()
        await client.send_input({"type": "x", "n": 1})
        now = await client.receive_nothing(timeout=5, interval=0.01)
        event = await client.receive_output()
        return [before, now, event["n"], await client.receive_nothing()]


@behaviour(APPLICATION, "`wait()` waits for the end of the application", same=None)
async def waiting(lib: Any) -> Any:
    async with lib.scope(echo, TEST) as client:
        await client.send_input({"type": "end"})
        return await client.wait(timeout=1)


@behaviour(APPLICATION, "`wait()` raises what the application has raised", same="LookupError")
async def waiting_for_an_error(lib: Any) -> Any:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("lost")

    async with lib.scope(fails, TEST) as client:
        return await told(client.wait())


@behaviour(
    APPLICATION,
    "`wait()`, if the application does not end in time",
    theirs=None,
    ours="TimeoutError",
    better="a `TimeoutError`; in Channels a test that waited for its end passes",
)
async def waiting_in_vain(lib: Any) -> Any:
    async with lib.scope(silent, TEST) as client:
        return await told(client.wait(timeout=0.05))


@behaviour(APPLICATION, "`receive_output()` is a `TimeoutError` if nothing comes in time", same="TimeoutError")
async def receiving_in_vain(lib: Any) -> Any:
    async with lib.scope(silent, TEST) as client:
        return await told(client.receive_output(timeout=0.05))


@behaviour(
    "https://channels.readthedocs.io/en/latest/releases/4.3.0.html",
    "After such a timeout the application has been cancelled",
    theirs="CancelledError",
    ours={"type": "echo"},
    better="it runs on, and the test may go on with it",
)
async def after_a_timeout(lib: Any) -> Any:
    async with lib.scope(echo, TEST) as client:
        await told(client.receive_output(timeout=0.05))
        try:
            await client.send_input({"type": "x"})
            return await client.receive_output(timeout=2)
        except BaseException as error:
            if type(error).__name__ == "CancelledError" and not lib.ours:
                return "CancelledError"
            raise


@behaviour(
    APPLICATION,
    "An error of the application, while a test waits for its output",
    theirs=["LookupError", "after the timeout"],
    ours=["LookupError", "at once"],
    better="is raised at once; Channels waits for the whole timeout",
    waits=True,
)
async def an_error_in_place_of_output(lib: Any) -> Any:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise LookupError("lost")

    async with lib.scope(fails, TEST) as client:
        await client.send_input({"type": "x"})
        begin = time.monotonic()
        said = await told(client.receive_output(timeout=2.5))
        return [said, "at once" if time.monotonic() - begin < 2.4 else "after the timeout"]


@behaviour(
    HTTP,
    "`HttpCommunicator(app, method, path, body)`: `get_response()` returns status, headers and the whole body",
    same={"status": 201, "headers": [["x-a", "b"]], "body": "POST /a b/ c=d onetwo"},
)
async def a_response(lib: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        told = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"b")]})
        await send({"type": "http.response.body", "body": told, "more_body": True})
        await send({"type": "http.response.body", "body": body})

    async with lib.request(app, "/a%20b/?c=d", "POST", body=b"onetwo") as client:
        return await client.get_response()


def _accepting(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept("chat" if self.scope["subprotocols"] else None)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            if text_data == "close":
                await self.close()
            else:
                await self.send(text_data, bytes_data)

    return Consumer.as_asgi()


@behaviour(
    "#connect",
    "`connect()` returns `(True, subprotocol)`, which is `None` where none was chosen",
    same=[[True, None], [True, "chat"]],
)
async def connected(lib: Any) -> Any:
    found = []
    for options in ({}, {"subprotocols": ["chat"]}):
        async with lib.opened(), lib.client(_accepting(lib), **options) as client:
            found.append(await client.connect())
    return found


@behaviour(
    "#connect",
    "… or `(False, code)` of a socket that was refused; 1000 unless the consumer says otherwise",
    same=[[False, 1000], [False, 4001]],
)
async def refused(lib: Any) -> Any:
    found = []
    for code in (None, 4001):

        class Consumer(lib.AsyncWebsocketConsumer):
            async def connect(self, code: Any = code) -> None:
                await self.close(code)

        async with lib.opened(), lib.client(Consumer) as client:
            found.append(await client.connect())
    return found


@behaviour(
    "#connect",
    "A socket that an `OriginValidator` has refused",
    theirs=[False, 1000],
    ours=[False, 403],
    better="`(False, status)` where it was refused with a response",
)
async def refused_by_its_origin(lib: Any) -> Any:
    application = lib.OriginValidator(_accepting(lib), ["good.example"])
    async with lib.opened(), lib.client(application, headers=[(b"origin", b"http://bad.example")]) as client:
        return await client.connect()


@behaviour("#connect", "An error in `connect()` is raised by it", same="LookupError", waits=True)
async def connecting_fails(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise LookupError("lost")

    async with lib.opened(), lib.client(Consumer) as client:
        return await told(client.connect(timeout=1))


@behaviour("#send-to", "`send_to()` and `receive_from()` carry text and bytes", same=["a", "b", "bytes"])
async def frames(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        await client.send_to(text_data="a")
        await client.send_to(bytes_data=b"b")
        text, data = await client.receive_from(), await client.receive_from()
        return [text, data, type(data).__name__]


@behaviour(
    "#send-to",
    "`send_to()` takes exactly one of both, of the right type",
    theirs=["AssertionError"] * 3,
    ours=["TypeError"] * 3,
    different="anything else is a `TypeError`",
)
async def wrong_frames(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        calls = client.send_to(), client.send_to("a", b"a"), client.send_to(text_data=7)
        return [await told(call) for call in calls]


@behaviour(
    "#send-to",
    "An empty text",
    theirs="AssertionError",
    ours="",
    better="is a frame as any other, and may be tested",
)
async def an_empty_frame(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        return await told(client.send_to(text_data="")) or await client.receive_from()


@behaviour("#send-json-to", "`send_json_to()` and `receive_json_from()` carry JSON", same={"a": [1, None]})
async def json_frames(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        await client.send_json_to({"a": [1, None]})
        return await client.receive_json_from()


@behaviour(
    "#receive-json-from", "`receive_json_from()` of a binary frame is an `AssertionError`", same="AssertionError"
)
async def json_in_a_binary_frame(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        await client.send_to(bytes_data=b"{}")
        return await told(client.receive_json_from())


@behaviour("#receive-from", "`receive_from()` of a socket that closes is an `AssertionError`", same="AssertionError")
async def a_close_in_place_of_a_frame(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        await client.send_to("close")
        return await told(client.receive_from())


@behaviour(
    "#disconnect",
    "`disconnect()` leaves, and waits for the application; once that has ended it does nothing",
    same=[None, None],
)
async def disconnecting(lib: Any) -> Any:
    async with lib.socket(_accepting(lib)) as client:
        return [await told(client.disconnect()), await told(client.disconnect())]


@behaviour(SOCKET, "`response_headers` has the headers of the acceptance", same=[["x-a", "b"]])
async def response_headers(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(headers=[(b"x-a", b"b")])

    async with lib.socket(Consumer) as client:
        return client.response_headers


@behaviour(SOCKET, "The application may be a `URLRouter`: captures of the path are there", same="lobby")
async def with_a_router(lib: Any) -> Any:
    from django.urls import re_path

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(self.scope["url_route"]["kwargs"]["room"])

    router = lib.URLRouter([re_path(r"^ws/(?P<room>\w+)/$", Consumer.as_asgi())])
    async with lib.socket(router, "/ws/lobby/") as client:
        return await client.receive_from()


@behaviour(
    SOCKET, "What is put into `communicator.scope` before the connection is there for the application", same="ada"
)
async def a_changed_scope(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(self.scope["user"])

    async with lib.opened(), lib.client(Consumer) as client:
        client.scope["user"] = "ada"
        await client.connect()
        return await client.receive_from()


@behaviour(
    APPLICATION,
    "An application that breaks ASGI's order, such as a body before its start",
    theirs="nothing is said",
    ours="RuntimeError",
    better="fails its test with `OutOfTurn`, a `RuntimeError`",
)
async def out_of_turn(lib: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b""})

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    async with lib.scope(app, scope) as client:
        return await ended(client) or "nothing is said"
