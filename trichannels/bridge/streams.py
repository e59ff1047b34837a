"""Async streams from an island: iterated in a task of asyncio's own, cleaned up, and with their errors in order."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import anyio

from .lane import checkpoint

log = logging.getLogger("trichannels.bridge")


class SelfCancelled(RuntimeError):
    """A view or a stream has raised ``asyncio.CancelledError``, though nobody has cancelled it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("it raised CancelledError, though nobody has cancelled it: has it awaited what was cancelled?")
        self.__cause__ = error


@contextmanager
def no_stray_cancellation() -> Iterator[None]:
    """In a lane: let no CancelledError out. Django takes no notice of it, and on the loop it would stop the server."""
    try:
        yield
    except asyncio.CancelledError as error:
        checkpoint()
        raise SelfCancelled(error) from error


async def chunks_of(stream: Any) -> AsyncGenerator[bytes | Exception, None]:
    """On the island: the chunks of an async stream, then its error, so that this comes after what was before it."""
    try:
        async with aclosing(aiter(stream)) as chunks:
            async for chunk in chunks:
                yield chunk
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        yield SelfCancelled(error)
    except Exception as error:  # noqa: BLE001 - raised by who takes it
        yield error
    finally:
        # Django leaves the project's own iterator to the garbage collector: too late for what it holds.
        close = getattr(getattr(stream, "_iterator", None), "aclose", None)
        if close is not None:
            await close()


async def in_a_task(items: AsyncGenerator[bytes | Exception, None]) -> AsyncIterator[bytes | Exception]:
    """On the island: iterate in a task that is asyncio's own. It is cancelled once, and may await while it cleans up.

    One that anyio has made would be cancelled again at each await, unlike an async view.
    """
    line: asyncio.Queue[Any] = asyncio.Queue()
    room, end, left = asyncio.Semaphore(1), object(), asyncio.Event()

    async def run() -> None:
        try:
            async with aclosing(items) as each:
                async for item in each:
                    await room.acquire()
                    if left.is_set():
                        if isinstance(item, Exception):
                            raise item
                        break
                    line.put_nowait(item)
        except Exception:
            log.exception("a stream has failed after its client had left")
        finally:
            line.put_nowait(end)

    task = asyncio.create_task(run())
    try:
        while (item := await line.get()) is not end:
            room.release()
            yield item
        await task
    finally:
        left.set()
        room.release()
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
