"""What Django's own tests ask of its ASGI handler, asked of ours; and the project over HTTP/2.

The matrix of views, middleware, streams and bounds is in ``test_http.py``, large bodies in ``test_served.py``.
Where a lane behaves as WSGI does and not as Django's ASGI handler, the test says so.
"""

import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from django.core.signals import request_finished, request_started
from django.db import connections
from django.test import override_settings

from trichannels.django.body import read_body
from trichannels.django.http import CHUNK, DjangoHTTP, Handler, get_asgi_application
from trichannels.exceptions import NoRoute
from trichannels.testing.application import ApplicationCommunicator
from trichannels.testing.errors import ApplicationEnded
from trichannels.testing.http import HttpCommunicator
from trichannels.testing.live import LiveServer

from ..server.certificates import Certificates
from ..server.http2 import H2Client
from ..test_bridge import until
from . import asgi_urls
from .asgi_urls import events
from .test_http import ask, header, project, uploading

pytestmark = pytest.mark.server

MIB = 1024 * 1024
FORM = (b"content-type", b"application/x-www-form-urlencoded")


class Signals:
    """What was signalled of requests: the thread, the sender and the rest."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []

    def started(self, **more: Any) -> None:
        self.told.append(("started", threading.current_thread().name, more))

    def finished(self, **more: Any) -> None:
        self.told.append(("finished", threading.current_thread().name, more))

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.told]


@pytest.fixture(autouse=True)
def signals() -> Iterator[Signals]:
    """Each request that has started must finish, once."""
    signals = Signals()
    request_started.connect(signals.started)
    request_finished.connect(signals.finished)
    for kept in (events, asgi_urls.requests):
        kept.clear()
    asgi_urls.go.clear()
    asgi_urls.go_lane.clear()
    with override_settings(ROOT_URLCONF="tests.project.asgi_urls"):
        yield signals
    request_started.disconnect(signals.started)
    request_finished.disconnect(signals.finished)
    assert signals.names.count("started") == signals.names.count("finished")


async def mirrored(app: DjangoHTTP, path: str = "/mirror/", method: str = "GET", **more: Any) -> Any:
    """What the view was told."""
    response = await ask(app, path, method, **more)
    assert response["status"] == 200, response
    return json.loads(response["body"])


async def sent(app: DjangoHTTP, path: str, method: str = "GET") -> list[Any]:
    """All events of a response, as they were sent; the application has returned."""
    async with HttpCommunicator(app, method, path) as request:
        await request.send_request()
        return await rest_of(request)


async def rest_of(request: ApplicationCommunicator) -> list[Any]:
    """What the application still sends before it returns."""
    received: list[Any] = []
    with suppress(ApplicationEnded):
        while True:
            received.append(await request.receive_output(10))
    return received


@asynccontextmanager
async def asked(app: DjangoHTTP, path: str, method: str = "GET", body: bytes = b"") -> AsyncIterator[HttpCommunicator]:
    """A request that is under way; when the block ends, the application has ended by itself."""
    async with HttpCommunicator(app, method, path, body, timeout=10) as request:
        await request.send_request()
        yield request
        await request.wait(10)


def scoped(app: DjangoHTTP, **changes: Any) -> HttpCommunicator:
    """A request whose scope is not quite as servers make it; what is None is left out."""
    request = HttpCommunicator(app, "GET", "/mirror/", headers=[(b"host", b"x")])
    request.scope.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del request.scope[name]
    return request


# ---- what a request is


@pytest.mark.parametrize("path", ["/mirror/", "/mirror-async/"])
async def test_content_type_and_length_have_no_prefix_and_what_comes_twice_is_joined(path: str) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"77"), (b"referer", b"Scotland"),
        (b"Referer", b"Wales"), (b"x_real-ip", b"forged"), (b"x-latin", b"caf\xe9"), (b"host", b"example.com"),
    ]  # fmt: skip
    async with project() as app:
        told = await mirrored(app, path, headers=headers)
    meta = told["meta"]
    assert meta["CONTENT_TYPE"] == "text/plain; charset=utf-8"
    assert meta["CONTENT_LENGTH"] == "0", "what has come, and not what was promised"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_X_REAL_IP"} & set(meta)
    assert meta["HTTP_REFERER"] == told["headers"]["Referer"] == "Scotland,Wales"
    assert meta["HTTP_X_LATIN"] == "café"
    assert meta["REMOTE_ADDR"] == meta["REMOTE_HOST"] == "testclient"
    assert (meta["SERVER_NAME"], meta["SERVER_PORT"]) == ("testserver", "80")
    assert told["uri"] == f"http://example.com{path}"


async def test_a_scope_with_little_in_it() -> None:
    optional = ("client", "server", "root_path", "scheme", "http_version", "raw_path", "query_string")
    async with project() as app, scoped(app, **dict.fromkeys(optional)) as request:
        told = json.loads((await request.get_response(10))["body"])
    assert (told["meta"]["SERVER_NAME"], told["meta"]["SERVER_PORT"]) == ("unknown", "0")
    assert "REMOTE_ADDR" not in told["meta"]


async def test_https() -> None:
    async with project() as app, scoped(app, scheme="https") as request:
        told = json.loads((await request.get_response(10))["body"])
    assert (told["scheme"], told["secure"], told["uri"]) == ("https", True, "https://x/mirror/")


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"name=Andrew", "Andrew"),
        (b"name=caf%C3%A9", "café"),
        (b"name=caf\xc3\xa9", "café"),  # not escaped
        (b"name=caf%E9", "caf\ufffd"),  # escaped, but not UTF-8
        (b"name=caf\xe9", "café"),  # neither: read as latin-1, where Django's ASGI handler answers with 400
        (b"name=a+b%26c%3Dd%00", "a b&c=d\0"),
    ],
)
async def test_query_strings(query: bytes, value: str) -> None:
    async with project() as app, scoped(app, query_string=query) as request:
        told = json.loads((await request.get_response(10))["body"])
    assert told["get"] == {"name": [value]}


@pytest.mark.parametrize("rest", ["café", "☎ and more", "a%2Fb", "~\ufffdhello", "q?q"])
async def test_paths(rest: str) -> None:
    async with project() as app, scoped(app, path=f"/mirror/{rest}/") as request:
        told = json.loads((await request.get_response(10))["body"])
    assert told["path"] == told["path_info"] == f"/mirror/{rest}/"


async def test_paths_that_are_nowhere() -> None:
    async with project() as app:
        for path in ("/~%A9helloworld", "/d%aao%aaw%aan%aal%aao%aaa%aad%aa/", "/%E2%99%E2%99%A5/"):
            response = await ask(app, path)
            assert response["status"] == 404
            assert response["body"].startswith(b"nothing at /"), "by the project's own handler404"
        async with scoped(app, path="//mirror/") as request:
            assert (await request.get_response(10))["status"] == 404, "the first slash alone is the root's"


async def test_cookies() -> None:
    headers = [(b"cookie", b"a=1; b=2"), (b"cookie", b"c=caf\xc3\xa9"), (b"cookie", b"d=W\x03c(h]\x8e")]
    async with project() as app:
        cookies = (await mirrored(app, headers=headers))["cookies"]
    assert {name: cookies[name] for name in "abc"} == {"a": "1", "b": "2", "c": "café"}


# ---- where it is


@pytest.mark.parametrize(
    ("root", "asked", "answer"),
    [
        ("/sub", "/sub/where/", "/sub/where/ /where/ /sub/where/"),
        ("/sub/", "/sub/where/", "/sub/where/ /where/ /sub/where/"),
        ("/sub", "/where/", "/sub/where/ /where/ /sub/where/"),  # as servers did that left it out of the path
        ("/sub", "/subway/", ""),  # which is no /way/ below it
        ("/ä/b", "/ä/b/where/", "/ä/b/where/ /where/ /%C3%A4/b/where/"),
        ("/", "/where/", "/where/ /where/ /where/"),
        (None, "/where/", "/where/ /where/ /where/"),
    ],
)
async def test_below_a_prefix(root: str | None, asked: str, answer: str) -> None:
    async with project(1) as app:
        for path, expected in ((asked, answer), (asked.replace("where", "async"), answer.replace("where", "async", 2))):
            async with scoped(app, path=path, root_path=root) as request:
                response = await request.get_response(10)
                assert response["status"] == (200 if answer else 404)
                assert not answer or response["body"].decode() == expected
        assert (await ask(app, "/where/"))["body"] == b"/where/ /where/ /where/", "and nothing of it stays in the lane"


async def test_the_prefix_itself_is_its_root() -> None:
    async with project() as app, scoped(app, path="/sub", root_path="/sub") as request:
        assert (await request.get_response(10))["status"] == 200


@pytest.mark.parametrize("asked", ["/forced/where/", "/where/"])
async def test_a_prefix_by_the_settings(asked: str) -> None:
    with override_settings(FORCE_SCRIPT_NAME="/forced"):
        async with project() as app:
            assert (await ask(app, asked))["body"] == b"/forced/where/ /where/ /forced/where/"


async def test_an_async_stream_goes_on_in_the_prefix_and_language_of_its_view() -> None:
    async with project(1) as app, scoped(app, path="/sub/where-streamed/", root_path="/sub") as request:
        assert (await request.get_response(10))["body"] == b"/sub/where/ de /sub/where/ de"


# ---- bodies


@pytest.mark.parametrize("path", ["/mirror/", "/mirror-async/"])
async def test_a_body_in_pieces_and_empty_ones(path: str) -> None:
    async with project() as app, uploading(app, path, b"", b"Ec", b"", b"ho", b"!") as request:
        await request.send_input({"type": "http.request", "body": b"", "more_body": False})
        assert (await request.receive_output(10))["status"] == 200
        told = json.loads((await request.receive_output(10))["body"])
    assert (told["method"], told["body"], told["meta"]["CONTENT_LENGTH"]) == ("POST", "Echo!", "5")


@pytest.mark.parametrize("path", ["/mirror/", "/mirror-async/"])
async def test_a_form(path: str) -> None:
    async with project() as app:
        told = await mirrored(app, f"{path}?c=3", "POST", body=b"a=1&a=2&b=caf%C3%A9+x", headers=[FORM])
    assert (told["post"], told["get"]) == ({"a": ["1", "2"], "b": ["café x"]}, {"c": ["3"]})


async def test_a_form_of_put_is_not_read() -> None:
    async with project() as app:
        told = await mirrored(app, method="PUT", body=b"a=1", headers=[FORM])
    assert (told["post"], told["method"]) == ({}, "PUT")


def multipart(boundary: str, content: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    parts = ['name="field"\r\n\r\nä', f'name="file"; filename="ä.txt"\r\nContent-Type: text/plain\r\n\r\n{content}']
    body = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    return (body + f"--{boundary}--\r\n").encode(), [
        (b"content-type", f"multipart/form-data; boundary={boundary}".encode())
    ]


@pytest.mark.parametrize("path", ["/mirror/", "/mirror-async/"])
async def test_files_in_memory_and_on_disk_are_closed_after_the_request(path: str) -> None:
    for content, kind in (("short", "InMemoryUploadedFile"), ("long" * 1000, "TemporaryUploadedFile")):
        body, headers = multipart("xyz", content)
        with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=1000):
            async with project() as app:
                told = await mirrored(app, path, "POST", body=body, headers=headers)
        assert told["post"] == {"field": ["ä"]}
        assert told["files"] == {"file": [kind, "ä.txt", content]}
        (request,) = asgi_urls.requests
        assert all(file.closed for file in request.FILES.values())
        asgi_urls.requests.clear()


async def test_a_boundary_that_is_none_is_a_bad_request() -> None:
    async with project() as app:
        for boundary in (b"boundary=WRONG\x07", b""):
            headers = [(b"content-type", b"multipart/form-data; " + boundary)]
            assert (await ask(app, "/mirror/", "POST", body=b"x", headers=headers))["status"] == 400


async def test_a_body_is_read_line_by_line() -> None:
    async with project() as app:
        response = await ask(app, "/lines/", "POST", body=b"one\ntwo\nthree")
    assert json.loads(response["body"]) == ["one\n", "two\n", "three"]


async def test_a_body_that_nobody_reads_is_closed() -> None:
    async with project() as app:
        assert (await ask(app, "/untouched/", "POST", body=b"data"))["status"] == 204
        (request,) = asgi_urls.requests
        assert request.environ["wsgi.input"].closed


async def test_no_memory_for_bodies_means_a_file() -> None:
    """A spooled file of the size 0 would keep all of it in memory."""
    pieces = [b"a", b"b", b""]

    async def receive() -> Any:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    body, size = await read_body(receive, in_memory=0, folder=None, patience=10)
    with body:
        assert (body.read(), size) == (b"ab", 2)
        assert body.fileno() > 0


@pytest.mark.parametrize(
    ("setting", "path", "method", "body"),
    [
        ("DATA_UPLOAD_MAX_MEMORY_SIZE", "/mirror/", "POST", b"a=" + b"x" * 10),
        ("DATA_UPLOAD_MAX_MEMORY_SIZE", "/mirror-async/", "POST", b"a=" + b"x" * 10),
        ("DATA_UPLOAD_MAX_NUMBER_FIELDS", "/mirror/", "POST", b"&".join([b"a=1"] * 11)),
        ("DATA_UPLOAD_MAX_NUMBER_FIELDS", "/mirror/?" + "&".join(["a=1"] * 11), "GET", b""),
    ],
)
async def test_what_is_too_much_is_refused(setting: str, path: str, method: str, body: bytes) -> None:
    with override_settings(**{setting: 10}):
        async with project() as app:
            assert (await ask(app, path, method, body=body, headers=[FORM]))["status"] in (400, 413)


@pytest.mark.parametrize("host", [b"elsewhere.example", b"not a host", b"a/b", b"localhost:port"])
async def test_a_bad_host_is_a_bad_request(host: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(ALLOWED_HOSTS=["localhost"]):
        async with project() as app:
            assert (await ask(app, "/mirror/", headers=[(b"host", host)]))["status"] == 400
            assert (await ask(app, "/mirror/", headers=[(b"host", b"localhost:1")]))["status"] == 200
    assert [record.name for record in caplog.records] == ["django.security.DisallowedHost"]


# ---- answers

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 10]
KINDS = ["sized", "sized-stream", "sized-async-stream", "sized-file", "sized-file-async"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_response_starts_once_comes_in_small_pieces_and_ends_once(kind: str, signals: Signals) -> None:
    async with project() as app:
        for size in SIZES:
            start, *parts = await sent(app, f"/{kind}/?size={size}")
            assert (start["type"], start["status"]) == ("http.response.start", 200)
            assert all(name == name.lower() for name, _ in start["headers"])
            assert {part["type"] for part in parts} == {"http.response.body"}
            assert [bool(part.get("more_body")) for part in parts] == [True] * (len(parts) - 1) + [False]
            bodies = [part.get("body", b"") for part in parts]
            assert all(type(body) is bytes and len(body) <= CHUNK for body in bodies)
            assert all(bodies[:-1])
            assert b"".join(bodies) == (b"a" if "stream" in kind else b"") + bytes(size)
            assert len(parts) <= size // CHUNK + 3
    assert events.count("closed") == len(SIZES)
    assert events.count("file closed") == (len(SIZES) if "file" in kind else 0)
    assert signals.names == ["started", "finished"] * len(SIZES)


@pytest.mark.parametrize("kind", KINDS)
async def test_head_makes_nothing_and_closes_it(kind: str) -> None:
    async with project() as app:
        start, part = await sent(app, f"/{kind}/?size=1000", "HEAD")
        assert start["status"] == 200
        assert not part.get("body")
        assert not part.get("more_body")
    assert events.count("closed") == 1


async def test_a_file_has_its_headers() -> None:
    async with project() as app:
        response = await ask(app, "/sized-file/?size=12")
    assert header(response, "content-length") == "12"
    assert header(response, "content-type") == "text/plain"
    assert header(response, "content-disposition") == 'inline; filename="a.txt"'


async def test_headers_and_cookies_of_a_response() -> None:
    async with project() as app:
        response = await ask(app, "/headers/")
        assert header(response, "content-type") == "text/plain"
        assert header(response, "x-latin") == "café"
        assert header(response, "x-wide") == "=?utf-8?b?4oaS?="
        one, two, three = [value for name, value in response["headers"] if name == b"set-cookie"]
        assert one == b'a="caf\\351"; Path=/\xe4', "as under WSGI; Django's ASGI handler fails on that path"
        assert two == b"b=2; Path=/; SameSite=Lax; Secure"
        assert three.startswith(b'c=""; expires=Thu, 01 Jan 1970')
        assert (await ask(app, "/header-with-newline/"))["status"] == 500


async def test_a_response_that_cannot_be_sent_is_closed_nonetheless(signals: Signals) -> None:
    async with project() as app:
        with pytest.raises(UnicodeEncodeError):
            await ask(app, "/unsendable/")
    assert events == ["closed"]
    assert signals.names == ["started", "finished"]


async def test_statuses() -> None:
    async with project() as app:
        assert (await ask(app, "/enumerated/"))["status"] == 202
        response = await ask(app, "/not-modified/")
        assert (response["status"], response["body"], header(response, "etag")) == (304, b"", '"a"')
        response = await ask(app, "/redirect/")
        assert (response["status"], header(response, "location")) == (302, "/mirror/")
        assert (await ask(app, "/mirror"))["status"] == 301


@pytest.mark.parametrize("status", [204, 304])
async def test_no_body_where_there_can_be_none(status: int) -> None:
    async with project() as app:
        for more in ("", "&empty"):
            start, *parts = await sent(app, f"/status/?status={status}{more}")
            assert start["status"] == status
            assert b"content-length" not in dict(start["headers"])
            assert [part.get("body", b"") for part in parts] == [b""]


# ---- errors


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/fail/", "/fail-async/"])
async def test_an_error_is_logged_once_and_answered(
    path: str, caplog: pytest.LogCaptureFixture, signals: Signals
) -> None:
    async with project() as app:
        for kind in ("value", "timeout"):
            response = await ask(app, f"{path}?with={kind}")
            assert response["status"] == 500
            assert b"in the view" not in response["body"]
            (record,) = logged(caplog)
            assert (record.name, record.getMessage()) == ("django.request", f"Internal Server Error: {path}")
            assert record.exc_info is not None
            assert record.exc_info[1] is asgi_urls.ERRORS[kind]
            caplog.clear()
    assert signals.names == ["started", "finished"] * 2


@pytest.mark.parametrize("path", ["/fail/", "/fail-async/"])
async def test_errors_that_mean_a_status(path: str) -> None:
    async with project() as app:
        for kind, status in (("missing", 404), ("denied", 403), ("suspicious", 400), ("bad", 400)):
            assert (await ask(app, f"{path}?with={kind}"))["status"] == status
        assert (await ask(app, f"{path}?with=missing"))["body"] == f"nothing at {path}".encode()


@pytest.mark.parametrize("path", ["/fail/", "/fail-async/"])
async def test_pages_for_who_debugs(path: str) -> None:
    with override_settings(DEBUG=True):
        async with project() as app:
            response = await ask(app, f"{path}?with=value")
            assert response["status"] == 500
            assert b"in the view" in response["body"]
            response = await ask(app, "/nowhere/")
            assert response["status"] == 404
            assert b"tests.project.asgi_urls" in response["body"]


@pytest.mark.parametrize("path", ["/nothing/", "/not-awaited/"])
async def test_views_that_return_no_response(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with project() as app:
        assert (await ask(app, path))["status"] == 500
    (record,) = logged(caplog)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    for coroutine in asgi_urls.requests:
        coroutine.close()


@pytest.mark.parametrize("path", ["/fail-async/?with=cancelled", "/fail/?with=cancelled", "/cancelled-child/"])
async def test_a_view_that_cancels_itself_is_an_error_like_any_other(
    path: str, signals: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """And no cancellation of whoever serves it."""
    async with project() as app:
        assert (await ask(app, path))["status"] == 500
        (record,) = logged(caplog)
        assert record.name == "django.request"
        assert (await ask(app, "/loopless/"))["status"] == 200
    assert signals.names == ["started", "finished"] * 2


@pytest.mark.parametrize("path", ["/fail-in-stream/", "/fail-in-async-stream/"])
@pytest.mark.parametrize(("kind", "error"), [("value", "in the view"), ("cancelled", "nobody has cancelled it")])
async def test_an_error_in_a_stream_comes_after_what_was_before_it(
    path: str, kind: str, error: str, signals: Signals
) -> None:
    async with project() as app, HttpCommunicator(app, "GET", f"{path}?with={kind}") as request:
        await request.send_request()
        assert (await request.receive_output(10))["status"] == 200
        assert (await request.receive_output(10))["body"] == b"begun"
        with pytest.raises((ValueError, RuntimeError), match=error):
            await request.receive_output(10)
    assert events == ["closed"]
    assert signals.names == ["started", "finished"]


async def test_errors_pass_through_where_a_project_wants_that(signals: Signals) -> None:
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
        async with project() as app:
            for path in ("/fail/", "/fail-async/"):
                with pytest.raises(ValueError, match="in the view"):
                    await ask(app, f"{path}?with=value")
    assert signals.names == ["started", "finished"] * 2


# ---- signals and threads


async def test_signals_come_in_the_lane_of_the_request_with_its_environ(signals: Signals) -> None:
    async with project() as app:
        await mirrored(app, "/mirror/?a=1")
        await mirrored(app, "/mirror-async/")
    assert [name for name, *_ in signals.told] == ["started", "finished"] * 2
    assert {thread for _, thread, _ in signals.told} == {"django lane 1"}
    assert {more["sender"] for _, _, more in signals.told} == {Handler}
    environ = signals.told[0][2]["environ"]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/mirror/", "a=1")
    assert environ["asgi.scope"]["type"] == "http"


async def test_a_sync_view_runs_off_every_loop() -> None:
    async with project() as app:
        assert (await ask(app, "/loopless/"))["body"] == b"django lane 1"


@pytest.mark.parametrize("path", ["/meet/", "/meet-async/"])
async def test_requests_at_once_have_threads_of_their_own(path: str) -> None:
    async with project(2) as app:
        names: list[bytes] = []

        async def one() -> None:
            names.append((await ask(app, path))["body"])

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        assert sorted(names) == [b"django lane 1", b"django lane 2"]


async def test_atomic_requests() -> None:
    database = connections.settings["default"]
    assert not database["ATOMIC_REQUESTS"]
    async with project() as app:
        assert (await ask(app, "/in-transaction/"))["body"] == b"False"
        database["ATOMIC_REQUESTS"] = True
        try:
            assert (await ask(app, "/in-transaction/"))["body"] == b"True"
            assert (await ask(app, "/in-transaction-async/"))["status"] == 500, "Django refuses that"
        finally:
            database["ATOMIC_REQUESTS"] = False
        assert (await ask(app, "/in-transaction/"))["body"] == b"False"


# ---- middleware


@pytest.mark.parametrize("path", ["/loopless/", "/mirror-async/"])
@pytest.mark.parametrize(
    "order", [("sync", "async", "both"), ("async", "both", "sync"), ("both", "sync", "async"), ("async",)]
)
async def test_middleware_of_each_kind_in_its_order(order: tuple[str, ...], path: str) -> None:
    with override_settings(MIDDLEWARE=[f"tests.project.asgi_urls.{kind}_middleware" for kind in order]):
        async with project() as app:
            assert (await ask(app, path))["status"] == 200
    assert events == [f"{kind} in" for kind in order] + [f"{kind} out" for kind in reversed(order)]


@pytest.mark.parametrize("view", ["fail", "fail_async"])
async def test_hooks_of_middleware(view: str) -> None:
    path = f"/{view.replace('_', '-')}/?with=value"
    with override_settings(MIDDLEWARE=["tests.project.asgi_urls.async_middleware", "tests.project.asgi_urls.Hooked"]):
        async with project() as app:
            assert (await ask(app, f"{path}&mend"))["body"] == b"mended"
            assert (await ask(app, path))["status"] == 500
    assert events == ["async in", f"process_view {view}", "process_exception in the view", "async out"] * 2


# ---- who leaves


async def test_who_leaves_before_a_body_is_no_request(signals: Signals) -> None:
    async with project() as app, uploading(app, "/mirror/") as request:
        await request.send_input({"type": "http.disconnect"})
        with pytest.raises(ApplicationEnded):
            await request.receive_output(10)
    assert signals.names == []


@pytest.mark.parametrize("path", ["/wait/", "/wait-and-answer/", "/wait-in-stream/"])
async def test_who_leaves_with_the_end_of_the_body(path: str, signals: Signals) -> None:
    """The view has begun, or has not; what has begun is over, and nothing is sent but the start of a stream."""
    async with project() as app, uploading(app, path, b"some body") as request:
        await request.send_input({"type": "http.request"})
        await request.send_input({"type": "http.disconnect"})
        await request.wait(10)
        assert all(event["type"] == "http.response.start" for event in await rest_of(request))
        assert app.bridge.statistics().running == 0
    assert signals.names in ([], ["started", "finished"])


async def test_who_leaves_when_the_response_is_there(signals: Signals) -> None:
    async with project() as app, asked(app, "/mirror/", "POST", b"some body") as request:
        assert (await request.receive_output(10))["status"] == 200
        await request.receive_output(10)
        await request.send_input({"type": "http.disconnect"})
    assert signals.names == ["started", "finished"]


async def test_a_sync_view_can_read_the_body_of_a_client_that_has_left(signals: Signals) -> None:
    with override_settings(MIDDLEWARE=[]):  # async ones are cancelled, and lose what comes
        async with project() as app, asked(app, "/read-late/", "POST", b"Body data!") as request:
            await until(lambda: "begun" in events)
            await request.send_input({"type": "http.disconnect"})
            assert await request.receive_nothing()
            asgi_urls.go.set()
            with pytest.raises(ApplicationEnded):
                await request.receive_output(10)
    assert events == ["begun", "read b'Body data!'", "closed"]
    assert signals.names == ["started", "finished"]


@pytest.mark.parametrize(
    ("path", "happened"),
    [
        ("/wait/", ["begun", "cancelled b'data'"]),
        ("/wait-and-answer/", ["begun", "cancelled", "closed"]),
        ("/wait-in-many/", ["a begun", "b begun", "a ended", "b ended"]),
        ("/wait-in-stream/", ["begun", "cancelled", "stream ended", "closed"]),
        ("/stubborn-stream/", ["begun", "cancelled", "stream ended", "closed"]),
    ],
)
async def test_async_work_is_cancelled_once_and_what_it_returns_is_dropped(
    path: str, happened: list[str], signals: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(MIDDLEWARE=[]):  # async ones are cancelled, too, and lose what comes
        async with project() as app, asked(app, path, "POST", b"data") as request:
            await until(lambda: events == [event for event in happened if event.endswith("begun")])
            if "stream" in path:
                await request.receive_output(10)
            await request.send_input({"type": "http.disconnect"})
            with pytest.raises(ApplicationEnded):
                await request.receive_output(10)
    assert sorted(events) == sorted(happened)
    assert events[-1] == happened[-1] or "many" in path
    assert signals.names == ["started", "finished"]
    assert not logged(caplog)


async def test_a_stream_that_fails_when_its_client_has_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with project() as app, asked(app, "/failing-cleanup/") as request:
        await until(lambda: "begun" in events)
        await request.send_input({"type": "http.disconnect"})
    (record,) = logged(caplog)
    assert record.name == "trichannels.bridge"
    assert record.exc_info is not None
    assert record.exc_info[1] is asgi_urls.ERRORS["value"]
    assert events == ["begun", "closed"]


async def test_a_sync_stream_that_waits_is_closed_when_it_goes_on(signals: Signals) -> None:
    async with project() as app, asked(app, "/wait-in-sync-stream/") as request:
        await request.receive_output(10)
        await until(lambda: "begun" in events)
        await request.send_input({"type": "http.disconnect"})
        asgi_urls.go.set()
    assert events[:1] == ["begun"]
    assert sorted(events[1:]) == ["closed", "stream ended"]
    assert signals.names == ["started", "finished"]


async def test_an_async_stream_is_little_ahead_of_a_client_that_does_not_read() -> None:
    """``send`` that does not return holds it."""
    scope = HttpCommunicator(DjangoHTTP(), "GET", "/endless/").scope
    held, gone = anyio.Event(), anyio.Event()
    received = [{"type": "http.request"}]

    async def receive() -> Any:
        if received:
            return received.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        if event["type"] == "http.response.body":
            held.set()
            await anyio.sleep_forever()

    async with project(1) as app:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(app, scope, receive, send)
                await held.wait()
                assert (await ask(app, "/loopless/"))["status"] == 200, "it holds no lane"
                assert events.count("made") <= 8
                gone.set()
    assert events[-2:] == ["stream ended", "closed"]


async def test_an_async_stream_is_closed_even_when_no_lane_is_free(signals: Signals) -> None:
    async with project(1, acquire_timeout=0.05) as app, asked(app, "/stream-until/") as stream:
        await stream.receive_output(10)
        assert (await stream.receive_output(10))["body"] == b"one"
        async with asked(app, "/hold-lane/") as holder:
            await until(lambda: "lane held" in events)
            asgi_urls.go.set()
            assert (await stream.receive_output(10))["body"] == b"two"
            assert not (await stream.receive_output(10)).get("more_body")
            await stream.wait(10)
            assert "closed" in events
            assert signals.names == ["started", "started", "finished"]
            asgi_urls.go_lane.set()
            assert (await holder.receive_output(10))["status"] == 200


# ---- the application


async def test_get_asgi_application() -> None:
    app = get_asgi_application()
    assert isinstance(app, DjangoHTTP)
    async with app.bridge:
        assert (await ask(app, "/loopless/"))["status"] == 200


@pytest.mark.parametrize("kind", ["websocket", "other"])
async def test_what_is_no_http_is_refused_by_name(kind: str) -> None:
    async with project() as app:
        with pytest.raises(NoRoute, match=f"not {kind}"):
            async with scoped(app, type=kind) as request:
                await request.receive_output(10)


# ---- over HTTP/2


@pytest.fixture
def tls(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def over_http2(tls: Certificates) -> AsyncIterator[tuple[LiveServer, httpx.AsyncClient]]:
    """The project behind our server, and a client that speaks HTTP/2 by ALPN."""
    async with (
        project() as app,
        LiveServer(app, **tls.options) as live,
        httpx.AsyncClient(http2=True, verify=tls.client, base_url=live.url, trust_env=False, timeout=30) as client,
    ):
        yield live, client


@pytest.mark.trio_only
async def test_get_and_post_and_streams_over_http2(tls: Certificates, signals: Signals) -> None:
    async with over_http2(tls) as (live, client):
        response = await client.get(
            "/mirror/?a=1", headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-a", "é".encode())]
        )
        told = response.json()
        assert response.http_version == "HTTP/2"
        assert (told["scheme"], told["secure"], told["get"]) == ("https", True, {"a": ["1"]})
        assert told["cookies"] == {"a": "1", "b": "2"}
        assert told["meta"]["SERVER_PROTOCOL"] == "HTTP/2"
        assert told["uri"] == f"{live.url}/mirror/?a=1", "by :authority"

        body = bytes(range(256)) * 4096
        told = (await client.post("/mirror/", content=body)).json()
        assert told["body"] == body.decode("latin1")

        for path in KINDS:
            response = await client.get(f"/{path}/?size={MIB}")
            assert len(response.content) in (MIB, MIB + 1)
        assert (await client.get("/status/?status=204")).status_code == 204
        assert (await client.head("/sized/?size=1000")).content == b""
    assert signals.names.count("started") == 4 + len(KINDS)


@pytest.mark.trio_only
@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_that_cannot_be_breaks_no_connection(status: int) -> None:
    async with (
        project() as app,
        LiveServer(app) as live,
        httpx.AsyncClient(base_url=live.url, trust_env=False) as client,
    ):
        for _ in range(3):
            response = await client.get(f"/status/?status={status}")
            assert (response.status_code, response.content) == (status, b"")
        assert live.statistics().failures == 0


@pytest.mark.trio_only
async def test_a_stream_over_http2_comes_as_it_is_made(tls: Certificates) -> None:
    async with over_http2(tls) as (_, client), client.stream("GET", "/stream-until/") as response:
        parts = response.aiter_raw()
        assert await anext(parts) == b"one"
        assert (await client.get("/loopless/")).status_code == 200, "beside it, on the same connection"
        asgi_urls.go.set()
        assert [part async for part in parts] == [b"two"]


@pytest.mark.trio_only
@pytest.mark.parametrize("path", ["/wait/", "/wait-in-stream/", "/endless/"])
async def test_a_stream_that_its_client_resets_is_over(path: str, tls: Certificates, signals: Signals) -> None:
    import trio

    async with over_http2(tls) as (live, _):
        port = urlsplit(live.url).port
        assert port is not None
        tls.client.set_alpn_protocols(["h2"])
        raw = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=tls.client)
        async with raw:
            client = H2Client(raw)
            await client.request(1, (":method", "GET"), (":path", path))
            await until(lambda: len(events) > 0)
            client.h2.reset_stream(1)
            await client.flush()
            await until(lambda: signals.names == ["started", "finished"])
            assert b"django lane" in await client.get(3, "/loopless/"), "and the connection goes on"
        assert live.statistics().failures == 0
    assert "stream ended" in events or events == ["begun", "cancelled b''"]
