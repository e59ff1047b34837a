"""One server as a process: trio's run, signals, the garbage collector. ``serve()`` itself touches none of these."""

import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from socket import socket

import trio

from ..events import ASGIApp
from .config import ServerConfig
from .serving import Server, serve
from .signals import obeyed_signals

GC_THRESHOLDS = (50_000, 20, 20)
"""How many more objects are made than freed before the collector looks (its own default: 700 or 2,000)."""

Obeyed = Callable[[Callable[[float], None], float], AbstractContextManager[None]]


class Run:
    """The one server of this process, and the way to stop it, whatever it is at."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self.server: Server | None = None
        self.started = trio.Event()

    def start(self, server: Server) -> None:
        self.server = server
        self.started.set()

    def stop(self, seconds: float) -> None:
        """End within so many seconds; may be called again to shorten it. A server that is still starting ends now."""
        if self.server is None:
            self._scope.cancel()
        else:
            self.server.drain(seconds)


async def run_server(
    app: ASGIApp,
    config: ServerConfig,
    *,
    started: Callable[[Server], None] = lambda server: None,
    beside: Callable[[Run], Awaitable[None]] | None = None,
    sockets: Sequence[socket] | None = None,
    obeyed: Obeyed = obeyed_signals,
) -> None:
    """Serve until a signal says stop; ``beside`` runs as long. ``started`` is called once connections are taken.

    Raises what :func:`serve` raises, in groups.
    """
    with trio.CancelScope() as scope:
        process = Run(scope)
        with obeyed(process.stop, config.drain_time):
            async with trio.open_nursery() as others:
                if beside is not None:
                    others.start_soon(beside, process)
                async with trio.open_nursery() as nursery:
                    server = await nursery.start(partial(serve, app, config, sockets=sockets))
                    process.start(server)
                    started(server)
                others.cancel_scope.cancel()


def tune_gc() -> None:
    """Set what the start has made aside, and collect less often: thousands of sockets are long-lived, not garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
