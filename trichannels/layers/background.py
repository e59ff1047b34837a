"""The tasks of an open layer: outside of every cancellation but the layer's own end. What they raise is logged.

A layer closes after its last instance; until then a ``disconnect()`` may still publish, also while all around it is
being cancelled. So the tasks that publishing needs cannot hang on the block of whoever opened the layer.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from ..seam import HostTask, spawn_host

log = logging.getLogger("trichannels.layers")


class Background:
    """Tasks that live until ``close()``. The first one that is started brings the task that holds them."""

    __slots__ = ("_group", "_host", "_over", "_stop", "_waiting", "owner")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._host: HostTask | None = None
        self._group: TaskGroup | None = None
        self._stop = anyio.Event()
        self._over = False
        self._waiting: list[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]] = []

    def __repr__(self) -> str:
        state = "over" if self._over else "running" if self._host else "unused"
        return f"<Background of {self.owner}, {state}>"

    def start_soon(self, func: Callable[..., Awaitable[object]], *args: Any) -> bool:
        """Start ``func(*args)`` as a task; what it raises is logged and ends nothing else. Over, it starts nothing."""
        if self._over:
            return False
        if self._host is None:
            self._host = spawn_host(self._hold, f"tasks of {self.owner}")
        if self._group is None:
            self._waiting.append((func, args))
        else:
            self._group.start_soon(self._guarded, func, args, name=func)
        return True

    async def _hold(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            for func, args in self._waiting:
                group.start_soon(self._guarded, func, args, name=func)
            self._waiting.clear()
            await self._stop.wait()
            group.cancel_scope.cancel()

    async def _guarded(self, func: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await func(*args)
        except Exception:
            log.exception("a task of %s failed: %r", self.owner, func)

    async def close(self) -> None:
        """Cancel all tasks and wait, shielded, until they have ended."""
        self._over = True
        self._stop.set()
        if self._host is not None:
            with anyio.CancelScope(shield=True):
                await self._host.wait()
