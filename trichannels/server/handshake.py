"""The opening handshake of a WebSocket over HTTP/1.1 (RFC 6455 section 4.2): judging and answering. Pure: no I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from websockets.utils import accept_key

from ..events import Headers
from ..exceptions import BadEvent
from .deflate import MalformedOffer, agreed

TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
EXTENSIONS = b"sec-websocket-extensions"
# Ours to say: how the connection goes on, and where its body ends.
FRAMING = {b"connection", b"transfer-encoding", b"upgrade", b"sec-websocket-accept", EXTENSIONS}
KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
ONCE = (b"host", b"origin", b"upgrade", b"sec-websocket-key", b"sec-websocket-version")
SWITCHING = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A request to become a WebSocket, and the bytes that came behind it."""

    target: bytes
    headers: Headers
    http_version: str
    rest: bytes = b""

    def values(self, name: bytes) -> list[str]:
        """All comma-separated values of a header, in order."""
        texts = (value.decode("latin1") for key, value in self.headers if key == name)
        return [part.strip() for text in texts for part in text.split(",") if part.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The head of an HTTP response, and its whole body if it has one."""

    status: int
    headers: Headers
    body: bytes = b""
    window: int = 0  # bits, if compression is agreed upon

    def __bytes__(self) -> bytes:
        return head(self.status, self.headers) + self.body


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Serialise a response head; raises :class:`BadEvent` for a header that would break out of its line."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, PHRASES.get(status, b""))]
    for name, value in headers:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise BadEvent(f"header {name!r}: {value!r} cannot be sent: no line breaks, and a name without spaces")
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"


def is_upgrade(method: bytes, headers: Headers, http_version: str) -> bool:
    """Say whether a request asks for a WebSocket; whether it asks rightly is for :func:`judge` to say.

    Generous, lest a request that hypercorn takes for an upgrade gets past us to hypercorn's own transport.
    """
    asked = Upgrade(target=b"", headers=headers, http_version=http_version)
    return (
        method.upper() == b"GET"
        and "upgrade" in [value.lower() for value in asked.values(b"connection")]
        and "websocket" in [value.lower() for value in asked.values(b"upgrade")]
    )


def judge(upgrade: Upgrade, server_names: Sequence[str] = (), *, deflate: bool = False) -> Answer:
    """Return the answer to an upgrade request: 101, or the HTTP error that says what is wrong with it.

    With ``deflate``, compression is agreed upon if the client offers it as we can do it.
    """
    said = dict(upgrade.headers)
    if server_names and said.get(b"host", b"").decode("latin1") not in server_names:
        return refusal(404, "This server does not serve that host.")
    if upgrade.http_version != "1.1":
        return refusal(505, "A WebSocket is opened over HTTP/1.1.")
    if said.get(b"sec-websocket-version", b"13") != b"13":
        # RFC 6455 section 4.4: say which version we speak.
        return refusal(426, "Only version 13 of the WebSocket protocol is spoken.", [(b"sec-websocket-version", b"13")])
    if fault := _fault(upgrade, said):
        return refusal(400, fault)
    accept = accept_key(said[b"sec-websocket-key"].decode()).encode()
    headers = [*SWITCHING, (b"sec-websocket-accept", accept)]
    if not deflate or EXTENSIONS not in said:
        return Answer(status=101, headers=headers)
    try:
        window, extension = agreed(upgrade.values(EXTENSIONS))
    except MalformedOffer as error:
        return refusal(400, f"The {EXTENSIONS.decode()} header is malformed: {error}.")
    return Answer(status=101, headers=[*headers, *[(EXTENSIONS, extension.encode())] * bool(window)], window=window)


def _fault(upgrade: Upgrade, said: Mapping[bytes, bytes]) -> str:
    """Return what is wrong with an upgrade request by RFC 6455 section 4.2.1, or nothing."""
    if len(said) != len(upgrade.headers):
        names = [name for name, _ in upgrade.headers]
        for name in ONCE:
            if names.count(name) > 1:
                return f"There must be one {name.decode()} header."
    if b"host" not in said:
        return "There must be a host header."
    if said.get(b"upgrade", b"").lower() != b"websocket":
        return "The upgrade must be to websocket alone."
    if b"sec-websocket-version" not in said:
        return "There must be a sec-websocket-version header."
    if not KEY.fullmatch(said.get(b"sec-websocket-key", b"")):
        return "The sec-websocket-key header must be 16 bytes in base64."
    if said.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in said:
        return "A WebSocket upgrade has no body."
    if b"sec-websocket-protocol" in said and not all(
        TOKEN.fullmatch(name.encode("latin1")) for name in upgrade.values(b"sec-websocket-protocol")
    ):
        return "A subprotocol is a name without spaces."
    if not VALUE.fullmatch(b"".join([value for _, value in upgrade.headers])):  # h11 lets some pass
        return "A header contains a control character."
    return ""


def refusal(status: int, text: str, headers: Headers | None = None) -> Answer:
    """An error response of our own, after which the connection closes."""
    body = text.encode() + b"\n"
    return denial(status, [(b"content-type", b"text/plain; charset=utf-8"), *(headers or [])], body)


def denial(status: int, headers: Headers, body: bytes | None) -> Answer:
    """A complete response if ``body`` is bytes; with None, one whose body follows until the connection closes."""
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in FRAMING]
    if body is not None and not any(name == b"content-length" for name, _ in kept):
        kept.append((b"content-length", b"%d" % len(body)))
    return Answer(status=status, headers=[*kept, (b"connection", b"close")], body=body or b"")


def acceptance(answer: Answer, event: Mapping[str, Any], offered: Sequence[str]) -> Answer:
    """The 101 of :func:`judge` with what the application's ``websocket.accept`` adds."""
    extra = [(name.lower(), value) for name, value in event.get("headers") or ()]
    if any(name in FRAMING or name == b"sec-websocket-protocol" for name, _ in extra):
        raise BadEvent("websocket.accept: the handshake's own headers are the server's; give 'subprotocol' instead")
    subprotocol = event.get("subprotocol")
    if subprotocol is not None:
        # RFC 6455 section 4.2.2: only one of those that the client offered.
        if subprotocol not in offered:
            raise BadEvent(f"websocket.accept: the client did not offer {subprotocol!r}, but {list(offered)}")
        extra.append((b"sec-websocket-protocol", subprotocol.encode()))
    return Answer(status=101, headers=[*answer.headers, *extra])


def websocket_scope(upgrade: Upgrade, *, secure: bool, root_path: str) -> dict[str, Any]:
    """The ASGI scope of an upgrade request, without client, server, state and our extensions."""
    raw_path, _, query = upgrade.target.partition(b"?")
    return {
        "type": "websocket",
        "http_version": upgrade.http_version,
        "scheme": "wss" if secure else "ws",
        "path": unquote(raw_path.decode("latin1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": upgrade.headers,
        "subprotocols": upgrade.values(b"sec-websocket-protocol"),
        "extensions": {"websocket.http.response": {}},
    }
