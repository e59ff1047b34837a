"""The process that serves: ``python -m benchmarks.soaking.server KIND [CERTIFICATE]``.

On standard input it takes one command a line, and answers each with one line of JSON; the first line it says holds its
addresses. When its input ends, it stops. ``census``: the numbers. ``trimmed``: memory in use. ``tally``: what happened
in all. ``who``: what the numbers count, for a person to read.
"""

import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio

from trichannels.server import Server, ServerStatistics, serve

from .app import TALLY, application
from .census import Reports, living_objects, living_tasks, open_lanes, resident, take_census, trim

DEADLINES: dict[str, Any] = {
    **dict.fromkeys(("handshake_timeout", "keep_alive_timeout", "body_timeout", "pong_timeout"), 3),
    **dict.fromkeys(("write_timeout", "close_timeout"), 2),
    "ping_interval": 2,
}
STOP_WITHIN = 5.0

Statistics = Callable[[], ServerStatistics | None]


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


class Control:
    """Answers the parent."""

    def __init__(self, statistics: Statistics = lambda: None) -> None:
        self.statistics = statistics
        self.reports = Reports()
        logging.getLogger().addHandler(self.reports)

    async def obey(self) -> None:
        """Answer commands until the parent closes the line."""
        await open_lanes()
        os.set_blocking(0, False)
        while True:
            await anyio.wait_readable(0)
            words = os.read(0, 2**12).decode().split()
            if not words:
                return
            for word in words:
                say(**getattr(self, word)())

    def census(self) -> dict[str, Any]:
        return asdict(take_census(self.statistics()))

    def trimmed(self) -> dict[str, Any]:
        """Resident memory without what is free. Ask once a round: asked again, there is nothing left to trim."""
        trim()
        return {"rss": resident()}

    def who(self) -> dict[str, Any]:
        return {"tasks": Counter(living_tasks()), "objects": living_objects()}

    def tally(self) -> dict[str, Any]:
        """What happened in all, and what is wrong with the log."""
        server = self.statistics()
        counters = {name: getattr(server, name) for name in server.__dataclass_fields__} if server else {}
        return {
            "consumers": TALLY.begun,
            "failures": TALLY.planned,
            "server": counters,
            "complaints": self.reports.complaints(),
        }


async def ours(certificate: str) -> None:
    """``trichannels.server.serve``, with TLS on one port and without on another."""
    import trio

    secure: dict[str, Any] = {
        "certfile": certificate,
        "keyfile": certificate,
        "hypercorn": {"insecure_bind": ["127.0.0.1:0"]},
    }
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, application, bind="127.0.0.1:0", **DEADLINES, **(secure if certificate else {}))
        )
        say(addresses=server.addresses)
        await Control(server.statistics).obey()
        server.drain(STOP_WITHIN)


async def hypercorn(_: str) -> None:
    """Plain hypercorn, with its trio or its asyncio worker, whichever loop runs."""
    from hypercorn.config import Config

    from trichannels.seam import backend

    if backend() == "trio":
        from hypercorn.trio import serve as plain_serve
    else:
        from hypercorn.asyncio import serve as plain_serve  # type: ignore[assignment]
    config, listener = Config(), _listener()
    config.bind, config.graceful_timeout = [f"fd://{listener.detach()}"], STOP_WITHIN
    config.errorlog = logging.getLogger("hypercorn.error")
    await _beside(lambda stopped: plain_serve(application, config, shutdown_trigger=stopped), config.bind[0])  # type: ignore[arg-type]


async def uvicorn(_: str) -> None:
    """uvicorn, on asyncio."""
    from uvicorn import Config
    from uvicorn import Server as Uvicorn

    listener = _listener()
    config = Config(application, ws="websockets-sansio", log_config=None, timeout_graceful_shutdown=int(STOP_WITHIN))
    server = Uvicorn(config)

    async def run(stopped: Callable[[], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_then, stopped, partial(setattr, server, "should_exit", True))
            await server.serve([listener])
            group.cancel_scope.cancel()

    await _beside(run, f"fd://{listener.fileno()}")


async def _then(event: Callable[[], Awaitable[object]], act: Callable[[], object]) -> None:
    await event()
    act()


async def _beside(run: Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, object]], bind: str) -> None:
    stopped = anyio.Event()
    with socket.socket(fileno=os.dup(int(bind.removeprefix("fd://")))) as known:
        address = f"http://127.0.0.1:{known.getsockname()[1]}"
    async with anyio.create_task_group() as group:
        group.start_soon(run, stopped.wait)
        say(addresses=[address])
        await Control().obey()
        stopped.set()


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


KINDS: dict[str, tuple[Callable[[str], Awaitable[None]], str]] = {
    "trichannels": (ours, "trio"),
    "hypercorn-trio": (hypercorn, "trio"),
    "hypercorn-asyncio": (hypercorn, "asyncio"),
    "uvicorn": (uvicorn, "asyncio"),
}
"""How each server is run, and on which loop."""


if __name__ == "__main__":
    main, loop = KINDS[sys.argv[1]]
    anyio.run(main, sys.argv[2] if len(sys.argv) > 2 else "", backend=loop)
