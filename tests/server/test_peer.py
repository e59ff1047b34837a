"""A peer with its short ways against one without them, that gives each byte by itself to the library: no difference.

And what becomes of what was read but not taken, in whatever way the peer leaves.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import pytest
import trio
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from trichannels.events import Event
from trichannels.server import peer as module
from trichannels.server.deflate import CUT
from trichannels.server.engine import Engine
from trichannels.server.flusher import Flusher
from trichannels.server.frames import CLOSE, COMMON, COMPRESSED, PING, PONG, RSV1, TEXT, UNCOMMON
from trichannels.server.messages import BYTES, MESSAGES
from trichannels.server.peer import Peer
from trichannels.server.pulse import Limits
from trichannels.server.readers import Fed
from trichannels.server.statistics import Counters
from trichannels.server.wire import Wire

from .support import BINARY, frame

LONGEST = 1000
LIMITS = Limits(ping_interval=20, pong_timeout=20, close_timeout=5, max_message_size=LONGEST)
ROOM = 4  # messages


class Pulse:
    def __init__(self) -> None:
        self.pongs: list[bytes] = []
        self.leaving = 0

    def pong(self, peer: Peer, payload: bytes) -> None:
        self.pongs.append(payload)

    def leave(self, peer: Peer) -> None:
        self.leaving += 1

    def begin(self, peer: Peer) -> None: ...
    def end(self, peer: Peer) -> None: ...


class Reader:
    """Reads nothing, but knows whether it should."""

    watching = False

    def watch(self, wire: Wire, fed: Fed) -> None:
        assert not wire.lost
        self.watching = True

    def forget(self, wire: Wire) -> None:
        self.watching = False


class End:
    """An end that takes ``taken`` bytes at once, and what is left once it is told to."""

    descriptor = -1

    def __init__(self) -> None:
        self.sent, self.taken = bytearray(), 2**20
        self.finished = self.gone = self.broken = False
        self.taking = trio.Event()

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise BrokenPipeError
        assert not self.finished
        piece = bytes(data[: self.taken])
        self.sent += piece
        return len(piece)

    async def send_some(self, data: memoryview) -> int:
        await self.taking.wait()
        return self.send_nowait(data)

    def finish_nowait(self) -> bool:
        self.finished = True
        return True

    async def finish(self) -> None:
        self.finish_nowait()

    def close(self) -> None:
        self.gone = True

    abort = close

    def let_go(self) -> None:
        self.taken = 2**20
        self.taking.set()


class Case:
    """A peer, and an application that is fed (``fed``), or else reads ahead."""

    def __init__(
        self, nursery: trio.Nursery, *, fed: bool, room: int = ROOM, opened: bool = True, compressed: bool = False
    ) -> None:
        self.end, self.reader, self.pulse = End(), Reader(), Pulse()
        engine = Engine(LIMITS, Counters())
        engine.pulse = cast(Any, self.pulse)
        wire = Wire(cast(Any, self.end), nursery, engine.counters, Flusher(), limit=300, timeout=5)
        with mock.patch.object(engine, "reader_for", return_value=self.reader):
            self.peer = Peer(wire, nursery, engine, b"")
        self.messages: list[Event] = []
        self.waiting: list[Event] = []
        self.ends: list[tuple[int, str]] = []
        self.room, self.most = room, 0
        self.peer.on_end = self._on_end
        self.peer.common = COMPRESSED if compressed else COMMON
        if fed:
            self.peer.put = self._put
        if opened:
            self.peer.open()

    def _put(self, event: Event, size: int) -> bool:
        assert not self.ends, "a message behind the end"
        self.waiting.append(event)
        self.most = max(self.most, len(self.waiting))
        return len(self.waiting) < self.room

    def _on_end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        if self.peer.put is not None:
            self.peer.resume()  # as an inbox that takes no more does

    def take(self, count: int = 1) -> int:
        """Have the application take ``count`` messages; return how many there were."""
        taken = 0
        while taken < count:
            if self.peer.put is None:
                event = self.peer.pop()
                if event is None:
                    break
                self.messages.append(event)
            elif self.waiting:
                self.messages.append(self.waiting.pop(0))
                if len(self.waiting) == self.room - 1:
                    self.peer.resume()
            else:
                break
            taken += 1
        return taken

    def feed(self, data: bytes) -> None:
        """Bring bytes, once they would be read."""
        while not self.reader.watching:
            if not self.take():
                return
        self.peer.feed(data)

    def leave(self) -> None:
        while not self.reader.watching and self.take():
            pass
        if self.reader.watching:
            self.peer.eof()
        assert not self.reader.watching

    def outcome(self) -> "Outcome":
        self.take(10**6)
        assert len(self.ends) <= 1
        assert self.peer.ended == (self.ends[0] if self.ends else None)
        assert not self.peer._raw or self.peer.left or not self.peer.paused
        return Outcome(
            *(self.messages, bytes(self.end.sent), self.peer.ended, self.pulse.pongs),
            *(self.end.finished, self.peer.left, self.peer.closed_in_turn, self.peer.takes_frames and not self.ends),
        )


@dataclass
class Outcome:
    messages: list[Event]
    sent: bytes
    ended: tuple[int, str] | None
    pongs: list[bytes]
    finished: bool
    left: bool
    closed_in_turn: bool
    takes_frames: bool


@dataclass
class Play:
    """What a client sends, how it is cut, and what happens on our side before a piece."""

    pieces: list[bytes]
    leaves: bool = True
    acts: dict[int, str] = field(default_factory=dict)
    compressed: bool = False

    def run(self, *, fed: bool, room: int) -> Outcome:
        return trio.run(self._run, fed, room)

    async def _run(self, fed: bool, room: int) -> Outcome:
        async with trio.open_nursery() as nursery:
            case = Case(nursery, fed=fed, room=room, compressed=self.compressed)
            for number, piece in enumerate(self.pieces):
                self._act(self.acts.get(number, ""), case.peer)
                case.feed(piece)
            if self.leaves:
                case.leave()
            outcome = case.outcome()
            case.peer.abandon()
        return outcome

    def _act(self, act: str, peer: Peer) -> None:
        if act == "go away" and peer.ended is None:
            peer.close(1012)
            peer.end(1012, "")
        elif act == "discard":
            peer.discard()
        elif act == "ping":
            peer.send(PING, b"are you there")


def uncommon(data: bytes, start: int, longest: int, common: object) -> tuple[int, bytes, int]:
    return UNCOMMON, b"", start


def by_the_book(play: Play, *, fed: bool, room: int) -> Outcome:
    """Run it without any short way, a byte at a time."""
    with mock.patch.object(module, "next_frame", uncommon), mock.patch.object(module, "SLICE", 1):
        return play.run(fed=fed, room=room)


# -- what clients send

SIZES = st.sampled_from([0, 1, 5, 124, 125, 126, 127, LONGEST - 1, LONGEST])


def wide(opcode: int, payload: bytes, width: int) -> bytes:
    """A frame whose length was not written in the shortest way."""
    length = b"\xfe" + struct.pack("!H", len(payload)) if width == 2 else b"\xff" + struct.pack("!Q", len(payload))
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def fragments(opcode: int, parts: list[bytes], between: bytes) -> bytes:
    frames = [frame(0 if at else opcode, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)]
    return between.join(frames)


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


texts = SIZES.map(lambda size: frame(TEXT, b"t" * size)) | st.text(max_size=20).map(
    lambda text: frame(TEXT, text.encode())
)
binaries = SIZES.map(lambda size: frame(BINARY, b"\xff" * size))
controls = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
fragmented = st.builds(
    fragments,
    st.sampled_from([TEXT, BINARY]),
    st.lists(st.sampled_from([b"", b"f", "é".encode(), b"g" * 126]), min_size=2, max_size=5),
    st.just(b"") | controls,
)
spread = st.builds(
    wide, st.sampled_from([TEXT, BINARY]), st.sampled_from([b"", b"w", b"w" * 130]), st.sampled_from([2, 8])
)
sound = texts | texts | binaries | controls | fragmented | spread
closes = st.sampled_from([closing(1000), closing(1001, b"bye"), closing(4999, "é".encode()), frame(CLOSE)])
broken = st.sampled_from(
    [
        *(closing(999), closing(1005), closing(1006), closing(5000), closing(1000, b"\xff"), frame(CLOSE, b"\x03")),
        *(frame(TEXT, b"x" * (LONGEST + 1)), fragments(BINARY, [b"x" * LONGEST, b"x"], b"")),
        *(b"\x81\x05hello", b"\x89\x00", b"\x81\x7e\x00\x7fx", frame(3), frame(0, b"lone"), frame(0x40 | TEXT, b"r")),
        *(frame(0x10 | BINARY), frame(PING, b"x" * 126), frame(PING, fin=False), frame(CLOSE, b"", fin=False)),
        *(wide(PING, b"p", 2), wide(CLOSE, b"", 8), frame(TEXT, b"half", fin=False) + frame(TEXT, b"another")),
    ]
)
bad_text = st.sampled_from(
    [frame(TEXT, b"\xff"), frame(TEXT, "é".encode()[:1]), fragments(TEXT, [b"a", b"\xff", b"b"], b"")]
)
cut_off = st.sampled_from(
    [b"", frame(TEXT, b"cut off")[:-2], frame(TEXT, b"half", fin=False), b"\x81", b"\x82\xfe\x01"]
)


def deflated(payload: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(CUT)


def compressed_fragments(payload: bytes, cut: int, between: bytes) -> bytes:
    data = deflated(payload)
    return fragments(RSV1 | TEXT, [data[:cut], data[cut:]], between)


contents = SIZES.map(lambda size: b"c" * size) | st.text(max_size=200).map(str.encode)
compressed = (
    contents.map(lambda payload: frame(RSV1 | TEXT, deflated(payload)))
    | contents.map(lambda payload: frame(RSV1 | BINARY, deflated(payload)))
    | st.builds(compressed_fragments, contents, st.integers(0, 10), st.just(b"") | controls)
    | contents.map(lambda payload: wide(RSV1 | BINARY, deflated(payload), 8))
)
ill_compressed = st.sampled_from(
    [
        *(frame(RSV1 | TEXT, deflated(b"b" * (LONGEST + 1))), frame(RSV1 | TEXT, b"\xff\xff"), frame(RSV1 | TEXT)),
        *(frame(RSV1 | BINARY, deflated(b"cut short" * 9)[:-3]), frame(RSV1 | PING), frame(RSV1 | CLOSE)),
        *(compressed_fragments(b"b" * (LONGEST + 1), 3, b""), frame(TEXT, b"a", fin=False) + frame(RSV1, b"b")),
    ]
)


@st.composite
def plays(
    draw: st.DrawFn,
    ends: st.SearchStrategy[bytes],
    acts: bool,
    sound: st.SearchStrategy[bytes] = sound,
    compressed: bool = False,
) -> Play:
    data = b"".join(draw(st.lists(sound, max_size=12)))
    data += draw(ends | cut_off)
    data += b"".join(draw(st.lists(sound | closes | broken, max_size=3)))
    pieces: list[bytes] = []
    at, sizes = 0, draw(st.lists(st.sampled_from([1, 2, 3, 7, 40, 200, 1000, 10**6]), min_size=1))
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)] if len(pieces) < 300 else 10**6
        pieces.append(data[at : at + size])
        at += size
    names = st.sampled_from(["go away", "discard", "ping"])
    where = st.dictionaries(st.integers(0, max(len(pieces) - 1, 0)), names, max_size=2) if acts else st.just({})
    return Play(pieces, draw(st.booleans()), draw(where), compressed)


MIDWAY = Play(
    [frame(TEXT, b"half", fin=False), frame(0, b"way"), frame(TEXT, b"x"), closing(1001)], True, {0: "discard"}
)


@pytest.mark.parametrize("fed", [True, False])
@settings(deadline=None)
@given(play=plays(closes | broken | bad_text, acts=True), room=st.sampled_from([1, 2, ROOM, 100]))
@example(play=MIDWAY, room=ROOM)
def test_there_is_no_difference(fed: bool, play: Play, room: int) -> None:
    with mock.patch.object(module, "SLICE", 1):
        assert play.run(fed=fed, room=room) == by_the_book(play, fed=fed, room=room)


@pytest.mark.parametrize("fed", [True, False])
@settings(deadline=None)
@given(
    play=plays(closes | broken, acts=False), room=st.sampled_from([1, ROOM, 100]), slice_=st.sampled_from([7, 2**11])
)
def test_nor_where_the_library_is_given_more_at_once(fed: bool, play: Play, room: int, slice_: int) -> None:
    expected = by_the_book(play, fed=fed, room=room)
    assume(expected.ended is None or expected.ended[0] != 1007)  # we look at texts once a whole slice was parsed
    with mock.patch.object(module, "SLICE", slice_):
        assert play.run(fed=fed, room=room) == expected


@pytest.mark.parametrize("fed", [True, False])
@settings(deadline=None)
@given(
    play=plays(closes | broken | ill_compressed, acts=False, sound=sound | compressed, compressed=True),
    room=st.sampled_from([1, ROOM, 100]),
)
def test_nor_where_messages_come_compressed(fed: bool, play: Play, room: int) -> None:
    with mock.patch.object(module, "SLICE", 1):
        assert play.run(fed=fed, room=room) == by_the_book(play, fed=fed, room=room)


def test_the_library_is_let_go_between_two_messages() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            peer = Case(nursery, fed=True, room=100).peer
            for data in (frame(TEXT, b"a", fin=False), frame(0, b"b", fin=False), frame(PING), frame(0)[:3]):
                peer.feed(data)
                assert peer._protocol is not None
            peer.feed(frame(0)[3:])
            assert (peer._protocol, peer._assembler) == (None, None)
            peer.feed(wide(TEXT, b"w", 8))
            assert peer._protocol is not None, "it cannot be known to stand between two frames"

    trio.run(main)


# -- what is read, but not taken


@pytest.fixture(params=[True, False], ids=["fed", "ahead"])
def fed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def numbered(count: int) -> bytes:
    return b"".join(frame(TEXT, str(number).encode()) for number in range(count))


def numbers(case: Case) -> list[int]:
    return [int(event["text"]) for event in case.messages]


pytestmark = [pytest.mark.once, pytest.mark.trio_only]


async def test_nothing_is_lost_or_overtakes_behind_a_full_queue(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed)
        case.peer.feed(numbered(500) + closing(1001, b"behind"))
        assert not case.reader.watching
        assert case.peer.ended is None, "it is not its turn yet"
        assert case.most <= ROOM
        assert case.peer.ahead is None or len(case.peer.ahead) <= MESSAGES
        case.take(1000)
    assert numbers(case) == list(range(500))
    assert case.peer.ended == (1001, "behind")


async def test_the_bound_holds_as_the_queue_is_emptied_slowly() -> None:
    """A large message behind small ones fills the queue: as long as it waits, nothing is added."""
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=False)
        limits = Limits(ping_interval=20, pong_timeout=20, close_timeout=5, max_message_size=2**20)
        case.peer._engine.limits, case.peer._longest = limits, BYTES - 1
        case.peer.feed(frame(TEXT, b"small") * (MESSAGES // 2))
        huge = frame(BINARY, bytes(BYTES - 1))
        for _ in range(MESSAGES):
            if case.reader.watching:
                case.peer.feed(huge)
            case.take()
        assert case.peer.ahead is not None
        assert case.peer.ahead._bytes < 3 * BYTES
        assert len(case.messages) == MESSAGES


async def test_a_full_wire_stops_the_reading_and_room_lets_it_go_on(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed, room=10**6)
        case.end.taken = 0
        pings = [frame(PING, b"%100d" % number) for number in range(50)]
        case.peer.feed(b"".join(pings[:25]) + numbered(20))
        assert case.peer.wire.full
        assert not case.reader.watching
        assert case.peer.wire._waiting < 500
        assert not case.take()
        case.end.let_go()
        await trio.testing.wait_all_tasks_blocked()
        assert case.reader.watching
        case.peer.feed(b"".join(pings[25:]))
        case.take(100)
    assert numbers(case) == list(range(20))
    assert bytes(case.end.sent) == b"".join(bytes([0x80 | PONG, 100]) + ping[6:] for ping in pings)


async def test_a_full_queue_and_a_full_wire_at_once(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed)
        case.end.taken = 0
        case.peer.feed((frame(PING, b"p" * 100) + frame(TEXT, b"1")) * 100)
        case.take(1000)
        assert not case.reader.watching
        case.end.let_go()
        for _ in range(100):
            await trio.testing.wait_all_tasks_blocked()
            case.take(3)
        await trio.testing.wait_all_tasks_blocked()
    assert len(case.messages) == 100
    assert len(case.end.sent) == 100 * 102


async def test_half_closed_and_not_reading_is_told_once(fed: bool) -> None:
    """The last byte has come while ours still leave: the socket is not watched for it again."""
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed, room=100)
        case.end.taken = 0
        case.peer.feed(frame(TEXT, b"0") + frame(TEXT, b"half", fin=False) + frame(PING, b"x" * 120))
        case.peer.eof()
        assert not case.reader.watching, "it would be told of the end for ever"
        case.peer.resume()
        case.peer.discard()
        assert not case.reader.watching
        assert case.peer.ended == (1006, "")
        assert not case.peer.left
        case.end.let_go()
        await case.peer.gone()
    assert case.end.gone
    case.take()
    assert numbers(case) == [0]
    assert len(case.end.sent) == 122


async def test_a_broken_connection_keeps_what_was_handed_over(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed)
        case.end.broken = True
        case.peer.feed(numbered(2) + frame(PING) + frame(TEXT, b"too late") + closing(1000))
        assert case.peer.left
        assert case.peer.ended == (1006, "")
        assert not case.reader.watching
        case.take(10)
        case.peer.resume()
        assert not case.reader.watching
    assert numbers(case) == [0, 1]


async def test_what_is_unparsed_when_the_wire_is_lost_is_thrown_away(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed)
        case.peer.feed(numbered(300) + closing(1000))
        case.peer.wire.lose()
        handed_over = case.take(1000)
    assert case.peer.ended == (1006, ""), "the close frame was not read, and may never have been meant for now"
    assert handed_over == (ROOM if fed else MESSAGES)
    assert not case.peer._raw


async def test_a_peer_that_is_told_to_leave_keeps_what_was_handed_over(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed)
        case.peer.feed(numbered(300))
        case.peer.close(1012)
        case.peer.end(1012, "")
        assert case.reader.watching
        case.peer.feed(closing(1000))
        assert case.peer.closed_in_turn
        assert case.take(1000) == (ROOM if fed else MESSAGES)
        assert case.peer.ended == (1012, "")


async def test_what_comes_before_the_handshake_is_bounded_and_kept(fed: bool) -> None:
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=fed, opened=False)
        case.peer.feed(numbered(10))
        assert case.reader.watching
        case.peer.feed(numbered(10)[:5] + bytes(BYTES))
        assert not case.reader.watching
        assert (case.messages, case.end.sent) == ([], b"")
        case.peer.open()
        case.take(10)
        nursery.cancel_scope.cancel()
    assert numbers(case) == list(range(10))


async def test_what_is_posted_is_written_before_the_nursery_closes() -> None:
    """Afterwards no writer could be started for what the socket does not take at once, as TLS never does."""
    async with trio.open_nursery() as nursery:
        case = Case(nursery, fed=True)
        case.peer.wire.post(b"taken")
        case.peer.abandon()
        assert case.end.sent == b"taken"
        other = Case(nursery, fed=True)
        other.end.taken = 0
        other.peer.wire.post(b"not taken")
        other.peer.abandon()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for each in (case, other):
        each.peer.wire.flush()
        assert not each.peer.wire.busy
