"""The body of a request, as a file that blocking code can read: in memory, or on disk where it is long."""

from collections.abc import Awaitable, Callable
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import anyio
from anyio import to_thread

from ..events import Event
from ..exceptions import RequestAborted, RequestTimeout


async def read_body(
    receive: Callable[[], Awaitable[Event]], *, in_memory: int, folder: str | None, patience: float
) -> tuple[IO[bytes], int]:
    """Read a request's body to its end; return it as a file at its beginning, and its size. No thread waits meanwhile.

    ``in_memory``: bytes beyond which it goes to a file in ``folder``. ``patience``: seconds without anything, after
    which :class:`RequestTimeout` is raised; :class:`RequestAborted` if the client leaves.
    """
    spool = max(in_memory, 1)  # to a spooled file, 0 means that all of it stays in memory
    file = SpooledTemporaryFile(max_size=spool, mode="w+b", dir=folder)  # noqa: SIM115 - the caller closes it
    size = 0
    try:
        while True:
            event: Any = None
            with anyio.move_on_after(patience):
                event = await receive()
            if event is None:
                raise RequestTimeout(f"nothing of the request's body came for {patience:g} s")
            if event["type"] == "http.disconnect":
                raise RequestAborted("the client left before its request was complete")
            if chunk := event.get("body"):
                size += len(chunk)
                if size <= in_memory:
                    file.write(chunk)
                else:
                    await to_thread.run_sync(file.write, chunk)
            if not event.get("more_body"):
                break
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, size  # type: ignore[return-value, unused-ignore]
