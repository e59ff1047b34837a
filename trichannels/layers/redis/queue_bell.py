"""Waiting for something new in a stream: a blocking read, on a connection of its own, which takes nothing out.

It exists only while somebody waits. So whoever waits may be cancelled, and the connection may break, at any moment: at
worst the one who waits looks for himself, after the time that he has given.
"""

import logging
from math import inf

import anyio

from ...backoff import Backoff
from ...exceptions import LayerRefused, LayerUnreachable
from .connection import Connection
from .server import RedisServer

log = logging.getLogger("trichannels.layers.redis")

BLOCK = 5.0  # seconds for which a read blocks
ANSWER = 5.0  # seconds beyond that in which its answer has to be there
IDLE = 30.0  # seconds without anybody who waits, after which the connection is given up
BACKOFF = (0.05, 2.0)  # seconds before the next connection: at most, first and last


class Bell:
    """Rings when a stream has got something new."""

    def __init__(self, server: RedisServer, stream: str) -> None:
        self._server, self._stream = server, stream
        self._after = ""  # the newest entry that those who wait know of; "" while nobody waits for news
        self._waiting = 0
        self._wanted, self._rung = anyio.Event(), anyio.Event()

    def __repr__(self) -> str:
        return f"<Bell of {self._stream}, {self._waiting} wait>"

    async def wait(self, after: str, seconds: float) -> None:
        """Return when there is something newer than the entry ``after``, and in ``seconds`` at the latest."""
        self._after = after
        self._waiting += 1
        self._wanted.set()
        try:
            with anyio.move_on_after(seconds):
                await self._rung.wait()
        finally:
            self._waiting -= 1

    def ring(self) -> None:
        """Wake all who wait; they will say what they know then, if they wait again."""
        self._after = ""
        self._rung.set()
        self._rung = anyio.Event()

    async def run(self, *, until_idle: bool = False) -> None:
        """Listen while somebody waits, for ever; or until nobody has waited for ``IDLE`` seconds."""
        backoff = Backoff(*BACKOFF)
        while await self._asked(IDLE if until_idle else inf):
            try:
                async with self._server.dedicated(self._stream) as connection:
                    backoff.reset()
                    await self._listen(connection)
                    continue
            except (LayerUnreachable, LayerRefused) as error:
                log.debug("no news of %s for now: %s", self._stream, error)
            await anyio.sleep(backoff.next())

    async def _asked(self, patience: float) -> bool:
        """Wait until somebody wants news; False if nobody does for so many seconds."""
        with anyio.move_on_after(patience):
            while not (self._waiting and self._after):  # who has asked may have gone again
                self._wanted = anyio.Event()
                await self._wanted.wait()
        return bool(self._waiting and self._after)

    async def _listen(self, connection: Connection) -> None:
        """Ring whenever something comes; returns when nobody has wanted to know for long."""
        while await self._asked(IDLE):
            command = ("XREAD", "COUNT", 1, "BLOCK", round(BLOCK * 1000), "STREAMS", self._stream, self._after)
            if await connection.ask(*command, timeout=BLOCK + ANSWER):
                self.ring()
