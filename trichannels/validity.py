"""Whether sessions and users are still what they were, for many at once and with few queries. Blocking: for lanes.

What counts is what ``django.contrib.auth.get_user`` looks at: the session, the backend that logged the user in, whether
it lets that user in, and the hash of the password that the session was made with.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.utils import timezone
from django.utils.crypto import constant_time_compare

T = TypeVar("T")

CHUNK = 500  # keys in one query

Data = Mapping[str, Any]


class Found(NamedTuple):
    """A session that is there: what it holds, and when it expires, in seconds since the epoch, if that is known."""

    data: Data
    expires: float | None = None


class Asked(NamedTuple):
    """A session and whose it was: the user's primary key, as sessions hold it. ``unsaved``: its data, if not saved."""

    session_key: str
    user_id: str
    unsaved: Data | None = None


class Verdict(NamedTuple):
    """Whether a session still lets its user in; ``has_session``: whether there is a session at all."""

    valid: bool
    has_session: bool = True
    expires: float | None = None


def judge_sessions(asked: Sequence[Asked]) -> list[Verdict]:
    """Judge sessions, in order."""
    loaded = load_sessions({one.session_key for one in asked if one.unsaved is None})
    found = [loaded.get(one.session_key) if one.unsaved is None else Found(one.unsaved) for one in asked]
    users = load_users([session.data for session in found if session is not None])
    return [_judge(session, one.user_id, users) for session, one in zip(found, asked, strict=True)]


def _judge(session: Found | None, user_id: str, users: Mapping[tuple[str, str], Any]) -> Verdict:
    if session is None:
        return Verdict(False, has_session=False)
    whose = _whose(session.data)
    user = users.get(whose) if whose is not None else None
    valid = user is not None and whose is not None and whose[1] == user_id and _has_hash_of(user, session.data)
    return Verdict(valid, expires=session.expires)


def user_ids_of(session_keys: Sequence[str | None]) -> list[str | None]:
    """Return whose sessions these are: primary keys as text, None for nobody's."""
    sessions = load_sessions({key for key in session_keys if key is not None})
    whose = {key: _whose(found.data) for key, found in sessions.items()}
    return [found[1] if key is not None and (found := whose.get(key)) is not None else None for key in session_keys]


def _whose(data: Data) -> tuple[str, str] | None:
    """Return the path of a session's backend, and the primary key of its user; None if nobody is logged in."""
    try:
        return data[auth.BACKEND_SESSION_KEY], str(data[auth.SESSION_KEY])
    except KeyError:
        return None


# ---- sessions


def load_sessions(keys: Iterable[str]) -> dict[str, Found]:
    """Return the sessions that are there, by key. One query for 500 with Django's database engines."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    load = getattr(store, "load", None)
    if load in (DatabaseStore.load, CachedStore.load):
        return _load_rows(store, sorted(keys))
    if load is CacheStore.load:
        return _load_from_cache(store, sorted(keys))
    return dict(_load_each(store, keys))


def _load_rows(store: Any, keys: Sequence[str]) -> dict[str, Found]:
    found = {}
    rows = store.get_model_class().objects.filter(expire_date__gt=timezone.now())
    for some in _chunks(keys):
        for row in rows.filter(session_key__in=some):
            found[row.session_key] = Found(store().decode(row.session_data), row.expire_date.timestamp())
    return found


def _load_from_cache(store: Any, keys: Sequence[str]) -> dict[str, Found]:
    """Ask the cache itself: the store takes a cache that is away for one that is empty."""
    found = {}
    for some in _chunks(keys):
        names = {store.cache_key_prefix + key: key for key in some}
        for name, data in store()._cache.get_many(list(names)).items():
            found[names[name]] = Found(data)
    return found


def _load_each(store: Any, keys: Iterable[str]) -> Iterator[tuple[str, Found]]:
    for key in keys:
        data = store(key).load()
        if data:
            yield key, Found(data)


# ---- users


def load_users(sessions: Iterable[Data]) -> dict[tuple[str, str], Any]:
    """Return the users that may be in, by backend and primary key. One query for 500, where Django's own looks."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for data in sessions:
        if (whose := _whose(data)) is not None:
            wanted[whose[0]].add(whose[1])
    found = {}
    for path, ids in wanted.items():
        if path in settings.AUTHENTICATION_BACKENDS:
            for pk, user in _load_users(auth.load_backend(path), sorted(ids)):
                found[path, pk] = user
    return found


def _load_users(backend: Any, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from django.contrib.auth.backends import ModelBackend  # a model's: only once the apps are loaded

    model = auth.get_user_model()
    to_python = model._meta.pk.to_python
    if getattr(type(backend), "get_user", None) is not ModelBackend.get_user:
        for pk in ids:
            if (user := backend.get_user(to_python(pk))) is not None:
                yield key_of(user), user
        return
    for some in _chunks(ids):
        for user in model._default_manager.filter(pk__in=[to_python(pk) for pk in some]):
            if backend.user_can_authenticate(user):
                yield key_of(user), user


def key_of(user: Any) -> str:
    """Return the primary key of a user, or of a primary key, as Django writes it into sessions."""
    if not hasattr(user, "_meta"):
        model = auth.get_user_model()
        user = model(pk=model._meta.pk.to_python(user))
    key: str = user._meta.pk.value_to_string(user)
    return key


def _has_hash_of(user: Any, data: Data) -> bool:
    """Say whether a session was made with the password that its user has, under any of the secret keys."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    mark = data.get(auth.HASH_SESSION_KEY)
    if not mark:
        return False
    if constant_time_compare(mark, user.get_session_auth_hash()):
        return True
    others = getattr(user, "get_session_auth_fallback_hash", lambda: ())
    return any(constant_time_compare(mark, other) for other in others())


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
