"""How a ``BroadcastLayer`` writes what it sends: one frame an event, with its address in front. Pure: no I/O.

- 1 byte: the version of this format, 1
- 1 byte: the verb, a letter: ``g`` to a group, ``c`` to a channel, ``j`` a channel joins a group, ``l`` it leaves one,
  ``e`` an echo
- 1 byte: the length of the name, 1 to 99
- 4 bytes: the length of the body, big-endian
- the name, ASCII: of a group (``g``), of a channel (``c``, ``j``, ``l``), or a token (``e``)
- the body: a message as the layer's serializer writes it (``g``, ``c``), a group's name (``j``, ``l``), nothing (``e``)

All processes of a layer must speak one version: a frame of another one is counted, logged and thrown away.
"""

import struct
from dataclasses import dataclass

from ..exceptions import UnreadableMessage

VERSION = 1
HEAD = struct.Struct(">BcBI")
LONGEST_HEAD = HEAD.size + 99
"""Bytes from which ``read_frame`` can always tell whom a frame is for."""
TO_GROUP, TO_CHANNEL, JOIN, LEAVE, ECHO = b"g", b"c", b"j", b"l", b"e"
VERBS = frozenset({TO_GROUP, TO_CHANNEL, JOIN, LEAVE, ECHO})


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that came: ``name`` is whom it is for. ``missing``: bytes by which its body is too short."""

    verb: bytes
    name: str
    body: bytes
    missing: int = 0

    def whole(self) -> bytes:
        """Return the body; raises :class:`UnreadableMessage` for one that was cut short."""
        if self.missing:
            raise UnreadableMessage(f"{self.missing} bytes are missing at the end of its frame")
        return self.body


def write_frame(verb: bytes, name: str, body: bytes = b"") -> bytes:
    """Return a frame, ``HEAD.size + len(name) + len(body)`` bytes."""
    return HEAD.pack(VERSION, verb, len(name), len(body)) + name.encode("ascii") + body


def read_frame(data: bytes) -> Frame:
    """Return what a frame says. One that was cut short behind its name is returned, for its name can still be told.

    Raises :class:`UnreadableMessage` for what is no frame, or one of another version.
    """
    if data[:1] != bytes([VERSION]):
        raise UnreadableMessage(f"it is no frame of version {VERSION}: it begins with {bytes(data[:4])!r}")
    try:
        _, verb, length, size = HEAD.unpack_from(data)
        name = data[HEAD.size : HEAD.size + length].decode("ascii")
    except (struct.error, UnicodeDecodeError) as error:
        raise UnreadableMessage(f"the head of its frame is broken: {error}") from error
    body = data[HEAD.size + length :]
    if verb not in VERBS or not 0 < length == len(name) or len(body) > size:
        raise UnreadableMessage(f"the head of its frame is wrong: {bytes(data[: HEAD.size])!r}")
    return Frame(verb, name, body, size - len(body))
