"""What an event stream looks like, and how event ids carry positions. Pure: no I/O, no clock, no consumer.

HTML Standard, "Server-sent events": the stream is in sections 9.2.5 and 9.2.6, ``Last-Event-ID`` in section 9.2.4.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import Mapping
from hashlib import blake2s
from urllib.parse import quote, unquote, unquote_plus

from ..events import Scope
from ..exceptions import BadEvent, InvalidChannelLayerError
from ..layers.history import Position

VERSION = "1"
MOST_GROUPS = 100  # in one id: about 4 KiB of the 8 KiB that servers and proxies commonly allow for a header
LONGEST_ID = 8192
LONGEST_REST = 4096  # of an id whose client is in fewer groups: so far, it is filled with groups it was in before
OTHERS = "*"  # in an id: there are groups that the client has been in and that are not named
NOWHERE = Position(0, "?")  # where the client stands in those; no history has this epoch
_LINES = re.compile("\r\n|\r|\n")  # str.splitlines() knows many more, which a client does not
_QUERY = re.compile(r"(?:^|&)last_event_id=([^&]+)")
_PLACE = re.compile(r"([0-9a-f]{10})-(0|[1-9]\d{0,17})-([\w.~%-]{1,128})", re.ASCII)


def encode_event(
    data: str | bytes,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> bytes:
    """Return one event. ``data``: text, or bytes of UTF-8; each line break in it, CRLF, CR or LF, arrives as LF.

    ``retry``: milliseconds. Raises :class:`BadEvent` for what would arrive as something else, TypeError for what is no
    text.
    """
    lines = [f"data: {line}" for line in _LINES.split(_text("data", data))]
    if event is not None:
        lines.insert(0, f"event: {_one_line('event', event)}")
    if id is not None:
        lines.insert(0, _id_line(id))
    if retry is not None:
        lines.insert(0, _retry_line(retry))
    return _block(lines)


def encode_comment(text: str = "") -> bytes:
    """Return a comment, which a client ignores; it may have several lines."""
    return _block([f": {line}" if line else ":" for line in _LINES.split(_text("comment", text))])


def encode_id(id: str) -> bytes:  # noqa: A002 - the field's name
    """Return what gives a client a new last event id and makes no event: a block without data does just that."""
    return _block([_id_line(id)])


def encode_retry(milliseconds: int) -> bytes:
    """Return what tells a client how long to wait before it comes back."""
    return _block([_retry_line(milliseconds)])


def is_retry(value: object) -> bool:
    """Say whether ``value`` may be a reconnection time: the field is digits and nothing else."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _block(lines: list[str]) -> bytes:
    try:
        return ("\n".join(lines) + "\n\n").encode()
    except UnicodeEncodeError as error:
        raise BadEvent(f"an event stream is UTF-8, which has no {error.object[error.start]!r}") from error


def _text(name: str, value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise TypeError(f"{name} is str or bytes, not {type(value).__name__}: encode it, or use send_json_event()")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadEvent(f"{name} is bytes that are no UTF-8 ({error}): encode them as text, in base64 say") from error


def _one_line(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    if "\n" in value or "\r" in value:
        raise BadEvent(f"{name} is one line of the stream and must not hold a line break: {value!r}")
    return value


def _id_line(value: str) -> str:
    if "\0" in _one_line("id", value):
        raise BadEvent(f"id must not hold a NUL, or clients ignore it: {value!r}")
    return f"id: {value}"


def _retry_line(value: int) -> str:
    if not is_retry(value):
        raise BadEvent(f"retry is a number of milliseconds, an int of 0 or more, not {value!r}")
    return f"retry: {value}"


# ---- what the client says


def last_event_id(scope: Scope) -> str:
    """Return the id of the last event that the client has seen; "" if it says none.

    The header wins over the parameter ``last_event_id`` of the query: a polyfill that cannot set headers puts it there,
    and an address that was opened with one keeps it when the browser itself comes back with a newer header.
    """
    for name, value in scope.get("headers") or ():
        if name == b"last-event-id":
            return str(value, errors="replace")
    found = _QUERY.search(scope.get("query_string", b"").decode("latin-1"))
    return unquote_plus(found[1]) if found else ""


def read_id(text: str) -> dict[str, Position]:
    """Return the positions in an id, by the :func:`key_of` their groups. They are what somebody says, no more.

    What is not an id as we make them tells only that its client has been here: it is at ``NOWHERE`` in all groups.
    """
    if not text:
        return {}
    version, *places = text.split(",") if len(text) <= LONGEST_ID else [""]
    others = places[-1:] == [OTHERS]
    named = places[:-1] if others else places
    read = [_read_place(place) for place in named[: MOST_GROUPS + 1]]
    found = dict(place for place in read if place is not None)
    if version != VERSION or not places or len(named) > MOST_GROUPS or len(found) < len(named):
        return {OTHERS: NOWHERE}
    return {**found, OTHERS: NOWHERE} if others else found


def _read_place(text: str) -> tuple[str, Position] | None:
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    epoch = unquote(match[3])
    return (match[1], Position(int(match[2]), epoch)) if quote(epoch, safe="") == match[3] else None


def key_of(group: str) -> str:
    """Return what stands for a group in an id, which anybody may read: names may tell what is nobody's business."""
    return blake2s(group.encode(), digest_size=5).hexdigest()


class Reached:
    """Up to where a client has seen the history of each group, to be told to it as an event id.

    What the client ``claimed`` is kept apart from what the histories have told, and gives way to it: it came from
    outside. Events do not say of which group they are, so their positions are kept by their epochs, each of one group.
    """

    __slots__ = ("_at", "_claimed", "_early", "_held", "_keys")

    def __init__(self, claimed: Mapping[str, Position]) -> None:
        self._claimed = dict(claimed)  # of groups that it is not in; those that it has been in most recently first
        self._held: dict[str, Position] = {}  # of groups that it is in, but has not been told yet that it missed events
        self._at: dict[str, Position] = {}
        self._keys: dict[str, str] = {}  # by epoch
        self._early: dict[str, int] = {}  # by epoch: of events that came before it was known whose they are

    def __repr__(self) -> str:
        return f"<Reached {self.id()!r}>"

    def of(self, group: str) -> Position | None:
        """Return where the client stands in a group, or says it does; None if it has never been told."""
        key = key_of(group)
        for told in (self._at, self._held, self._claimed):
            if key in told:
                return told[key]
        return self._claimed.get(OTHERS)

    def hold(self, group: str, since: Position) -> None:
        """A group is followed, but not from ``since`` on; until the client knows that, it is where it was.

        Raises :class:`InvalidChannelLayerError` as :meth:`enter` does.
        """
        self._require_room(group)
        self.forget(group)
        self._held[key_of(group)] = since

    def enter(self, group: str, position: Position | None) -> None:
        """A group is followed from ``position`` on, or has no history. An event may have come before we knew of it.

        Raises :class:`InvalidChannelLayerError` for more groups than an id can tell.
        """
        if position is None:
            self.forget(group)
            return
        self._require_room(group)
        self.forget(group)
        key = key_of(group)
        self._at[key] = Position(max(position.offset, self._early.pop(position.epoch, 0)), position.epoch)
        self._keys[position.epoch] = key

    def _require_room(self, group: str) -> None:
        if len({key_of(group), *self._at, *self._held}) > MOST_GROUPS:
            raise InvalidChannelLayerError(
                f"join({group!r}): an event id has room for {MOST_GROUPS} groups with history; "
                "publish to fewer groups, or set positions_as_ids = False"
            )

    def advance(self, position: Position) -> None:
        """An event has been handled."""
        key = self._keys.get(position.epoch)
        if key is not None:
            if position.offset > self._at[key].offset:
                self._at[key] = position
            return
        self._early[position.epoch] = max(position.offset, self._early.get(position.epoch, 0))
        if len(self._early) > MOST_GROUPS:  # without it, an event may come twice, but none is missed
            del self._early[next(iter(self._early))]

    def forget(self, group: str) -> None:
        """A group is followed no longer."""
        key = key_of(group)
        self._claimed.pop(key, None)
        self._held.pop(key, None)
        known = self._at.pop(key, None)
        if known is not None and self._keys.get(known.epoch) == key:
            del self._keys[known.epoch]

    def forget_unjoined(self) -> bool:
        """Drop what the client says of groups that it has not joined again; False if there was nothing of it."""
        there = bool(self._claimed)
        self._claimed.clear()
        return there

    def id(self, here: Position | None = None) -> str:
        """Return all positions as an id, as if the event at ``here`` were handled; "" if it is in no group with one.

        Where there is room, groups that it may yet join again follow; if there is too little, a mark for them all.
        """
        joined = {**self._held, **self._at}
        if not joined:
            return ""
        if here is not None and here.epoch in self._keys:
            joined[self._keys[here.epoch]] = here
        places = [_place(key, position) for key, position in sorted(joined.items(), key=lambda item: item[0])]
        others, length = OTHERS in self._claimed, sum(map(len, places))
        for key, position in self._claimed.items():
            place = _place(key, position)
            length += len(place)
            if key == OTHERS or len(places) >= MOST_GROUPS or length > LONGEST_REST:
                others = True
                break
            places.append(place)
        return ",".join((VERSION, *places, *([OTHERS] if others else ())))

    def knows(self, position: Position) -> bool:
        """Say whether the group of this position is one that is followed."""
        return position.epoch in self._keys


def _place(key: str, position: Position) -> str:
    return f"{key}-{position.offset}-{quote(position.epoch, safe='')}"
