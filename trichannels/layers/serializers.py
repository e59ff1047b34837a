"""How a message becomes bytes, once, at its sender. What would not come back as it was sent is refused here.

Encryption wraps a serializer; :func:`make_serializer` builds both from a layer's options.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from ..exceptions import InvalidChannelLayerError, UnreadableMessage, UnserializableMessage

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

Message = dict[str, Any]

_PLAIN = (str, bytes, bytearray, memoryview, bool, int, type(None))
_REFUSALS = (TypeError, ValueError, OverflowError, RecursionError)


class Serializer(Protocol):
    """Turns messages into bytes and back."""

    def encode(self, message: Message) -> bytes:
        """Return the message as bytes; raise :class:`UnserializableMessage` for what would not come back the same."""

    def decode(self, payload: bytes) -> Message:
        """Return a fresh message that nobody else holds; raise :class:`UnreadableMessage` for what is none."""


class Format(NamedTuple):
    """What a format does to a value; whether it takes other keys than text; which types come back as they are."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    any_key: bool
    plain: frozenset[type]


MSGPACK = Format(
    msgspec.msgpack.encode, msgspec.msgpack.decode, True, frozenset({str, bytes, bool, int, float, type(None)})
)
JSON = Format(msgspec.json.encode, msgspec.json.decode, False, frozenset({str, bool, type(None)}))


class FormatSerializer:
    """A serializer on one of msgspec's formats: encodes, and looks whether it would come back."""

    __slots__ = ("_decoder", "_encoder", "_format")

    def __init__(self, form: Format, encoder: Any, decoder: Any) -> None:
        self._format, self._encoder, self._decoder = form, encoder, decoder

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def encode(self, message: Message) -> bytes:
        if not isinstance(message, dict):
            raise UnserializableMessage("message", f"is not a dict but {type(message).__name__}")
        try:
            payload: bytes = self._encoder.encode(message)
            plain = self._format.plain
            for key, value in message.items():
                if type(value) not in plain or type(key) is not str:
                    break
            else:
                return payload  # what is flat and plain needs no second look, which costs more than the first
            same = self._decoder.decode(payload) == message
        except _REFUSALS as error:
            examine(message, self._format)
            raise UnserializableMessage("message", f"does not serialise: {error}") from error
        if not same:
            examine(message, self._format)  # returns if only tuples and NaNs differ
        return payload

    def decode(self, payload: bytes) -> Message:
        try:
            message: Message = self._decoder.decode(payload)
        except (ValueError, RecursionError) as error:
            raise UnreadableMessage(f"it is no message of {self!r}: {error}") from error
        return message


class MsgpackSerializer(FormatSerializer):
    """MessagePack by msgspec: None, bool, int (64 bits), float, str, bytes, aware datetime, list, dict, nested.

    Tuples come back as lists. msgspec would silently turn sets, UUIDs and Decimals into lists and strings: they raise.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MSGPACK, msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(dict))


class JsonSerializer(FormatSerializer):
    """JSON by msgspec: None, bool, int, finite float, str, list, dict with str keys, nested.

    Tuples come back as lists. What JSON has no word for (bytes, datetimes, NaN, keys that are no text) raises.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(JSON, msgspec.json.Encoder(), msgspec.json.Decoder(dict))


class Encrypted:
    """Another serializer's bytes, encrypted and signed with Fernet.

    The first of ``keys`` encrypts, all of them decrypt: to change a key, put the new one in front, and take the old
    one out once nothing travels under it. A key is a text or bytes of any length, as in channels_redis, whose
    messages it reads. Whoever receives for many readers decrypts once, by :meth:`decrypt`, and has ``inner`` decode.
    Needs ``pip install 'trichannels[redis]'``.
    """

    __slots__ = ("_fernet", "_names", "inner")

    def __init__(self, inner: Serializer, keys: Iterable[str | bytes]) -> None:
        kept = list(keys)
        self.inner, self._fernet = inner, _multi_fernet(kept)
        self._names = hashlib.sha256(b"names " + _derived(kept[0], 0)).digest() if kept else b""

    def __repr__(self) -> str:
        return f"Encrypted({self.inner!r})"

    def encode(self, message: Message) -> bytes:
        return self.encrypt(self.inner.encode(message))

    def decode(self, payload: bytes) -> Message:
        return self.inner.decode(self.decrypt(payload))

    def encrypt(self, plain: bytes) -> bytes:
        """Return ``plain`` encrypted with the first key."""
        return self._fernet.encrypt(plain)

    def pseudonym(self, name: str) -> str:
        """Return what ``name`` is called where it is not to be read: the same for all who have the same first key."""
        return hmac.digest(self._names, name.encode(), "sha256")[:16].hex()

    def decrypt(self, payload: bytes) -> bytes:
        """Return what was encrypted with any of the keys; else raise :class:`UnreadableMessage`."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(payload)
        except InvalidToken as error:
            raise UnreadableMessage(
                "it was not encrypted with any of the symmetric_encryption_keys: "
                "give all processes the same ones, and keep an old key until nobody uses it"
            ) from error


def make_serializer(
    serializer_format: str | Serializer = "msgpack", symmetric_encryption_keys: Iterable[str | bytes] | None = None
) -> Serializer:
    """Return the serializer of a format: ``"msgpack"``, ``"json"``, or one that is given; encrypted where keys are.

    Raises :class:`InvalidChannelLayerError`.
    """
    inner = _of_format(serializer_format)
    if symmetric_encryption_keys is None:
        return inner
    if isinstance(symmetric_encryption_keys, str | bytes):
        raise InvalidChannelLayerError("symmetric_encryption_keys must be a list of keys, even if there is only one")
    keys = list(symmetric_encryption_keys)
    return Encrypted(inner, keys) if keys else inner


def _of_format(given: str | Serializer) -> Serializer:
    formats: dict[str, Callable[[], Serializer]] = {"msgpack": MsgpackSerializer, "json": JsonSerializer}
    if isinstance(given, str) and given in formats:
        return formats[given]()
    if (
        not isinstance(given, str)
        and callable(getattr(given, "encode", None))
        and callable(getattr(given, "decode", None))
    ):
        return given
    raise InvalidChannelLayerError(
        f"serializer_format must be one of {', '.join(map(repr, formats))}, or an object with encode and decode, "
        f"not {given!r}"
    )


def _multi_fernet(keys: Iterable[str | bytes]) -> "MultiFernet":
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise InvalidChannelLayerError(
            "symmetric_encryption_keys needs the package cryptography: pip install 'trichannels[redis]'"
        ) from error
    return MultiFernet([Fernet(_derived(key, index)) for index, key in enumerate(keys)])


def _derived(key: str | bytes, index: int) -> bytes:
    if not isinstance(key, str | bytes) or not key:  # a key is never shown
        raise InvalidChannelLayerError(f"symmetric_encryption_keys[{index}] must be a str or bytes that is not empty")
    # Not stretched, for channels_redis does not either: a key should be long and random.
    digest = hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
    return base64.urlsafe_b64encode(digest)


def examine(value: object, form: Format = MSGPACK, path: str = "message", depth: int = 0) -> None:
    """Walk ``value`` and raise :class:`UnserializableMessage` at the first thing that would not come back the same."""
    if depth > 100:
        raise UnserializableMessage(path, "is nested more than 100 levels deep, or contains itself")
    if isinstance(value, dict):
        for key, item in value.items():
            _examine_key(key, form, f"the key {key!r} of {path}")
            examine(item, form, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            examine(item, form, f"{path}[{index}]", depth + 1)
    else:
        _examine_leaf(value, form, path)


def _examine_key(key: object, form: Format, path: str) -> None:
    if not form.any_key and not isinstance(key, str):
        raise UnserializableMessage(path, f"is a {type(key).__name__}: keys must be text here")
    if not isinstance(key, tuple):
        _examine_leaf(key, form, path)
        return
    for part in key:  # as a key, a tuple comes back as a tuple
        _examine_key(part, form, path)


def _examine_leaf(value: object, form: Format, path: str) -> None:
    kind = type(value).__name__
    try:
        back = form.decode(form.encode(value))
    except _REFUSALS as error:
        raise UnserializableMessage(path, f"is a {kind} that does not serialise: {error}") from error
    if isinstance(value, float) and isnan(value) and isinstance(back, float) and isnan(back):
        return
    if (type(back) is not type(value) and not isinstance(value, _PLAIN)) or back != value:
        raise UnserializableMessage(
            path, f"is a {kind} and would come back as {type(back).__name__}: convert it yourself"
        )
