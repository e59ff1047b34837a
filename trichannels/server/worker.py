"""What a worker process does: it serves on inherited sockets, and listens to its parent. Starting it: ``child``."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import trio

from ..events import ASGIApp
from ..exceptions import ConfigError, StartupFailed
from .config import ServerConfig
from .exits import CLEAN, code_of, run_alone
from .files import imported_files, looks
from .line import Line
from .run import Run, run_server
from .serving import Server
from .signals import leave_interrupts_to_the_parent, obeyed_in_worker

FILES_EVERY = 1.0  # seconds between two looks at what has been imported since


@contextmanager
def inherited(descriptors: Sequence[int]) -> Iterator[tuple[Line, list[socket.socket]]]:
    """Take over what the parent passed: the line, then the listening sockets. Programs started here don't get them."""
    for number in descriptors:
        os.set_inheritable(number, False)
    line, *listening = [socket.socket(fileno=number) for number in descriptors]
    try:
        yield Line(line), listening
    finally:
        for sock in (line, *listening):
            sock.close()


def work(
    load: Callable[[], ASGIApp],
    config: ServerConfig,
    descriptors: Sequence[int],
    started: Callable[[Server], None] = lambda server: None,
) -> int:
    """Serve as a worker until the parent says stop, or is gone; returns the exit code.

    What keeps the application from starting is told to the parent, who shows it once.
    """
    leave_interrupts_to_the_parent()
    if config.reload:
        # Python knows a stale .pyc by its source's size and second of change: two edits within one may look alike.
        sys.dont_write_bytecode = True
    with inherited(descriptors) as (line, listening):
        try:
            app = load()
            if config.reload:
                line.tell(files=looks(imported_files()))
            _serve(app, config, line, listening, started)
        except (ConfigError, StartupFailed) as error:
            if config.reload:
                line.tell(files=looks(imported_files(error)))
            line.tell(failed=str(error), code=code_of(error))
            return code_of(error)
    return CLEAN


def _serve(
    app: ASGIApp,
    config: ServerConfig,
    line: Line,
    listening: Sequence[socket.socket],
    started: Callable[[Server], None],
) -> None:
    def settled(server: Server) -> None:
        for sock in listening:  # serve() has copies, which it closes when the drain begins: let them be the last
            sock.close()
        started(server)
        line.tell(started=True)

    async def beside(process: Run) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, process, line, config.drain_time)
            if config.reload:
                nursery.start_soon(_tell_files, line)

    alone = replace(config, workers=1, reload=False)
    serving = partial(
        run_server, app, alone, started=settled, beside=beside, sockets=listening, obeyed=obeyed_in_worker
    )
    run_alone(serving)


async def _obey(process: Run, line: Line, drain_time: float) -> None:
    async for message in line.messages():
        process.stop(message["drain"])
    process.stop(drain_time)  # the parent is gone


async def _tell_files(line: Line) -> None:
    """Tell which files have been imported since."""
    told: set[str] = set()
    while True:
        if fresh := imported_files() - told:
            line.tell(files=looks(fresh))
            told |= fresh
        await trio.sleep(FILES_EVERY)
