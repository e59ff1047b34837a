"""What the keys and pub/sub channels of a layer are called, and in which frames events travel. Pure.

``Native`` is our own. ``PubSubCompatible`` is what ``channels_redis.pubsub`` 4.3 speaks, so that a fleet can move from
one to the other process by process: groups and direct sends, without history, presence and work queues.

The braces in our own names are a cluster's hash tags: the keys of a group, and the channel of its events, are on one
node.
"""

from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ...exceptions import UnreadableMessage
from ..history import Position

# The first byte of what is published to a group.
PLAIN, MANY, NUMBERED, RECORDED, PRESENCE = b"e", b"m", b"n", b"h", b"p"
MESSAGE, JOIN, LEAVE, ANSWER = "m", "j", "l", "a"  # the first field of what is published to a process


def shard_of(name: str, shards: int) -> int:
    """Return which of several servers a name belongs to, as channels_redis has it."""
    return 0 if shards == 1 else int((crc32(name.encode()) & 0xFFF) / (4096 / shards))


@dataclass(frozen=True, slots=True)
class GroupEvent:
    """What was published to a group: ``body`` is a sealed message, several of them, or a diff of the presence.

    ``number``: that of the event among all that the process ``sender`` has published, where they are numbered.
    """

    kind: bytes
    body: bytes
    position: Position | None = None
    sender: str = ""
    number: int = 0


class Wire(Protocol):
    """How names and events look on the wire."""

    prefix: str

    def events(self, group: str) -> str:
        """Return the pub/sub channel of a group's events."""

    def group_of(self, channel: str) -> str | None:
        """Return the group whose events come on a pub/sub channel; None if it is no group's."""

    def event(self, sealed: bytes) -> bytes:
        """Return the frame of an event without a position."""

    def read_event(self, frame: bytes) -> GroupEvent:
        """Read a frame that came to a group; raises :class:`UnreadableMessage`."""


class Native:
    """Our own names and frames."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._start = f"{prefix}:{{"

    def __repr__(self) -> str:
        return f"Native({self.prefix!r})"

    def key(self, owner: str, what: str) -> str:
        """Return the key ``what`` of a group, channel or process."""
        return f"{self._start}{owner}}}:{what}"

    def events(self, group: str) -> str:
        return f"{self._start}{group}}}:events"

    def group_of(self, channel: str) -> str | None:
        start, end = self._start, "}:events"
        if channel.startswith(start) and channel.endswith(end):
            return channel[len(start) : -len(end)]
        return None

    def inbox(self, token: str) -> str:
        """Return the pub/sub channel on which a process gets what is for its channels alone."""
        return f"{self._start}{token}}}:inbox"

    def event(self, sealed: bytes) -> bytes:
        return PLAIN + sealed

    def many(self, sealed: Sequence[bytes]) -> bytes:
        """Return the frame of several events without positions, of one group: cheaper by far than as many frames."""
        return MANY + msgspec.msgpack.encode(sealed)

    def numbered(self, sender: str, number: int, sealed: bytes) -> bytes:
        """Return the frame of an event without a position, for where it might come late, or twice."""
        return b"%b%d:%b:%b" % (NUMBERED, number, sender.encode(), sealed)

    def read_event(self, frame: bytes) -> GroupEvent:
        kind = frame[:1]
        if kind in (PLAIN, MANY, PRESENCE):
            return GroupEvent(kind, frame[1:])
        number, _, rest = frame[1:].partition(b":")
        name, colon, body = rest.partition(b":")
        if kind not in (RECORDED, NUMBERED) or not colon or not number.isdigit():
            raise UnreadableMessage(f"the frame begins with {frame[:20]!r}, which no layer of this version sends")
        if kind == NUMBERED:
            return GroupEvent(kind, body, sender=name.decode(), number=int(number))
        return GroupEvent(kind, body, Position(int(number), name.decode()))


_MANY = msgspec.msgpack.Decoder(list[bytes])


def read_many(body: bytes) -> list[bytes]:
    """Return the sealed messages in the body of a frame of the kind ``MANY``; raises :class:`UnreadableMessage`."""
    try:
        return _MANY.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UnreadableMessage(f"a frame of several events is broken: {error}") from error


class PubSubCompatible:
    """The names and frames of ``channels_redis.pubsub``: the frame is the message itself."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._start = f"{prefix}__group__"

    def __repr__(self) -> str:
        return f"PubSubCompatible({self.prefix!r})"

    def events(self, group: str) -> str:
        return self._start + group

    def group_of(self, channel: str) -> str | None:
        return channel[len(self._start) :] if channel.startswith(self._start) else None

    def own_channels(self, token: str) -> str:
        """Return the pattern of the channel names of a process: others publish to the name itself."""
        return f"*.{token}!*"

    def event(self, sealed: bytes) -> bytes:
        return sealed

    def read_event(self, frame: bytes) -> GroupEvent:
        return GroupEvent(PLAIN, frame)


class Letter(msgspec.Struct, array_like=True, frozen=True):
    """What one process tells another: a message to a channel, or about a membership, and the answer to that."""

    kind: str
    channel: str = ""
    body: bytes = b""
    group: str = ""
    sender: str = ""  # the token of who waits for an answer
    number: int = 0


_LETTER = msgspec.msgpack.Decoder(Letter)


def write_letter(letter: Letter) -> bytes:
    """Return a letter as bytes."""
    return msgspec.msgpack.encode(letter)


def read_letter(frame: bytes) -> Letter:
    """Read a letter; raises :class:`UnreadableMessage`."""
    try:
        return _LETTER.decode(frame)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UnreadableMessage(f"a letter between two processes is broken: {error}") from error
