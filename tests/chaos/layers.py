"""The layer that every process of a run has: as the environment says, with deadlines that make faults short."""

import json
import os
from typing import Any

from trichannels.layers.history import History, Position
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.server import Timeouts
from trichannels.layers.redis.sync import SyncChannelLayer

VARIABLE = "TRICHANNELS_CHAOS"
DONE = "TRICHANNELS_CHAOS_DONE"  # the file in which workers write down what they have done
TIMEOUT = 1.0  # seconds for every operation
PING_INTERVAL, PING = 0.2, 0.3
LEASE = 1.5  # seconds after which the presences of a dead process are gone
CLAIM = 1.0  # seconds after which the jobs of a dead worker are handed out again
TIMEOUTS = Timeouts(
    connect=TIMEOUT, reply=TIMEOUT, ping_interval=PING_INTERVAL, ping=PING, backoff_first=0.02, backoff_most=0.2
)
HISTORY = History(size=2000, seconds=600)
PATTERN = "log.*"  # groups with history; all others have none
GROUPS = {
    "history": ("log.a", "log.b", "log.c"),
    "plain": ("plain.a", "plain.b", "plain.c"),
    "presence": ("people.a", "people.b"),
}
WORK = "work"  # the channel of jobs


def settings(url: str, prefix: str) -> dict[str, str]:
    """Return what a process needs in its environment."""
    return {VARIABLE: json.dumps({"url": url, "prefix": prefix})}


def _told() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(os.environ[VARIABLE])
    return {**told, "history": {PATTERN: HISTORY}}


def make_layer() -> RedisChannelLayer:
    """Return the layer of this process."""
    return RedisChannelLayer(
        **_told(), capacity=100_000, timeout=TIMEOUT, timeouts=TIMEOUTS, presence_lease=LEASE, queue_claim=CLAIM
    )


def make_sync_layer() -> SyncChannelLayer:
    """Return its blocking twin."""
    return SyncChannelLayer(**_told(), capacity=100_000, timeout=TIMEOUT)


def write_position(position: Position | None) -> list[Any] | None:
    """Return a position as JSON has it."""
    return None if position is None else [position.offset, position.epoch]


def read_position(written: Any) -> Position | None:
    """Read that."""
    return None if written is None else Position(int(written[0]), str(written[1]))
