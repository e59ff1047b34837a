"""A Django project as an ASGI application for HTTP: its synchronous handler, in the lanes of a bridge.

So views, middleware and the ORM run as they do under WSGI, in a thread with connections that last. Async views and
async iterators run on an asyncio loop in another thread, an island, and are cancelled when the client leaves. No thread
waits for an upload, or for a client that is slow to take a response that is there.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from django.conf import settings
from django.core.handlers.exception import response_for_exception
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest, get_script_name
from django.core.signals import request_finished, request_started
from django.http import FileResponse, HttpResponseBase
from django.urls import set_script_prefix

from ..bridge import AsyncioIsland, Bridge, call, checkpoint
from ..bridge.adoption import LaneExecutor, adopted, as_left, changed_since
from ..bridge.island import current_island
from ..bridge.streams import SelfCancelled, chunks_of, in_a_task, no_stray_cancellation
from ..db import DjangoHooks
from ..environ import environ_of
from ..events import Event, Headers, Receive, Scope, Send, printable
from ..exceptions import (
    BridgeClosed,
    BridgeSaturated,
    ConfigError,
    ConnectionClosed,
    NoRoute,
    RequestAborted,
    RequestTimeout,
)
from ..nursery import collapsed
from ..sessions import cookie_headers
from .body import read_body
from .options import Options

log = logging.getLogger("trichannels.django")

CHUNK = 65_536  # bytes of a response that are sent at once
BODILESS = (204, 304)  # statuses of responses that have no body (RFC 9110), nor the length of one: it breaks HTTP/2


class Request(WSGIRequest):  # type: ignore[misc, unused-ignore]
    """Django's request, with the ASGI ``scope`` as its own ASGI handler has it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__(environ)
        self.scope: Scope = environ["asgi.scope"]


class Handler(WSGIHandler):  # type: ignore[misc, unused-ignore]
    """Django's, with our request."""

    request_class = Request


class Answer(NamedTuple):
    """A response that is to be sent: its content, or an async ``stream``, with the context variables that it wants."""

    start: Event
    content: bytes
    stream: Any = None
    variables: dict[ContextVar[Any], Any] = {}  # noqa: RUF012 - never changed


class DjangoHTTP:
    """The project that ``DJANGO_SETTINGS_MODULE`` names, after ``django.setup()``, for scopes of the type ``http``.

    ``bridge``: where requests run; by default one with ``TRICHANNELS["HTTP_LANES"]`` lanes, or ten. A request that
    finds no lane within its ``acquire_timeout`` is answered with 503. ``upload_timeout``: seconds without
    anything of a request's body, after which it is answered with 408.
    """

    handler_class: type[WSGIHandler] = Handler

    def __init__(self, *, bridge: Bridge | None = None, upload_timeout: float = 60.0) -> None:
        if isinstance(upload_timeout, bool) or not isinstance(upload_timeout, int | float) or upload_timeout <= 0:
            raise ConfigError(f"DjangoHTTP(upload_timeout=…) must be seconds above 0, not {upload_timeout!r}")
        lanes = Options.read().HTTP_LANES
        self.bridge = bridge if bridge is not None else Bridge(lanes, name="django", hooks=DjangoHooks)
        self._upload_timeout = upload_timeout
        self._handler = self.handler_class()

    def __repr__(self) -> str:
        return f"<DjangoHTTP on {self.bridge!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise NoRoute(f"DjangoHTTP serves http, not {scope['type']}: put it under 'http' in a ProtocolTypeRouter")
        try:
            body, size = await read_body(
                receive,
                in_memory=settings.FILE_UPLOAD_MAX_MEMORY_SIZE,
                folder=settings.FILE_UPLOAD_TEMP_DIR,
                patience=self._upload_timeout,
            )
        except RequestAborted:
            return
        except RequestTimeout as error:
            await _refuse(send, 408, str(error))
            return
        with body, suppress(ConnectionClosed):  # the client has left
            await self._serve(environ_of(scope, body, size, root=settings.FORCE_SCRIPT_NAME), receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.shutdown":
                await self.bridge.__aexit__()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await self.bridge.__aenter__()
            await send({"type": "lifespan.startup.complete"})

    async def _serve(self, environ: dict[str, Any], receive: Receive, send: Send) -> None:
        island = await current_island()
        open_streams: list[Any] = []  # whose responses nobody has closed yet, even if their answer was lost
        try:
            async with collapsed(), anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                try:
                    answer = await self.bridge.run(self._answer, environ, send, island, open_streams)
                except BridgeSaturated as error:
                    log.error("%s %s: %s", environ["REQUEST_METHOD"], printable(environ["PATH_INFO"]), error)
                    await _refuse(send, 503, "all threads are busy: try again later")
                else:
                    if answer is not None and answer.stream is None:
                        await send(answer.start)
                        await _send_content(send, answer.content)
                    elif answer is not None:
                        await _send_async_stream(answer, send, island, LaneExecutor(self.bridge, group))
                group.cancel_scope.cancel()
        finally:
            for response in open_streams:
                with anyio.CancelScope(shield=True):
                    await self._close(response)

    async def _close(self, response: Any) -> None:
        """Close a stream, in a lane if one is free: what it holds must end in any case."""
        try:
            await self.bridge.run(response.close)
        except (BridgeSaturated, BridgeClosed):
            await to_thread.run_sync(response.close)

    # ---- in a lane

    def _answer(
        self, environ: dict[str, Any], send: Send, island: AsyncioIsland, open_streams: list[Any]
    ) -> Answer | None:
        """Let Django answer; send it, if it is a synchronous stream, or return it."""
        with adopted(island):
            before = copy_context()
            set_script_prefix(get_script_name(environ))
            request_started.send(sender=Handler, environ=environ)
            try:
                response = self._respond(Request(environ))
            except BaseException:
                request_finished.send(sender=Handler)
                checkpoint()  # who was cancelled need not hear of an error that came of that
                raise
            response._handler_class = Handler
            try:
                start = {"type": "http.response.start", "status": response.status_code, "headers": headers_of(response)}
                if environ["REQUEST_METHOD"] == "HEAD" or response.status_code in BODILESS:
                    return Answer(start, b"")
                if not response.streaming:
                    return Answer(start, response.content)
                if response.is_async:
                    answer = Answer(start, b"", response, changed_since(before))
                    open_streams.append(response)
                    return answer
                with no_stray_cancellation():
                    _send_stream(send, start, response)
            finally:
                if response not in open_streams:
                    response.close()
        return None

    def _respond(self, request: Request) -> Any:
        try:
            with no_stray_cancellation():
                return self._handler.get_response(request)
        except SelfCancelled as error:
            return response_for_exception(request, error)


async def _send_async_stream(answer: Answer, send: Send, island: AsyncioIsland, executor: LaneExecutor) -> None:
    """Send an async stream: it is iterated on the island, and no lane waits for it."""
    await send(answer.start)
    around = partial(as_left, answer.variables, executor)
    try:
        async with island.iterating(in_a_task(chunks_of(answer.stream)), around) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                await _send_content(send, chunk, more=True)
    finally:
        executor.close()
    await send({"type": "http.response.body"})


def headers_of(response: HttpResponseBase) -> Headers:
    """Return a response's headers and cookies as ASGI has them."""
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    if response.status_code in BODILESS:
        headers = [header for header in headers if header[0] != b"content-length"]
    return headers + cookie_headers(response)


def _send_stream(send: Send, start: Event, response: Any) -> None:
    """Send a response piece by piece, from the lane that makes them."""
    if isinstance(response, FileResponse):
        response.block_size = CHUNK
    call(send, start)
    for chunk in response:
        checkpoint()
        call(_send_content, send, chunk, more=True)
    call(send, {"type": "http.response.body"})


async def _send_content(send: Send, content: bytes, *, more: bool = False) -> None:
    """Send bytes in pieces, so that a slow client holds no more than one."""
    view = memoryview(content)
    for start in range(0, len(view) or 1, CHUNK):
        piece, end = bytes(view[start : start + CHUNK]), start + CHUNK >= len(view)
        if piece or not more:
            await send({"type": "http.response.body", "body": piece, "more_body": more or not end})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """End a request whose client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    headers += [(b"retry-after", b"1")] if status == 503 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def get_asgi_application() -> Callable[[Scope, Receive, Send], Any]:
    """As ``django.core.asgi.get_asgi_application``: set Django up, and return the project for HTTP."""
    import django

    django.setup(set_prefix=False)
    return DjangoHTTP()
