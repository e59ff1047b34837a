"""Channel layers by name. Lazy: importing ``layers.base`` pulls in nothing above it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inbox import Inbox, Latest
    from .base import ChannelLayer, Subscription
    from .broadcast import BroadcastLayer
    from .history import History, Position, Recovery
    from .memory import InMemoryChannelLayer
    from .presence import Presence, Roster, Step
    from .queues import Retry
    from .registry import channel_layers, get_channel_layer

__all__ = [
    "BroadcastLayer",
    "ChannelLayer",
    "History",
    "InMemoryChannelLayer",
    "Inbox",
    "Latest",
    "Position",
    "Presence",
    "Recovery",
    "Retry",
    "Roster",
    "Step",
    "Subscription",
    "channel_layers",
    "get_channel_layer",
]

_HOMES = {
    "BroadcastLayer": ".broadcast",
    "ChannelLayer": ".base",
    "History": ".history",
    "InMemoryChannelLayer": ".memory",
    "Inbox": "..inbox",
    "Latest": "..inbox",
    "Position": ".history",
    "Presence": ".presence",
    "Recovery": ".history",
    "Retry": ".queues",
    "Roster": ".presence",
    "Step": ".presence",
    "Subscription": ".base",
    "channel_layers": ".registry",
    "get_channel_layer": ".registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
