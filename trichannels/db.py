"""Django's database in threads: what surrounds its connections on a bridge, and a guard against their use on the loop.

Needs Django. Each lane of a bridge has connections of its own, which stay open as ``CONN_MAX_AGE`` says.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar, overload

from anyio.lowlevel import RunVar
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .bridge import Bridge, Hooks, current_bridge, surround_with
from .bridge.adoption import adopt_lanes, adopt_trio
from .bridge.bridge import awaitable_on
from .seam import on_loop

log = logging.getLogger("trichannels.db")

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_TIMEOUT = 5.0  # seconds in which a database server has to take a request to cancel


class DjangoHooks(Hooks):
    """Looks after the connections of one lane: obsolete ones are closed, and no transaction is left open."""

    def __init__(self) -> None:
        self._opened: list[Any] = []  # wrappers that have connected in this thread: what can be interrupted
        _HERE.hooks = self

    def before(self) -> None:
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()

    def after(self) -> None:
        for connection in connections.all(initialized_only=True):
            if _is_lent(connection):
                continue  # a test's own
            if connection.in_atomic_block or _is_in_transaction(connection):
                log.error(
                    "a blocking call has left a transaction open on %r, which is rolled back: "
                    "transaction.atomic() must end where it began; for several calls there is lease(atomic=True)",
                    connection.alias,
                )
                _abandon(connection)
            else:
                connection.close_if_unusable_or_obsolete()

    def transaction(self, using: str | None) -> AbstractContextManager[object]:
        block: AbstractContextManager[object] = transaction.atomic(using=using)
        return block

    def interrupt(self) -> None:
        for wrapper in list(self._opened):
            if (connection := wrapper.connection) is not None:
                _interrupt(wrapper, connection)

    def close(self) -> None:
        connections.close_all()
        for wrapper in self._opened:
            if wrapper.connection is not None and not _is_lent(wrapper):  # in memory: Django keeps those open
                BaseDatabaseWrapper.close(wrapper)  # it goes with this thread, of which Python 3.13 would complain

    def opened(self, wrapper: Any) -> None:
        """A connection was made in this lane's thread."""
        if wrapper not in self._opened:
            self._opened.append(wrapper)


_HERE = threading.local()  # .hooks: those of the lane whose thread this is


def _note(sender: object, connection: Any, **more: object) -> None:
    hooks: DjangoHooks | None = getattr(_HERE, "hooks", None)
    if hooks is not None:
        hooks.opened(connection)


connection_created.connect(_note, dispatch_uid="trichannels.db")
surround_with(DjangoHooks)  # blocking consumers use the ORM, too


def _is_lent(connection: Any) -> bool:
    """Say whether several threads share it: so a test has it, which ends its transaction itself."""
    return bool(connection.allow_thread_sharing)


def _is_in_transaction(connection: Any) -> bool:
    """Say whether one was begun by hand."""
    usual: bool = connection.settings_dict["AUTOCOMMIT"]
    return usual and connection.connection is not None and not connection.get_autocommit()


def _abandon(connection: Any) -> None:
    """Close a connection within a transaction, which the server then rolls back."""
    connection.savepoint_ids.clear()
    connection.atomic_blocks.clear()
    connection.in_atomic_block = False
    connection.needs_rollback = False
    connection.run_on_commit.clear()
    connection.close()


def _interrupt(wrapper: Any, connection: Any) -> None:
    """Ask a driver to give up its statement."""
    if wrapper.vendor == "postgresql" and hasattr(connection, "cancel_safe"):
        connection.cancel_safe(timeout=CANCEL_TIMEOUT)
    elif wrapper.vendor == "postgresql":
        connection.cancel()
    elif wrapper.vendor == "sqlite":
        connection.interrupt()
    else:
        log.warning("a statement on %r runs on though nobody waits: its driver cannot be told", wrapper.alias)


# ---- the loop's own


_BRIDGE: RunVar[Bridge] = RunVar("trichannels_database_bridge")


def database_bridge() -> Bridge:
    """Return the running loop's bridge for the database: the loop's own, or that of ``use_database_bridge``."""
    return _BRIDGE.get(None) or current_bridge()


def use_database_bridge(bridge: Bridge) -> None:
    """Let the database have a bridge of its own in the running loop; its hooks should be :class:`DjangoHooks`."""
    _BRIDGE.set(bridge)


@overload
def database_sync_to_async(
    func: Callable[P, T], *, thread_sensitive: bool = ...
) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def database_sync_to_async(
    func: None = None, *, thread_sensitive: bool = ...
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]: ...
def database_sync_to_async(func: Callable[P, T] | None = None, *, thread_sensitive: bool = True) -> Any:
    """Make a function that uses the ORM awaitable: it runs in a lane of the database's bridge. As a decorator, too.

    In Channels all such calls share one thread; here as many run at once as the bridge has lanes. ``thread_sensitive``
    is taken for Channels' sake. For several calls in one transaction: ``database_bridge().lease(atomic=True)``.
    """
    return database_sync_to_async if func is None else awaitable_on(database_bridge, func)


async def aclose_old_connections() -> None:
    """As in Channels. On a bridge it is never needed: connections are looked at before and after each call."""
    await database_bridge().run(_nothing)


def _nothing() -> None:
    """What hooks surround."""


# ---- Django's async methods

SLICES = "BaseIterable._async_generator.<locals>.next_slice"  # what aiterator() asks for, again and again


def install_async_orm() -> None:
    """From now on, let Django's async methods (``aget()``, ``async for``, ``asave()``, …) work in tasks of trio.

    They are made of asgiref's ``sync_to_async``, which knows asyncio alone. On trio each call runs in a lane of
    :func:`database_bridge`: many at once, cancelled as ``Bridge.run`` is; what a call sets in the context stays there.
    ``aiterator()`` raises: it would need one connection for several calls. What asgiref's ``async_to_sync`` is given in
    a lane runs on the loop's :class:`AsyncioIsland`, and is cancelled with who waits for the lane.
    """
    adopt_trio(_run_for_django)
    adopt_lanes()


async def _run_for_django(func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    if getattr(func, "__qualname__", "") == SLICES:
        raise SynchronousOnlyOperation(
            "aiterator() reads slice after slice over one connection, and on trio each call may have another: "
            "write `async for … in queryset`, or read it all in one function with database_sync_to_async"
        )
    return await database_bridge().run(func, *args, **kwargs)


# ---- the guard


def install_loop_guard() -> None:
    """From now on, whoever uses a connection of Django's in a task, on trio as on asyncio, gets an error.

    Django's own guard asks asyncio alone: on trio the ORM would block the loop, and nobody would notice. Covers new
    connections, and those that the calling thread has. ``DJANGO_ALLOW_ASYNC_UNSAFE`` turns it off, as Django's.
    """
    connection_created.connect(_guard_new, dispatch_uid="trichannels.db.guard")
    for connection in connections.all(initialized_only=True):
        _watch(connection)


def remove_loop_guard() -> None:
    """Undo it, for tests."""
    connection_created.disconnect(dispatch_uid="trichannels.db.guard")
    for connection in connections.all(initialized_only=True):
        if _guarded in connection.execute_wrappers:
            connection.execute_wrappers.remove(_guarded)


def _guard_new(sender: object, connection: Any, **more: object) -> None:
    _watch(connection)
    if _is_misuse():
        connection.close()
        raise _misuse(f"a connection to {connection.alias!r} was opened")


def _watch(connection: Any) -> None:
    if _guarded not in connection.execute_wrappers:
        connection.execute_wrappers.append(_guarded)


def _guarded(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if _is_misuse():
        raise _misuse(f"a query ({str(sql).partition(' ')[0]})")
    return execute(sql, params, many, context)


def _is_misuse() -> bool:
    return on_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def _misuse(what: str) -> SynchronousOnlyOperation:
    return SynchronousOnlyOperation(
        f"{what} in an async task, at {_caller()}: it would block the event loop. "
        "Put the blocking code into a function, and await database_sync_to_async(function)(…)"
    )


def _caller() -> str:
    """Say where the code stands that has called Django."""
    frame = sys._getframe(2)
    while frame.f_back is not None and _is_inner(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _is_inner(filename: str) -> bool:
    return filename == __file__ or f"{os.sep}django{os.sep}" in filename or filename.endswith("contextlib.py")
