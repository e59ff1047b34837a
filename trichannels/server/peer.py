"""The peer of a WebSocket over HTTP/1.1: what it sends, and how it leaves.

Whether it is alive is asked in ``pulse.py``; the application's side of the socket is ``transport.py``.

One task reads. It goes on while the application does not call ``receive()``, so that pings are answered and a close is
noticed; messages wait in a bounded read-ahead, and reading pauses when that is full.
"""

import logging
from collections.abc import Callable

import trio
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from .messages import BYTES, Assembler, ReadAhead
from .pulse import Limits, Pulse
from .statistics import Counters
from .wire import Wire

# The protocol object reports each close and each broken frame; the application is told by its events instead.
PROTOCOL_LOG = logging.getLogger("trichannels.server.websocket")
PROTOCOL_LOG.setLevel(logging.CRITICAL)
SLICE = 2**11  # parsed at once: bounds by how many tiny messages the read-ahead may be overshot
SENDERS: dict[Opcode, Callable[[ServerProtocol, bytes], None]] = {
    Opcode.TEXT: ServerProtocol.send_text,
    Opcode.BINARY: ServerProtocol.send_binary,
    Opcode.PING: ServerProtocol.send_ping,
}
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Protocol(ServerProtocol):
    """The library's, but for a close between the fragments of a message: that is legal, and answered in kind.

    RFC 6455 section 5.4 lets control frames come there; the library answers 1002 (Autobahn's case 7.1.5).
    """

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """As the library's. It is called for an open socket with a close frame received in that case alone."""
        if self.state is OPEN and self.close_rcvd is not None:
            self.close_sent, self.close_rcvd_then_sent = self.close_rcvd, True
            bare = self.close_rcvd.code == CloseCode.NO_STATUS_RCVD
            self.send_frame(Frame(Opcode.CLOSE, b"" if bare else self.close_rcvd.serialize()))
            self.state = CLOSING
        super().fail(code, reason)


class Peer:
    """The far side of one socket. ``ended`` is its close code and reason, once it has left or was told to leave."""

    def __init__(self, wire: Wire, nursery: trio.Nursery, limits: Limits, counters: Counters, rest: bytes) -> None:
        self.ended: tuple[int, str] | None = None
        self.on_end: Callable[[int, str], None] = lambda code, reason: None
        self.on_left_behind: Callable[[], None] = lambda: None  # it left, behind messages that nobody reads
        self.changed = trio.lowlevel.ParkingLot()  # a message arrived, or the end
        self.left = trio.Event()  # no byte will come any more
        self.ahead = ReadAhead()
        self._wire, self._nursery, self._limits, self._counters = wire, nursery, limits, counters
        self._protocol: Protocol | None = None
        self._assembler = Assembler()
        self._raw = bytearray(rest)
        self._resumed = trio.lowlevel.ParkingLot()
        self._discarding = self._closing = False
        self._pulse = Pulse(self, wire, limits, counters)
        wire.on_lost = lambda: self.end(1006, "")

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the socket at present, for want of room."""
        if self._discarding:
            return False
        return self.ahead.full if self._protocol else len(self._raw) >= BYTES

    @property
    def opened(self) -> bool:
        """Whether the handshake was done, so that frames may travel."""
        return self._protocol is not None

    # -- what comes in

    async def read(self) -> None:
        """Read until the peer's last byte. Never raises but when cancelled."""
        while True:
            if self.paused:
                self._pulse.answered.set()
                await self._resumed.park()
                continue
            await self._wire.room()  # pongs to a peer that does not read must not pile up
            data = await self._wire.read()
            if not data:
                break
            self._pulse.signs_of_life += 1
            self._raw += data
            self.parse()
        if self._protocol is not None:
            self._protocol.receive_eof()
        self.end(1006, "")
        await self._wire.flushed()
        self._wire.close()
        self.left.set()

    def parse(self) -> None:
        """Take what was read, as far as there is room for its messages; let the reader go on if it waits."""
        while self._protocol is not None and self._raw and not self.paused:
            piece = bytes(self._raw[:SLICE])
            del self._raw[:SLICE]
            self._protocol.receive_data(piece)
            for frame in self._protocol.events_received():
                if isinstance(frame, Frame):
                    self._take(self._protocol, frame)
            self._flush(self._protocol)
            self._look_for_close(self._protocol)
        if self._protocol is None and self._discarding:
            self._raw.clear()
        if not self.paused:
            self._resumed.unpark_all()

    def _take(self, protocol: ServerProtocol, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._pulse.pong(bytes(frame.data))
        if frame.opcode not in DATA or self._discarding:
            return
        try:
            message = self._assembler.add(frame)
        except UnicodeDecodeError:
            protocol.fail(1007, "text that is not UTF-8")
            self._discarding = True
            return
        if message is not None:
            self.ahead.put(*message)
            self.changed.unpark_all()

    def _look_for_close(self, protocol: ServerProtocol) -> None:
        close = protocol.close_rcvd or (protocol.close_sent if protocol.eof_sent else None)
        if close is not None:
            self.end(int(close.code), close.reason)  # the library's own failures come as an enum

    def end(self, code: int, reason: str) -> None:
        """The socket is over for the application: what was read stays readable, what still comes is thrown away."""
        if self.ended is None:
            self.ended = code, reason
            self.changed.unpark_all()
            self.on_end(code, reason)
        self.discard()

    def discard(self) -> None:
        """Read on to the end of the stream without keeping messages, to learn how the peer leaves."""
        self._discarding = True
        self.parse()

    # -- what goes out

    def open(self) -> None:
        """The handshake is done: parse what the client sent behind it, and begin to ping."""
        self._protocol = Protocol(state=OPEN, max_size=self._limits.max_message_size, logger=PROTOCOL_LOG)
        self._nursery.start_soon(self._pulse.keep)
        self.parse()

    def send(self, opcode: Opcode, data: bytes) -> None:
        """Frame and write one message; only while not ended."""
        if self._protocol is not None:
            SENDERS[opcode](self._protocol, data)
            self._flush(self._protocol)

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame that was made for many; False if the socket takes no more."""
        if self._protocol is None or self._protocol.state is not OPEN:
            return False
        self._wire.write_nowait(frame)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, unless it has begun; the peer has ``close_timeout`` seconds for its part."""
        if self._protocol is not None and self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush(self._protocol)
        self.hurry()

    def finish(self) -> None:
        """End an HTTP answer that is not a WebSocket: no more bytes from us; the peer may take its time to leave."""
        self._wire.finish()
        self.discard()
        self.hurry()

    def hurry(self) -> None:
        """Give the peer ``close_timeout`` seconds to leave before it is cut off."""
        if not self._closing:
            self._closing = True
            self._nursery.start_soon(self._close_deadline)

    async def _close_deadline(self) -> None:
        with trio.move_on_after(self._limits.close_timeout):
            await self.left.wait()
            return
        if self._protocol is None or self._protocol.close_rcvd is None:
            self._counters.close_timeouts += 1
        self._wire.lose()

    def _flush(self, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                self._wire.write_nowait(data)
            else:
                self._wire.finish()
                self.hurry()
