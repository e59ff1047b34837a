"""The ASGI connection scopes of the testing kit, as a server would fill them. Pure."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from ..events import Headers

SPEC_VERSION = "2.5"
RawHeaders = Iterable[tuple[bytes, bytes]]


def checked_headers(headers: RawHeaders | None) -> Headers:
    """Return ``headers`` as a list with names in lower case, as servers give them; raise TypeError unless bytes."""
    result: Headers = []
    for name, value in headers or ():
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"headers are pairs of bytes, not ({name!r}, {value!r})")
        result.append((name.lower(), value))
    return result


def connection_scope(kind: str, path: str, headers: RawHeaders | None, spec_version: str | None) -> dict[str, Any]:
    """Return what HTTP and WebSocket scopes have in common; ``path`` may carry a query string and %-escapes."""
    if not isinstance(path, str):
        raise TypeError(f"the path is a str, not {type(path).__name__}")
    # urlsplit would take the first part of "//host/x" for a host.
    parts = urlsplit("/" + path.lstrip("/") if path.startswith("//") else path)
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": spec_version or SPEC_VERSION},
        "http_version": "1.1",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": checked_headers(headers),
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "extensions": {},
        "state": {},
    }
