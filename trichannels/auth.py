"""Django's users in the scope of a consumer, by Django's own functions, in a lane; read when somebody asks.

``scope["user"]`` may be used at once in blocking handlers. Async code awaits ``get_user(scope)`` first; from then on
``scope["user"]`` is there as well.
"""

from functools import partial
from io import BytesIO
from typing import Any

from django.contrib import auth
from django.core.exceptions import SynchronousOnlyOperation
from django.core.handlers.wsgi import WSGIRequest
from django.utils.functional import LazyObject, empty

from .environ import environ_of
from .events import WATCH, ASGIApp, Receive, Scope, Send
from .middleware import BaseMiddleware
from .revocation import Watch, close_session, close_user, watch_of, watches
from .seam import on_loop
from .sessions import CookieMiddleware, SessionMiddleware, held_in

__all__ = [
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "close_session",
    "close_user",
    "get_user",
    "login",
    "logout",
]


class LazyUser(LazyObject):  # type: ignore[misc, unused-ignore]
    """Whoever the session says, read when a blocking handler first looks."""

    def __init__(self, scope: Scope) -> None:
        self.__dict__["_scope"] = scope
        super().__init__()

    def _setup(self) -> None:
        if on_loop():
            raise SynchronousOnlyOperation(
                "the user is not known yet: write user = await get_user(self.scope) first (trichannels.auth), "
                "which reads it without blocking the event loop"
            )
        scope = self.__dict__["_scope"]
        self._wrapped = read_user(scope)
        if (watch := watch_of(scope)) is not None:
            watch.belongs_to(self._wrapped)


def request_of(scope: Scope) -> WSGIRequest:
    """Return the request with which a connection began, with its session, for what wants one. In a lane."""
    request = WSGIRequest(environ_of(scope, BytesIO(), 0))
    request.session = held_in(scope).store
    return request


class SteadySession:
    """A session that keeps its key. Django's ``get_user`` gives another to one that was signed with an older secret
    key, which no browser could be told of once its socket is open; the next page does that.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __getitem__(self, key: str) -> Any:
        return self._store[key]

    def __contains__(self, key: str) -> bool:
        return key in self._store

    def __setitem__(self, key: str, value: Any) -> None:
        """Nothing: it is the new mark of a session with another key."""

    def cycle_key(self) -> None:
        """Nothing."""


def read_user(scope: Scope) -> Any:
    """Return the user of a session, by Django's own function. In a lane."""
    request = request_of(scope)
    request.session = SteadySession(request.session)
    return auth.get_user(request)


async def get_user(scope: Scope) -> Any:
    """Return the user of the session, or Django's ``AnonymousUser``. Read once, however many ask."""
    held = held_in(scope)
    lazy = scope.get("user")
    if not isinstance(lazy, LazyUser):
        return lazy if lazy is not None else await held.do(lambda: read_user(scope))
    if lazy._wrapped is empty:
        await held.do(lambda: lazy._setup() if lazy._wrapped is empty else None)
    return lazy._wrapped


async def login(scope: Scope, user: Any, backend: str | None = None) -> None:
    """Log a user in: ``django.contrib.auth.login``. Before the accept, the session is saved and its cookie set with it.

    After that the browser cannot be told of a new session: ``save_session(scope)`` saves what it has.
    """
    held = held_in(scope)
    await held.do(lambda: auth.login(request_of(scope), user, backend))
    _now(scope, user)
    if (watch := watch_of(scope)) is not None:
        watch.moves_to(held.store.session_key, user, unsaved=True)


async def logout(scope: Scope) -> None:
    """Log the user out, and end the session: ``django.contrib.auth.logout``.

    That closes all other sockets of the session; this one is its consumer's own to close.
    """
    from django.contrib.auth.models import AnonymousUser

    held = held_in(scope)

    def work() -> None:
        request = request_of(scope)
        request.user = auth.get_user(request)
        auth.logout(request)

    watch = watch_of(scope)
    before = (watch.session_key, watch.user_id) if watch is not None else (None, None)
    if watch is not None:
        watch.moves_to(None, None)  # what it is about to be told is not meant for this socket
    try:
        await held.do(work)
    except BaseException:
        if watch is not None:
            watch.comes_back(*before)
        raise
    _now(scope, AnonymousUser())


def _now(scope: Scope, user: Any) -> None:
    """Let ``scope["user"]`` be this one, also for who holds the same lazy object in a copy of the scope."""
    lazy = scope.get("user")
    if isinstance(lazy, LazyUser):
        lazy._wrapped = user
    else:
        scope["user"] = user


class AuthMiddleware(BaseMiddleware):
    """Puts the session's user into ``scope["user"]``; within ``SessionMiddleware``.

    The socket is closed, with 4401, when that session ends or that user may no longer be in: see
    :mod:`trichannels.revocation`.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = held_in(scope)
        if "user" in scope:
            await super().__call__(scope, receive, send)
            return
        everybody = watches()
        watch = Watch(everybody, held)
        scope = {**scope, WATCH: watch}
        scope["user"] = LazyUser(scope)
        watch.close = partial(_close, scope["type"], send)  # unless an instance has a better way
        with everybody.watching(watch):
            await super().__call__(scope, receive, send)


async def _close(protocol: str, send: Send, code: int, reason: str) -> None:
    if protocol == "websocket":
        await send({"type": "websocket.close", "code": code, "reason": reason})


def AuthMiddlewareStack(inner: ASGIApp) -> CookieMiddleware:
    """Return the application with cookies, a session and a user in its scope."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))
