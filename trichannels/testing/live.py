"""``LiveServer``: the application on a real port of loopback, served by our own server, for one block. Needs trio."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from ..events import ASGIApp
from ..exceptions import OutOfTurn
from ..server.config import ServerConfig
from ..server.serving import Server, serve
from ..server.statistics import ServerStatistics
from .errors import TimedOut

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

T = TypeVar("T")

DEFAULTS = {"bind": "127.0.0.1:0", "drain_time": 1.0}
LEEWAY = 5.0
"""Seconds that a server may take beyond its own bounds before its end is forced."""


class LiveServer:
    """Serve ``application`` while the block lasts; ``options`` are those of :func:`trichannels.server.serve`::

        async with LiveServer(app) as live, live.connect("/ws/") as socket:
            await socket.send_message("hi")

    From a test that is not async, such as one that drives a browser, in a thread of its own::

        with LiveServer.in_thread(app) as live:
            page.goto(live.url)

    Port and drain time (1 s) are made for tests; ``bind`` and ``drain_time`` change them. Leaving the block drains the
    server: WebSockets are closed with 1012, ``lifespan.shutdown`` runs, and no task, thread or socket is left.
    Raises what ``serve`` raises: ``ConfigError``, ``StartupFailed``. What the application raises, the server logs.
    """

    def __init__(self, application: ASGIApp, **options: Any) -> None:
        self.application = application
        self.options: dict[str, Any] = DEFAULTS | options
        self._server: Server | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._block: AbstractAsyncContextManager[Self] | None = None

    def __repr__(self) -> str:
        return f"<LiveServer {self._server.addresses[0] if self._server else 'not running'}>"

    @property
    def server(self) -> Server:
        """The running server, to be used from its own event loop."""
        if self._server is None:
            raise OutOfTurn(f"{self!r}: enter its block first")
        return self._server

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end: ``http://127.0.0.1:54321``."""
        return self.server.addresses[0]

    @property
    def ws_url(self) -> str:
        """The same for WebSockets: ``ws://127.0.0.1:54321``."""
        return self.url.replace("http", "ws", 1)

    def statistics(self) -> ServerStatistics:
        """What the server has counted so far; may be called from any thread."""
        return self.server.statistics()

    def connect(self, path: str = "/", **options: Any) -> "AbstractAsyncContextManager[WebSocketConnection]":
        """Open a WebSocket from a real client, and close it with the block.

        Yields a connection of trio-websocket; ``options`` are those of :func:`.client.open_client`: ``subprotocols``,
        ``extra_headers``, ``ssl_context``, … A refusal raises trio-websocket's ``ConnectionRejected``.
        """
        from .client import open_client

        return open_client(self.ws_url + path, **options)

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise OutOfTurn(f"{self!r} has had its block already; make another LiveServer")
        self._block = self._served()
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[Self]:
        failure: BaseException | None = None
        ended = trio.Event()

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            try:
                await serve(self.application, task_status=task_status, **self.options)
            finally:
                ended.set()

        # The error is carried around the nursery, not through it, so no ExceptionGroup is made of it.
        try:
            async with trio.open_nursery() as nursery:
                try:
                    self._server = await nursery.start(run)
                    yield self
                except BaseException as error:  # noqa: BLE001 - raised again below
                    failure = error
                if self._server is not None:
                    self._server.drain()
                    with trio.move_on_after(self._patience()):
                        await ended.wait()
                nursery.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - raised again below
            # The server's own end, which has cancelled the block.
            if failure is None or isinstance(failure, trio.Cancelled):
                failure = group.exceptions[0]
        if failure is not None:
            raise failure

    def _patience(self) -> float:
        settings = ServerConfig.from_options(self.options)
        return settings.drain_time + settings.shutdown_timeout + LEEWAY

    @classmethod
    @contextmanager
    def in_thread(cls, application: ASGIApp, **options: Any) -> "Iterator[LiveServer]":
        """Serve from a thread with an event loop of its own, for a test that has none. ``call`` reaches that loop."""
        live = cls(application, **options)
        running: Future[trio.Event] = Future()
        ended: Future[None] = Future()
        thread = threading.Thread(target=_run_in_thread, args=(live, running, ended), name="LiveServer", daemon=True)
        thread.start()
        done = running.result()
        assert live._token is not None
        try:
            yield live
        finally:
            with suppress(trio.RunFinishedError):  # it has crashed
                live._token.run_sync_soon(done.set)
            thread.join(live._patience() + LEEWAY)
            if thread.is_alive():
                raise TimedOut(f"{live!r} does not stop: something in it blocks its event loop")
        ended.result()

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run an async function in the event loop of a server that ``in_thread`` started, and return its result.

        For a synchronous test that wants to send to a channel layer, say.
        """
        if self._token is None:
            raise OutOfTurn("call() is for LiveServer.in_thread(); inside an async test, just await")
        return trio.from_thread.run(partial(function, *arguments), trio_token=self._token)


def _run_in_thread(live: LiveServer, running: "Future[trio.Event]", ended: "Future[None]") -> None:
    async def main() -> None:
        done = trio.Event()
        async with live:
            live._token = trio.lowlevel.current_trio_token()
            running.set_result(done)
            await done.wait()

    try:
        trio.run(main)
    except BaseException as error:  # noqa: BLE001 - raised in the test's thread
        (ended if running.done() else running).set_exception(error)
    else:
        ended.set_result(None)
