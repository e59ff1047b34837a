"""Saying no: the answer to a request or a socket that no application takes, or that must not come in."""

from collections.abc import Mapping
from http import HTTPStatus

from .events import Headers, Receive, Scope, Send

DENIAL = "websocket.http.response"
"""The extension by which a server lets an application answer a handshake with any HTTP response (ASGI spec 2.3)."""


def _answer(status: HTTPStatus) -> tuple[Headers, bytes]:
    body = f"{status} {status.phrase}\n".encode()
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))], body


async def _respond(send: Send, prefix: str, status: HTTPStatus) -> None:
    headers, body = _answer(status)
    await send({"type": f"{prefix}.start", "status": int(status), "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})


def offers_denial(scope: Scope) -> bool:
    """Say whether the server lets an application refuse this handshake with a response of its own."""
    extensions: Mapping[str, object] = scope.get("extensions") or {}
    return DENIAL in extensions


async def refuse(scope: Scope, receive: Receive, send: Send, status: HTTPStatus) -> None:
    """Answer an ``http`` or ``websocket`` scope with ``status`` and its phrase as plain text.

    A WebSocket that cannot be answered so is closed before it was accepted, which every server turns into a 403
    (ASGI spec, "Close - send event"). A client that has left already needs no answer: an ``OSError`` of ``send`` ends
    it. Cancellation passes through.
    """
    try:
        if scope["type"] == "http":
            await _respond(send, "http.response", status)
        elif (await receive())["type"] == "websocket.connect":
            await _deny(scope, send, status)
    except OSError:
        return


async def _deny(scope: Scope, send: Send, status: HTTPStatus) -> None:
    if offers_denial(scope):
        await _respond(send, DENIAL, status)
    else:
        await send({"type": "websocket.close"})
