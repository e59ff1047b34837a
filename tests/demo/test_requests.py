"""What a page may ask, and how it is refused."""

import pytest

from trichannels.demo.requests import NAME_LIMIT, TEXT_LIMIT, Enter, Refused, Say, Typing, clean_name, clean_text, parse


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"kind": "enter", "name": "Ada"}', Enter("Ada")),
        ('{"kind": "say", "text": "hi"}', Say("hi")),
        ('{"kind": "typing", "active": true}', Typing(True)),
    ],
)
def test_parses(text: str, request_: object) -> None:
    assert parse(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"kind": "shout"}',
        '{"kind": "say"}',
        '{"kind": "say", "text": 1}',
        '{"kind": "say", "text": "\\ud800"}',
        '{"kind": "typing", "active": "yes"}',
        "[" * 100_000,
    ],
)
def test_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(Refused):
        parse(text)


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        (" Ada ", "Ada"),
        ("Ada\n\tKing", "Ada King"),
        ("\u202eevil", "evil"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("x" * NAME_LIMIT, "x" * NAME_LIMIT),
    ],
)
def test_cleans_names(given: str, clean: str) -> None:
    assert clean_name(given) == clean


@pytest.mark.parametrize("name", ["", "   ", "\u202e", "\u200d", "x" * (NAME_LIMIT + 1)])
def test_refuses_names(name: str) -> None:
    with pytest.raises(Refused):
        clean_name(name)


def test_limits_messages() -> None:
    assert clean_text(" two\nlines ") == "two\nlines"
    assert clean_text("x" * TEXT_LIMIT)
    with pytest.raises(Refused, match="2000 characters; this one has 2001"):
        clean_text("x" * (TEXT_LIMIT + 1))
    with pytest.raises(Refused, match="at least one character"):
        clean_text(" \n ")
