"""Slots, redirections, tables."""

import pytest

from trichannels.layers.redis.slots import Redirection, SlotTable, read_slots, redirection, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    # the first three are the specification's own
    [("123456789", 12739), ("foo", 12182), ("somekey", 11058), ("foo{hash_tag}", 2515), ("bar{hash_tag}", 2515)],
)
def test_known_slots(key: str, slot: int) -> None:
    assert slot_of(key) == slot_of(key.encode()) == slot


def test_hash_tags() -> None:
    assert slot_of("{a}b") == slot_of("a") == slot_of("x{a}{b}")
    assert slot_of("foo{}{bar}") != slot_of("bar")  # an empty tag is none
    assert slot_of("foo{{bar}}zap") == slot_of("{bar")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection("MOVED", 3999, ("127.0.0.1", 6381))),
        ("ASK 7 ::1:6381", Redirection("ASK", 7, ("::1", 6381))),
        ("MOVED 3999 :6381", Redirection("MOVED", 3999, ("", 6381))),
        ("MOVED", None),
        ("MOVED x y", None),
        ("ERR no", None),
    ],
)
def test_redirections(answer: str, found: Redirection | None) -> None:
    assert redirection(answer) == found


def test_a_table() -> None:
    table = read_slots([[10, 20, [b"h", 1, b"id"], [b"replica", 9, b"id"]], [0, 9, [b"", 2, b"id"]]], "asked")
    assert table.places == {("h", 1), ("asked", 2)}
    assert [table.owner(slot) for slot in (0, 9, 10, 20, 21)] == [("asked", 2)] * 2 + [("h", 1)] * 2 + [None]
    moved = table.with_owner(15, ("x", 3))
    assert [moved.owner(slot) for slot in (14, 15, 16)] == [("h", 1), ("x", 3), ("h", 1)]
    assert SlotTable().owner(1) is None
