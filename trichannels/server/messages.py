"""From frames to messages, and the bounded queue of messages read ahead of the application. Nothing awaits."""

import codecs
from collections import deque

from websockets.frames import Frame, Opcode

from ..events import Event

MESSAGES = 64
BYTES = 2**16
DECODER = codecs.getincrementaldecoder("utf-8")


def message(text: bool, data: bytes) -> Event:
    """Return the event of a message; raises UnicodeDecodeError for text that is not UTF-8."""
    if text:
        return {"type": "websocket.receive", "text": data.decode(), "bytes": None}
    return {"type": "websocket.receive", "bytes": data, "text": None}


class Assembler:
    """Joins the fragments of a message; sizes are limited by the protocol object that yields the frames."""

    __slots__ = ("_data", "_decoder", "_text", "busy")

    def __init__(self) -> None:
        self._data, self._text = bytearray(), False
        self.busy = False  # in the middle of a message
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, frame: Frame) -> tuple[Event, int] | None:
        """Return a message and its size in bytes once complete.

        Raises UnicodeDecodeError if text is not UTF-8, as soon as its first bad fragment has come.
        """
        self.busy = not frame.fin
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return message(self._text, bytes(frame.data)), len(frame.data)
            self._decoder = DECODER() if self._text else None
        if self._decoder is not None:
            self._decoder.decode(frame.data, frame.fin)
        # One buffer, not a list: fragments may be empty, and there may be a million of them.
        self._data += frame.data
        if not frame.fin:
            return None
        data = bytes(self._data)
        self._data.clear()
        return message(self._text, data), len(data)


class ReadAhead:
    """Messages that were read before the application asked for them; full at 64 messages or 64 KiB.

    One more message, of at most ``max_message_size``, may tip it over; nothing is read while it is full.
    """

    __slots__ = ("_bytes", "_queue")

    def __init__(self) -> None:
        self._queue: deque[tuple[Event, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        return len(self._queue) >= MESSAGES or self._bytes >= BYTES

    def put(self, event: Event, size: int) -> None:
        self._queue.append((event, size))
        self._bytes += size

    def pop(self) -> Event:
        event, size = self._queue.popleft()
        self._bytes -= size
        return event

    def clear(self) -> None:
        self._queue.clear()
        self._bytes = 0
