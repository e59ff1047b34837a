"""The opening handshake of a WebSocket over HTTP/1.1 (RFC 6455 section 4.2): judging and answering. Pure: no I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from websockets.datastructures import Headers as HeaderMap
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request
from websockets.server import ServerProtocol

from ..events import Headers
from ..exceptions import BadEvent

TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Ours to say: how the connection goes on, and where its body ends.
FRAMING = {b"connection", b"transfer-encoding", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions"}


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

    def __bytes__(self) -> bytes:
        return head(self.status, self.headers) + self.body


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Serialise a response head; raises :class:`BadEvent` for a header that would break out of its line."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, _phrase(status))]
    for name, value in headers:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise BadEvent(f"header {name!r}: {value!r} cannot be sent: no line breaks, and a name without spaces")
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


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


def judge(upgrade: Upgrade, server_names: Sequence[str] = ()) -> Answer:
    """Return the answer to an upgrade request: 101, or the HTTP error that says what is wrong with it."""
    if server_names and not set(upgrade.values(b"host")) & set(server_names):
        return refusal(404, "This server does not serve that host.")
    if upgrade.values(b"sec-websocket-version") not in ([], ["13"]):
        # RFC 6455 section 4.4: say which version we speak.
        return refusal(426, "Only version 13 of the WebSocket protocol is spoken.", [(b"sec-websocket-version", b"13")])
    if any(length != "0" for length in upgrade.values(b"content-length")) or upgrade.values(b"transfer-encoding"):
        return refusal(400, "A WebSocket upgrade has no body.")
    texts = [(name.decode("latin1"), value.decode("latin1")) for name, value in upgrade.headers]
    try:
        request = Request(upgrade.target.decode("latin1"), HeaderMap(texts), protocol=f"HTTP/{upgrade.http_version}")
    except InvalidHandshake as error:  # h11 lets some control characters pass
        return refusal(400, f"Bad header: {error}")
    answer = ServerProtocol(max_size=None).accept(request)
    if answer.status_code != 101:
        return refusal(answer.status_code, answer.body.decode().strip())
    raw = ((name.lower().encode("latin1"), value.encode("latin1")) for name, value in answer.headers.raw_items())
    return Answer(status=101, headers=list(raw))


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
