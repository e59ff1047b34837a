"""What an event stream looks like, and how event ids carry positions. Pure: no I/O, no clock, no consumer.

HTML Standard, "Server-sent events": the stream is in sections 9.2.5 and 9.2.6, ``Last-Event-ID`` in section 9.2.4.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import Mapping
from hashlib import blake2s
from urllib.parse import parse_qs, quote, unquote

from ..events import Scope
from ..exceptions import BadEvent, InvalidChannelLayerError
from ..layers.history import Position

VERSION = "1"
MOST_GROUPS = 100  # in one id: about 4 KiB of the 8 KiB that servers and proxies commonly allow for a header
LONGEST_ID = 8192
_LINES = re.compile("\r\n|\r|\n")  # str.splitlines() knows many more, which a client does not
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
    try:
        query: dict[str, list[str]] = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=100)
    except ValueError:  # too many fields
        return ""
    return query.get("last_event_id", [""])[0]


def read_id(text: str) -> dict[str, Position]:
    """Return the positions in an id, by the :func:`key_of` their groups; nothing for what is not an id of ours."""
    version, *places = text.split(",") if len(text) <= LONGEST_ID else [""]
    matches = [_PLACE.fullmatch(place) for place in places]
    if version != VERSION or len(matches) > MOST_GROUPS:
        return {}
    found = {match[1]: Position(int(match[2]), unquote(match[3])) for match in matches if match}
    return found if all(matches) else {}


def key_of(group: str) -> str:
    """Return what stands for a group in an id, which anybody may read: names may tell what is nobody's business."""
    return blake2s(group.encode(), digest_size=5).hexdigest()


class Reached:
    """Up to where a client has seen the history of each group, to be told to it as an event id.

    Positions are kept by their epochs, for an event does not say of which group it is: an epoch is of one group only.
    """

    __slots__ = ("_at", "_epochs")

    def __init__(self, given: Mapping[str, Position]) -> None:
        self._epochs = {key: position.epoch for key, position in given.items()}
        self._at = {position.epoch: position.offset for position in given.values()}

    def __repr__(self) -> str:
        return f"<Reached {self.id()!r}>"

    def of(self, group: str) -> Position | None:
        """Return where the client stands in a group; None if it has never been told."""
        epoch = self._epochs.get(key_of(group))
        return None if epoch is None else Position(self._at[epoch], epoch)

    def enter(self, group: str, position: Position | None) -> None:
        """A group is followed from ``position`` on, or has no history. An event may have come before we knew of it.

        Raises :class:`InvalidChannelLayerError` for more groups than an id can tell.
        """
        key = key_of(group)
        if position is None:
            self.forget(group)
            return
        if key not in self._epochs and len(self._epochs) >= MOST_GROUPS:
            raise InvalidChannelLayerError(
                f"join({group!r}): an event id has room for {MOST_GROUPS} groups with history; "
                "publish to fewer groups, or set positions_as_ids = False"
            )
        if self._epochs.get(key) != position.epoch:
            self.forget(group)
        self._epochs[key] = position.epoch
        self.advance(position)

    def advance(self, position: Position) -> None:
        """An event has been handled."""
        self._at[position.epoch] = max(position.offset, self._at.get(position.epoch, 0))

    def forget(self, group: str) -> None:
        """A group is followed no longer."""
        epoch = self._epochs.pop(key_of(group), None)
        if epoch is not None:
            self._at.pop(epoch, None)

    def id(self, here: Position | None = None) -> str:
        """Return all positions as an id, as if the event at ``here`` were handled; "" if there are none."""
        at = self._at if here is None else {**self._at, here.epoch: here.offset}
        places = [f"{key}-{at[epoch]}-{quote(epoch, safe='')}" for key, epoch in sorted(self._epochs.items())]
        return ",".join((VERSION, *places)) if places else ""

    def knows(self, position: Position) -> bool:
        """Say whether the group of this position is one that is followed."""
        return position.epoch in self._epochs.values()
