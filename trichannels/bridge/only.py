"""One bridge in place of all others of a loop: for tests, whose data one thread or one connection alone can see."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .home import this_loop

if TYPE_CHECKING:
    from .bridge import Bridge

ONLY = "only bridge"  # under which a loop keeps it


@contextmanager
def only_bridge(bridge: "Bridge") -> Iterator[None]:
    """For the block, whatever the running loop would run on any bridge, it runs on this one."""
    kept = this_loop().kept
    before = kept.get(ONLY)
    kept[ONLY] = bridge
    try:
        yield
    finally:
        kept[ONLY] = before
        if before is None:
            del kept[ONLY]


def or_only(bridge: "Bridge") -> "Bridge":
    """Return the bridge that takes the place of this one; itself, if none does."""
    only: Bridge | None = this_loop().kept.get(ONLY)
    return bridge if only is None else only
