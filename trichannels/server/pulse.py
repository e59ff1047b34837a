"""Whether the peers of a server's WebSockets are alive: pings, the deadline of their pongs, and a look at the socket.

And how long a peer may take to leave once it was asked to.
"""

from dataclasses import dataclass
from typing import Protocol

from ..seam import open_wake
from .deadlines import Deadlines, keep
from .frames import PING
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
    """What is known of a peer (``peer.Peer``). ``alive``: something has come from it since it was asked last."""

    wire: Wire
    ended: tuple[int, str] | None
    alive: bool
    expected: bytes

    @property
    def paused(self) -> bool: ...
    @property
    def closed_in_turn(self) -> bool: ...
    def left_behind(self) -> None: ...
    def send(self, opcode: int, data: bytes) -> None: ...


class Pulse:
    """Pings the peers of one server; one task for all."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self._counters = counters
        self._number = 0
        self._bell = open_wake()
        self._resting: Deadlines[Patient] = Deadlines(limits.ping_interval, self._ping, self._bell)
        self._expecting: Deadlines[Patient] = Deadlines(limits.pong_timeout, self._missing, self._bell)
        self._leaving: Deadlines[Patient] = Deadlines(limits.close_timeout, self._cut, self._bell)

    async def run(self) -> None:
        """Ping, and cut off whose pong stays out, for ever."""
        await keep(self._bell, self._resting, self._expecting, self._leaving)

    def begin(self, peer: Patient) -> None:
        """Ping this peer from now on."""
        self._resting.set(peer)

    def leave(self, peer: Patient) -> None:
        """Give this peer ``close_timeout`` seconds to leave, then cut it off."""
        self._leaving.set(peer)

    def end(self, peer: Patient) -> None:
        """Forget this peer: it has left."""
        for deadlines in (self._resting, self._expecting, self._leaving):
            deadlines.clear(peer)

    def pong(self, peer: Patient, payload: bytes) -> None:
        """A pong came; only the one to the last ping counts (RFC 6455 section 5.5.3 allows others)."""
        if payload == peer.expected:
            peer.expected = b""
            self._expecting.clear(peer)
            self._resting.set(peer)

    def _ping(self, peer: Patient) -> None:
        if peer.paused and peer.wire.end.peer_has_left():
            peer.left_behind()
        if peer.ended is not None:
            return
        # Behind bytes that the peer does not take, a ping would only wait: there the write deadline holds.
        if not peer.wire.busy:
            self._number += 1
            peer.expected, peer.alive = self._number.to_bytes(8, "big"), False
            peer.send(PING, peer.expected)
        self._wait_for(peer)

    def _missing(self, peer: Patient) -> None:
        # The pong may wait behind a long message that still arrives, the ping behind bytes that slowly leave.
        if peer.ended is not None or peer.alive or peer.paused or peer.wire.busy:
            peer.alive = False
            self._wait_for(peer)
        else:
            self._counters.pong_timeouts += 1
            peer.wire.lose()

    def _wait_for(self, peer: Patient) -> None:
        """Wait for the pong, or, where none can be seen because nothing is read or written, for the next ping."""
        if peer.ended is None:
            (self._expecting if peer.expected and not peer.paused else self._resting).set(peer)

    def _cut(self, peer: Patient) -> None:
        self._counters.close_timeouts += not peer.closed_in_turn
        peer.wire.lose()
