"""Which layers are open in the running loop. Never a global that holds a loop: each loop has its own table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from anyio import from_thread
from anyio.lowlevel import RunVar

from ..bridge import call_soon
from .base import ChannelLayer

_OPEN: RunVar[dict[str, list[ChannelLayer]]] = RunVar("trichannels_layers")


def _table() -> dict[str, list[ChannelLayer]]:
    try:
        return _OPEN.get()
    except LookupError:
        table: dict[str, list[ChannelLayer]] = {}
        _OPEN.set(table)
        return table


@contextmanager
def registered(layers: Mapping[str, ChannelLayer]) -> Iterator[None]:
    """Make the layers known to :func:`get_channel_layer` in this loop; of two with one alias the newest is found."""
    table = _table()
    for alias, layer in layers.items():
        table.setdefault(alias, []).append(layer)
    try:
        yield
    finally:
        for alias, layer in layers.items():
            table[alias].remove(layer)
            if not table[alias]:
                del table[alias]


def get_channel_layer(alias: str = "default") -> ChannelLayer | None:
    """Return the open layer of that alias, or None: of the running loop, or of the loop that a worker thread serves."""
    try:
        return _newest(alias)
    except RuntimeError:  # no loop runs in this thread
        pass
    for on_the_loop in (call_soon, from_thread.run_sync):  # of our bridge, or of anyio.to_thread
        with suppress(RuntimeError):
            return on_the_loop(_newest, alias)
    return None


def _newest(alias: str) -> ChannelLayer | None:
    opened = _table().get(alias)
    return opened[-1] if opened else None
