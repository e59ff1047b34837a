"""``serve()``: a whole server as one awaitable, for anybody's nursery. Signals and processes are the command line's."""

import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import trio

from ..events import ASGIApp
from ..exceptions import ConfigError
from .config import ServerConfig
from .config_file import hypercorn_config
from .connection import Connection
from .contain import LOG, unwrapped
from .hypercorn_glue import worker_context
from .lifespan import open_lifespan
from .listening import Listener, open_sockets, rights_of, take_connections
from .logs import open_logs
from .shared import Shared
from .statistics import ServerStatistics

MOST_SPREAD = 1.0  # seconds over which a drain spreads its goodbyes
BATCHES = 20
LEAST_SHUTDOWN = 2.0  # seconds that lifespan.shutdown gets even if the drain has used up its time


class Server:
    """A running server, as :func:`serve` reports it by ``task_status.started``. To be used from its own event loop."""

    def __init__(self, shared: Shared, listeners: Sequence[Listener]) -> None:
        self._shared = shared
        self.addresses = [listener.address for listener in listeners]
        """Where it listens, with real ports: ``http://127.0.0.1:8000``, ``https://...`` or ``unix:/path``."""

    def __repr__(self) -> str:
        return f"<Server {', '.join(self.addresses)}{' draining' if self.draining else ''}>"

    def statistics(self) -> ServerStatistics:
        """What the server has counted so far."""
        return self._shared.counters.freeze()

    @property
    def draining(self) -> bool:
        """Whether it is stopping."""
        return self._shared.wall.draining

    def drain(self, seconds: float | None = None) -> None:
        """Begin to stop: everything is down within ``seconds`` (default: ``drain_time``). Does not wait.

        No connection is taken any more, WebSockets are closed with 1012 in batches, idle connections are closed, and
        requests may finish; what still runs shortly before the end is cancelled. Called again, it can only shorten.
        """
        self._shared.wall.bring_to(self._shared.settings.drain_time if seconds is None else seconds)


async def serve(
    app: ASGIApp,
    config: ServerConfig | None = None,
    *,
    shutdown: Callable[[], Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    sockets: Sequence[socket.socket] | None = None,
    **options: Any,
) -> None:
    """Serve an ASGI application on trio until it is drained or cancelled.

    ``config`` and ``options`` are those of :class:`ServerConfig`; an option wins over the config. ``sockets`` are bound
    sockets to listen on instead of ``bind``; they stay the caller's. ``task_status.started`` gets the :class:`Server`
    once connections are taken. When ``shutdown()`` returns, the drain begins; ``serve`` returns when it is over.

    Cancellation: connections are cancelled at once and closed; ``lifespan.shutdown`` still runs, shielded, for at most
    ``shutdown_timeout``. Raises :class:`ConfigError` for a wrong option or an address that cannot be had, and
    :class:`StartupFailed` if the application refuses to start. No exception of a connection or of the application comes
    out of here, except Ctrl-C. Installs no signal handlers.
    """
    settings = ServerConfig.from_options(options, config)
    if settings.workers != 1 or settings.reload:
        raise ConfigError(
            "serve() is one process: 'workers' and 'reload' belong to the command line, trichannels serve"
        )
    if not callable(app):
        raise ConfigError(f"an ASGI application is an async callable, not {app!r}")
    with open_logs(settings) as access, ExitStack() as listening:
        hypercorn = hypercorn_config(settings, LOG, access)
        shared = Shared(app=app, settings=settings, config=hypercorn, context=worker_context(hypercorn))
        listeners = _open_listeners(shared, sockets, listening)
        with _without_groups():
            async with open_lifespan(app, shared.state, settings.startup_timeout, lambda: _shutdown_time(shared)):
                await _run(Server(shared, listeners), shared, listeners, listening, shutdown, task_status)


async def _run(
    server: Server,
    shared: Shared,
    listeners: Sequence[Listener],
    listening: ExitStack,
    shutdown: Callable[[], Awaitable[object]] | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Take and serve connections; leaves when the drain is over."""
    with shared.wall.connections:
        async with shared.engine.running(), trio.open_nursery() as connections:

            def take(sock: socket.socket, listener: Listener) -> None:
                shared.counters.accepted += 1
                connections.start_soon(Connection(shared, sock, listener).run)

            with listening:
                async with trio.open_nursery() as control:
                    for listener in listeners:
                        control.start_soon(take_connections, listener, take)
                        LOG.info("listening on %s", listener.address)
                    control.start_soon(_drain_after, shared.context.terminate.wait, server)  # hypercorn's max_requests
                    if shutdown is not None:
                        control.start_soon(_drain_after, shutdown, server)
                    task_status.started(server)
                    await shared.wall.drained.wait()
                    control.cancel_scope.cancel()
            await shared.context.terminated.set()
            connections.start_soon(_send_away, shared)


async def _drain_after(shutdown: Callable[[], Awaitable[object]], server: Server) -> None:
    await shutdown()
    server.drain()


async def _send_away(shared: Shared) -> None:
    """Say goodbye to each connection; to WebSockets in batches at uneven moments, lest all come back at once."""
    websockets = [connection for connection in shared.connections if connection.is_websocket]
    for connection in shared.connections.difference(websockets):
        connection.go_away()
    random.shuffle(websockets)
    size = -(-len(websockets) // BATCHES) or 1
    for start in range(0, len(websockets), size):
        for connection in websockets[start : start + size]:
            connection.go_away()
        left = max(0.0, shared.wall.moment - trio.current_time())  # a second drain() may have shortened it
        await trio.sleep(random.uniform(0, 2 * min(MOST_SPREAD, left / 10) / BATCHES))  # noqa: S311 - jitter


def _shutdown_time(shared: Shared) -> float:
    """How long lifespan.shutdown may take: what is left of the drain, and a little at least."""
    left = max(LEAST_SHUTDOWN, shared.wall.moment - trio.current_time())
    return min(shared.settings.shutdown_timeout, left)


def _open_listeners(shared: Shared, sockets: Sequence[socket.socket] | None, listening: ExitStack) -> list[Listener]:
    settings, tls = shared.settings, _tls_context(shared)
    rights = rights_of(settings)
    plain = listening.enter_context(open_sockets(shared.config.insecure_bind if tls else (), settings.backlog, rights))
    binds = settings.binds if sockets is None else [f"fd://{sock.fileno()}" for sock in sockets]
    opened = listening.enter_context(open_sockets(binds, settings.backlog, rights))
    return [*(Listener(sock, tls) for sock in opened), *(Listener(sock) for sock in plain)]


def _tls_context(shared: Shared) -> ssl.SSLContext | None:
    try:
        return shared.config.create_ssl_context()
    except (OSError, ValueError) as error:
        names = f"--certfile {shared.settings.certfile}, --keyfile {shared.settings.keyfile}"
        raise ConfigError(f"{names}: not a certificate and its key in PEM form ({error})") from error


@contextmanager
def _without_groups() -> Iterator[None]:
    """Let the one error that ended the server out by itself, not wrapped by each nursery it passed."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrapped(group)
        if error is group:
            raise
        raise error from error.__cause__
