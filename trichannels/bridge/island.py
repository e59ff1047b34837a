"""An asyncio loop in a thread of its own, for libraries that know nothing else, in a program that runs on trio."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..exceptions import BridgeClosed

T = TypeVar("T")


class AsyncioIsland:
    """Runs async functions on an asyncio loop in another thread, for the length of its block.

    Several tasks may call at once: their calls run side by side. Objects of one loop, such as events, locks and
    connections, do not work on the other.
    """

    def __init__(self) -> None:
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<AsyncioIsland, {'open' if self._portal is not None else 'closed'}>"

    async def __aenter__(self) -> Self:
        opened = start_blocking_portal("asyncio", name="asyncio island")
        self._portal = await to_thread.run_sync(self._stack.enter_context, opened)
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Calls that are still under way are cancelled, and waited for."""
        portal, self._portal = self._portal, None
        with anyio.CancelScope(shield=True):
            if portal is not None:
                await portal.call_async(portal.stop, True)
            await to_thread.run_sync(self._stack.close)

    async def call(self, func: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """Run ``await func(*args)`` there and return its result; raises what it raises.

        Cancelled, it cancels that call, and returns when it has ended. Context variables are copied in, not back.
        """
        if self._portal is None:
            raise BridgeClosed("the island")
        result: T = await self._portal.call_async(func, *args)
        return result
