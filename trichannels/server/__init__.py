"""Serving ASGI applications on trio: HTTP by hypercorn's protocols, WebSockets over HTTP/1.1 by our own transport."""

from .config import ServerConfig
from .serving import Server, serve
from .statistics import ServerStatistics

__all__ = ["Server", "ServerConfig", "ServerStatistics", "serve"]
