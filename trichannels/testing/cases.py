"""Tests of a Django project: a live server for its whole application, and two ways for async code to see test data.

``TestCase`` and pytest-django's ``db`` keep a test's data in a transaction, which the threads of a bridge do not see on
connections of their own. So either the lane gets the test's connections (``shared_connections``), or the test's thread
is the lane (``on_test_thread``). Both leave one lane, and so one query at a time.
"""

import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, ClassVar, ParamSpec, TypeVar

import anyio
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.test import TransactionTestCase
from django.test.utils import modify_settings

from ..bridge import Bridge, Hooks
from ..bridge.lane import Lane, in_lane
from ..bridge.only import only_bridge
from ..events import ASGIApp, Receive, Scope, Send
from ..layers.configured import configurations_for_tests
from ..routing import get_default_application
from ..seam import as_plain_code, on_loop
from .live import LiveServer

P = ParamSpec("P")
T = TypeVar("T")


# ---- the lane has the test's connections


class TestHooks(Hooks):
    """Leaves a test's connections alone: they are in its transaction, and the test ends them."""

    def transaction(self, using: str | None) -> AbstractContextManager[object]:
        block: AbstractContextManager[object] = transaction.atomic(using=using)
        return block


class LentConnections(TestHooks):
    """Lets its lane use the connections of another thread."""

    def __init__(self, lent: Mapping[str, Any]) -> None:
        self._lent = lent
        for alias, connection in lent.items():
            connections[alias] = connection

    def close(self) -> None:
        for alias in self._lent:
            del connections[alias]


@contextmanager
def lent_connections() -> Iterator[Mapping[str, Any]]:
    """For the block, let other threads use the connections of this one; gives those that are lent, by alias."""
    with as_plain_code():
        lent = {alias: connections[alias] for alias in connections}
    for connection in lent.values():
        connection.inc_thread_sharing()
    try:
        yield lent
    finally:
        for connection in lent.values():
            connection.dec_thread_sharing()


@contextmanager
def shared_connections() -> Iterator[Bridge]:
    """In an async test: for the block, all blocking code of the running loop is run by one lane, on the connections of
    this thread. So it sees what the test has put into the database, and is rolled back with it::

        @pytest.mark.django_db
        async def test_chat():
            with shared_connections():
                async with WebsocketCommunicator(application, "/ws/") as socket: ...

    Meanwhile the test itself must not touch the database, but by ``database_sync_to_async``. Gives the lane's bridge.
    """
    with lent_connections() as lent:
        bridge = Bridge(1, name="test", hooks=partial(LentConnections, lent))
        try:
            with only_bridge(bridge):
                yield bridge
        finally:
            bridge.end()


# ---- the test's thread is the lane


class OneThread(Bridge):
    """A bridge whose only lane is the thread that calls :meth:`work`."""

    def __init__(self) -> None:
        super().__init__(1, name="test thread")
        self.lane = Lane("the test's thread", TestHooks, 5.0, thread=threading.current_thread())

    def _new_lane(self, places: anyio.Semaphore) -> Lane:
        self._lanes.append(self.lane)
        return self.lane

    def _loop_ended(self) -> None:
        """Its thread goes on, and nobody waits for it."""


def run_on_test_thread(func: Callable[..., Awaitable[T]], /, *args: Any, backend: str = "trio") -> T:
    """Run ``await func(*args)`` on an event loop in another thread, with this thread as the only lane of all bridges.

    So all blocking code runs here, on this thread's connections, in its transaction. Returns the result, and raises
    what it raises.
    """
    if on_loop() or in_lane():
        raise RuntimeError("run_on_test_thread() is for blocking tests: in an async one use shared_connections()")
    bridge = OneThread()
    outcome: Future[T] = Future()

    async def main() -> T:
        with only_bridge(bridge):
            return await func(*args)

    def run() -> None:
        try:
            outcome.set_result(anyio.run(main, backend=backend))
        except BaseException as error:  # noqa: BLE001 - raised in the test
            outcome.set_exception(error)
        finally:
            bridge.lane.end()

    thread = threading.Thread(target=run, name="event loop of a test")
    thread.start()
    bridge.lane.serve()
    thread.join()
    return outcome.result()


def on_test_thread(func: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a blocking test of an async one, by :func:`run_on_test_thread`.

    In a ``TestCase``::

        @on_test_thread
        async def test_chat(self): ...
    """

    @wraps(func)
    def test(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_on_test_thread(partial(func, *args, **kwargs))

    del test.__wrapped__  # else pytest and Django look through, and find an async test
    return test


# ---- a live server


class OnLentConnections:
    """Runs an application with one lane, which uses the connections of another thread; for SQLite in memory."""

    def __init__(self, app: ASGIApp, lent: Mapping[str, Any]) -> None:
        self._app, self._lent = app, lent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run it; the lifespan keeps the bridge."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        async with Bridge(1, name="test", hooks=partial(LentConnections, self._lent)) as bridge:
            with only_bridge(bridge):
                await self._app(scope, receive, send)


class ChannelsLiveServerTestCase(TransactionTestCase):  # type: ignore[misc, unused-ignore]
    """A test case with the project's application, WebSockets included, on a real port: for browsers and other clients.

    ``live_server_url`` and ``live_server_ws_url`` say where. ``application``: another one than ``ASGI_APPLICATION``.
    ``serve_static``: whether it serves static files. ``live_server``: the :class:`LiveServer`, whose ``call`` reaches
    its event loop. Layers are made by ``TEST_CONFIG``, where there is one. Data is committed, as in
    ``TransactionTestCase``, so that server and test see the same.
    """

    host = "localhost"
    serve_static = True
    application: ClassVar[Any] = None
    live_server: ClassVar[LiveServer]

    @property
    def live_server_url(self) -> str:
        """``http://localhost:54321``."""
        return self.live_server.url.replace("127.0.0.1", self.host)

    @property
    def live_server_ws_url(self) -> str:
        """``ws://localhost:54321``."""
        return self.live_server_url.replace("http", "ws", 1)

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server, for all tests of the class."""
        super().setUpClass()
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        stack.enter_context(modify_settings(ALLOWED_HOSTS={"append": cls.host}))
        stack.enter_context(configurations_for_tests())
        app = cls._application()
        if any(_is_in_memory(connections[alias]) for alias in connections):
            app = OnLentConnections(app, stack.enter_context(lent_connections()))
        cls.live_server = stack.enter_context(LiveServer.in_thread(app))

    @classmethod
    def _application(cls) -> ASGIApp:
        from ..django.development import StaticFiles

        app = cls.application or get_default_application()
        if not cls.serve_static:
            return app
        if "django.contrib.staticfiles" not in settings.INSTALLED_APPS:
            raise ImproperlyConfigured(
                f"{cls.__qualname__}.serve_static needs 'django.contrib.staticfiles' in INSTALLED_APPS, or to be False"
            )
        return StaticFiles(app)


def _is_in_memory(connection: Any) -> bool:
    return connection.vendor == "sqlite" and bool(connection.is_in_memory_db())
