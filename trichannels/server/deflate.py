"""permessage-deflate (RFC 7692): what is agreed upon, compressing what is sent, inflating what comes. Pure: no I/O.

Each message stands for itself, in both directions: no compressor or window is kept between two messages.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache, partial

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.typing import ExtensionName

from ..exceptions import TrichannelsError
from .frames import RSV1, frame, length_of

NAME = "permessage-deflate"
ALWAYS = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
WINDOWS = {str(bits): bits for bits in range(8, 16)}
WINDOW = 12  # bits. It, the memory and the level are measured: less for less, or more for little (docs/serving.md)
MEMORY, LEVEL = 5, 3
LEAST = 9  # bits, of zlib's raw deflate
SHORTEST = 128  # bytes; below, there is next to nothing to save

CUT = b"\x00\x00\xff\xff"  # the end of each message, which does not travel (section 7.2.1)
END = CUT + b"\x03\x00"  # and an empty last block: zlib reads it if the message was whole

Framer = Callable[[int, bytes], bytes]
"""Makes a whole message of an opcode and a payload into one frame."""

CHAR = r"[-!#$%&'*+.^_`|~0-9a-zA-Z]"
# RFC 6455 section 9.1: a value may be quoted, and is a token even so.
PARAMETER = re.compile(rf'[ \t]*+;[ \t]*+({CHAR}++)(?:[ \t]*+=[ \t]*+(?:({CHAR}++)|"((?:\\?{CHAR})++)"))?+')
EXTENSION = re.compile(rf"({CHAR}++)((?:{PARAMETER.pattern})*+)")
VALUES = {  # what each parameter may be in an offer (section 7.1)
    "server_no_context_takeover": {""},
    "client_no_context_takeover": {""},
    "server_max_window_bits": set(WINDOWS),
    "client_max_window_bits": {"", *WINDOWS},
}


class MalformedOffer(TrichannelsError):
    """An offer of extensions that RFC 6455 section 9.1 has no reading for."""


def agreed(offers: Iterable[str]) -> tuple[int, str]:
    """Return the bits of our window and our answer to the first offer that can be taken; 0 and nothing if none can.

    Raises :class:`MalformedOffer` if any of them, be it for another extension, is not written as it must be.
    """
    found = [_parse(offer) for offer in offers]
    for name, parameters in found:
        if name == NAME and (bits := _window(parameters)) >= LEAST:
            asked = any(name == "server_max_window_bits" for name, _ in parameters)
            return bits, f"{ALWAYS}; server_max_window_bits={bits}" if asked else ALWAYS
    return 0, ""


def _parse(offer: str) -> tuple[str, list[tuple[str, str]]]:
    match = EXTENSION.fullmatch(offer)
    if match is None:
        raise MalformedOffer(f"an extension is offered as 'name; parameter=value', not as {offer!r}")
    found = PARAMETER.findall(match[2])
    return match[1], [(name, token or quoted.replace("\\", "")) for name, token, quoted in found]


def _window(parameters: list[tuple[str, str]]) -> int:
    """Return the bits of a window that an offer lets us have; 0 if section 7.1 wants it declined."""
    said = dict(parameters)
    if len(said) != len(parameters) or not all(value in VALUES.get(name, ()) for name, value in parameters):
        return 0
    return min(WINDOWS[said.get("server_max_window_bits", "15")], WINDOW)


# -- what goes out


@cache
def framer(bits: int) -> Framer:
    """Return what makes frames for those who agreed to a window of ``bits``: the same for all of them."""
    return partial(_compressed_frame, bits)


def _compressed_frame(bits: int, opcode: int, payload: bytes) -> bytes:
    """As :func:`~.frames.frame`, compressed if it gets smaller by that."""
    if len(payload) >= SHORTEST:
        stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -bits, MEMORY)
        data = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        if len(data) - len(CUT) < len(payload):
            return frame(RSV1 | opcode, data[: -len(CUT)])
    return frame(opcode, payload)


# -- what comes in


def inflate(payload: bytes, longest: int) -> bytes:
    """Return the payload of a message that came in one frame.

    Raises ``PayloadTooBig`` if it has more than ``longest`` bytes, of which no more are made, or ``ProtocolError``.
    """
    return _inflate(zlib.decompressobj(-zlib.MAX_WBITS), payload + END, longest, whole=True)


def _inflate(stream: "zlib._Decompress", data: bytes, longest: int, *, whole: bool) -> bytes:
    try:
        found = stream.decompress(data, longest + 1)  # to zlib, 0 would be no limit
    except zlib.error as error:
        raise ProtocolError("what came compressed cannot be inflated") from error
    if len(found) > longest:
        raise PayloadTooBig(None, longest)
    # Behind a last block, nothing but an empty one may follow (section 7.2.3.4): zlib would gather it for ever.
    if whole > stream.eof or stream.unused_data.removesuffix(END) not in (b"", b"\0"):
        raise ProtocolError("what came compressed ends too early, or too late")
    return found


class Inflater(Extension):
    """Inflates for the library in ``peer.py``. ``gained``: how much longer its frames have become by that, in bytes."""

    name = ExtensionName(NAME)

    def __init__(self) -> None:
        self.gained = 0
        self._stream: zlib._Decompress | None = None  # of the message whose fragments come

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Return the frame as it was before it was compressed; raises what :func:`inflate` raises."""
        if frame.opcode in CTRL_OPCODES or (frame.opcode is Opcode.CONT and (frame.rsv1 or self._stream is None)):
            return frame  # with RSV1, the library refuses it
        if frame.opcode is not Opcode.CONT:
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS) if frame.rsv1 else None
        if self._stream is None:
            return frame
        assert max_size is not None
        data = _inflate(self._stream, bytes(frame.data) + END * frame.fin, max_size, whole=frame.fin)
        if frame.fin:
            self._stream = None
        self.gained += length_of(len(data)) - length_of(len(frame.data))
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Return the frame as it is: what the library sends is control frames, which are not compressed."""
        return frame
