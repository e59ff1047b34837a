"""A Django project on lanes, by ASGI alone: views and middleware of both kinds, streams, uploads, who leaves."""

import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from django.core.signals import request_finished, request_started

from trichannels.bridge import Bridge
from trichannels.db import DjangoHooks
from trichannels.django.body import read_body
from trichannels.django.http import DjangoHTTP
from trichannels.exceptions import ConfigError, NoRoute
from trichannels.testing.application import ApplicationCommunicator
from trichannels.testing.http import HttpCommunicator
from trichannels.testing.scopes import connection_scope

from ..test_bridge import until
from . import urls

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def signals() -> Iterator[list[str]]:
    """What Django was told of requests; each one that has started must finish."""
    told: list[str] = []

    def started(**_: object) -> None:
        told.append("started")

    def finished(**_: object) -> None:
        told.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    urls.seen.clear()
    urls.threads.clear()
    yield told
    request_started.disconnect(started)
    request_finished.disconnect(finished)
    assert told.count("started") == told.count("finished")


@asynccontextmanager
async def project(limit: int = 3, **options: Any) -> AsyncIterator[DjangoHTTP]:
    """The application, whose threads have ended at the end."""
    bridge = Bridge(limit, name="django", hooks=DjangoHooks, acquire_timeout=options.pop("acquire_timeout", 10))
    async with bridge:
        yield DjangoHTTP(bridge=bridge, **options)


@asynccontextmanager
async def uploading(app: DjangoHTTP, path: str, *parts: bytes) -> AsyncIterator[ApplicationCommunicator]:
    """A request whose body comes in parts, and is not over yet."""
    scope = connection_scope("http", path, None, None) | {"scheme": "http", "method": "POST"}
    async with ApplicationCommunicator(app, scope) as request:
        for part in parts:
            await request.send_input({"type": "http.request", "body": part, "more_body": True})
        yield request


async def ask(app: DjangoHTTP, path: str, method: str = "GET", **more: Any) -> Any:
    async with HttpCommunicator(app, method, path, **more) as request:
        return await request.get_response(10)


def header(response: Any, name: str) -> str:
    return next(str(value, "latin1") for key, value in response["headers"] if key == name.encode())


# ---- views


@pytest.mark.parametrize("path", ["/hello/", "/async/"])
async def test_views_of_both_kinds_within_middleware_of_both_kinds(path: str) -> None:
    async with project() as app:
        response = await ask(app, f"{path}?name=Ada")
        assert (response["status"], response["body"]) == (200, b"hello Ada, 1")
        assert header(response, "x-sync") == header(response, "x-async") == "yes"
        assert header(response, "content-length") == "12"


async def test_the_orm_of_an_async_view_runs_in_the_lane_of_its_request() -> None:
    async with project() as app:
        for _ in range(3):
            await ask(app, "/async/")
            await ask(app, "/hello/")
        assert set(urls.threads) == {"django lane 1"}


async def test_all_async_views_share_one_loop() -> None:
    async with project() as app:
        loops = [(await ask(app, "/loop/"))["body"] for _ in range(3)]
        assert len(set(loops)) == 1


async def test_many_at_once() -> None:
    async with project(3) as app:
        bodies: list[bytes] = []

        async def one(number: int) -> None:
            path = "/hello/" if number % 2 else "/async/"
            bodies.append((await ask(app, f"{path}?name={number}"))["body"])

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one, number)
        assert sorted(bodies) == sorted(f"hello {number}, 1".encode() for number in range(60))


async def test_what_a_view_is_told() -> None:
    async with project() as app:
        headers = [
            (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-many", b"1"), (b"x-many", b"2"), (b"x_forged", b"no"),
            (b"content-type", b"text/plain"), (b"host", b"example.com:8000"),
        ]  # fmt: skip
        async with HttpCommunicator(app, "PUT", "/told/?q=ä", body=b"body", headers=headers) as request:
            request.scope["root_path"] = ""
            told = json.loads((await request.get_response(10))["body"])
        assert told["method"] == "PUT"
        assert told["body"] == "body"
        assert told["cookies"] == {"a": "1", "b": "2"}
        assert told["meta"]["HTTP_X_MANY"] == "1,2"
        assert told["meta"]["CONTENT_TYPE"] == "text/plain"
        assert "HTTP_X_FORGED" not in told["meta"]
        assert told["scope"] == "http"
        assert told["uri"].startswith("http://example.com:8000/told/?q=")


async def test_below_a_prefix() -> None:
    async with project() as app, HttpCommunicator(app, "GET", "/sub/told/") as request:
        request.scope["root_path"] = "/sub"
        told = json.loads((await request.get_response(10))["body"])
        assert (told["path"], told["reversed"]) == ("/sub/told/", "/sub/told/")


async def test_headers_cookies_and_status() -> None:
    async with project() as app:
        response = await ask(app, "/cookies/")
        assert response["status"] == 201
        cookies = [value for name, value in response["headers"] if name == b"set-cookie"]
        assert cookies == [b"a=1; HttpOnly; Path=/", b"b=2; Path=/"]


async def test_an_error_in_a_view_is_a_page_and_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async with project() as app:
        response = await ask(app, "/fail/")
        assert response["status"] == 500
        assert "Internal Server Error: /fail/" in caplog.text
        assert (await ask(app, "/nowhere/"))["status"] == 404
        assert (await ask(app, "/hello"))["status"] == 301


async def test_head_has_headers_alone() -> None:
    async with project() as app:
        response = await ask(app, "/hello/", "HEAD")
        assert (response["body"], header(response, "content-length")) == (b"", "12")
        for path in ("/stream/?count=3", "/async-stream/?count=3"):
            assert (await ask(app, path, "HEAD"))["body"] == b""


async def test_the_language_of_an_async_view_passes_into_its_sync_code() -> None:
    async with project() as app:
        assert (await ask(app, "/language/"))["body"] == b"de"


# ---- bodies


async def test_an_upload_is_read_by_the_view_whatever_its_size() -> None:
    data = bytes(range(256)) * 20_000  # 5 MB: beyond what is kept in memory
    parts = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    async with project() as app, uploading(app, "/upload/", *parts) as request:
        await request.send_input({"type": "http.request"})
        assert (await request.receive_output(10))["status"] == 200
        answer = json.loads((await request.receive_output(10))["body"])
    assert answer == {"size": len(data), "digest": hashlib.sha256(data).hexdigest()}


async def test_a_form_with_a_file() -> None:
    parts = ['form-data; name="field"\r\n\r\nvalue', 'form-data; name="file"; filename="a.txt"\r\n\r\ncontent']
    body = "".join(f"--x\r\nContent-Disposition: {part}\r\n" for part in parts) + "--x--\r\n"
    headers = [
        (b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", str(len(body)).encode()),
    ]  # fmt: skip
    async with project() as app:
        answer = json.loads((await ask(app, "/form/", "POST", body=body.encode(), headers=headers))["body"])
    assert answer == {"fields": {"field": "value"}, "files": {"file": "content"}}


async def test_an_upload_that_stalls_holds_no_lane_and_is_refused(signals: list[str]) -> None:
    async with project(1, upload_timeout=0.1) as app:
        async with uploading(app, "/upload/", b"begun") as slow:
            assert (await ask(app, "/hello/"))["status"] == 200
            assert (await slow.receive_output(10))["status"] == 408
        assert signals.count("started") == 1


async def test_who_leaves_in_the_middle_of_an_upload_is_no_request(signals: list[str]) -> None:
    async with project(1) as app:
        async with uploading(app, "/upload/", b"begun") as request:
            await request.send_input({"type": "http.disconnect"})
        assert signals == []
        assert app.bridge.statistics().running == 0


# ---- streams


@pytest.mark.parametrize("path", ["/stream/", "/async-stream/"])
async def test_a_stream_arrives_piece_by_piece(path: str) -> None:
    async with project() as app, HttpCommunicator(app, "GET", f"{path}?count=4&pause=0.01") as request:
        await request.send_request()
        assert (await request.receive_output(10))["type"] == "http.response.start"
        parts = []
        while (event := await request.receive_output(10)).get("more_body"):
            parts.append(event["body"])
        assert parts == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert urls.seen["sync stream closed"] + urls.seen["async stream closed"] == 1


async def test_an_async_stream_holds_no_lane_and_its_orm_has_lanes() -> None:
    async with project(1) as app, anyio.create_task_group() as group:
        bodies: list[bytes] = []

        async def one() -> None:
            bodies.append((await ask(app, "/async-stream/?count=5&pause=0.02&query"))["body"])

        for _ in range(8):
            group.start_soon(one)
        with anyio.fail_after(10):
            assert (await ask(app, "/hello/"))["status"] == 200
            await until(lambda: len(bodies) == 8)
        assert bodies == [b"01\n11\n21\n31\n41\n"] * 8
        assert set(urls.threads) == {"django lane 1"}


async def test_a_body_in_small_pieces_takes_no_more_than_in_large_ones() -> None:
    pieces = 20_000

    async def receive() -> Any:
        nonlocal pieces
        await anyio.lowlevel.checkpoint()
        pieces -= 1
        return {"type": "http.request", "body": b"ab", "more_body": pieces > 0}

    tracemalloc.start()
    try:
        body, size = await read_body(receive, in_memory=1_000_000, folder=None, patience=10)
        with body:
            assert (size, body.read(4)) == (40_000, b"abab")
            assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


async def test_a_path_is_no_line_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge(1, acquire_timeout=0.05, hooks=DjangoHooks)
    app = DjangoHTTP(bridge=bridge)
    async with bridge, bridge.lease():
        assert (await ask(app, "/x%0ACRITICAL%20all%20is%20lost%1b%5b2J"))["status"] == 503
    assert "/x\\nCRITICAL all is lost\\x1b[2J" in caplog.text
    assert not [line for line in caplog.text.splitlines() if line.startswith("CRITICAL")]


async def test_what_an_async_stream_leaves_behind_gets_no_lane_and_harms_nobody() -> None:
    async with project(1) as app:
        assert (await ask(app, "/left-behind/"))["body"] == b"done"
        await until(lambda: urls.seen["too late"] == 1)
        assert (await ask(app, "/hello/"))["status"] == 200


async def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(1000) * 300)
    async with project() as app:
        response = await ask(app, f"/download/?file={file}")
        assert response["body"] == file.read_bytes()
        assert header(response, "content-length") == "300000"


# ---- who leaves


async def left(app: DjangoHTTP, path: str, sign: str) -> None:
    """Ask, and leave when the view has shown ``sign``."""
    async with HttpCommunicator(app, "GET", path, timeout=10) as request:
        await request.send_request()
        await until(lambda: urls.seen[sign] > 0 if sign else True)


async def test_an_async_view_is_cancelled_when_its_client_leaves() -> None:
    async with project() as app:
        await left(app, "/wait/", "waiting")
        assert urls.seen["async view cancelled"] == 1
        assert app.bridge.statistics().running == 0


@pytest.mark.parametrize(("path", "closed"), [("/stream/", "sync"), ("/async-stream/", "async")])
async def test_a_stream_is_closed_when_its_client_leaves(path: str, closed: str) -> None:
    async with project() as app:
        async with HttpCommunicator(app, "GET", f"{path}?count=100000&pause=0.005", timeout=10) as request:
            await request.send_request()
            for _ in range(3):
                await request.receive_output(10)
        await until(lambda: urls.seen[f"{closed} stream closed"] == 1)
        assert app.bridge.statistics().running == 0


async def test_a_sync_view_runs_to_its_end_and_is_not_reported() -> None:
    async with project(1) as app:
        await left(app, "/block/?seconds=0.3", "blocking")
        assert (await ask(app, "/hello/"))["status"] == 200, "the only lane is free again"
        assert urls.seen["blocking over"] == 1


# ---- bounds


async def test_when_no_lane_is_free_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with project(1, acquire_timeout=0.05) as app, anyio.create_task_group() as group:
        group.start_soon(ask, app, "/block/?seconds=0.4")
        await until(lambda: urls.seen["blocking"] > 0)
        response = await ask(app, "/hello/")
        assert response["status"] == 503
        assert header(response, "retry-after") == "1"
        assert "held by" in caplog.text


async def test_what_it_does_not_serve() -> None:
    async with project() as app:

        async def nothing(*_: object) -> Any: ...

        with pytest.raises(NoRoute, match="not websocket"):
            await app({"type": "websocket"}, nothing, nothing)
        with pytest.raises(ConfigError, match="upload_timeout"):
            DjangoHTTP(upload_timeout=0)


async def test_by_itself_it_ends_its_threads_at_shutdown() -> None:
    app = DjangoHTTP()
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    assert (await ask(app, "/hello/"))["status"] == 200
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await until(lambda: not any(lane.thread.is_alive() for lane in app.bridge._lanes))
    events += [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    await app({"type": "lifespan"}, receive, send)
    assert len(sent) == 4, "and may begin again"
