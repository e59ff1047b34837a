"""What a server counts. The counters live in one object per server; what users get is a frozen copy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A moment of one server; all numbers but the first two only grow."""

    connections: int
    """Connections open now, whatever they speak."""
    websockets: int
    """WebSockets over HTTP/1.1 open now, from the upgrade request to the last byte."""
    accepted: int
    """Connections accepted since the start."""
    websockets_accepted: int
    """WebSockets over HTTP/1.1 that an application accepted."""
    failures: int
    """Applications and connections that failed and were contained; each was logged once."""
    write_timeouts: int
    """Connections cut because their peer took no byte for ``write_timeout``."""
    pong_timeouts: int
    """WebSockets cut because no pong came within ``pong_timeout``."""
    close_timeouts: int
    """WebSockets cut because the peer ignored our close for ``close_timeout``."""


class Counters:
    """The running numbers of one server."""

    __slots__ = tuple(ServerStatistics.__dataclass_fields__)

    def __init__(self) -> None:
        self.connections = self.websockets = self.accepted = self.websockets_accepted = 0
        self.failures = self.write_timeouts = self.pong_timeouts = self.close_timeouts = 0

    def freeze(self) -> ServerStatistics:
        return ServerStatistics(**{name: getattr(self, name) for name in self.__slots__})
