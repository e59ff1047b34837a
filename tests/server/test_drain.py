"""How a server stops: what sockets are told, who may finish, and that nobody can hold it."""

import logging
from contextlib import AsyncExitStack
from functools import partial

import anyio
import pytest
import trio

from trichannels.events import TRANSPORT, Event, Receive, Scope, Send
from trichannels.server import Server, serve

from .certificates import Certificates
from .support import (
    TEXT,
    Client,
    connect,
    echo,
    frame,
    lifespan,
    respond,
    serving,
    small_window,
    upgrade_request,
    websocket_app,
)

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]


async def until_down(server: object) -> None:
    """Wait until no connection is left."""
    with trio.fail_after(5):
        while server.statistics().connections:  # type: ignore[attr-defined]
            await trio.sleep(0.01)


async def test_sockets_are_told_1012_and_the_application_too() -> None:
    events: list[Event] = []
    gone: list[tuple[int, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].when_gone(lambda code, reason: gone.append((code, reason)))
        await send({"type": "websocket.send", "text": "ready"})
        events.append(await receive())

    async with serving(websocket_app(app)) as server:
        clients = [await connect(server) for _ in range(30)]
        for client in clients:
            await client.upgrade()
            assert await client.text() == "ready"
        assert server.statistics().websockets == 30
        assert not server.draining
        server.drain()
        assert server.draining
        for client in clients:
            assert await client.closing() == (1012, "")
            await client.close(1012)
            assert await client.rest() == b""
            await trio.aclose_forcefully(client.stream)
        await until_down(server)
    assert events == [{"type": "websocket.disconnect", "code": 1012, "reason": ""}] * 30
    assert gone == [(1012, "")] * 30


async def test_goodbyes_are_spread_so_that_not_all_come_back_at_once() -> None:
    told: list[float] = []

    async def listen(client: Client) -> None:
        assert await client.closing() == (1012, "")
        told.append(trio.current_time())

    async with serving(websocket_app(echo)) as server, AsyncExitStack() as opened, trio.open_nursery() as nursery:
        for _ in range(40):
            client = await opened.enter_async_context(await connect(server))
            await client.upgrade()
            nursery.start_soon(listen, client)
        server.drain(10)  # one tenth of it, in twenty steps of random length
    assert max(told) - min(told) > 0.2


async def test_messages_read_before_the_drain_are_still_delivered() -> None:
    go = trio.Event()
    events: list[Event] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async with serving(websocket_app(slow)) as server, await connect(server) as client:
        await client.upgrade()
        await client.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(9))
        assert (await client.frame())[0] == 10
        server.drain()
        assert await client.closing() == (1012, "")
        go.set()
    assert [event.get("text") for event in events] == ["1", "2", None]


async def test_no_connection_is_taken_any_more_and_idle_ones_close() -> None:
    async with serving(websocket_app(echo)) as server, AsyncExitStack() as opened:
        used, silent, half = [await opened.enter_async_context(await connect(server)) for _ in range(3)]
        assert (await used.get()).endswith(b"ok")
        await half.send(b"GET / HTT")
        server.drain()
        for client in (used, silent, half):
            assert await client.rest() == b""
        with pytest.raises(OSError, match="connect"):
            await connect(server)


async def test_half_a_tls_handshake_does_not_hold_the_drain(tls: Certificates) -> None:
    options = {**tls.options, "handshake_timeout": 60}
    async with serving(websocket_app(echo), **options) as server, await connect(server) as client:
        await client.send(b"\x16\x03\x01")
        await trio.testing.wait_all_tasks_blocked(0.05)
        server.drain(60)
        assert await client.rest() == b""


async def test_a_running_request_may_finish() -> None:
    started, go = trio.Event(), trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            started.set()
            await go.wait()
            await respond(send, b"finished")

    async with serving(slow) as server, await connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await started.wait()
        server.drain(5)
        await trio.testing.wait_all_tasks_blocked(0.05)
        go.set()
        assert (await client.rest()).endswith(b"finished")


async def test_what_still_runs_is_cancelled_before_the_wall_and_says_goodbye() -> None:
    said: list[str] = []

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "websocket.send", "text": "ready"})
            await trio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True, deadline=trio.current_time() + 60) as goodbye:
                scope["extensions"][TRANSPORT].bound(goodbye)
                await trio.sleep(0.01)
                said.append("goodbye")
                await trio.sleep_forever()
            said.append("cut at the wall")

    started = trio.current_time()
    async with serving(websocket_app(deaf)) as server, await connect(server) as client:
        await client.upgrade()
        assert await client.text() == "ready"
        server.drain(0.5)
        await until_down(server)
    assert said == ["goodbye", "cut at the wall"]
    assert trio.current_time() - started < 5


async def test_a_second_drain_shortens_the_first_and_its_goodbyes() -> None:
    saying = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["code"] == 1012
        with trio.CancelScope(shield=True) as goodbye:
            scope["extensions"][TRANSPORT].bound(goodbye)
            saying.set()
            await trio.sleep_forever()

    async with serving(websocket_app(app)) as server, await connect(server) as client:
        await client.upgrade()
        server.drain(1000)
        with trio.fail_after(5):
            await saying.wait()
        server.drain(2000)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.statistics().connections == 1
        server.drain(0.1)
        await until_down(server)


@pytest.mark.parametrize("stuck", ["unread", "silent", "connecting"])
async def test_no_client_holds_the_shutdown(stuck: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/connecting":
            await trio.sleep_forever()
        await send({"type": "websocket.accept"})
        while scope["path"] == "/unread":
            await send({"type": "websocket.send", "bytes": b"x" * 10000})
        await trio.sleep_forever()

    started = trio.current_time()
    options = {"write_timeout": 60.0, "close_timeout": 60.0}
    async with serving(app, **options) as server, await small_window(server) as client:
        await client.send(upgrade_request(f"/{stuck}"))
        await trio.sleep(0.2)
        server.drain(0.5)
        await until_down(server)
    assert trio.current_time() - started < 5


async def test_shutdown_trigger_begins_the_drain_and_lifespan_shutdown_comes_last() -> None:
    order: list[str] = []
    trigger = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["lake"] = "full"
            await lifespan(receive, send)
            order.append("lifespan")
        else:
            assert scope["state"] == {"lake": "full"}
            scope["state"]["own"] = "copy"
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            order.append("socket")

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, bind="127.0.0.1:0", shutdown=trigger.wait))
        async with await connect(server) as first, await connect(server) as second:
            await first.upgrade()
            await second.upgrade()
            trigger.set()
            for client in (first, second):
                assert await client.closing() == (1012, "")
                await client.close(1012)
    assert order == ["socket", "socket", "lifespan"]


async def test_cancelling_serve_cancels_connections_and_still_shuts_the_lifespan_down() -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "lifespan":
                await lifespan(receive, send)
                order.append("lifespan")
            else:
                await send({"type": "websocket.accept"})
                await receive()
                await trio.sleep_forever()
        except trio.Cancelled:
            order.append(f"{scope['type']} cancelled")
            raise

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, bind="127.0.0.1:0"))
        async with await connect(server) as client:
            await client.upgrade()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    assert order == ["websocket cancelled", "lifespan"]
    assert server.statistics().connections == 0


async def test_cancelling_serve_tells_the_peers_to_come_back() -> None:
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancellable(task_status: trio.TaskStatus[Server]) -> None:
            with scope:
                await serve(websocket_app(echo), bind="127.0.0.1:0", task_status=task_status)

        server = await nursery.start(cancellable)
        async with await connect(server) as client:
            await client.upgrade()
            scope.cancel()
            assert await client.closing() == (1012, "")
            await client.rest()


@pytest.mark.parametrize("path", ["/ws", "/http"])
async def test_the_wall_forgets_the_scopes_of_an_application_that_has_ended(path: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        scope["extensions"][TRANSPORT].bound(anyio.CancelScope())
        if scope["type"] == "http":
            await respond(send)
        else:
            await send({"type": "websocket.accept"})

    async with serving(app) as server:
        async with await connect(server) as client:
            await (client.get(path) if path == "/http" else client.upgrade(path))
        await until_down(server)
        assert server._shared.wall._bounds == set()


async def test_a_socket_that_is_upgraded_while_draining_is_refused() -> None:
    go, seen = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.set()
            await go.wait()
            await respond(send)
        elif scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            assert (await receive())["code"] == 1012

    async with serving(app) as server, await connect(server) as client:
        await client.send(upgrade_request())
        server.drain(5)
        assert (await client.head()).startswith(b"HTTP/1.1 503 ")
        await client.rest()
        assert server.statistics().failures == 0
        go.set()


async def test_ctrl_c_in_an_application_belongs_to_the_program(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise KeyboardInterrupt

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, app, bind="127.0.0.1:0"))
            client: Client = await connect(server)
            async with client:
                await client.send(upgrade_request())
                await trio.sleep_forever()

    with pytest.RaisesGroup(KeyboardInterrupt):
        await main()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
