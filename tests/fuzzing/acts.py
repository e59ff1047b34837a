"""What a client does, decoded from any bytes: no input is invalid, and a small change of it is a small change of acts.

The first byte chooses the application and flags, the second how many bytes our client takes at once; then come acts, a
byte for the kind (and whether to wait for the server), and what that kind takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..server.support import frame

MOST = 2**20  # bytes sent by one client: enough to overrun any bound, little enough to be quick
# Flags of the first byte: do not leave at the end; send no handshake of ours before the acts; offer compression in it.
STAY, BARE, COMPRESS = 0x80, 0x40, 0x20
WAIT = 0x08  # of a kind: the server comes to rest before the act


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Take:
    """From now on take ``size`` bytes at once; nothing at all if it is 0."""

    size: int


@dataclass(frozen=True, slots=True)
class Rest:
    """Let the server do all that it can do."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The server is told to stop."""


Act = Send | Sleep | Take | Rest | Reset | Drain


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def one(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def some(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]


def decode(data: bytes) -> Iterator[Act]:
    """Yield the acts of an input without its first two bytes."""
    source, last, sent = _Bytes(data), b"", 0
    while source:
        kind = source.one()
        if kind & WAIT:
            yield Rest()
        for act in _acts(kind % 8, source, last):
            if isinstance(act, Send):
                last, sent = act.data, sent + len(act.data)
                if sent > MOST:
                    return
            yield act


def _acts(kind: int, source: _Bytes, last: bytes) -> Iterator[Act]:
    if kind == 0:
        yield Send(source.some(source.one()))
    elif kind == 1:
        yield Send(_frame(source.one(), source.some(source.one())))
    elif kind == 2:
        for _ in range(source.one()):
            yield Send(last)
    elif kind == 3:
        yield Sleep(source.one() / 8)
    elif kind == 4:
        yield Take(source.one() * 16)
    elif kind == 5:
        yield Send(_frame(source.one(), b"x" * (source.one() * 257)))
    elif kind == 6:
        for byte in source.some(source.one()):
            yield Send(bytes([byte]))
            yield Rest()
    else:
        yield Drain() if source.one() & 1 else Reset()


def _frame(first: int, payload: bytes) -> bytes:
    return bytes([first]) + frame(0, payload)[1:]
