"""Keys, pub/sub channels and frames."""

import pytest
from channels_redis.utils import _consistent_hash

from trichannels.exceptions import UnreadableMessage
from trichannels.layers.history import Position
from trichannels.layers.redis.names import (
    MESSAGE,
    PLAIN,
    RECORDED,
    Letter,
    Native,
    PubSubCompatible,
    read_letter,
    shard_of,
    write_letter,
)

NATIVE, COMPATIBLE = Native("asgi"), PubSubCompatible("asgi")


def test_all_that_is_a_groups_has_its_hash_tag() -> None:
    for name in (NATIVE.events("a.b"), NATIVE.key("a.b", "log"), NATIVE.key("a.b", "meta")):
        assert "{a.b}" in name


@pytest.mark.parametrize("wire", [NATIVE, COMPATIBLE])
def test_a_group_is_found_by_the_channel_of_its_events(wire: Native | PubSubCompatible) -> None:
    assert wire.group_of(wire.events("a-b_c.d")) == "a-b_c.d"
    assert wire.group_of("something else") is None


def test_frames() -> None:
    event = NATIVE.read_event(NATIVE.event(b"sealed"))
    assert (event.kind, event.body, event.position) == (PLAIN, b"sealed", None)
    event = NATIVE.read_event(b"h17:epoch:sealed:with:colons")
    assert (event.kind, event.body, event.position) == (RECORDED, b"sealed:with:colons", Position(17, "epoch"))
    assert COMPATIBLE.read_event(b"h17:epoch:x").body == b"h17:epoch:x"


@pytest.mark.parametrize("frame", [b"", b"x", b"h", b"h17", b"h17:epoch", b"hseventeen:epoch:x", b"\x81\xa4type"])
def test_a_frame_of_somebody_else_is_unreadable(frame: bytes) -> None:
    with pytest.raises(UnreadableMessage, match="frame"):
        NATIVE.read_event(frame)


def test_letters() -> None:
    letter = Letter(MESSAGE, "specific.token!i1", b"body", sender="me", number=3)
    assert read_letter(write_letter(letter)) == letter
    for broken in (b"", b"\xc1", b"\x90", b"\x81\xa1a\x01", write_letter(letter)[:-1]):
        with pytest.raises(UnreadableMessage, match="letter"):
            read_letter(broken)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_names_are_shared_out_as_channels_redis_does(shards: int) -> None:
    for number in range(200):
        assert shard_of(f"group.{number}", shards) == _consistent_hash(f"group.{number}", shards)
