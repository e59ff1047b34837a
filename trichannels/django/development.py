"""What ``manage.py runserver`` puts around the project: static files, and a line for each request and socket."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin

from ..events import ASGIApp, Event, Receive, Scope, Send, printable
from .http import DjangoHTTP, Handler

Write = Callable[[str, str, str], None]
"""Takes a line's kind, its text, and who it was."""


class StaticHandler(StaticFilesHandlerMixin, Handler):  # type: ignore[misc, unused-ignore]
    """Django's handler of static files, with our request."""

    def __init__(self) -> None:
        self.base_url = urlparse(self.get_base_url())
        super().__init__()


class StaticHTTP(DjangoHTTP):
    """Serves what ``django.contrib.staticfiles`` finds, as a project would."""

    handler_class = StaticHandler

    def serves(self, path: str) -> bool:
        """Say whether a path is one of a static file."""
        return bool(self._handler._should_handle(path))


class StaticFiles:
    """Serves static files itself, and leaves all else to the application within."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self._files = app, StaticHTTP()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        static = scope["type"] == "http" and self._files.serves(scope["path"])
        await (self._files if static else self.app)(scope, receive, send)


class Narrator:
    """Writes a line for each request, and for each WebSocket that comes and goes."""

    def __init__(self, app: ASGIApp, write: Write) -> None:
        self.app, self._write = app, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        narrated = {"http": _Request, "websocket": _Socket}.get(scope["type"])
        if narrated is None:
            await self.app(scope, receive, send)
            return
        story = narrated(scope, send, self._write)
        try:
            await self.app(scope, receive, story.send)
        finally:
            story.end()


class _Story:
    def __init__(self, scope: Scope, send: Send, write: Write) -> None:
        self._write, self.passes_on = write, send
        self._path = printable(scope["path"])
        host, port = scope.get("client") or ("unix", "")
        self._who = f"{host}:{port}" if port else str(host)
        self._scope = scope

    async def send(self, event: Event) -> None:
        await self.passes_on(event)
        self.heard(event)

    def heard(self, event: Event) -> None:
        """The server has taken this event."""

    def end(self) -> None:
        """The application has returned."""


class _Request(_Story):
    def __init__(self, scope: Scope, send: Send, write: Write) -> None:
        super().__init__(scope, send, write)
        self._began, self._status, self._size = time.perf_counter(), 0, 0

    def heard(self, event: Event) -> None:
        self._status = event.get("status", self._status)
        self._size += len(event.get("body", b""))

    def end(self) -> None:
        kind = KINDS.get(self._status) or KINDS.get(self._status // 100, "HTTP_SERVER_ERROR")
        query = printable(self._scope.get("query_string", b"").decode("latin1"))
        path = f"{self._path}?{query}" if query else self._path
        took = (time.perf_counter() - self._began) * 1000
        what = f"{self._status} {self._size} B" if self._status else "no answer"
        self._write(kind, f"HTTP {self._scope['method']} {path} {what} {took:.0f} ms", self._who)


KINDS = {  # by statuses, or else by their first digits
    1: "HTTP_INFO",
    2: "HTTP_SUCCESS",
    3: "HTTP_REDIRECT",
    4: "HTTP_BAD_REQUEST",
    304: "HTTP_NOT_MODIFIED",
    404: "HTTP_NOT_FOUND",
}


class _Socket(_Story):
    def __init__(self, scope: Scope, send: Send, write: Write) -> None:
        super().__init__(scope, send, write)
        self._accepted, self._refused, self._closed = False, "", ""

    def heard(self, event: Event) -> None:
        if event["type"] == "websocket.accept":
            self._accepted = True
            self._write("HTTP_INFO", f"WebSocket CONNECT {self._path}", self._who)
        elif event["type"] == "websocket.http.response.start":
            self._refused = str(event["status"])
        elif event["type"] == "websocket.close":
            reason = printable(event.get("reason") or "")
            self._closed = f" {event.get('code', 1000)}" + (f" {reason}" if reason else "")

    def end(self) -> None:
        if self._accepted:
            self._write("HTTP_SUCCESS", f"WebSocket DISCONNECT {self._path}{self._closed}", self._who)
        else:
            self._write("HTTP_BAD_REQUEST", f"WebSocket REJECT {self._path} {self._refused or 403}", self._who)


def in_colour(style: Any, kind: str, text: str) -> str:
    """Return a line in the colours that Django gives to such lines."""
    return str(getattr(style, kind, lambda line: line)(text))
