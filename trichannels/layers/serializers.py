"""How a message becomes bytes, once, at its sender. What would not come back as it was sent is refused here."""

from math import isnan
from typing import Any, Protocol

import msgspec

from ..exceptions import UnserializableMessage

Message = dict[str, Any]

_PLAIN = (str, bytes, bytearray, memoryview, bool, int, type(None))


class Serializer(Protocol):
    """Turns messages into bytes and back."""

    def encode(self, message: Message) -> bytes:
        """Return the message as bytes; raise :class:`UnserializableMessage` for what would not come back the same."""

    def decode(self, payload: bytes) -> Message:
        """Return a fresh message that nobody else holds."""


class MsgpackSerializer:
    """MessagePack by msgspec: None, bool, int (64 bits), float, str, bytes, aware datetime, list, dict, nested.

    Tuples come back as lists. msgspec would silently turn sets, UUIDs and Decimals into lists and strings: they raise.
    """

    __slots__ = ("_decoder", "_encoder")

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()

    def encode(self, message: Message) -> bytes:
        if not isinstance(message, dict):
            raise UnserializableMessage("message", f"is not a dict but {type(message).__name__}")
        try:
            payload = self._encoder.encode(message)
            same = self._decoder.decode(payload) == message
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            examine(message)
            raise UnserializableMessage("message", f"does not serialise: {error}") from error
        if not same:
            examine(message)  # returns if only tuples and NaNs differ
        return payload

    def decode(self, payload: bytes) -> Message:
        message: Message = self._decoder.decode(payload)
        return message


def examine(value: object, path: str = "message", depth: int = 0) -> None:
    """Walk ``value`` and raise :class:`UnserializableMessage` at the first thing that would not come back the same."""
    if depth > 100:
        raise UnserializableMessage(path, "is nested more than 100 levels deep, or contains itself")
    if isinstance(value, dict):
        for key, item in value.items():
            _examine_key(key, f"the key {key!r} of {path}")
            examine(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            examine(item, f"{path}[{index}]", depth + 1)
    else:
        _examine_leaf(value, path)


def _examine_key(key: object, path: str) -> None:
    if not isinstance(key, tuple):
        _examine_leaf(key, path)
        return
    for part in key:  # as a key, a tuple comes back as a tuple
        _examine_key(part, path)


def _examine_leaf(value: object, path: str) -> None:
    if isinstance(value, float) and isnan(value):
        return
    try:
        back = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnserializableMessage(path, f"is a {type(value).__name__} that does not serialise: {error}") from error
    if (type(back) is not type(value) and not isinstance(value, _PLAIN)) or back != value:
        raise UnserializableMessage(
            path, f"is a {type(value).__name__} and would come back as {type(back).__name__}: convert it yourself"
        )
