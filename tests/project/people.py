"""Sessions, cookies and queries, for tests of who is there."""

import importlib
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY


def store(key: str | None = None) -> Any:
    return importlib.import_module(settings.SESSION_ENGINE).SessionStore(key)


def make_session(user: Any = None, **values: Any) -> str:
    """Return the key of a session, in which a user may be logged in."""
    session = store()
    session.update(values)
    if user is not None:
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


def with_cookie(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"other=1; {settings.SESSION_COOKIE_NAME}={key}".encode())]


class Counted:
    """The queries that lanes make."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self.queries.append(sql)
        return execute(sql, params, many, context)
