"""Events that are kept while a server is away, to be sent once it is back: the option ``unreachable=Buffer(...)``."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from ...exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown, TrichannelsError
from ..history import Position
from .options import Buffer
from .refusals import passing

log = logging.getLogger("trichannels.layers.redis")

Publish = Callable[[str, bytes, str | None], Awaitable[Position | None]]


class Backlog:
    """The events for one server, within the bounds of a :class:`Buffer`; a task of the layer sends them, in order.

    ``publish`` sends an event, its group and its idempotency key. ``pause``: seconds after a refusal that will pass.
    """

    def __init__(self, limits: Buffer, publish: Publish, start_soon: Callable[..., object], pause: float) -> None:
        self._limits, self._publish, self._start_soon, self._pause = limits, publish, start_soon, pause
        self._events: deque[tuple[str, bytes, str | None]] = deque()
        self._size = 0
        self._sending = False

    def __bool__(self) -> bool:
        return bool(self._events)

    def __repr__(self) -> str:
        return f"<Backlog of {len(self._events)} events>"

    def keep(self, group: str, sealed: bytes, key: str | None) -> bool:
        """Keep an event; False if there is no room."""
        if len(self._events) >= self._limits.messages or self._size + len(sealed) > self._limits.bytes:
            return False
        self._events.append((group, sealed, key))
        self._size += len(sealed)
        if not self._sending:
            self._sending = True
            self._start_soon(self._send)
        return True

    async def _send(self) -> None:
        try:
            while self._events:
                if await self._sent(*self._events[0]):
                    self._size -= len(self._events.popleft()[1])
        finally:
            self._sending = False

    async def _sent(self, group: str, sealed: bytes, key: str | None) -> bool:
        """Send the oldest; False if it has to be tried once more."""
        try:
            await self._publish(group, sealed, key)
        except OutcomeUnknown as error:  # to send it once more might send it twice
            log.error("an event to %s that was kept while the server was away: %s", group, error)
        except LayerUnreachable:
            return False  # the deadline of the attempt was the pause
        except TrichannelsError as error:
            if isinstance(error, LayerRefused) and passing(error):
                await anyio.sleep(self._pause)
                return False
            log.error("an event to %s that was kept while the server was away is lost: %s", group, error)
        return True
