"""The body of a request, as a file that blocking code can read: in memory, or on disk where it is long."""

from collections.abc import Awaitable, Callable
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO

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
    body = Body(in_memory, folder)
    try:
        more = True
        while more:
            event = await _next(receive, patience)
            await body.add(event.get("body") or b"")
            more = event.get("more_body", False)
        return await body.as_file(), body.size
    except BaseException:
        body.close()
        raise


async def _next(receive: Callable[[], Awaitable[Event]], patience: float) -> Event:
    with anyio.move_on_after(patience):
        event = await receive()
        if event["type"] == "http.disconnect":
            raise RequestAborted("the client left before its request was complete")
        return event
    raise RequestTimeout(f"nothing of the request's body came for {patience:g} s")


BLOCK = 65_536  # bytes in which pieces are gathered: a client may send one by one


class Body:
    """What has come of it so far. In memory it stays in blocks: one that grows takes twice its size while it does."""

    def __init__(self, in_memory: int, folder: str | None) -> None:
        self._in_memory, self._folder = in_memory, folder
        self._block = bytearray()
        self._blocks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    async def add(self, piece: bytes) -> None:
        """Take one more piece."""
        self.size += len(piece)
        self._block += piece
        if len(self._block) >= BLOCK:
            await self._put_away()

    async def _put_away(self) -> None:
        """Begin another block; what goes to the disk is written in a thread."""
        block = bytes(self._block)
        self._block.clear()
        if self.size <= self._in_memory:
            self._blocks.append(block)
        else:
            await to_thread.run_sync(self._write, block)

    def _write(self, block: bytes) -> None:
        if self._file is None:
            self._file = TemporaryFile("w+b", dir=self._folder)  # noqa: SIM115 - whoever gets it closes it
            self._file.writelines(self._blocks)
            self._blocks.clear()
        self._file.write(block)

    async def as_file(self) -> IO[bytes]:
        """Return it, at its beginning."""
        await self._put_away()
        if self._file is None:
            return BytesIO(b"".join(self._blocks))
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Let it go."""
        if self._file is not None:
            self._file.close()
