"""What Django's synchronous handler wants to know of a request: a WSGI environ, made of an ASGI scope. Pure.

Source: PEP 3333, https://asgi.readthedocs.io/en/latest/specs/www.html#wsgi-compatibility
"""

import sys
from typing import IO, Any

from .events import Scope

ONCE = {"content-length": "CONTENT_LENGTH", "content-type": "CONTENT_TYPE"}
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
JOINTS = {"HTTP_COOKIE": "; "}  # what stands between the values of a header that comes several times; else a comma


def environ_of(scope: Scope, body: IO[bytes], size: int, *, root: str | None = None) -> dict[str, Any]:
    """Return the environ of a request, or of a WebSocket's handshake.

    ``body`` is to be read from its beginning, and has ``size`` bytes. ``root`` stands in for the scope's ``root_path``.
    """
    root, path = (root or scope.get("root_path") or "").rstrip("/"), scope["path"]
    if path == root or path.startswith(f"{root}/"):  # else it is a path whose prefix the server has left out
        path = path[len(root) :]
    host, port = scope.get("server") or ("unknown", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "SCRIPT_NAME": root.encode().decode("latin1"),
        "PATH_INFO": path.encode().decode("latin1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin1"),
        "SERVER_NAME": host,
        "SERVER_PORT": "" if port is None else str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": SCHEMES.get(scope.get("scheme", "http"), "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "asgi.scope": scope,
    }
    if client := scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], client[1]
        environ["REMOTE_HOST"] = environ["REMOTE_ADDR"]
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin1").lower(), raw_value.decode("latin1")
        if "_" in name:
            continue  # it would be taken for the one with a hyphen
        key = ONCE.get(name) or "HTTP_" + name.upper().replace("-", "_")
        environ[key] = environ[key] + JOINTS.get(key, ",") + value if key in environ else value
    environ["CONTENT_LENGTH"] = str(size)  # of what came in, be it in chunks: nobody reads beyond it
    return environ
