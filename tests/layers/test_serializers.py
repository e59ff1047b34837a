"""What passes comes back equal; what would not is refused at the sender, and its place is named."""

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import math
import pathlib
import types
import uuid
from collections import OrderedDict, UserDict, namedtuple
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.exceptions import InvalidChannelLayerError, UnreadableMessage, UnserializableMessage
from trichannels.layers.serializers import (
    Encrypted,
    JsonSerializer,
    Message,
    MsgpackSerializer,
    Serializer,
    examine,
    make_serializer,
)

serializer = MsgpackSerializer()

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
zones = st.integers(-14, 14).map(lambda hours: datetime.timezone(datetime.timedelta(hours=hours)))
moments = st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=zones)
leaves = st.none() | st.booleans() | numbers | st.text() | st.binary() | moments
contents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(-99, 99), inner, max_size=4),
)
messages = st.dictionaries(st.text(), contents, max_size=5)


def round_trip(message: dict[str, Any]) -> dict[str, Any]:
    return serializer.decode(serializer.encode(message))


def with_types(value: object) -> object:
    """Make 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {(type(key), key): with_types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_types(item) for item in value]
    return type(value), value


@settings(deadline=None)
@pytest.mark.once
@given(messages)
def test_what_passes_comes_back_the_same(message: dict[str, Any]) -> None:
    back = round_trip(message)
    assert with_types(back) == with_types(message)
    assert back is not message


def as_lists(value: object) -> object:
    """Return what tuples may come back as."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value


tupled = st.recursive(
    st.integers(0, 9) | st.text(max_size=2), lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
)


@settings(deadline=None)
@pytest.mark.once
@given(st.dictionaries(st.text(), tupled, max_size=4))
def test_tuples_come_back_as_lists(message: dict[str, Any]) -> None:
    assert round_trip(message) == as_lists(message)


def test_what_is_equal_may_come_back_as_the_plain_type() -> None:
    Point = namedtuple("Point", "x y")
    level = enum.IntEnum("level", {"high": 3})
    message = {
        "not a number": math.nan,
        "endless": [math.inf, -math.inf],
        "array": bytearray(b"x"),
        "view": memoryview(b"x"),
        "point": Point(1, 2),
        "level": level(3),
        "ordered": OrderedDict(a=1),
        "keys": {None: 0, b"bytes": 1, 2: 2, (1, (2, "three")): 3, True: 4},
    }
    back = round_trip(message)
    assert math.isnan(back.pop("not a number"))
    assert back == {
        "endless": [math.inf, -math.inf],
        "array": b"x",
        "view": b"x",
        "point": [1, 2],
        "level": 3,
        "ordered": {"a": 1},
        "keys": {None: 0, b"bytes": 1, 2: 2, (1, (2, "three")): 3, True: 4},
    }


@dataclasses.dataclass
class Plain:
    x: int = 1


class Record(msgspec.Struct):
    x: int = 1


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    """A str that is more than a str."""


circle: list[Any] = []
circle.append(circle)

REFUSED: dict[str, Any] = {
    "set": {1},
    "frozenset": frozenset(),
    "UUID": uuid.UUID(int=1),
    "Decimal": decimal.Decimal("1.5"),
    "naive datetime": datetime.datetime(2024, 1, 1),
    "date": datetime.date(2024, 1, 1),
    "time": datetime.time(1),
    "timedelta": datetime.timedelta(1),
    "moment out of range": datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    "complex": 1j,
    "object": object(),
    "function": len,
    "class": int,
    "generator": (letter for letter in ""),
    "range": range(2),
    "enum": Colour.RED,
    "dataclass": Plain(),
    "struct": Record(),
    "address": ipaddress.ip_address("::1"),
    "path": pathlib.PurePath("x"),
    "str of a kind": Text("x"),
    "mapping proxy": types.MappingProxyType({"a": 1}),
    "UserDict": UserDict(a=1),
    "too large": 2**64,
    "too small": -(2**63) - 1,
    "surrogate": "\ud800",
    "ellipsis": ...,
    "exception": ValueError("x"),
}


@pytest.mark.parametrize("beside", [{}, {"tuple": (1,)}, {"nan": math.nan}], ids=["alone", "tuple", "nan"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_not_come_back_is_refused_and_its_place_is_named(kind: str, beside: dict[str, Any]) -> None:
    message = {"type": "x", **beside, "rows": [{"ok": 1}, {"cells": (0, REFUSED[kind])}]}
    with pytest.raises(UnserializableMessage) as caught:
        serializer.encode(message)
    assert caught.value.path == "message['rows'][1]['cells'][1]"
    assert caught.value.path in str(caught.value)
    assert type(REFUSED[kind]).__name__ in caught.value.problem


@pytest.mark.parametrize("beside", [{}, {"tuple": (1,)}], ids=["alone", "tuple"])
@pytest.mark.parametrize(
    "key", [frozenset([1]), Colour.RED, uuid.UUID(int=1), "\ud800", (1, frozenset()), datetime.date(2024, 1, 1)]
)
def test_a_key_that_would_not_come_back_is_refused_and_named(key: Any, beside: dict[str, Any]) -> None:
    with pytest.raises(UnserializableMessage) as caught:
        serializer.encode({"type": "x", **beside, "table": [{"ok": 1, key: 2}]})
    assert caught.value.path == f"the key {key!r} of message['table'][0]"


def test_what_contains_itself_is_refused() -> None:
    with pytest.raises(UnserializableMessage, match="nested more than 100 levels deep, or contains itself") as caught:
        serializer.encode({"type": "x", "circle": circle})
    assert caught.value.path.startswith("message['circle'][0][0]")


@pytest.mark.parametrize("message", [None, "text", [("type", "x")], UserDict(type="x"), b""])
def test_a_message_is_a_dict(message: Any) -> None:
    with pytest.raises(UnserializableMessage, match="is not a dict but"):
        serializer.encode(message)


class Unequal(dict[str, int]):
    """A dict that says that it differs from everything, or that cannot tell."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("cannot tell")

    __hash__ = None


def test_content_that_cannot_be_compared_is_refused_where_no_part_of_it_is_to_blame() -> None:
    with pytest.raises(UnserializableMessage, match="message does not serialise: cannot tell"):
        serializer.encode({"type": "x", "odd": Unequal(a=1)})


def test_examine_passes_what_may_be_sent() -> None:
    examine({"a": [1, {"b": (math.nan, None)}], "c": datetime.datetime.now(datetime.UTC)})


def test_each_decoding_is_a_copy_of_its_own() -> None:
    payload = serializer.encode({"rows": [1]})
    first = serializer.decode(payload)
    first["rows"].append(2)
    assert serializer.decode(payload) == {"rows": [1]}


# ---- other formats, and encryption


@pytest.mark.parametrize("message", [{"type": "a", "n": 1, "x": [1.5, None, True, "ä"], "d": {"k": {}}}, {}])
@pytest.mark.parametrize("serializer", [JsonSerializer(), Encrypted(MsgpackSerializer(), ["k"])])
def test_other_serializers_bring_it_back(serializer: Serializer, message: Message) -> None:
    assert serializer.decode(serializer.encode(message)) == message


@pytest.mark.parametrize(
    "value", [b"bytes", math.nan, math.inf, {1: 2}, {(1, 2): 3}, datetime.datetime.now(datetime.UTC), {1, 2}]
)
def test_json_refuses_what_it_has_no_word_for(value: object) -> None:
    with pytest.raises(UnserializableMessage, match=r"message\['deep'\]|the key .* of message"):
        JsonSerializer().encode({"deep": value})


@pytest.mark.parametrize("serializer", [JsonSerializer(), MsgpackSerializer()])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"[1]", b"no message", b"\x93\x01\x02\x03"])
def test_what_is_no_message_is_said_to_be_unreadable(serializer: Serializer, payload: bytes) -> None:
    with pytest.raises(UnreadableMessage, match="no message of"):
        serializer.decode(payload)


def test_keys_rotate() -> None:
    old, new = Encrypted(MsgpackSerializer(), ["old"]), Encrypted(MsgpackSerializer(), ["new", b"old"])
    assert new.decode(old.encode({"n": 1})) == {"n": 1}
    with pytest.raises(UnreadableMessage, match="symmetric_encryption_keys"):
        old.decode(new.encode({"n": 1}))
    with pytest.raises(UnreadableMessage):
        new.decode(MsgpackSerializer().encode({"n": 1}))


def test_encryption_is_that_of_channels_redis() -> None:
    from channels_redis.serializers import MsgPackSerializer

    ours, theirs = make_serializer("msgpack", ["secret"]), MsgPackSerializer(symmetric_encryption_keys=["secret"])
    message = {"type": "a", "n": [1, "x", b"y"]}
    assert ours.decode(theirs.serialize(message)) == message
    assert theirs.deserialize(ours.encode(message)) == message


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"serializer_format": "yaml"}, "serializer_format must be one of 'msgpack', 'json'"),
        ({"serializer_format": object()}, "serializer_format must be one of"),
        ({"symmetric_encryption_keys": "one"}, "symmetric_encryption_keys must be a list"),
        ({"symmetric_encryption_keys": ["good", ""]}, r"symmetric_encryption_keys\[1\]"),
        ({"symmetric_encryption_keys": [7]}, r"symmetric_encryption_keys\[0\]"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem):
        make_serializer(**options)


def test_no_key_is_ever_shown() -> None:
    serializer = make_serializer("json", ["a secret"])
    assert "secret" not in repr(serializer)
    assert isinstance(make_serializer("json", []), JsonSerializer)
