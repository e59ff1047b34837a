"""One root, the tree that the docstring draws, and the table of close codes."""

import builtins
import inspect
import pickle
import re

import pytest

from trichannels import exceptions
from trichannels.exceptions import (
    CLOSE_CODES,
    ChannelFull,
    ConnectionClosed,
    LayerClosed,
    NoHandler,
    TrichannelsError,
    UnserializableMessage,
    should_reconnect,
)

ERRORS = {
    name: kind
    for name, kind in vars(exceptions).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException) and kind.__module__ == exceptions.__name__
}


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = {}
    for line in (exceptions.__doc__ or "").splitlines():
        if found := re.match(r"\s*[│ ]*[├└]── (\w+)(?:\s+\((\w+)\))?", line):
            drawn[found[1]] = found[2]
    assert set(drawn) == set(ERRORS) - {"TrichannelsError"}
    for name, builtin in drawn.items():
        others = [base.__name__ for base in ERRORS[name].__bases__ if base.__module__ == builtins.__name__]
        assert others == ([builtin] if builtin else []), name


@pytest.mark.parametrize("name", ERRORS)
def test_all_errors_have_our_root_and_say_what_they_mean(name: str) -> None:
    assert issubclass(ERRORS[name], TrichannelsError)
    assert inspect.getdoc(ERRORS[name])


def test_errors_carry_their_facts() -> None:
    closed = ConnectionClosed(1001, "bye")
    assert (closed.code, closed.reason) == (1001, "bye")
    assert str(closed) == "the connection is closed (1001, bye)"
    assert str(ConnectionClosed()) == "the connection is closed (1006)"
    full = ChannelFull("room", 3)
    assert (full.channel, full.capacity) == ("room", 3)
    missing = NoHandler("Chat", "chat.message", "chat_message")
    assert str(missing).startswith("No handler for message type chat.message")  # Channels' text
    assert "'chat_message'" in str(missing)
    bad = UnserializableMessage("message['a']", "is a set")
    assert (bad.path, bad.problem) == ("message['a']", "is a set")
    assert "async with layer" in str(LayerClosed("InMemoryChannelLayer"))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(1001, "bye"),
        ChannelFull("room", 3),
        NoHandler("Chat", "a.b", "a_b"),
        UnserializableMessage("message", "is a set"),
        LayerClosed("InMemoryChannelLayer"),
    ],
)
def test_errors_can_be_copied_to_another_process(error: TrichannelsError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_close_codes_say_whether_to_come_back() -> None:
    assert all(code == entry.code for code, entry in CLOSE_CODES.items())
    assert {code for code, entry in CLOSE_CODES.items() if entry.reconnect} == {1001, 1005, 1006, 1011, 1012, 1013}
    assert should_reconnect(1012)
    assert not should_reconnect(1000)
    assert not should_reconnect(4403)
    assert not should_reconnect(4999)
