"""Sockets end with what let them in: whoever logs out, or may no longer log in, is closed with 4401, in all processes.

Each socket in an ``AuthMiddleware`` is watched from before its session is read. What becomes known of a session or a
user, by Django's signals or by ``close_user`` and ``close_session``, is told on the control channel, once it is
committed. What no signal tells (``QuerySet.update()``, a session that expires) is found by looking again, every now and
then, at the sessions and users of all sockets, with few queries. Session keys travel as hashes.
"""

import hashlib
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import anyio
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import router, transaction
from django.db.transaction import TransactionManagementError

from .bridge.home import awaitable_too, home, this_loop
from .control import Control, go_along, hear, publish
from .db import database_bridge
from .events import WATCH, Scope
from .exceptions import InvalidChannelLayerError
from .seam import on_loop
from .sessions import Held
from .validity import Asked, Verdict, judge_sessions, key_of, user_ids_of

log = logging.getLogger("trichannels.revocation")

REVOKE = "trichannels.revoke"  # the type of the event
WATCHES = "watches"  # under which a loop keeps them
CODE = 4401
REMEMBERED = 60.0  # seconds for which it is known who was revoked, for those who are being read just then
MOST_REMEMBERED = 10_000
CLOSE_TIMEOUT = 2.0  # seconds for closing one socket
LOGGED_OUT, OVER, NO_MORE = "logged out", "the session is over", "not allowed any more"


def hashed(session_key: str) -> str:
    """Return what stands for a session key in other processes; nobody can log in with that."""
    return hashlib.sha256(b"trichannels.session:" + session_key.encode()).hexdigest()


class Watch:
    """One socket: the session with which it came, and whose that is, as soon as somebody has looked."""

    __slots__ = ("close", "expires", "held", "session_key", "unsaved", "user_id", "watches")

    def __init__(self, watches: "Watches", held: Held) -> None:
        self.watches, self.held = watches, held
        self.session_key: str | None = held.store.session_key
        self.user_id: str | None = None  # not known, or nobody
        self.unsaved = False  # its consumer has logged somebody in, and nobody has saved that yet
        self.expires: float | None = None  # when its session does, as far as it is known
        self.close: Callable[[int, str], Coroutine[Any, Any, None]] | None = None
        held.when_saved = self._follow

    def __repr__(self) -> str:
        return f"<Watch of user {self.user_id}>"

    def belongs_to(self, user: Any) -> None:
        """It has been read who it is. From any thread."""
        self.watches.reached(self, None if user is None or user.is_anonymous else key_of(user))

    def moves_to(self, session_key: str | None, user: Any, *, unsaved: bool = False) -> None:
        """It has another session now: its own consumer has logged somebody in, or out. From any thread."""
        self.unsaved = unsaved
        self.watches.rekey(self, session_key)
        self.belongs_to(user)

    def comes_back(self, session_key: str | None, user_id: str | None) -> None:
        """It has not been logged out after all. From any thread."""
        self.watches.rekey(self, session_key)
        self.watches.reached(self, user_id)

    def _follow(self) -> None:
        """The session was saved, perhaps under another key."""
        self.unsaved = False
        if self.held.store.session_key != self.session_key:
            self.watches.rekey(self, self.held.store.session_key)

    def as_asked(self) -> Asked:
        """Return what is to be judged. What is not saved yet is nowhere but here."""
        return Asked(
            self.session_key or "", self.user_id or "", dict(self.held.store.items()) if self.unsaved else None
        )


class Watches:
    """All watched sockets of one loop."""

    def __init__(self) -> None:
        self.alive: set[Watch] = set()
        self.by_session: dict[str, set[Watch]] = defaultdict(set)
        self.by_user: dict[str, set[Watch]] = defaultdict(set)
        self._revoked: OrderedDict[str, float] = OrderedDict()  # users, and when
        self._home = this_loop()

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def known(self) -> list[Watch]:
        """Those of which it is known who it is."""
        return [watch for watches in self.by_user.values() for watch in watches]

    def rekey(self, watch: Watch, session_key: str | None) -> None:
        """Note under which session a socket is. From any thread."""
        self._on_loop(partial(self._rekey, watch, session_key))

    def _on_loop(self, work: Callable[[], None]) -> None:
        """Do it on our loop: now, if that is where we are."""
        if on_loop() and this_loop() is self._home:
            work()
        else:
            self._home.call_soon(work)

    def _rekey(self, watch: Watch, session_key: str | None) -> None:
        if watch.session_key is not None:
            _discard(self.by_session, hashed(watch.session_key), watch)
        watch.session_key = session_key
        if session_key is not None and watch in self.alive:
            self.by_session[hashed(session_key)].add(watch)

    def reached(self, watch: Watch, user_id: str | None) -> None:
        """Note who somebody is. From any thread."""
        self._on_loop(partial(self._note, watch, user_id))

    def _note(self, watch: Watch, user_id: str | None) -> None:
        if watch not in self.alive:
            return
        if watch.user_id is not None:
            _discard(self.by_user, watch.user_id, watch)
        watch.user_id = user_id
        if user_id is not None:
            self.by_user[user_id].add(watch)
            if self._revoked.get(user_id, 0.0) > time.monotonic() - REMEMBERED:
                self._home.start_soon(recheck, [watch])  # it may have been read before that was so

    def note_revoked(self, user_id: str) -> None:
        """Remember that there is something about a user, for those who are being read now."""
        now = time.monotonic()
        self._revoked[user_id] = now
        self._revoked.move_to_end(user_id)
        while len(self._revoked) > MOST_REMEMBERED or next(iter(self._revoked.values())) < now - REMEMBERED:
            self._revoked.popitem(last=False)

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Watch a socket for the block."""
        self.alive.add(watch)
        self.rekey(watch, watch.session_key)
        try:
            yield
        finally:
            self.rekey(watch, None)
            if watch.user_id is not None:
                _discard(self.by_user, watch.user_id, watch)
            self.alive.discard(watch)


def _discard(table: dict[str, set[Watch]], key: str, watch: Watch) -> None:
    watches = table.get(key)
    if watches is not None:
        watches.discard(watch)
        if not watches:
            del table[key]


def watches() -> Watches:
    """Return the running loop's."""
    kept = this_loop().kept
    found: Watches | None = kept.get(WATCHES)
    if found is None:
        found = kept[WATCHES] = Watches()
    return found


def watch_of(scope: Scope) -> Watch | None:
    """Return the watch of a scope, if it has one."""
    watch: Watch | None = scope.get(WATCH)
    return watch


# ---- what is done about it


async def _revoke(control: Control, event: Mapping[str, Any]) -> None:
    """Close, or look again at, the sockets that an event of the control channel is about."""
    all_of_them, user_id, reason = watches(), event.get("user"), str(event.get("reason", LOGGED_OUT))
    if user_id is None:
        await close_all(list(all_of_them.by_session.get(str(event.get("session")), ())), reason)
        return
    all_of_them.note_revoked(user_id)
    theirs = list(all_of_them.by_user.get(user_id, ()))
    if event.get("recheck"):
        await recheck(theirs)
        return
    unread = [watch for watch in all_of_them.alive if watch.user_id is None and watch.session_key is not None]
    ids = await database_bridge().run(user_ids_of, [watch.session_key for watch in unread]) if unread else []
    await close_all(theirs + [watch for watch, found in zip(unread, ids, strict=True) if found == user_id], reason)


async def close_all(these: Iterable[Watch], reason: str) -> None:
    """Close sockets, at once."""
    async with anyio.create_task_group() as group:
        for watch in these:
            group.start_soon(_close, watch, reason)


async def _close(watch: Watch, reason: str) -> None:
    """Close one, in so much time; what goes wrong is its own affair."""
    try:
        with anyio.move_on_after(CLOSE_TIMEOUT):
            if watch.close is not None:
                await watch.close(CODE, reason)
    except Exception:
        log.debug("%r could not be closed", watch, exc_info=True)


async def recheck(these: Sequence[Watch]) -> None:
    """Look again whether sessions and users are still valid, and close the sockets of those that are not."""
    asked = [watch.as_asked() for watch in these]
    if not asked:
        return
    verdicts: list[Verdict] = await database_bridge().run(judge_sessions, asked)
    for valid in (False, True):  # in two steps, each with its reason
        over = [
            watch
            for watch, verdict, was in zip(these, verdicts, asked, strict=True)
            if not verdict.valid and verdict.has_session is valid and watch.as_asked() == was
        ]  # fmt: skip
        await close_all(over, NO_MORE if valid else OVER)
    for watch, verdict in zip(these, verdicts, strict=True):
        watch.expires = verdict.expires


class Rechecking:
    """Looks again, every now and then, at all sockets of which it is known who it is."""

    def __init__(self, every: float) -> None:
        self.every = every

    async def __call__(self, control: Control) -> None:
        """Do it for as long as the control channel is there."""
        await self.run(lambda: control.in_charge)

    async def run(self, in_charge: Callable[[], bool] = lambda: True) -> None:
        """Do it until cancelled: all sockets in each round, and in between those whose session expires."""
        next_round = anyio.current_time() + self.every
        while True:
            await anyio.sleep(self._pause(next_round))
            these = watches().known
            if anyio.current_time() >= next_round:
                next_round = anyio.current_time() + self.every
            else:
                these = [watch for watch in these if watch.expires is not None and watch.expires <= time.time()]
            try:
                await recheck(these if in_charge() else [])
            except Exception as error:  # noqa: BLE001 - the database may be away; it is asked again
                log.warning("sessions and users could not be looked at again: %s: %s", type(error).__name__, error)

    def _pause(self, next_round: float) -> float:
        """Return how long to wait: until the first session expires of which that is known, if it is sooner."""
        expiries = [watch.expires for watch in watches().known if watch.expires is not None]
        left = max(0.1, min(expiries) - time.time() + 0.05) if expiries else self.every
        return min(left, max(0.0, next_round - anyio.current_time()))


# ---- how it is told


@awaitable_too
def close_user(user: Any) -> Any:
    """Close all sockets of a user, in all processes, with 4401: a model's object, or its primary key.

    In blocking code it is told once the transaction is committed; on a loop it is awaited. The user may come back: what
    keeps them out (no longer active, another password) is to be saved before.
    """
    using = getattr(getattr(user, "_state", None), "db", None)
    return _tell({"user": key_of(user), "reason": NO_MORE}, using or _user_database())


@awaitable_too
def close_session(session_key: str) -> Any:
    """Close all sockets that have come with a session, in all processes, with 4401. As ``close_user``."""
    return _tell({"session": hashed(session_key), "reason": OVER}, _session_database())


def _tell(event: dict[str, Any], using: str | None) -> Any:
    event = {"type": REVOKE, **event}
    if on_loop():
        return publish(event)
    _publish_on_commit(event, using)
    return None


def _publish_on_commit(event: dict[str, Any], using: str | None) -> None:
    work = partial(_publish_or_log, event)
    try:
        transaction.on_commit(work, using=using)
    except (ImproperlyConfigured, TransactionManagementError):
        work()  # no such database, or one whose transactions are managed by hand: nobody tells us of their end


def _user_database() -> str:
    """Return the alias of the database to which users are written."""
    alias: str = router.db_for_write(get_user_model())
    return alias


def _session_database() -> str | None:
    """Return the alias of the database to which sessions are written; None for the default one, or none."""
    model = getattr(import_module(settings.SESSION_ENGINE).SessionStore, "get_model_class", None)
    return router.db_for_write(model()) if model is not None else None


def _publish_or_log(event: dict[str, Any]) -> None:
    """Publish; whoever logs out must not fail because a channel layer is away. What is not told is found later."""
    try:
        publish(event)
    except InvalidChannelLayerError as error:  # a layer in memory, in a program that serves nobody
        log.debug("nobody is told that sockets are to be closed: %s", error)
    except Exception as error:  # noqa: BLE001
        log.warning("it could not be told that sockets are to be closed: %s: %s", type(error).__name__, error)


def _logged_out(sender: object, request: Any = None, **more: object) -> None:
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key:
        _signalled({"session": hashed(session_key), "reason": LOGGED_OUT}, _session_database())


def _saved(
    sender: object,
    instance: Any,
    created: bool = False,
    raw: bool = False,
    using: str | None = None,
    update_fields: Iterable[str] | None = None,
    **more: object,
) -> None:
    if not created and not raw and (update_fields is None or {"password", "is_active"} & set(update_fields)):
        _signalled({"user": key_of(instance), "recheck": True}, using)


def _deleted(sender: object, instance: Any, using: str | None = None, **more: object) -> None:
    _signalled({"user": key_of(instance), "recheck": True}, using)


def _signalled(event: dict[str, Any], using: str | None) -> None:
    event = {"type": REVOKE, **event}
    if not on_loop():
        _publish_on_commit(event, using)
    elif (place := home()) is not None:  # a signal that was sent in a task
        place.start_soon(publish, event)


def connect_signals() -> None:
    """From now on, hear what Django tells of users and sessions. By the app, once models are loaded."""
    from django.apps import apps
    from django.contrib.auth.signals import user_logged_out
    from django.db.models.signals import post_delete, post_save

    user_logged_out.connect(_logged_out, dispatch_uid="trichannels.revocation")
    user_model = get_user_model()
    for model in apps.get_models():
        if issubclass(model, user_model):  # its proxies as well
            post_save.connect(_saved, sender=model, dispatch_uid="trichannels.revocation")
            post_delete.connect(_deleted, sender=model, dispatch_uid="trichannels.revocation")


async def _recheck_all(control: Control, event: Mapping[str, Any]) -> None:
    """Something may have been said on the control channel that was not heard."""
    await recheck(watches().known)


hear(REVOKE, _revoke)
hear("layer.dropped", _recheck_all)
hear("layer.resync", _recheck_all)


def recheck_every(seconds: float) -> None:
    """Look again at all sockets every so many seconds, wherever the control channel is heard."""
    go_along(Rechecking(seconds))
