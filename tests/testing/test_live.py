"""LiveServer: real ports and real clients, in a block and in a thread; nothing of it stays."""

import socket
import ssl
import threading
import time
import urllib.request
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, ConnectionRejected

from trichannels.events import Receive, Scope, Send
from trichannels.exceptions import ConfigError, OutOfTurn, StartupFailed
from trichannels.server.serving import serve as real_serve
from trichannels.testing import LiveServer, TimedOut
from trichannels.testing import live as live_module
from trichannels.testing.client import open_client

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("descriptors")]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Greet over HTTP, echo over WebSockets except under /private."""
    match scope["type"]:
        case "lifespan":
            await lifespan(scope, receive, send)
        case "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hallo"})
        case "websocket":
            await receive()
            if scope["path"] == "/private":
                await send({"type": "websocket.close"})
                return
            await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
            while (event := await receive())["type"] == "websocket.receive":
                await send({**event, "type": "websocket.send"})


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    scope["state"]["up"] = True
    await receive()
    scope["state"]["up"] = False
    await send({"type": "lifespan.shutdown.complete"})


async def no_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def refused(url: str) -> bool:
    """Say whether nobody listens there any more."""
    host, port = url.rpartition("/")[2].split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        data: bytes = response.read()
    return data


@pytest.mark.trio_only
async def test_a_real_client_in_an_async_test() -> None:
    async with LiveServer(app) as live:
        assert live.url.startswith("http://127.0.0.1:")
        assert live.ws_url == live.url.replace("http:", "ws:")
        assert await trio.to_thread.run_sync(get, live.url) == b"hallo"
        async with live.connect("/ws/", subprotocols=["v1"]) as client:
            assert client.subprotocol == "v1"
            await client.send_message("hallo")
            assert await client.get_message() == "hallo"
            assert live.statistics().websockets == 1
        with pytest.raises(ConnectionRejected):
            async with live.connect("/private"):
                raise AssertionError("not reached")
    assert refused(live.url)


@pytest.mark.trio_only
async def test_the_client_leaves_no_socket_and_no_group_behind() -> None:
    async with LiveServer(app) as live:
        url = live.ws_url
        with pytest.raises(KeyError):
            async with live.connect("/ws/?a=1", extra_headers=[(b"x", b"y")]):
                raise KeyError
        with trio.CancelScope() as scope:
            async with live.connect("/ws/"):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    with pytest.raises(OSError, match="failed"):
        async with open_client(url):
            raise AssertionError("not reached")


@pytest.mark.trio_only
async def test_tls() -> None:
    authority = trustme.CA()
    certificate, trusting = authority.issue_cert("127.0.0.1"), ssl.create_default_context()
    authority.configure_trust(trusting)
    with certificate.private_key_and_cert_chain_pem.tempfile() as path:
        async with LiveServer(app, certfile=path, keyfile=path) as live:
            assert live.ws_url.startswith("wss://")
            async with live.connect("/ws/", ssl_context=trusting) as client:
                await client.send_message("hallo")
                assert await client.get_message() == "hallo"


@pytest.mark.trio_only
async def test_leaving_the_block_sends_sockets_away() -> None:
    async with trio.open_nursery() as nursery:
        connected, gone = trio.Event(), trio.Event()

        async def stay() -> None:
            async with live.connect("/ws/") as client:
                connected.set()
                with pytest.raises(ConnectionClosed) as caught:
                    await client.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1012
            gone.set()

        async with LiveServer(app) as live:
            nursery.start_soon(stay)
            await connected.wait()
        with trio.fail_after(10):
            await gone.wait()


@pytest.mark.trio_only
async def test_an_error_leaves_the_block_as_it_is_and_ends_the_server() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with LiveServer(app) as live:
            raise error
    assert caught.value is error
    assert refused(live.url)


@pytest.mark.trio_only
async def test_cancelling_the_block_ends_the_server() -> None:
    with trio.CancelScope() as scope:
        async with LiveServer(app) as live, live.connect("/ws/"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert refused(live.url)


@pytest.mark.trio_only
async def test_what_serve_refuses_comes_out_unwrapped() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        async with LiveServer(app, nonsense=1):
            raise AssertionError("not reached")
    with pytest.raises(StartupFailed, match="no database"):
        async with LiveServer(no_start):
            raise AssertionError("not reached")


@pytest.mark.trio_only
async def test_a_server_lives_once() -> None:
    live = LiveServer(app)
    with pytest.raises(OutOfTurn, match="enter its block first"):
        _ = live.url
    async with live:
        with pytest.raises(OutOfTurn, match="another LiveServer"):
            await live.__aenter__()
        with pytest.raises(OutOfTurn, match="just await"):
            live.call(trio.sleep, 0)


def test_a_thread_serves_a_test_that_is_not_async() -> None:
    async def add(*numbers: int) -> int:
        await trio.sleep(0)
        return sum(numbers)

    with LiveServer.in_thread(app) as live:
        assert get(live.url + "/path") == b"hallo"
        assert live.call(add, 1, 2) == 3
        assert live.statistics().accepted == 1
        port = live.url.rpartition(":")[2]
    assert refused(live.url)
    assert "LiveServer" not in {thread.name for thread in threading.enumerate()}
    with LiveServer.in_thread(app, bind=f"127.0.0.1:{port}") as again:  # killed and started again at the same place
        assert get(again.url) == b"hallo"


def test_a_thread_that_cannot_start_raises_in_the_test() -> None:
    with pytest.raises(StartupFailed, match="no database"), LiveServer.in_thread(no_start):
        raise AssertionError("not reached")


def test_an_error_beside_the_thread_comes_out_and_the_thread_ends() -> None:
    with pytest.raises(KeyError), LiveServer.in_thread(app):
        raise KeyError


def crashing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Put a server in place of ours that crashes when the event is set."""
    crash = threading.Event()

    async def serve(application: Any, **options: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(real_serve, application, **options))
            while not crash.is_set():
                await trio.sleep(0.01)
            raise RuntimeError("crashed")

    monkeypatch.setattr("trichannels.testing.live.serve", serve)
    return crash


@pytest.mark.trio_only
async def test_a_server_that_crashes_ends_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = crashing(monkeypatch)
    with pytest.raises(ExceptionGroup, match="nursery") as caught:  # noqa: PT012
        async with LiveServer(app):
            crash.set()
            await trio.sleep_forever()
    assert "crashed" in str(caught.value.exceptions[0])


def test_a_thread_that_crashes_raises_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = crashing(monkeypatch)
    with pytest.raises(ExceptionGroup, match="nursery"), LiveServer.in_thread(app):  # noqa: PT012
        crash.set()
        while any(thread.name == "LiveServer" for thread in threading.enumerate()):
            time.sleep(0.01)


def test_a_thread_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        release.wait(30)  # blocks its event loop after lifespan.shutdown

    monkeypatch.setattr(LiveServer, "_patience", lambda self: 0.1)
    monkeypatch.setattr(live_module, "LEEWAY", 0.1)
    with pytest.raises(TimedOut, match="blocks its event loop"), LiveServer.in_thread(hanging):
        pass
    release.set()
    for thread in threading.enumerate():
        if thread.name == "LiveServer":
            thread.join(10)


def test_lifespan_runs_around_the_block() -> None:
    states: list[dict[str, Any]] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        states.append(scope["state"])
        await app(scope, receive, send)

    with LiveServer.in_thread(noting):
        assert states[0]["up"]
    assert not states[0]["up"]
