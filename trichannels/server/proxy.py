"""What a trusted proxy says about the client: X-Forwarded-* ("legacy") or RFC 7239 Forwarded ("modern"). Pure."""

from collections.abc import MutableMapping
from typing import Any

from ..events import Headers

# What a proxy writes is the scheme of HTTP; ASGI wants ws and wss for a WebSocket.
SCHEMES = {"http": {"ws": "http", "wss": "https"}, "websocket": {"http": "ws", "https": "wss"}}


def apply_proxy_headers(scope: MutableMapping[str, Any], mode: str | None, hops: int) -> None:
    """Put the client, the scheme and the host that the proxy ``hops`` steps away wrote into the scope.

    As hypercorn's ProxyFixMiddleware does, except that the scheme of a WebSocket becomes ws or wss, and that nothing
    of the scope is deep-copied. A header with fewer values than ``hops`` is not trusted.
    """
    if mode is None or hops == 0:
        return
    headers: Headers = scope["headers"]
    said = _modern(headers, hops) if mode == "modern" else None
    if said is None:
        names = {"for": b"x-forwarded-for", "proto": b"x-forwarded-proto", "host": b"x-forwarded-host"}
        said = {part: _value(headers, name, hops) for part, name in names.items()}
    if client := said.get("for"):
        scope["client"] = _address(client)
    if proto := said.get("proto"):
        scope["scheme"] = SCHEMES[scope["type"]].get(proto.lower(), proto.lower())
    if host := said.get("host"):
        others = [(name, value) for name, value in headers if name.lower() != b"host"]
        scope["headers"] = [*others, (b"host", host.encode("latin1"))]


def _value(headers: Headers, name: bytes, hops: int) -> str | None:
    values = [
        part.decode("latin1").strip() for key, value in headers if key.lower() == name for part in value.split(b",")
    ]
    return values[-hops] if len(values) >= hops else None


def _modern(headers: Headers, hops: int) -> dict[str, str | None] | None:
    value = _value(headers, b"forwarded", hops)
    if value is None:
        return None
    pairs = (part.partition("=") for part in value.split(";"))
    return {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}


def _address(text: str) -> tuple[str, int]:
    """Split "1.2.3.4", "1.2.3.4:5", "::1", "[::1]" and "[::1]:5" into a host and a port (0 if not said)."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isdigit() else 0
