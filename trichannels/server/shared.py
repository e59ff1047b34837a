"""What all connections of one server have in common: the application, the options, the counters, the wall."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..events import ASGIApp, Scope
from .config import ServerConfig
from .drain import Wall
from .engine import Engine
from .hypercorn_glue import Config, WorkerContext
from .proxy import apply_proxy_headers
from .pulse import Limits
from .statistics import Counters

if TYPE_CHECKING:
    from .connection import Connection


@dataclass(kw_only=True)
class Shared:
    """Handed to each connection; nothing in it belongs to one."""

    app: ASGIApp
    settings: ServerConfig
    config: Config
    context: WorkerContext
    wall: Wall = field(default_factory=Wall)
    counters: Counters = field(default_factory=Counters)
    state: dict[str, Any] = field(default_factory=dict)
    connections: set["Connection"] = field(default_factory=set)

    @cached_property
    def engine(self) -> Engine:
        """What runs beside the connections."""
        settings = self.settings
        limits = Limits(
            ping_interval=settings.ping_interval,
            pong_timeout=settings.pong_timeout,
            close_timeout=settings.close_timeout,
            max_message_size=settings.max_message_size,
        )
        return Engine(limits, self.counters)

    def prepare(self, scope: Scope) -> None:
        """Put into a scope what is the same for HTTP and WebSockets."""
        # Since 2.4, ASGI lets send() raise an OSError once the peer has left: ours does.
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        apply_proxy_headers(scope, self.settings.proxy_headers, self.settings.trusted_hops)
