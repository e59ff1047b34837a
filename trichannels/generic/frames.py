"""The frames of a multiplexed socket: JSON objects that name a stream. Pure: no I/O.

Those with a payload are ``channelsmultiplexer``'s. From the client::

    {"stream": "chat", "payload": …}     a message to a stream
    {"stream": "chat", "open": true}     open a stream
    {"stream": "chat", "close": true}    close it

To the client::

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
    open: Any = msgspec.UNSET
    close: Any = msgspec.UNSET

    @property
    def kind(self) -> str:
        """``"payload"``, ``"open"`` or ``"close"``; "" where there is none of them."""
        return next((name for name in ("payload", "open", "close") if getattr(self, name) is not msgspec.UNSET), "")


class BadFrame(ValueError):
    """A frame that cannot be read; the text says why."""


_READ = msgspec.json.Decoder(Frame)


def read_frame(text: str | None) -> Frame:
    """Read a client's frame; raises :class:`BadFrame`."""
    if text is None:
        raise BadFrame("frames are text, not binary")
    try:
        frame = _READ.decode(text)
    except msgspec.MsgspecError as error:
        raise BadFrame(f"not a JSON object with a stream: {error}") from error
    if not frame.kind:
        raise BadFrame("a frame has a payload, or open, or close")
    return frame


def payload_of(frame: Frame, form: Format) -> str:
    """Return the text that a stream's application receives; raises :class:`BadFrame`."""
    assert isinstance(frame.payload, msgspec.Raw)
    if form == "json":
        return bytes(frame.payload).decode()
    payload = msgspec.json.decode(frame.payload)
    if not isinstance(payload, str):
        raise BadFrame("the payload of this stream is a string")
    return payload


def payload_frame(stream: str, event: Mapping[str, Any], form: Format = "json") -> str:
    """Return the frame of a ``websocket.send``; raises :class:`BadEvent` for what cannot be in one."""
    text = event.get("text")
    if not isinstance(text, str):
        raise BadEvent(f"stream {stream!r} sent binary data: frames of a multiplexed socket are JSON; send text")
    if form == "text":
        text = _json(text)
    else:
        try:
            msgspec.json.decode(text)
        except msgspec.MsgspecError as error:
            raise BadEvent(
                f"stream {stream!r} sent {text[:40]!r}, which is no JSON: use send_json(), or say "
                f"Multiplexer(..., text=[{stream!r}])"
            ) from error
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
