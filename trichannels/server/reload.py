"""For development: one worker, started again when one of its files changes. Browsers see 1012 and come back."""

import logging
import socket
from collections.abc import Sequence
from pathlib import Path

import trio

from ..exceptions import ConfigError
from .child import Child, Command
from .files import Watch, neighbours
from .parent import MARGIN, Parent

LOG = logging.getLogger("trichannels.server.reload")

EVERY = 0.5  # seconds between two looks at the files
QUIET = 0.1  # seconds without a further change after which an editor has finished writing
GRACE = 0.5  # seconds that the old worker gets to end


class Reloader(Parent):
    """Keeps one worker; one that does not run is left alone until a file changes."""

    def __init__(self, command: Command, sockets: Sequence[socket.socket], drain_time: float, root: str) -> None:
        super().__init__(command, sockets, drain_time)
        self._root = str(Path(root).resolve())
        self._watch = Watch()
        self._changed = False

    async def _hold(self) -> None:
        first = True
        while not self._stopping.is_set():
            self._changed = False
            async with self._open_child() as child:
                await self._attend(child)
            if first and isinstance(child.failure, ConfigError):
                raise child.failure  # a wrong command line: no change of a file mends that
            if not self._changed and not self._stopping.is_set():
                beside = neighbours(self._watch.files, self._root)
                LOG.error("waiting for a file to change: %s", child.failure or f"the worker ended ({child.end})")
                await self._change(beside)
            first = False

    async def _attend(self, child: Child) -> None:
        """Stay with the worker to its end, and bring that about when a file changes."""
        child.on_files = self._watch.add
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_change, child)
            await child.ended()
            nursery.cancel_scope.cancel()

    async def _end_on_change(self, child: Child) -> None:
        if changed := await self._change():
            LOG.info("%s changed: starting again", ", ".join(changed[:3]))
            self._changed = True
            child.drain(GRACE)
            await trio.sleep(GRACE + MARGIN)
            child.kill()

    async def _change(self, beside: set[str] | None = None) -> list[str]:
        """Wait for a change, or for the stop; with ``beside``, a file that is added to these counts too."""
        while not self._stopping.is_set():
            with trio.move_on_after(EVERY):
                await self._stopping.wait()
            changed = self._watch.changed()
            if beside is not None:
                changed += sorted(neighbours(self._watch.files, self._root) - beside)
            if changed:
                await self._quiet()
                return changed
        return []

    async def _quiet(self) -> None:
        """Wait until an editor has finished writing."""
        writing = True
        while writing:
            await trio.sleep(QUIET)
            writing = bool(self._watch.changed())
