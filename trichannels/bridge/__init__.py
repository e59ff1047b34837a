"""Threads and the loop: blocking code runs in so many threads, and calls back into its task. No Django here."""

from .bridge import (
    Bridge,
    BridgeStatistics,
    Lease,
    StuckCall,
    async_to_sync,
    call,
    call_soon,
    current_bridge,
    surround_with,
    sync_to_async,
    use_bridge,
)
from .hooks import Hooks
from .island import AsyncioIsland
from .lane import LaneCancelled, checkpoint, when_cancelled

__all__ = [
    "AsyncioIsland",
    "Bridge",
    "BridgeStatistics",
    "Hooks",
    "LaneCancelled",
    "Lease",
    "StuckCall",
    "async_to_sync",
    "call",
    "call_soon",
    "checkpoint",
    "current_bridge",
    "surround_with",
    "sync_to_async",
    "use_bridge",
    "when_cancelled",
]
