"""The fast way into a WebSocket: it takes what browsers write, and nothing that h11 would refuse or read otherwise."""

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trichannels.server.handshake import is_upgrade
from trichannels.server.head import MOST_HEADERS, parse_upgrade

from .support import KEY

pytestmark = [pytest.mark.once, pytest.mark.trio_only]

LIMIT = 2**14
LINES = [
    b"GET /chat/lobby?token=a%20b HTTP/1.1",
    b"Host: chat.example:8000",
    b"Connection: keep-alive, Upgrade",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    b"Upgrade: websocket",
    b"Origin: https://chat.example",
    b"Cookie: session=\xe9t\xe9; theme=dark",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
]
BROWSER = b"\r\n".join([*LINES, b"", b""])


def changed(old: bytes, new: bytes) -> bytes:
    assert old in BROWSER
    return BROWSER.replace(old, new, 1)


def test_a_browsers_request_is_taken_with_what_comes_behind_it() -> None:
    upgrade = parse_upgrade(BROWSER + b"\x81\x80four", LIMIT)
    assert upgrade is not None
    assert (upgrade.target, upgrade.http_version) == (b"/chat/lobby?token=a%20b", "1.1")
    assert upgrade.rest == b"\x81\x80four"
    assert upgrade.headers[0] == (b"host", b"chat.example:8000")
    assert [name for name, _ in upgrade.headers] == [line.partition(b":")[0].lower() for line in LINES[1:]]


@pytest.mark.parametrize(
    "head",
    [
        BROWSER.lower().replace(b"get", b"GET").replace(b"http/1.1", b"HTTP/1.1"),
        changed(b"Host: ", b"HOST:"),
        changed(b"Upgrade: websocket", b"upgrade:\t WebSocket \t"),
        changed(b"keep-alive, Upgrade", b"upgrade"),
        changed(b"keep-alive, Upgrade", b"Upgrade ,\tkeep-alive"),
        changed(b"Cookie:", b"X-Empty: \r\nCookie:"),
    ],
)
def test_other_spellings_are_taken(head: bytes) -> None:
    assert parse_upgrade(head, LIMIT) is not None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"\r\n" + BROWSER,
        BROWSER[:-1],
        BROWSER.replace(b"\r\n", b"\n"),
        changed(b"GET", b"POST"),
        changed(b"GET ", b"GET  "),
        changed(b" HTTP/1.1", b" HTTP/1.0"),
        changed(b" HTTP/1.1", b" HTTP/1.1 "),
        changed(b"/chat/", b"/\xff/"),
        changed(b"/chat/", b"/ /"),
        changed(b"Host: chat.example:8000\r\n", b""),
        changed(b"Host:", b"Host: other\r\nHost:"),
        changed(b"Host:", b"Host :"),
        changed(b"Host:", b" Host:"),
        changed(b"Host:", b":"),
        changed(b"Host: ", b"Host: a\0b"),
        changed(b"Host: ", b"Host: a\rb"),
        changed(b"Host: ", b"X: a\nHost: "),
        changed(b"Host: ", b"X: a\r\n b\r\nHost: "),
        changed(b"Host: ", b"X: \x08\r\nHost: "),
        changed(b"Host: ", b"no colon\r\nHost: "),
        changed(b"Host: ", b"Content-Length: 0\r\nHost: "),
        changed(b"Host: ", b"Transfer-Encoding: chunked\r\nHost: "),
        changed(b"Host: ", b"Expect: 100-continue\r\nHost: "),
        changed(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        changed(b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: websocket"),
        changed(b"keep-alive, Upgrade", b"keep-alive"),
        changed(b"keep-alive, Upgrade", b"no-upgrade"),
        changed(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""),
        changed(b"Sec-WebSocket-Version: 13\r\n", b""),
        changed(b"Cookie: ", b"Cookie: " + b"x" * LIMIT),
        changed(b"Cookie:", b"".join(b"X-%d: y\r\n" % number for number in range(MOST_HEADERS)) + b"Cookie:"),
    ],
)
def test_anything_else_is_left_to_h11(head: bytes) -> None:
    assert parse_upgrade(head, LIMIT) is None


def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert parse_upgrade(BROWSER + b"behind", len(BROWSER)) is not None
    assert parse_upgrade(BROWSER, len(BROWSER) - 1) is None


PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x85",
    b"\xa0",
    b":",
    b",",
]
HEADERS = [
    *(b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: other", b"X : y", b" folded"),
    *(b"\tfolded", b"Upgrade: h2c", b"Connection: close", b"Cookie: again", b"X:", b"", b": y", b"HTTP/1.1", b"X: y\n"),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A browser's request, changed here and there."""
    lines = [line.swapcase() if draw(st.integers(0, 19)) == 0 else line for line in LINES]
    for line in draw(st.lists(st.sampled_from(HEADERS) | st.sampled_from(LINES), max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    for _ in range(draw(st.integers(0, 1))):
        del lines[draw(st.integers(0, len(lines) - 1))]
    head = bytearray(b"\r\n".join([*lines, b"", b""]))
    for piece in draw(st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=2)):
        start = draw(st.integers(0, len(head)))
        head[start : start + draw(st.integers(0, 2))] = piece
    return bytes(head) + draw(st.sampled_from([b"", b"\x81\x80four", BROWSER]) | st.binary(max_size=9))


@settings(max_examples=1000, deadline=None)
@example(BROWSER)
@given(requests())
def test_whatever_is_taken_h11_takes_too_and_reads_alike(data: bytes) -> None:
    upgrade = parse_upgrade(data, LIMIT)
    if upgrade is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.target == upgrade.target
    assert list(request.headers) == upgrade.headers
    assert request.http_version.decode() == upgrade.http_version
    assert connection.trailing_data[0] == upgrade.rest
    assert is_upgrade(request.method, upgrade.headers, upgrade.http_version)
