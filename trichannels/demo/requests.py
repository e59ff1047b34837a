"""What a page may ask of the chat, and the check of it. Pure: no I/O.

A request that breaks a rule is answered with an error event; it does not cost the socket.
"""

from typing import TypeAlias

import msgspec

from ..exceptions import TrichannelsError

NAME_LIMIT = 32
"""Characters in a name."""

TEXT_LIMIT = 2000
"""Characters in a message."""

JOINERS = "\u200c\u200d"
"""Not printable by Unicode's book, yet some scripts and many emoji are written with them."""


class Refused(TrichannelsError):
    """The request cannot be done; the text is for the person at the page."""


class Enter(msgspec.Struct, tag_field="kind", tag="enter", frozen=True):
    """Somebody steps into the room under a name."""

    name: str


class Say(msgspec.Struct, tag_field="kind", tag="say", frozen=True):
    """A message to everybody in the room."""

    text: str


class Typing(msgspec.Struct, tag_field="kind", tag="typing", frozen=True):
    """Somebody began to type, or stopped."""

    active: bool


Request: TypeAlias = Enter | Say | Typing
_decoder: "msgspec.json.Decoder[Request]" = msgspec.json.Decoder(Enter | Say | Typing)


def parse(text: str) -> Request:
    """Read one request; raise :class:`Refused` if it isn't one."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise Refused(f"That was not understood: {problem}") from problem


def clean_name(name: str) -> str:
    """Return ``name`` on one line without invisible characters; raise :class:`Refused` if nothing fitting remains."""
    visible = "".join(c if c.isprintable() or c in JOINERS else " " for c in name)
    return _within(" ".join(visible.split()), NAME_LIMIT, "A name")


def clean_text(text: str) -> str:
    """Return ``text`` without blank ends; raise :class:`Refused` if it is empty or too long."""
    return _within(text.strip(), TEXT_LIMIT, "A message")


def _within(text: str, limit: int, what: str) -> str:
    if not text.strip(JOINERS):
        raise Refused(f"{what} needs at least one character.")
    if len(text) > limit:
        raise Refused(f"{what} may have {limit} characters; this one has {len(text)}.")
    return text
