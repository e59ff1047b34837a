"""Whether the peer of a WebSocket is alive: pings, the deadline of their pongs, and a look at the socket itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio
from websockets.frames import Opcode

from .statistics import Counters
from .wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one WebSocket, in seconds and bytes."""

    ping_interval: float
    pong_timeout: float
    close_timeout: float
    max_message_size: int


class Patient(Protocol):
    """What is known of the peer (``peer.Peer``)."""

    ended: tuple[int, str] | None
    on_left_behind: Callable[[], None]

    @property
    def paused(self) -> bool: ...
    def send(self, opcode: Opcode, data: bytes) -> None: ...


class Pulse:
    """Pings one peer. ``answered`` is set by its pong, or when none can be expected because nothing is read."""

    def __init__(self, peer: Patient, wire: Wire, limits: Limits, counters: Counters) -> None:
        self.answered, self.signs_of_life = trio.Event(), 0
        self._expected = b""
        self._peer, self._wire, self._limits, self._counters = peer, wire, limits, counters

    def pong(self, payload: bytes) -> None:
        """A pong came; only the one to the last ping counts (RFC 6455 section 5.5.3 allows others)."""
        if payload == self._expected:
            self.answered.set()

    async def keep(self) -> None:
        """Ping until the peer has left; cut it off if a pong stays out."""
        number = 0
        while self._peer.ended is None:
            await trio.sleep(self._limits.ping_interval)
            number += 1
            if self._peer.paused and self._wire.end.peer_has_left():
                self._peer.on_left_behind()
            # Behind bytes that the peer does not take, a ping would only wait: there the write deadline holds.
            if self._peer.ended is None and not self._wire.busy:
                await self._ping(number.to_bytes(8, "big"))

    async def _ping(self, payload: bytes) -> None:
        self._expected, self.answered, self.signs_of_life = payload, trio.Event(), 0
        self._peer.send(Opcode.PING, payload)
        # No pong can be seen while we do not read, and one may wait behind a long message that still arrives.
        while self._peer.ended is None and not self._peer.paused:
            with trio.move_on_after(self._limits.pong_timeout):
                await self.answered.wait()
                return
            if not self.signs_of_life:
                self._counters.pong_timeouts += 1
                self._wire.lose()
            self.signs_of_life = 0
