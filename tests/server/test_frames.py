"""Our frames against the library's: whatever it is given, ours says the same, or leaves it to the library."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from trichannels.server.frames import (
    BINARY,
    CLOSE,
    COMMON,
    COMPRESSED,
    INCOMPLETE,
    LONGEST,
    PING,
    PONG,
    TEXT,
    UNCOMMON,
    frame,
    length_of,
    next_frame,
)

pytestmark = pytest.mark.once
SIZES = (0, 1, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 70000)
BOUNDARIES = st.sampled_from(SIZES)
MASK = b"\x37\xfa\x21\x3d"
DATA = (TEXT, BINARY)
CONTROLS = (CLOSE, PING, PONG)


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def head(first: int, size: int, width: int | None = None, *, mask: bool = True) -> bytes:
    """A frame's first bytes; ``width`` is that of the length, in bytes: 0, 2 or 8, or the least."""
    if width is None:
        width = 0 if size < 126 else 2 if size <= LONGEST else 8
    bit = 128 if mask else 0
    if width == 0:
        return bytes([first, bit | size])
    return bytes([first, bit | (126 if width == 2 else 127)]) + struct.pack("!H" if width == 2 else "!Q", size)


def wire(first: int, payload: bytes, width: int | None = None) -> bytes:
    """A client's frame."""
    return head(first, len(payload), width) + MASK + masked(payload)


def by_the_library(data: bytes, longest: int = 2**20) -> tuple[list[Frame], bool]:
    """Return what the library finds in a client's bytes, and whether it finds fault with them."""
    protocol = Protocol(Side.SERVER, state=OPEN, max_size=longest)
    protocol.receive_data(data)
    return [each for each in protocol.events_received() if isinstance(each, Frame)], protocol.parser_exc is not None


def from_us(data: bytes) -> Frame:
    protocol = Protocol(Side.CLIENT, state=OPEN, max_size=2**20)
    protocol.receive_data(data)
    (found,) = protocol.events_received()
    assert isinstance(found, Frame)
    assert protocol.parser_exc is None or found.opcode is Opcode.CLOSE
    return found


# -- what goes out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", DATA)
def test_a_message_is_the_librarys(opcode: int, size: int) -> None:
    payload = b"x" * size
    assert frame(opcode, payload) == Frame(Opcode(opcode), payload).serialize(mask=False)
    assert from_us(frame(opcode, payload)) == Frame(Opcode(opcode), payload)


@pytest.mark.parametrize("size", [0, 2, 124, 125])
@pytest.mark.parametrize("opcode", CONTROLS)
def test_a_control_message_is_the_librarys(opcode: int, size: int) -> None:
    payload = struct.pack("!H", 1000) + b"x" * (size - 2) if size else b""
    assert frame(opcode, payload) == Frame(Opcode(opcode), payload).serialize(mask=False)
    assert from_us(frame(opcode, payload)).data == payload


# -- what comes in


@pytest.mark.parametrize("size", [size for size in SIZES if size <= LONGEST])
@pytest.mark.parametrize("opcode", DATA)
def test_a_common_frame_is_taken(opcode: int, size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    data = wire(0x80 | opcode, payload)
    assert next_frame(data, 0, LONGEST) == (opcode, payload, len(data))
    assert by_the_library(data) == ([Frame(Opcode(opcode), payload)], False)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [0, 5, 125, 126, 300])
def test_a_frame_may_stand_anywhere(kind: type[bytes] | type[bytearray], size: int) -> None:
    data = wire(0x81, b"y" * size)
    for start in range(64):
        found = next_frame(kind(b"\x89" * start + data + b"\x81\x80behind"), start, LONGEST)
        assert found == (TEXT, b"y" * size, start + len(data))
        assert type(found[1]) is bytes


@pytest.mark.parametrize("size", [0, 1, 125, 126, 200])
def test_a_frame_that_is_cut_anywhere_is_not_complete(size: int) -> None:
    data = wire(0x82, b"z" * size)
    for cut in range(1, len(data)):
        assert next_frame(b"ahead" + data[:cut], 5, LONGEST) == (INCOMPLETE, b"", 5), cut
        assert by_the_library(data[:cut]) == ([], False)


@pytest.mark.parametrize("cut", [*range(1, 12), 65535, 65536 + 7])
def test_the_longest_that_is_cut_is_not_complete(cut: int) -> None:
    data = wire(0x82, b"z" * LONGEST)
    assert len(data) == LONGEST + 8
    assert next_frame(data[: min(cut, len(data) - 1)], 0, LONGEST) == (INCOMPLETE, b"", 0)


@pytest.mark.parametrize("first", range(256))
def test_every_first_byte(first: int) -> None:
    """What ours takes, the library takes alike; what the library refuses, ours leaves to it."""
    for payload in (b"", struct.pack("!H", 1000), b"\x03\xe8" + b"h" * 123, b"\x03\xe8" + b"h" * 124):
        data = wire(first, payload)
        opcode, found, end = next_frame(data, 0, LONGEST)
        frames, faulty = by_the_library(data)
        if opcode == UNCOMMON:
            assert (found, end) == (b"", 0)
            assert first not in COMMON or len(payload) > 125
        else:
            assert first in COMMON
            assert (opcode, found, end) == (first & 15, payload, len(data))
            assert frames == [Frame(Opcode(opcode), payload)]
            assert not faulty or opcode == CLOSE
        if faulty and not frames:
            assert opcode == UNCOMMON


@pytest.mark.parametrize("first", range(256))
def test_a_first_byte_alone_is_judged(first: int) -> None:
    assert next_frame(bytes([first]), 0, LONGEST)[0] == (INCOMPLETE if first in COMMON else UNCOMMON)
    assert next_frame(bytes([first]), 0, LONGEST, COMPRESSED)[0] == (INCOMPLETE if first in COMPRESSED else UNCOMMON)


@pytest.mark.parametrize("first", sorted(COMPRESSED - COMMON))
def test_a_compressed_frame_keeps_its_bit(first: int) -> None:
    data = wire(first, b"deflated")
    assert next_frame(data, 0, LONGEST, COMPRESSED) == (first & 0x7F, b"deflated", len(data))


@pytest.mark.parametrize("second", range(128))
@pytest.mark.parametrize("first", sorted(COMMON))
def test_a_frame_without_a_mask_is_never_common(first: int, second: int) -> None:
    for behind in (b"", b"\x00\x05hello", b"\0" * 300):
        assert next_frame(bytes([first, second]) + behind, 0, LONGEST)[0] == UNCOMMON


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_length_of_two_bytes_too_many(size: int) -> None:
    """The library lets them pass, and so do we."""
    data = wire(0x81, b"n" * size, 2)
    assert next_frame(data, 0, LONGEST) == (TEXT, b"n" * size, len(data))
    assert by_the_library(data) == ([Frame(Opcode.TEXT, b"n" * size)], False)
    for control in CONTROLS:
        assert next_frame(wire(0x80 | control, b"", 2), 0, LONGEST)[0] == UNCOMMON


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_length_of_eight_bytes_is_for_the_library(size: int) -> None:
    assert next_frame(wire(0x81, b"n" * size, 8), 0, LONGEST)[0] == UNCOMMON


@pytest.mark.parametrize("longest", [0, 1, 125, 126, 65534])
def test_more_than_the_longest_is_told_by_its_head(longest: int) -> None:
    assert next_frame(wire(0x82, b"m" * longest), 0, longest)[0] == BINARY
    assert next_frame(head(0x82, longest + 1), 0, longest)[0] == UNCOMMON
    assert by_the_library(wire(0x82, b"m" * (longest + 1)), longest)[1]


@given(
    first=st.sampled_from(sorted(COMMON)), payload=st.binary(max_size=300), cut=st.integers(0, 320), start=BOUNDARIES
)
@example(first=0x81, payload=b"x" * 126, cut=133, start=65536)
def test_any_payload_and_cut(first: int, payload: bytes, cut: int, start: int) -> None:
    data = wire(first, payload)[: cut + 1]
    opcode, found, end = next_frame(b"\x81" * start + data, start, LONGEST)
    frames, faulty = by_the_library(data)
    if opcode > 0:
        assert (found, end) == (payload, start + len(data))
        # What a close frame says is for the peer to judge.
        assert frames == [Frame(Opcode(opcode), payload)] or (faulty and opcode == CLOSE)
    else:
        assert end == start
        assert opcode == UNCOMMON or not frames
        assert opcode == UNCOMMON or not faulty


@given(data=st.binary(min_size=1, max_size=40), mask=st.binary(min_size=4, max_size=4))
def test_garbage(data: bytes, mask: bytes) -> None:
    for given_data in (data, b"\x81" + data, b"\x82" + bytes([0x80 | len(data)]) + mask + data):
        opcode, found, end = next_frame(given_data, 0, LONGEST)
        frames, faulty = by_the_library(given_data)
        if opcode > 0:
            assert frames[:1] == [Frame(Opcode(opcode), found)] or (faulty and opcode == CLOSE)
            assert 0 < end <= len(given_data)
        elif opcode == INCOMPLETE:
            assert not frames
            assert not faulty


@given(size=st.one_of(BOUNDARIES, st.integers(0, 2**17)))
def test_the_length_of_a_frame(size: int) -> None:
    assert length_of(size) == len(head(0x82, size)) + 4 + size


def test_the_parsers_error_is_the_librarys() -> None:
    """The kit above would see a fault."""
    frames, faulty = by_the_library(b"\x83\x80\0\0\0\0")
    assert frames == []
    assert faulty
    with pytest.raises(WebSocketException):
        Frame(Opcode.PING, b"x" * 126).check()
