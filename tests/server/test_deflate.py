"""permessage-deflate: what is agreed upon, what goes out, and what comes, also from who means harm."""

import os
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
import wsproto
import wsproto.extensions
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from trichannels.events import Receive, Scope, Send
from trichannels.generic.websocket import AsyncWebsocketConsumer, shared_payload
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter
from trichannels.server import transport
from trichannels.server.deflate import ALWAYS, SHORTEST, MalformedOffer, agreed, framer, inflate
from trichannels.server.frames import frame as plain_frame
from trichannels.server.handshake import judge
from trichannels.server.head import parse_upgrade

from .support import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    connect,
    echo,
    frame,
    serving,
    still_serves,
    upgrade_request,
    websocket_app,
)

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]

RSV1, CONT = 0x40, 0
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
NOISE = os.urandom(1000)
WORDS = "grüße und küsse, " * 100
echo_app = websocket_app(echo)


def deflated(data: bytes, bits: int = 15) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def final(data: bytes) -> bytes:
    """Compressed into a last block, as RFC 7692 section 7.2.3.4 has it, without the empty block behind it."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


# ---- what is agreed upon

DECLINED = (0, "")


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ([], DECLINED),
        (["permessage-deflate"], (12, ALWAYS)),
        (["permessage-deflate; server_no_context_takeover"], (12, ALWAYS)),
        (["permessage-deflate; client_no_context_takeover"], (12, ALWAYS)),
        (["permessage-deflate; client_max_window_bits"], (12, ALWAYS)),
        *[([f"permessage-deflate; client_max_window_bits={bits}"], (12, ALWAYS)) for bits in range(8, 16)],
        *[
            (
                [f"permessage-deflate; server_max_window_bits={bits}"],
                (min(bits, 12), f"{ALWAYS}; server_max_window_bits={min(bits, 12)}"),
            )
            for bits in range(9, 16)
        ],
        (["permessage-deflate; server_max_window_bits=8"], DECLINED),  # zlib's raw deflate cannot
        (['permessage-deflate ;\tserver_max_window_bits = "1\\0"'], (10, f"{ALWAYS}; server_max_window_bits=10")),
        # section 7.1: unknown, twice, without a value or with a wrong one
        (["permessage-deflate; mode=fast"], DECLINED),
        (["permessage-deflate; client_max_window_bits; client_max_window_bits"], DECLINED),
        (["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], DECLINED),
        (["permessage-deflate; server_no_context_takeover=true"], DECLINED),
        (["permessage-deflate; client_no_context_takeover=1"], DECLINED),
        (["permessage-deflate; server_max_window_bits"], DECLINED),
        *[
            ([f"permessage-deflate; {side}_max_window_bits={bits}"], DECLINED)
            for side in ("server", "client")
            for bits in ("7", "16", "08", "+9", "9.0", "ten", "0")
        ],
        # the first that can be taken, of several
        (["permessage-deflate; mode=fast", "permessage-deflate"], (12, ALWAYS)),
        (
            ["permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=9"],
            (9, f"{ALWAYS}; server_max_window_bits=9"),
        ),
        (["permessage-deflate", "permessage-deflate; server_max_window_bits=9"], (12, ALWAYS)),
        (["x-webkit-deflate-frame", "permessage-bzip2; level=9", "permessage-deflate"], (12, ALWAYS)),
        (["x-webkit-deflate-frame"], DECLINED),
        (["Permessage-Deflate"], DECLINED),
    ],
)
def test_offers_are_taken_as_the_rfc_demands(offers: list[str], answer: tuple[int, str]) -> None:
    assert agreed(offers) == answer


@pytest.mark.parametrize(
    "offer",
    [
        *(
            "permessage-deflate;",
            "; x",
            "permessage deflate",
            "permessage-deflate; =10",
            "permessage-deflate; x=",
            "a/b",
        ),
        *(
            'permessage-deflate; x="',
            'permessage-deflate; x=""',
            'a; x="1 0"',
            "a; x='1 0'",
            "a; x=1=2",
            "a; é",
            "a b=1",
        ),
    ],
)
def test_what_is_no_offer_is_malformed(offer: str) -> None:
    with pytest.raises(MalformedOffer, match="an extension is offered as"):
        agreed(["permessage-deflate", offer])


@pytest.mark.parametrize("offer", ["a" + "; x=1" * 3000 + "é", "a;" + " \t" * 8000 + "é", 'a; x="' + "1" * 16_000])
def test_a_long_offer_is_judged_in_one_go(offer: str) -> None:
    with pytest.raises(MalformedOffer):
        agreed([offer])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((OFFER,), ALWAYS),
        (
            (OFFER + "; mode=fast, permessage-deflate; server_max_window_bits=10",),
            f"{ALWAYS}; server_max_window_bits=10",
        ),
        ((OFFER + "; mode=fast", OFFER), ALWAYS),  # two headers, which go the way behind h11
        ((OFFER + "; mode=fast",), None),
        ((), None),
    ],
)
async def test_the_answer_says_what_is_agreed_upon(lines: tuple[str, ...], said: str | None) -> None:
    async with serving(echo_app, permessage_deflate=True) as server, await connect(server) as client:
        head = await client.upgrade("/", *lines)
        assert head.startswith(b"HTTP/1.1 101 ")
        found = [line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-extensions")]
        assert found == ([] if said is None else [f"sec-websocket-extensions: {said}".encode()])
        await client.send(frame(TEXT, WORDS.encode()))
        first, _ = await client.whole_frame()
        assert first == (0x80 | TEXT if said is None else 0x80 | RSV1 | TEXT)


async def test_a_malformed_offer_is_refused() -> None:
    async with serving(echo_app, permessage_deflate=True) as server, await connect(server) as client:
        answer = (await client.upgrade("/", OFFER + "; =9")) + await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"sec-websocket-extensions header is malformed" in answer
        await still_serves(server)


async def test_it_is_off_by_default() -> None:
    async with serving(echo_app) as server, await connect(server) as client:
        assert b"extensions" not in await client.upgrade("/", OFFER)
        await client.send(frame(TEXT, WORDS.encode()))
        assert await client.whole_frame() == (0x80 | TEXT, WORDS.encode())
        await client.send(frame(RSV1 | TEXT, deflated(b"hello")))
        assert (await client.closing())[0] == 1002


async def test_a_refusal_of_the_application_agrees_upon_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.close"})

    async with serving(app, permessage_deflate=True) as server, await connect(server) as client:
        head = await client.upgrade("/", OFFER)
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b"extensions" not in head


# ---- what goes out


@pytest.mark.parametrize("bits", range(9, 13))
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_is_compressed_if_it_gets_smaller(bits: int, opcode: int) -> None:
    make = framer(bits)
    for payload in (WORDS.encode(), b"x" * SHORTEST, WORDS.encode() * 1000):
        made = make(opcode, payload)
        assert made[0] == 0x80 | RSV1 | opcode
        assert len(made) < len(payload)
        start = 2 if made[1] < 126 else 4 if made[1] == 126 else 10
        # a client with no larger a window than that can read it
        assert zlib.decompressobj(-bits).decompress(made[start:] + b"\0\0\xff\xff") == payload
    for payload in (b"", b"x" * (SHORTEST - 1), NOISE):
        assert make(opcode, payload) == plain_frame(opcode, payload)


def test_who_agreed_to_the_same_has_the_same_framer() -> None:
    assert framer(12) is framer(12)
    assert framer(12) != framer(9)


# ---- what comes


@pytest.mark.parametrize("payload", [b"", b"x", WORDS.encode(), NOISE, bytes(50_000)])
@pytest.mark.parametrize("how", [deflated, lambda data: deflated(data, 9), final, lambda data: final(data) + b"\0"])
def test_a_message_is_inflated_up_to_its_limit(payload: bytes, how: Callable[[bytes], bytes]) -> None:
    assert inflate(how(payload), len(payload)) == inflate(how(payload), 2**20) == payload
    if payload:
        with pytest.raises(PayloadTooBig):
            inflate(how(payload), len(payload) - 1)


def test_the_examples_of_the_rfc_are_inflated() -> None:
    """RFC 7692 sections 7.2.3.1 to 7.2.3.6."""
    for text in ("f248cdc9c90700", "000500faff48656c6c6f00", "f348cdc9c9070000", "f248050000 00ffff cac9c90700"):
        assert inflate(bytes.fromhex(text), 5) == b"Hello"
    assert inflate(b"\0", 0) == b""


BROKEN = {
    "nothing at all": b"",
    "a block of a reserved kind": b"\xff\xff\xff\xff",
    "text": b"hello",
    "cut off": deflated(WORDS.encode())[:-5],
    "a distance beyond the beginning": bytes.fromhex("4a04 02 00"),
    "two last blocks": final(b"one") + final(b"two"),
    "something behind a last block": final(b"one") + b"x",
    "the end that should have been cut": deflated(b"one") + b"\0\0\xff\xff\x07",
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
def test_broken_data_is_told(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="what came compressed"):
        inflate(payload, 2**20)


def peer_of(server: Any) -> Any:
    (connection,) = server._shared.connections
    return connection._transport._peer


async def read(client: Client) -> tuple[int, bytes]:
    """Read one message of the server, which may be compressed."""
    first, payload = await client.whole_frame()
    return first & 15, inflate(payload, 2**24) if first & RSV1 else payload


async def deflating(server: Any, *parameters: str) -> Client:
    client = await connect(server)
    head = await client.upgrade("/", "; ".join([OFFER, *parameters]))
    assert f"sec-websocket-extensions: {ALWAYS}".encode() in head
    return client


async def test_messages_go_both_ways_whole_and_in_fragments_and_the_library_is_let_go() -> None:
    large = os.urandom(100_000)
    data = deflated(WORDS.encode())
    async with serving(echo_app, permessage_deflate=True) as server, await deflating(server) as client:
        for opcode, payload in ((TEXT, WORDS.encode()), (BINARY, NOISE), (TEXT, b""), (BINARY, b"x"), (BINARY, large)):
            for how in (deflated, final):
                await client.send(frame(RSV1 | opcode, how(payload)))
                assert await read(client) == (opcode, payload)
            await client.send(frame(opcode, payload))
            assert await read(client) == (opcode, payload)
            assert peer_of(server)._protocol is None
        for size in (1, 7, len(data) - 1):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            await client.send(frame(RSV1 | TEXT, pieces[0], fin=False))
            await client.send(frame(PING, b"between") + frame(CONT, b"", fin=False))
            await client.send(b"".join(frame(CONT, piece, fin=False) for piece in pieces[1:]))
            await client.send(frame(CONT) + frame(RSV1 | BINARY, deflated(b"next")) + frame(BINARY, b"last"))
            assert await client.frame() == (PONG, b"between")
            assert [await read(client) for _ in range(3)] == [
                (TEXT, WORDS.encode()),
                (BINARY, b"next"),
                (BINARY, b"last"),
            ]
            assert peer_of(server)._protocol is None
        await client.send(frame(TEXT, b"not ", fin=False) + frame(CONT, b"compressed"))
        assert await read(client) == (TEXT, b"not compressed")
        assert peer_of(server)._protocol is None
        await client.close(4001, "had enough")
        assert await client.closing() == (4001, "had enough")


async def test_all_of_a_message_may_come_byte_by_byte() -> None:
    async with serving(echo_app, permessage_deflate=True) as server, await deflating(server) as client:
        data = deflated("grüße".encode())
        sent = frame(RSV1 | TEXT, data) + frame(RSV1 | TEXT, data[:3], fin=False) + frame(CONT, data[3:])
        for byte in sent:
            await client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert [await read(client) for _ in range(2)] == [(TEXT, "grüße".encode())] * 2


HELLO = deflated(b"hello")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(RSV1 | PING), 1002),
        (frame(RSV1 | CLOSE), 1002),
        (frame(RSV1 | TEXT, HELLO[:2], fin=False) + frame(RSV1 | CONT, HELLO[2:]), 1002),
        (frame(TEXT, b"hel", fin=False) + frame(RSV1 | CONT, HELLO), 1002),
        (frame(TEXT, b"hel", fin=False) + frame(RSV1 | TEXT, HELLO), 1002),
        (frame(RSV1 | TEXT, HELLO, fin=False) + frame(RSV1 | TEXT, HELLO), 1002),
        (frame(RSV1 | CONT, HELLO), 1002),
        (frame(0x20 | TEXT, b"hello"), 1002),
        (frame(0x30 | RSV1 | TEXT, HELLO), 1002),
        *[(frame(RSV1 | TEXT, payload), 1002) for payload in BROKEN.values()],
        (frame(RSV1 | TEXT, b"\xff\xff", fin=False), 1002),
        (frame(RSV1 | TEXT, HELLO[:3], fin=False) + frame(CONT), 1002),
        (frame(RSV1 | TEXT, final(b"one"), fin=False) + frame(CONT, b"x", fin=False), 1002),
        (frame(RSV1 | TEXT, deflated(b"gr\xfc\xdfe")), 1007),
        (frame(RSV1 | TEXT, deflated(b"gr\xfc\xdfe" * 50)[:9], fin=False), 1007),
        (frame(RSV1 | BINARY, deflated(bytes(2**20 + 1))), 1009),
        (frame(BINARY, bytes(2**20)[:-1], fin=False) + frame(CONT, b"xx"), 1009),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_told(data: bytes, code: int) -> None:
    async with serving(echo_app, permessage_deflate=True) as server:
        async with await deflating(server) as client:
            await client.send(data)
            assert (await client.closing())[0] == code
            assert await client.rest() == b""
        assert server.statistics().failures == 0
        await still_serves(server)


# ---- bombs

LIMIT = 2**20
BOMB = deflated(bytes(100_000_000))


def bomb_in_fragments(size: int) -> bytes:
    pieces = [BOMB[at : at + size] for at in range(0, len(BOMB), size)]
    first, *rest = pieces
    return (
        frame(RSV1 | BINARY, first, fin=False) + b"".join(frame(CONT, piece, fin=False) for piece in rest) + frame(CONT)
    )


BOMBS = {
    "in one frame": frame(RSV1 | BINARY, BOMB),
    "in a short frame": frame(RSV1 | BINARY, deflated(bytes(60_000_000))),
    "in fragments": bomb_in_fragments(20_000),
    "in tiny fragments": bomb_in_fragments(50),
    "held back by the limit": frame(RSV1 | BINARY, deflated(bytes(LIMIT + 100)), fin=False) + frame(CONT),
    "behind a message that is full": frame(RSV1 | BINARY, deflated(bytes(LIMIT)), fin=False) + frame(CONT, BOMB),
    "compressed twice": frame(RSV1 | BINARY, deflated(BOMB) + bytes(LIMIT)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_a_bomb_is_not_inflated_beyond_the_limit(bomb: bytes) -> None:
    assert len(BOMB) < LIMIT
    async with serving(echo_app, permessage_deflate=True, max_message_size=LIMIT) as server:
        async with await deflating(server) as client:
            tracemalloc.start()
            try:
                await client.send(bomb)
                code, _ = await client.closing()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert code == 1009
        assert peak < 6 * LIMIT
        await still_serves(server)


async def test_small_frames_that_grow_large_wait_in_the_kernel_or_compressed() -> None:
    """A peer sends 300 MB in 300 kB to an application that does not read."""
    gate = trio.Event()
    got: list[int] = []

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        for _ in range(300):
            got.append(len((await receive())["bytes"]))
        await send({"type": "websocket.send", "text": "enough"})

    burst = frame(RSV1 | BINARY, deflated(bytes(LIMIT))) * 300
    async with serving(websocket_app(late), permessage_deflate=True) as server, await deflating(server) as client:
        tracemalloc.start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, burst)
                await trio.testing.wait_all_tasks_blocked(0.05)
                gate.set()
                assert await client.text() == "enough"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert got == [LIMIT] * 300
    assert peak < 8 * LIMIT


async def test_what_follows_a_last_block_is_not_gathered() -> None:
    async with serving(echo_app, permessage_deflate=True) as server, await deflating(server) as client:
        await client.send(frame(RSV1 | TEXT, final(b""), fin=False) + frame(CONT, bytes(100), fin=False))
        assert (await client.closing())[0] == 1002


# ---- broadcasts


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    @shared_payload
    def words(cls, event: Any) -> str:
        """Say many words."""
        return str(event["text"]) * 20

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        for number in range(20):
            await self.send(f"own {number} " * 30)
            await self.channel_layer.group_send("room", {"type": "websocket.send", "text": f"all {number} " * 30})
            await self.channel_layer.group_send("room", {"type": "websocket.send", "bytes": NOISE})
            await self.channel_layer.group_send("room", {"type": "words", "text": f"words {number}"})


async def test_a_broadcast_is_compressed_once_for_each_kind_of_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = transport._framed

    def spy(*how: Any) -> bytes:
        data = original(*how)
        made.append(data[0])
        return data

    monkeypatch.setattr(transport, "_framed", spy)
    layer = InMemoryChannelLayer()
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()}, layers={"default": layer})
    async with (
        serving(app, permessage_deflate=True) as server,
        await deflating(server) as a,
        await deflating(server) as b,
        await deflating(server, "server_max_window_bits=9") as small,
        await connect(server) as plain,
        await connect(server) as other,
    ):
        for client in (plain, other):
            assert b"extensions" not in await client.upgrade()
        await layer.group_send("room", {"type": "websocket.send", "text": WORDS})
        await layer.group_send("room", {"type": "words", "text": "a word "})
        for text in (WORDS, "a word " * 20):
            for client in (plain, other):
                assert await client.whole_frame() == (0x80 | TEXT, text.encode())
            for client, bits in ((a, 12), (b, 12), (small, 9)):
                first, payload = await client.whole_frame()
                assert first == 0x80 | RSV1 | TEXT
                assert zlib.decompressobj(-bits).decompress(payload + b"\0\0\xff\xff") == text.encode()
        assert sorted(made) == [0x81, 0x81, 0xC1, 0xC1, 0xC1, 0xC1]


async def test_order_is_kept_among_compressed_and_uncompressed_messages() -> None:
    layer = InMemoryChannelLayer(capacity=1000)
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()}, layers={"default": layer})
    async with (
        serving(app, permessage_deflate=True) as server,
        await deflating(server) as a,
        await connect(server) as plain,
    ):
        await plain.upgrade()
        await a.send(frame(TEXT, b"go"))
        for number in range(20):
            told = [f"all {number} ".encode() * 30, NOISE, f"words {number}".encode() * 20]
            assert [(await read(plain))[1] for _ in range(3)] == told
            assert [(await read(a))[1] for _ in range(4)] == [f"own {number} ".encode() * 30, *told]


# ---- other people's clients

MESSAGES: list[str | bytes] = [
    "grüße ✓",
    b"\0\xff",
    "",
    b"",
    WORDS,
    NOISE,
    "once more",
    os.urandom(70_000),
    "x" * 500_000,
]
Exchange = Callable[[Client], Awaitable[list[str | bytes]]]


async def with_websockets(client: Client, **offer: Any) -> list[str | bytes]:
    """Send all messages, each whole and then in fragments."""
    protocol = ClientProtocol(parse_uri("ws://test/"), extensions=[ClientPerMessageDeflateFactory(**offer)])
    protocol.send_request(protocol.connect())
    got: list[str | bytes] = []
    while not got:
        got = [event for event in await exchanged(protocol, client) if isinstance(event, Response)]  # type: ignore[misc]
    assert [each.name for each in protocol.extensions] == ["permessage-deflate"]
    got = []
    for message in MESSAGES:
        text, data = isinstance(message, str), message.encode() if isinstance(message, str) else message
        send = protocol.send_text if text else protocol.send_binary
        send(data)
        send(data[:5], fin=False)
        protocol.send_continuation(data[5:6], fin=False)
        protocol.send_continuation(data[6:], fin=True)
        echoes: list[bytes] = []
        while len(echoes) < 2:
            echoes += [bytes(event.data) for event in await exchanged(protocol, client) if isinstance(event, Frame)]
        assert echoes == [data, data]
        got.append(echoes[0].decode() if text else echoes[0])
    return got


async def exchanged(protocol: ClientProtocol, client: Client) -> list[Any]:
    for data in protocol.data_to_send():
        await client.send(data)
    if not (events := protocol.events_received()):
        with trio.fail_after(10):
            protocol.receive_data(await client.stream.receive_some(65536))
        events = protocol.events_received()
    return events


async def with_wsproto(client: Client, **offer: Any) -> list[str | bytes]:
    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    extension = wsproto.extensions.PerMessageDeflate(**offer)
    await client.send(connection.send(wsproto.events.Request(host="test", target="/", extensions=[extension])))
    got: list[str | bytes] = []
    parts: list[Any] = []
    waiting = list(MESSAGES)
    while len(got) < len(MESSAGES):
        with trio.fail_after(10):
            connection.receive_data(bytes(await client.stream.receive_some(65536)))
        for event in connection.events():
            if isinstance(event, wsproto.events.AcceptConnection):
                assert event.extensions == [extension]
            else:
                assert isinstance(event, wsproto.events.Message)
                parts.append(event.data)
                if not event.message_finished:
                    continue
                got.append(type(event.data)().join(parts))
                parts.clear()
            if waiting:
                message = waiting.pop(0)
                sent: wsproto.events.Message[Any] = wsproto.events.Message(data=message)
                await client.send(connection.send(sent))
    return got


@pytest.mark.parametrize(
    ("speak", "offer"),
    [
        (with_websockets, {}),
        (with_websockets, {"server_max_window_bits": 9, "client_max_window_bits": 9}),
        (with_websockets, {"server_no_context_takeover": True, "client_no_context_takeover": True}),
        (with_wsproto, {}),
        (with_wsproto, {"server_max_window_bits": 10, "client_max_window_bits": 11}),
    ],
)
async def test_other_peoples_clients_speak_with_us(speak: Any, offer: dict[str, Any]) -> None:
    async with serving(echo_app, permessage_deflate=True) as server, await connect(server) as client:
        assert await speak(client, **offer) == MESSAGES


def test_an_upgrade_with_an_offer_takes_the_fast_way() -> None:
    upgrade = parse_upgrade(upgrade_request("/", OFFER + "; client_max_window_bits"), 2**14)
    assert upgrade is not None
    assert judge(upgrade, deflate=True).window == 12
    assert judge(upgrade).window == 0
