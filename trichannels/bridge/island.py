"""An asyncio loop in a thread of its own, for libraries that know nothing else, in a program that runs on trio."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing, asynccontextmanager, nullcontext
from typing import Any, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import RunVar

from ..exceptions import BridgeClosed
from ..nursery import collapsed
from ..seam import of_this_loop
from .ending import at_loop_end
from .home import leave_from_home

T = TypeVar("T")

AHEAD = 2  # items that an async iterator may be ahead of who reads it
END = object()


class AsyncioIsland:
    """Runs async functions on an asyncio loop in another thread, for the length of its block.

    Several tasks may call at once: their calls run side by side. Objects of one loop, such as events, locks and
    connections, do not work on the other.
    """

    def __init__(self) -> None:
        self._portal: BlockingPortal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<AsyncioIsland, {'open' if self._portal is not None else 'closed'}>"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its loop; raises :class:`BridgeClosed` if it is not open."""
        if self._loop is None:
            raise BridgeClosed("the island")
        return self._loop

    def _open(self) -> None:
        self._portal = self._stack.enter_context(start_blocking_portal("asyncio", name="asyncio island"))
        self._loop = self._portal.call(asyncio.get_running_loop)

    def _close(self) -> None:
        portal, self._portal, self._loop = self._portal, None, None
        if portal is not None:
            portal.call(portal.stop, True)
        self._stack.close()

    async def __aenter__(self) -> Self:
        await to_thread.run_sync(self._open)
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Calls that are still under way are cancelled, and waited for."""
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._close)

    async def call(self, func: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """Run ``await func(*args)`` there and return its result; raises what it raises.

        Cancelled, it cancels that call, and returns when it has ended. Context variables are copied in, not back.
        """
        if self._portal is None:
            raise BridgeClosed("the island")
        leave_from_home()
        result: T = await self._portal.call_async(func, *args)
        return result

    @asynccontextmanager
    async def iterating(
        self, items: AsyncIterable[T], around: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> AsyncIterator[AsyncIterator[T]]:
        """Iterate there, in one task, over ``items``; the block's own iterator brings them here.

        The task is in the block ``around()``. It is a little ahead, and ends with the block.
        """
        line: asyncio.Queue[Any] = asyncio.Queue()
        room = asyncio.Semaphore(AHEAD)

        async def run() -> None:
            try:
                with around():
                    iterator = aiter(items)
                    closing = aclosing(iterator) if hasattr(iterator, "aclose") else nullcontext(iterator)  # type: ignore[type-var]
                    async with closing as each:
                        async for item in each:
                            await room.acquire()
                            line.put_nowait(item)
            finally:
                line.put_nowait(END)

        async def take() -> Any:
            item = await line.get()
            room.release()
            return item

        async def here() -> AsyncIterator[T]:
            while (item := await self.call(take)) is not END:
                yield item

        async with collapsed(), anyio.create_task_group() as group:
            group.start_soon(self.call, run)
            async with aclosing(here()) as brought:  # type: ignore[type-var]
                yield brought
            group.cancel_scope.cancel()


_ISLAND: RunVar[tuple[AsyncioIsland, anyio.Lock]] = RunVar("trichannels_island")


def _new_island() -> tuple[AsyncioIsland, anyio.Lock]:
    island = AsyncioIsland()
    at_loop_end(island._close)
    return island, anyio.Lock()


async def current_island() -> AsyncioIsland:
    """Return the running loop's island, made on first use; it ends with the loop."""
    island, opening = of_this_loop(_ISLAND, _new_island)
    if island._loop is None:
        async with opening:
            if island._loop is None:
                with anyio.CancelScope(shield=True):
                    await island.__aenter__()
    return island
