"""Who is compared: each a way to serve a group across two processes, on one Redis."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.comparing import peers as apps

from .processes import Redis

UNCHANGED, HANDLER = "/unchanged", "/group"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """``environment``: what makes the program of ``benchmarks/peers`` a peer of these."""

    title: str
    path: str = HANDLER
    command: Callable[[int], list[str]]
    environment: tuple[str, ...] = ()

    def on(self, redis: Redis, port: int) -> list[str]:
        """Return the command that serves on ``port``."""
        return ["env", f"REDIS_URL={redis.url}", *self.environment, *self.command(port)]


PEERS = {
    "ours": Peer(title="trichannels, unchanged event", path=UNCHANGED, command=apps.ours),
    "ours-handler": Peer(title="trichannels, handler", command=apps.ours),
    "ours-history": Peer(
        title="trichannels, unchanged event, with history", path=UNCHANGED, command=apps.ours,
        environment=("HISTORY=1",),
    ),
    "ours-history-handler": Peer(
        title="trichannels, handler, with history", command=apps.ours, environment=("HISTORY=1",)
    ),
    "channels-core": Peer(
        title="Channels, channels_redis core, uvicorn", command=apps.uvicorn("channels_app"),
        environment=("CHANNELS_REDIS=core",),
    ),
    "channels-pubsub": Peer(
        title="Channels, channels_redis pub/sub, uvicorn", command=apps.uvicorn("channels_app"),
        environment=("CHANNELS_REDIS=pubsub",),
    ),
    "litestar": Peer(
        title="Litestar, pub/sub, uvicorn", command=apps.uvicorn("litestar_app"),
        environment=("LITESTAR_REDIS=pubsub",),
    ),
    "litestar-streams": Peer(
        title="Litestar, streams, uvicorn", command=apps.uvicorn("litestar_app"),
        environment=("LITESTAR_REDIS=streams",),
    ),
}  # fmt: skip
