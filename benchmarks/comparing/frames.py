"""The bytes that the load generator sends and expects (RFC 6455 section 5.2). Pure: no I/O."""

from struct import pack

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
PAYLOAD = b"a message of 128 bytes, sent again and again. ".ljust(127, b"=") + b"."
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def head(opcode: int, length: int, mask: int = 0) -> bytes:
    """Return the first bytes of a whole message; ``mask`` is 128 for a client's."""
    if length < 126:
        return pack("!BB", 128 | opcode, mask | length)
    return pack("!BBH", 128 | opcode, mask | 126, length)


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame. Its mask is zero, which the server has to apply all the same."""
    return head(opcode, len(payload), 128) + bytes(4) + payload


def unmasked(opcode: int, payload: bytes) -> bytes:
    """Return a server's frame."""
    return head(opcode, len(payload)) + payload


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole frames of a server's bytes, and what is left over."""
    frames: list[tuple[int, bytes]] = []
    while len(data) >= 2:
        start, length = 2, data[1]
        if length == 126:
            start, length = 4, int.from_bytes(data[2:4])
        if data[1] > 126 or len(data) < start + length:
            break
        frames.append((data[0] & 15, data[start : start + length]))
        data = data[start + length :]
    return frames, data


def upgrade(path: str) -> bytes:
    """Return the request that opens a WebSocket. It offers no extension, so that no server compresses."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join((*lines, "", "")).encode()
