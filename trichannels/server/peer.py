"""The peer of a WebSocket over HTTP/1.1: what it sends, and how it leaves.

Whether it is alive is asked in ``pulse.py``; the application's side of the socket is ``transport.py``. Reading goes on
while the application takes nothing, so that pings are answered and a close is noticed; what waits for the application
is bounded, and reading pauses when there is no more room.

The common frames are taken here. At the first other one the library's protocol object takes over, until it stands
between two messages again: then it is dropped, and costs nothing.
"""

import logging
from collections.abc import Callable

import trio
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from ..events import Event
from .deflate import Inflater, inflate
from .engine import Engine
from .frames import (
    BINARY,
    CLOSE,
    COMMON,
    INCOMPLETE,
    LONGEST,
    PONG,
    RSV1,
    TEXT,
    frame,
    length_of,
    next_frame,
    whole_length,
)
from .messages import BYTES, Assembler, ReadAhead, message
from .wire import Wire, nothing

# The protocol object reports each close and each broken frame; the application is told by its events instead.
PROTOCOL_LOG = logging.getLogger("trichannels.server.websocket")
PROTOCOL_LOG.setLevel(logging.CRITICAL)
SLICE = 2**11  # parsed at once by the library: bounds by how many tiny messages the read-ahead may be overshot
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

Put = Callable[[Event, int], bool]
"""Takes a message and its size in bytes; returns whether there is room for another."""


class Protocol(ServerProtocol):
    """The library's, but for a close between the fragments of a message: that is legal, and answered in kind.

    RFC 6455 section 5.4 lets control frames come there; the library answers 1002 (Autobahn's case 7.1.5).
    ``unparsed`` counts the bytes that were given to it and have not come out as frames.
    """

    unparsed = 0
    left = 0  # bytes of the current frame that are still to be given to it, where that matters

    @property
    def between_frames(self) -> bool:
        """Whether all that was given to it has come out."""
        return not self.unparsed + sum(each.gained for each in self.extensions if isinstance(each, Inflater))

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

    __slots__ = (
        "__weakref__",
        "_assembler",
        "_changed",
        "_closed",
        "_closing",
        "_departure",
        "_discarding",
        "_drained",
        "_engine",
        "_has_room",
        "_longest",
        "_parsing",
        "_protocol",
        "_raw",
        "_reader",
        "ahead",
        "alive",
        "common",
        "ended",
        "expected",
        "left",
        "nursery",
        "on_end",
        "on_left_behind",
        "opened",
        "put",
        "wire",
    )

    def __init__(self, wire: Wire, nursery: trio.Nursery, engine: Engine, rest: bytes) -> None:
        self.wire = wire
        self.on_end: Callable[[int, str], None] | None = None
        self.on_left_behind: Callable[[], None] | None = None  # it left, behind messages that nobody reads
        self.put: Put | None = None  # whoever takes messages as they come; else they wait in ``ahead``
        self.ahead: ReadAhead | None = None
        self.common = COMMON  # what frames are common: compressed ones only if that was agreed upon
        self.opened = False  # the handshake was done: frames may travel
        self.alive, self.expected = True, b""  # for the pulse
        self.ended: tuple[int, str] | None = None
        self.left = False  # no byte will come any more, and none will go
        self._departure: trio.Event | None = None
        self.nursery, self._engine = nursery, engine
        self._longest = min(LONGEST, engine.limits.max_message_size)
        self._protocol: Protocol | None = None
        self._assembler: Assembler | None = None
        self._raw: bytes | bytearray = rest
        self._changed: trio.lowlevel.ParkingLot | None = None  # a message arrived, or the end
        self._closed = False  # a close frame has come, and was answered: no frame may travel any more
        self._drained = False  # the last byte has come
        self._has_room, self._discarding, self._closing, self._parsing = True, False, False, False
        self._reader = engine.reader_for(wire, nursery)
        wire.on_lost, wire.on_room = self._lost, self._go_on
        self._regulate()

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the socket at present, for want of room."""
        if self.wire.full:  # pongs to a peer that does not read must not pile up
            return True
        if self._discarding:
            return False
        return not self._has_room if self.opened else len(self._raw) >= BYTES

    @property
    def closed_in_turn(self) -> bool:
        """Whether its close frame has come."""
        return self._closed or (self._protocol is not None and self._protocol.close_rcvd is not None)

    # -- what comes in

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self.alive = True
        if self._protocol is None and not self._raw and self.opened and self._has_room and not self._closed:
            # Nearly always, what comes is one common frame: then it takes the shortest way.
            opcode, payload, end = next_frame(data, 0, self._longest, self.common)
            if end == len(data) and self._take_common(opcode, payload):
                if not self._has_room or self.wire.full:
                    self._regulate()
                return
        if self._raw:
            if isinstance(self._raw, bytes):
                self._raw = bytearray(self._raw)
            self._raw += data
        else:
            self._raw = data
        self.parse()

    def eof(self) -> None:
        """The last byte has come."""
        self._drained = True  # before all else: whoever watched the socket again would be told again and again
        self.end(1006, "")
        if self._protocol is not None:
            self._protocol.receive_eof()
        if self.wire.busy:
            self.nursery.start_soon(self._depart_when_flushed)
        else:
            self._depart()

    async def _depart_when_flushed(self) -> None:
        await self.wire.flushed()
        self._depart()

    def _lost(self) -> None:
        self._reader.forget(self.wire)
        self.end(1006, "")
        self._depart()

    def _depart(self) -> None:
        if not self.left:
            self.left = True
            self.wire.close()
            self._engine.pulse.end(self)
            if self._departure is not None:
                self._departure.set()

    async def gone(self) -> None:
        """Wait until no byte can come or go any more; the socket is closed then. One task may wait."""
        if not self.left:
            self._departure = trio.Event()
            await self._departure.wait()

    def abandon(self) -> None:
        """Have nothing more to do with the socket, whatever state it is in."""
        self._reader.forget(self.wire)
        self._engine.pulse.end(self)
        # Cycles would keep all that a socket had until the garbage collector comes, which costs more than to let go.
        self.on_end = self.on_left_behind = self.put = None
        self.wire.on_lost = self.wire.on_room = nothing
        self.wire.flush()  # the flusher comes when the nursery, which a writer needs, has closed

    def parse(self) -> None:
        """Take what was read, as far as there is room for its messages; pause the reading, or let it go on."""
        if not self._parsing:
            self._parsing = True
            try:
                self._parse()
            finally:
                self._parsing = False
        self._regulate()

    def _parse(self) -> None:
        raw, at = self._raw, 0
        while at < len(raw) and self.opened and not self._closed and not self.paused:
            if self._protocol is None:
                opcode, payload, end = next_frame(raw, at, self._longest, self.common)
                if opcode > 0 and self._take_common(opcode, payload):
                    at = end
                    continue
                if opcode == INCOMPLETE:
                    break
            protocol = self._protocol or self._begin_protocol()
            size = SLICE
            if self.common is not COMMON:  # little may inflate to much: no more than a frame at once
                protocol.left = protocol.left or whole_length(raw, at)
                size = min(SLICE, protocol.left)
                if not size:
                    break
            piece = bytes(raw[at : at + size])
            at += len(piece)
            protocol.left -= len(piece)
            self._take_by_protocol(protocol, piece)
        if self._closed or (self._discarding and not self.opened):
            at = len(raw)
        if at == len(raw):
            self._raw = b""
        elif isinstance(raw, bytearray):
            del raw[:at]  # which moves nothing: little at a time may be taken from much
        elif at:
            self._raw = bytearray(memoryview(raw)[at:])

    def _regulate(self) -> None:
        if self.wire.lost or self._drained or self.paused:
            self._reader.forget(self.wire)
        else:
            self._reader.watch(self.wire, self)

    def _take_common(self, opcode: int, payload: bytes) -> bool:
        """Take a common frame; False if the library should have it."""
        if opcode in (TEXT, BINARY):
            if self._discarding:
                return True
            try:
                event = message(opcode == TEXT, payload)
            except UnicodeDecodeError:
                self._fail(1007, "text that is not UTF-8")
                return True
            if self.put is not None:
                self._has_room = self.put(event, len(payload))
            else:
                self._read_ahead(event, len(payload))
        elif opcode & RSV1:
            return self._take_compressed(opcode, payload)
        elif opcode == CLOSE:
            return self._take_close(payload)
        elif opcode == PONG:
            self._engine.pulse.pong(self, payload)
        else:
            self.wire.write_nowait(frame(PONG, payload))
        return True

    def _take_compressed(self, opcode: int, payload: bytes) -> bool:
        if self._discarding:
            return True
        try:
            data = inflate(payload, self._engine.limits.max_message_size)
        except (ProtocolError, PayloadTooBig):
            return False
        return self._take_common(opcode ^ RSV1, data)

    def _take_close(self, payload: bytes) -> bool:
        """Answer a close frame in kind, and have done (RFC 6455 section 5.5.1); False if there is something wrong."""
        try:
            close = Close.parse(payload)
        except (ProtocolError, UnicodeDecodeError):
            return False
        self._closed = True
        self.wire.write_nowait(frame(CLOSE, payload))
        self.wire.finish()
        self.hurry()
        self.end(int(close.code), close.reason)
        return True

    def _hand_over(self, event: Event, size: int) -> None:
        if self.put is not None:
            self._has_room = self.put(event, size)
        else:
            self._read_ahead(event, size)

    def _read_ahead(self, event: Event, size: int) -> None:
        if self.ahead is None:
            self.ahead = ReadAhead()
        self.ahead.put(event, size)
        self._has_room = not self.ahead.full
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.unpark_all()

    async def news(self) -> None:
        """Wait for a message in ``ahead``, or the end."""
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        await self._changed.park()

    def pop(self) -> Event | None:
        """Return the next message that was read ahead, and go on reading; None if there is none."""
        if self.ahead is None or not self.ahead:
            return None
        event = self.ahead.pop()
        if not self._has_room and not self.ahead.full:
            self.resume()
        return event

    def resume(self) -> None:
        """There is room for messages again."""
        self._has_room = True
        self._go_on()

    def _go_on(self) -> None:
        if self._raw:
            self.parse()
        else:
            self._regulate()

    # -- frames that are not common

    def _begin_protocol(self) -> Protocol:
        self._protocol = Protocol(state=OPEN, max_size=self._engine.limits.max_message_size, logger=PROTOCOL_LOG)
        if self.common is not COMMON:
            self._protocol.extensions = [Inflater()]
        self._assembler = Assembler()
        return self._protocol

    def _take_by_protocol(self, protocol: Protocol, piece: bytes) -> None:
        protocol.receive_data(piece)
        protocol.unparsed += len(piece)
        for received in protocol.events_received():
            if isinstance(received, Frame):
                # Never too much: a length that was not written in the shortest way only keeps the object in charge.
                protocol.unparsed -= length_of(len(received.data))
                self._take(protocol, received)
        self._flush(protocol)
        self._look_for_close(protocol)
        if protocol.state is OPEN and protocol.between_frames and self._between_messages:
            self._protocol = self._assembler = None

    @property
    def _between_messages(self) -> bool:
        # While messages are thrown away, the assembler is not told of fragments.
        return self._assembler is not None and not self._assembler.busy and not self._discarding

    def _take(self, protocol: Protocol, received: Frame) -> None:
        if received.opcode is Opcode.PONG:
            self._engine.pulse.pong(self, bytes(received.data))
        if received.opcode not in DATA or self._discarding or self._assembler is None:
            return
        try:
            found = self._assembler.add(received)
        except UnicodeDecodeError:
            protocol.fail(1007, "text that is not UTF-8")
            self._discarding = True
            return
        if found is not None:
            self._hand_over(*found)

    def _fail(self, code: int, reason: str) -> None:
        protocol = self._begin_protocol()
        protocol.fail(code, reason)
        self._discarding = True
        self._flush(protocol)
        self._look_for_close(protocol)

    def _look_for_close(self, protocol: ServerProtocol) -> None:
        close = protocol.close_rcvd or (protocol.close_sent if protocol.eof_sent else None)
        if close is not None:
            self.end(int(close.code), close.reason)  # the library's own failures come as an enum

    # -- its end

    def end(self, code: int, reason: str) -> None:
        """The socket is over for the application: what was read stays readable, what still comes is thrown away."""
        self._discarding = True  # whoever is told may say that there is room: not for anything behind the end
        if self.ended is None:
            self.ended = code, reason
            self._tell()
            if self.on_end is not None:
                self.on_end(code, reason)
        self.discard()

    def left_behind(self) -> None:
        """It has left, behind messages for which there is no room."""
        if self.on_left_behind is not None:
            self.on_left_behind()

    def discard(self) -> None:
        """Read on to the end of the stream without keeping messages, to learn how the peer leaves."""
        self._discarding = True
        self.parse()

    # -- what goes out

    def open(self) -> None:
        """The handshake is done: parse what the client sent behind it, and begin to ping."""
        self.opened = True
        self._engine.pulse.begin(self)
        self.parse()

    @property
    def takes_frames(self) -> bool:
        """Whether frames may be written: the handshake was done, and no close frame was sent."""
        return self.opened and not self._closed and (self._protocol is None or self._protocol.state is OPEN)

    def send(self, opcode: int, data: bytes) -> None:
        """Frame and write one message; does nothing once a close frame was sent."""
        if self.takes_frames:
            self.wire.write_nowait(frame(opcode, data))

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, unless it has begun; the peer has ``close_timeout`` seconds for its part."""
        if self.takes_frames:
            protocol = self._protocol or self._begin_protocol()
            protocol.send_close(code, reason)
            self._flush(protocol)
        self.hurry()

    def finish(self) -> None:
        """End an HTTP answer that is not a WebSocket: no more bytes from us; the peer may take its time to leave."""
        self.wire.finish()
        self.discard()
        self.hurry()

    def hurry(self) -> None:
        """Give the peer ``close_timeout`` seconds to leave before it is cut off."""
        if not self._closing and not self.left:
            self._closing = True
            self._engine.pulse.leave(self)

    def _flush(self, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                self.wire.write_nowait(data)
            else:
                self.wire.finish()
                self.hurry()
