"""The common frames of RFC 6455 section 5.2, made and taken apart. Pure.

What is common: a whole message or a control message in one masked frame of at most 64 KiB, without extensions.
Everything else, and everything that is wrong, is for the library in ``peer.py``. Where compression is agreed upon
(``deflate.py``), a compressed message in one such frame is common, too.
"""

from typing import Final

try:
    from websockets.speedups import apply_mask  # in C
except ImportError:
    from websockets.utils import apply_mask

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
RSV1 = 0x40  # beside the opcode of a compressed message
INCOMPLETE, UNCOMMON = 0, -1
COMMON: Final = frozenset((0x80 | TEXT, 0x80 | BINARY, 0x80 | CLOSE, 0x80 | PING, 0x80 | PONG))
COMPRESSED: Final = COMMON | {0x80 | RSV1 | TEXT, 0x80 | RSV1 | BINARY}
LONGEST = 0xFFFF


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message, or a control message of at most 125 bytes, as one frame of a server."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x80 | opcode, size, payload)
    if size <= LONGEST:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def next_frame(
    data: bytes | bytearray, start: int, longest: int, common: frozenset[int] = COMMON
) -> tuple[int, bytes, int]:
    """Return the opcode (with RSV1), the payload and the end of the client's frame at ``start``, if it is a common one.

    Instead of an opcode ``INCOMPLETE``, if more bytes must come, or ``UNCOMMON``, also if the payload is longer than
    ``longest`` bytes; the end is ``start`` then.
    """
    there = len(data) - start
    if data[start] not in common:
        return UNCOMMON, b"", start
    if there < 2:
        return INCOMPLETE, b"", start
    size, body = data[start + 1] ^ 0x80, start + 6  # the bit of the mask: without it, size is above 127
    if size > 125:
        if size != 126 or data[start] & CLOSE:  # the bit of all control frames
            return UNCOMMON, b"", start
        if there < 4:
            return INCOMPLETE, b"", start
        size = data[start + 2] << 8 | data[start + 3]
        body += 2
    if size > longest:
        return UNCOMMON, b"", start
    end = body + size
    if end > len(data):
        return INCOMPLETE, b"", start
    return data[start] & 0x7F, apply_mask(data[body:end], data[body - 4 : body]), end


def whole_length(data: bytes | bytearray, start: int) -> int:
    """Return how many bytes the client's frame at ``start`` takes; 0 if too little of its head is there to tell."""
    size = data[start + 1] & 0x7F if len(data) - start > 1 else 127
    more = 0 if size < 126 else 2 if size == 126 else 8
    if len(data) - start < 2 + more:
        return 0
    return 6 + more + (int.from_bytes(data[start + 2 : start + 2 + more], "big") if more else size)


def length_of(size: int) -> int:
    """Return how many bytes of the wire a client's frame with a payload of ``size`` bytes takes at least."""
    return size + (6 if size < 126 else 8 if size <= LONGEST else 14)
