"""Layers on Redis. Lazy: ``trichannels.layers`` must be importable without hiredis, redis-py and cryptography."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .layer import RedisChannelLayer, RedisPubSubChannelLayer
    from .options import Buffer
    from .server import Bounds, Timeouts
    from .sync import SyncChannelLayer

__all__ = ["Bounds", "Buffer", "RedisChannelLayer", "RedisPubSubChannelLayer", "SyncChannelLayer", "Timeouts"]

_HOMES = {
    "Bounds": ".server",
    "Buffer": ".options",
    "RedisChannelLayer": ".layer",
    "RedisPubSubChannelLayer": ".layer",
    "SyncChannelLayer": ".sync",
    "Timeouts": ".server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name in ("hiredis", "redis"):
            error.add_note("Redis layers need more: pip install 'trichannels[redis]'")
        raise
