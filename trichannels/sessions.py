"""Cookies and Django's sessions in the scope of a consumer. Nothing is read before somebody asks for it.

``scope["session"]`` is Django's own store, of whichever engine ``SESSION_ENGINE`` names. Blocking handlers use it as it
is. Async code awaits ``get_session(scope)`` first, which loads it in a lane of the database's bridge; then it may be
read and changed like a dict.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, TypeVar

import anyio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse, HttpResponseBase
from django.http.cookie import parse_cookie
from django.utils.http import http_date

from .bridge.home import home, this_loop
from .db import database_bridge
from .events import ASGIApp, Event, Headers, Receive, Scope, Send
from .exceptions import ConfigError
from .middleware import BaseMiddleware

T = TypeVar("T")

CARRIERS = ("websocket.accept", "http.response.start")  # events that can carry a cookie


class CookieMiddleware(BaseMiddleware):
    """Puts the request's cookies into ``scope["cookies"]``, a dict."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" not in scope:
            raise ConfigError(f"CookieMiddleware needs a scope with headers, which {scope['type']!r} has not")
        if "cookies" not in scope:
            found = [value.decode("latin1") for name, value in scope["headers"] if name == b"cookie"]
            scope = {**scope, "cookies": parse_cookie("; ".join(found))}
        await super().__call__(scope, receive, send)

    @classmethod
    def set_cookie(
        cls,
        message: Event,
        key: str,
        value: str = "",
        max_age: float | timedelta | None = None,
        expires: str | datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Let an event that starts a response, or accepts, set a cookie; options as ``HttpResponse.set_cookie``.

        As in Channels, pages of other sites do not send it (``samesite``) unless they are told otherwise.
        """
        response = HttpResponse()
        response.set_cookie(key, value, max_age, expires, path, domain, secure, httponly, samesite)
        _carry(message, response)

    @classmethod
    def delete_cookie(
        cls, message: Event, key: str, path: str = "/", domain: str | None = None, samesite: str | None = "lax"
    ) -> None:
        """Let it delete one: options as ``HttpResponse.delete_cookie``."""
        response = HttpResponse()
        response.delete_cookie(key, path, domain, samesite)
        _carry(message, response)


def _carry(message: Event, response: HttpResponse) -> None:
    message["headers"] = [*message.get("headers", ()), *cookie_headers(response)]


def cookie_headers(response: HttpResponseBase) -> Headers:
    """Return the headers that set a response's cookies."""
    return [(b"set-cookie", cookie.OutputString().encode("latin1")) for cookie in response.cookies.values()]


class Held:
    """A scope's session and who may touch it: one at a time, for Django's stores are not made for more."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.lock = anyio.Lock()
        self.when_saved: Callable[[], object] = lambda: None

    async def do(self, work: Callable[[], T]) -> T:
        """Do something with the store, in a lane. On a loop that asgiref has made for a lane: in that lane."""
        if this_loop() is not home():
            done: T = await sync_to_async(work)()
            return done
        async with self.lock:
            return await database_bridge().run(work)

    async def save(self) -> None:
        """Save it, in a lane; raises ``UpdateError`` if it has been deleted meanwhile."""
        await self.do(self.store.save)
        self.when_saved()


HELD = "trichannels.session"  # where it is in the scope


def held_in(scope: Scope) -> Held:
    """Return the session of a scope; raises :class:`ConfigError` if nobody has put one there."""
    held: Held | None = scope.get(HELD)
    if held is None:
        raise ConfigError("there is no session in this scope: put SessionMiddlewareStack(…) around the application")
    return held


async def get_session(scope: Scope) -> Any:
    """Return Django's session, loaded: one query, and none without a cookie; again, none at all."""
    held = held_in(scope)
    if not hasattr(held.store, "_session_cache"):
        await held.do(lambda: held.store.keys())  # whatever is asked of it, it has to load for that
    return held.store


async def save_session(scope: Scope) -> None:
    """Save it now: what is changed after the socket was accepted is saved by nobody else.

    Raises Django's ``UpdateError`` if it has been deleted meanwhile: the user has logged out elsewhere.
    """
    await held_in(scope).save()


class SessionMiddleware(BaseMiddleware):
    """Puts Django's session into ``scope["session"]``; within :class:`CookieMiddleware`.

    It is saved, and its cookie set, with the accept of a socket or the start of a response, if it was changed.
    """

    def __init__(self, inner: ASGIApp) -> None:
        super().__init__(inner)
        self._store = import_module(settings.SESSION_ENGINE).SessionStore

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if HELD in scope:
            await super().__call__(scope, receive, send)
            return
        if "cookies" not in scope:
            raise ConfigError("SessionMiddleware needs CookieMiddleware around it: use SessionMiddlewareStack(…)")
        held = Held(self._store(scope["cookies"].get(settings.SESSION_COOKIE_NAME)))
        scope = {**scope, HELD: held, "session": held.store}
        await super().__call__(scope, receive, _Saving(send, held, scope["cookies"]))


class _Saving:
    """A ``send`` that saves the session with the event that can carry its cookie."""

    def __init__(self, send: Send, held: Held, cookies: dict[str, str]) -> None:
        self.passes_on = send
        self._held, self._cookies = held, cookies

    async def __call__(self, message: Event) -> None:
        if message["type"] in CARRIERS and message.get("status", 200) != 500:
            message = await self._with_cookie(message)
        await self.passes_on(message)

    async def _with_cookie(self, message: Event) -> Event:
        store, name = self._held.store, settings.SESSION_COOKIE_NAME
        if not store.accessed and not settings.SESSION_SAVE_EVERY_REQUEST:
            return message
        place = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
        message = dict(message)
        if await self._held.do(store.is_empty):
            if name in self._cookies:
                CookieMiddleware.delete_cookie(message, name, samesite=settings.SESSION_COOKIE_SAMESITE, **place)
            return message
        if store.modified or settings.SESSION_SAVE_EVERY_REQUEST:
            try:
                await self._held.save()
            except UpdateError:
                return message  # deleted meanwhile: the user has logged out elsewhere
            age = None if store.get_expire_at_browser_close() else store.get_expiry_age()
            CookieMiddleware.set_cookie(
                message,
                name,
                store.session_key,
                max_age=age,
                expires=None if age is None else http_date(time.time() + age),
                secure=bool(settings.SESSION_COOKIE_SECURE),
                httponly=bool(settings.SESSION_COOKIE_HTTPONLY),
                samesite=settings.SESSION_COOKIE_SAMESITE,
                **place,
            )
        return message


def SessionMiddlewareStack(inner: ASGIApp) -> CookieMiddleware:
    """Return the application with cookies and a session in its scope."""
    return CookieMiddleware(SessionMiddleware(inner))
