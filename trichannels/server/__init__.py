"""Serving ASGI applications on trio: HTTP by hypercorn's protocols, WebSockets over HTTP/1.1 by our own transport.

Lazy, so that the commands which serve nothing do without hypercorn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ServerConfig
    from .serving import Server, serve
    from .statistics import ServerStatistics

__all__ = ["Server", "ServerConfig", "ServerStatistics", "serve"]

_HOMES = {
    "Server": ".serving",
    "ServerConfig": ".config",
    "ServerStatistics": ".statistics",
    "serve": ".serving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
