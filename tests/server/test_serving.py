"""Embedding, lifespan, logs and addresses of ``serve``."""

import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trichannels.events import Receive, Scope, Send
from trichannels.exceptions import ConfigError, StartupFailed
from trichannels.server import ServerConfig, serve

from .support import connect, echo, respond, serving, websocket_app

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

echo_app = websocket_app(echo)


async def test_failing_startup_is_our_error_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback...\nNoDatabase: it is not there\n"})
        raise ValueError("Starlette raises as well")

    with pytest.raises(StartupFailed, match=r"^the application refused to start: NoDatabase: it is not there$"):
        await serve(app, bind="127.0.0.1:0")
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_exit_during_startup_is_a_failing_startup() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit("no database")

    with pytest.raises(StartupFailed, match="SystemExit: no database"):
        await serve(app, bind="127.0.0.1:0")


async def test_startup_that_takes_too_long() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    with pytest.raises(StartupFailed, match=r"took more than 0\.1 s"):
        await serve(app, bind="127.0.0.1:0", startup_timeout=0.1)


@pytest.mark.parametrize("kind", ["raises", "returns", "waits then returns"])
async def test_application_without_lifespan_is_served(kind: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
        elif kind == "raises":
            raise NotImplementedError("only http here")
        elif kind == "waits then returns":
            await receive()

    async with serving(app) as server, await connect(server) as client:
        assert (await client.get()).endswith(b"ok")


async def test_lifespan_that_fails_while_serving_is_reported_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    go = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await go.wait()
        raise ValueError("background task")

    async with serving(app) as server:
        go.set()
        async with await connect(server) as client:
            assert (await client.get()).endswith(b"ok")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == ["lifespan: failed"]


async def test_lifespan_shutdown_that_hangs_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    async with serving(app, shutdown_timeout=0.1):
        pass
    assert "lifespan.shutdown took more than" in caplog.text


async def test_a_path_is_no_line_of_the_access_log(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with serving(echo_app, access_log=str(path)) as server, await connect(server) as client:
        await client.get("/x%0AFAKE%1b%5b2J")
    (line,) = path.read_text().splitlines()
    assert "/x\\nFAKE\\x1b[2J" in line


async def test_access_log_has_http_and_websockets(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with serving(echo_app, access_log=str(path)) as server, await connect(server) as client:
        await client.get("/page?x=1")
        await client.upgrade("/ws")
    first, second = path.read_text().splitlines()
    assert '"GET /page 1.1" 200' in first
    assert '"GET /ws 1.1" 101' in second
    assert logging.getLogger("trichannels.access").handlers == []


async def test_error_log_goes_to_a_file(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise ValueError("boom")

    path = tmp_path / "error.log"
    async with serving(app, error_log=str(path)) as server, await connect(server) as client:
        assert b" 500 " in await client.get()
    text = path.read_text()
    assert text.count("ValueError: boom") == 1
    assert "listening on http://127.0.0.1:" in text
    assert logging.getLogger("trichannels.server").handlers == []
    assert logging.getLogger("trichannels.server").propagate


async def test_log_level_holds_for_the_error_log_and_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = logging.getLogger("trichannels.server")
    async with serving(echo_app, error_log=str(path), log_level="critical"):
        log.error("not that")
        log.critical("but that")
    (line,) = path.read_text().splitlines()
    assert line.endswith("[CRITICAL] but that")
    assert log.isEnabledFor(logging.ERROR)


async def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--access-log "):
        await serve(echo_app, access_log=str(tmp_path / "none" / "log"))


async def test_root_path_and_proxy_headers_reach_both_kinds_of_scope() -> None:
    scopes: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        scopes.append(scope)
        if scope["type"] == "http":
            await respond(send)
        else:
            await send({"type": "websocket.close"})

    headers = "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: chat.example"
    options = {"root_path": "/app/", "proxy_headers": "legacy"}
    async with serving(app, **options) as server, await connect(server) as client:
        await client.get("/app/x", *headers)
        await client.upgrade("/app/y", *headers)
        await client.rest()
    for scope, scheme in zip(scopes, ["https", "wss"], strict=True):
        assert scope["root_path"] == "/app"
        assert scope["client"] == ("1.2.3.4", 0)
        assert scope["scheme"] == scheme
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"chat.example"]
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert scope["server"][0] == "127.0.0.1"


async def test_sockets_of_a_parent_stay_the_parents() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        for options in ({"sockets": [sock]}, {"bind": f"fd://{sock.fileno()}"}, {"sockets": [sock]}):
            async with serving(echo_app, **options) as server, await connect(server) as client:
                assert server.addresses == [address]
                assert (await client.get()).endswith(b"ok")
            assert sock.fileno() >= 0


async def test_server_names_of_hypercorn_hold_for_websockets_too() -> None:
    async with serving(echo_app, hypercorn={"server_names": ["chat.example"]}) as server:
        async with await connect(server) as client:
            assert b" 404 " in await client.get()
        async with await connect(server) as client:
            assert b" 404 " in await client.upgrade()


async def test_port_in_use_is_one_line() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^--bind 127.0.0.1:{port}: another program listens there"):
            await serve(echo_app, bind=["127.0.0.1:0", f"127.0.0.1:{port}"])


@pytest.mark.parametrize(
    ("bind", "text"),
    [
        ("192.0.2.1:1", "this machine has no such address"),
        ("no.such.host.invalid:80", "--bind no.such.host.invalid:80: "),
        ("unix:/nonexistent/dir/sock", "No such file or directory"),
        ("fd://987", "no such descriptor is open"),
    ],
)
async def test_address_that_cannot_be_had(bind: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        await serve(echo_app, bind=bind)


async def test_unix_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(echo_app, bind=f"unix:{path}") as server, await connect(server) as client:
        assert (await client.get()).endswith(b"ok")


async def test_certificate_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="not a certificate and its key in PEM form"):
        await serve(echo_app, bind="127.0.0.1:0", certfile=str(path), keyfile=str(path))


async def test_wrong_calls() -> None:
    with pytest.raises(ConfigError, match="belong to the command line"):
        await serve(echo_app, workers=2)
    with pytest.raises(ConfigError, match="an ASGI application is an async callable"):
        await serve("app:app")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--bnid is not an option"):
        await serve(echo_app, bnid="127.0.0.1:0")


async def test_error_of_the_shutdown_trigger_comes_out_unwrapped() -> None:
    async def trigger() -> None:
        raise LookupError("no such signal")

    with pytest.raises(LookupError, match="no such signal"):
        await serve(echo_app, bind="127.0.0.1:0", shutdown=trigger)


async def test_max_requests_of_hypercorn_begins_the_drain() -> None:
    config = ServerConfig(bind="127.0.0.1:0", hypercorn={"max_requests": 2})
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo_app, config))
        for _ in range(3):
            async with await connect(server) as client:
                await client.get()
    assert server.draining


async def test_statistics_count_truly() -> None:
    async with serving(lambda *scope: echo_app(*scope)) as server:
        async with await connect(server) as one, await connect(server) as two:
            await one.get()
            await two.upgrade()
            now = server.statistics()
            assert (now.connections, now.websockets, now.accepted, now.websockets_accepted) == (2, 1, 2, 1)
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)
        now = server.statistics()
        assert (now.connections, now.websockets, now.accepted, now.websockets_accepted) == (0, 0, 2, 1)
        assert (now.failures, now.write_timeouts, now.pong_timeouts, now.close_timeouts) == (0, 0, 0, 0)
