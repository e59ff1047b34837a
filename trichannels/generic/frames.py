"""The frames of a multiplexed socket: JSON objects that name a stream. Pure: no I/O.

Those with a payload are ``channelsmultiplexer``'s. From the client::

    {"stream": "chat", "payload": …}     a message to a stream
    {"stream": "chat", "open": true}     open a stream
    {"stream": "chat", "close": true}    close it

One of the three; ``open`` and ``close`` may also be objects, of which nothing is read yet. To the client::

    {"stream": "chat", "payload": …}                               a message of a stream
    {"stream": "chat", "open": true}                               the stream that was asked for is open
    {"stream": "chat", "close": {"code": 1000, "reason": ""}}      a stream has ended
    {"stream": "chat", "error": {"code": "…", "message": "…"}}     a frame could not be taken; ``stream`` may be null
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import msgspec

from ..events import Event, Serializer
from ..exceptions import BadEvent

Format: TypeAlias = Literal["json", "text"]


class Frame(msgspec.Struct):
    """What a client sends; a payload stays as it came."""

    stream: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    open: bool | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    close: bool | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def kind(self) -> str:
        """``"payload"``, ``"open"`` or ``"close"``; "" where it is none of them, or more than one."""
        said = [name for name in ("payload", "open", "close") if getattr(self, name) is not msgspec.UNSET]
        return said[0] if len(said) == 1 and getattr(self, said[0]) is not False else ""


class BadFrame(ValueError):
    """A frame that is not taken; ``code`` and the text say why."""

    def __init__(self, problem: str, code: str = "malformed") -> None:
        super().__init__(problem)
        self.code = code


_READ = msgspec.json.Decoder(Frame)
_READ_TEXT = msgspec.json.Decoder(str)
_SKIM = msgspec.json.Decoder(msgspec.Raw)  # says whether it is JSON, and makes nothing of it
# What is no JSON; a surrogate, which is no text; what is nested too deeply, for which msgspec has no error of its own.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


def read_frame(text: str | None) -> Frame:
    """Read a client's frame; raises :class:`BadFrame`."""
    if text is None:
        raise BadFrame("frames are text, not binary")
    try:
        frame = _READ.decode(text)
    except UNREADABLE as error:
        raise BadFrame(f"not a JSON object with a stream: {error}") from error
    if not frame.kind:
        raise BadFrame("a frame has a payload, or open: true, or close: true, and one of them alone")
    return frame


def payload_of(frame: Frame, form: Format) -> str:
    """Return the text that a stream's application receives; raises :class:`BadFrame`."""
    assert isinstance(frame.payload, msgspec.Raw)
    if form == "json":
        return bytes(frame.payload).decode()
    try:
        return _READ_TEXT.decode(frame.payload)
    except UNREADABLE as error:
        raise BadFrame("the payload of this stream is a string") from error


def payload_frame(stream: str, event: Mapping[str, Any], form: Format = "json") -> str:
    """Return the frame of a ``websocket.send``; raises :class:`BadEvent` for what cannot be in one."""
    text = event.get("text")
    if not isinstance(text, str):
        raise BadEvent(f"stream {stream!r} sent binary data: frames of a multiplexed socket are JSON; send text")
    try:
        if form == "text":
            text = _json(text)
        else:
            _SKIM.decode(text)
    except UNREADABLE as error:
        cure = "" if form == "text" else f": use send_json(), or say Multiplexer(..., text=[{stream!r}])"
        what = "text" if form == "text" else "JSON"
        raise BadEvent(f"stream {stream!r} sent {text[:40]!r}, which is no {what}{cure}") from error
    return f'{{"stream":{_name(stream)},"payload":{text}}}'


def opened_frame(stream: str) -> str:
    """Return the frame that says that a stream is open."""
    return _json({"stream": stream, "open": True})


def closed_frame(stream: str, code: int, reason: str) -> str:
    """Return the frame that says that a stream has ended."""
    return _json({"stream": stream, "close": {"code": code, "reason": reason}})


def error_frame(stream: str | None, code: str, message: str) -> str:
    """Return the frame that says what was wrong with a client's."""
    return _json({"stream": stream, "error": {"code": code, "message": message}})


@lru_cache(maxsize=4096)
def serializer_on(stream: str, serializer: Serializer, form: Format) -> Serializer:
    """Return what makes the frame of an event that a stream shares: the same for all sockets, so it is made once."""

    def framed(event: Mapping[str, Any]) -> Event:
        return {"type": "websocket.send", "text": payload_frame(stream, serializer(event), form)}

    return framed


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


@lru_cache(maxsize=4096)
def _name(stream: str) -> str:
    return _json(stream)
