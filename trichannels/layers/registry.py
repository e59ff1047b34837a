"""Which layers are open in the running loop. Never a global that holds a loop: each loop has its own table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from anyio import from_thread

from ..bridge.home import home, this_loop
from ..bridge.lane import in_lane
from ..exceptions import InvalidChannelLayerError
from ..seam import on_loop
from .anywhere import OPEN, AnywhereLayer, newest
from .base import ChannelLayer
from .configured import configurations


@contextmanager
def registered(layers: Mapping[str, ChannelLayer]) -> Iterator[None]:
    """Make the layers known to :func:`get_channel_layer` in this loop; of two with one alias the newest is found."""
    table: dict[str, list[ChannelLayer]] = this_loop().kept.setdefault(OPEN, {})
    for alias, layer in layers.items():
        table.setdefault(alias, []).append(layer)
    try:
        yield
    finally:
        for alias, layer in layers.items():
            table[alias].remove(layer)
            if not table[alias]:
                del table[alias]
        if not table:
            this_loop().kept.pop(OPEN, None)


def get_channel_layer(alias: str = "default") -> ChannelLayer | AnywhereLayer | None:
    """Return the layer of that alias: the open one of the running loop, or else an :class:`AnywhereLayer`.

    That one blocks in threads, and finds the layer of the loop that a thread was called from, or what Django's
    ``CHANNEL_LAYERS`` describes. None where there is neither.
    """
    if on_loop() and (layer := newest(this_loop(), alias)) is not None:
        return layer
    place = home()
    if place is None and not in_lane():
        try:
            place = from_thread.run_sync(this_loop)  # in a thread of anyio's own
        except RuntimeError:
            place = None
    layer = newest(place, alias)
    if place is not None and layer is not None:
        return AnywhereLayer(alias, (place, layer))
    return AnywhereLayer(alias) if alias in configurations() else None


class ChannelLayers(Mapping[str, ChannelLayer | AnywhereLayer]):
    """As Channels' ``channel_layers``: what ``get_channel_layer()`` finds for the aliases of ``CHANNEL_LAYERS``."""

    def __getitem__(self, alias: str) -> ChannelLayer | AnywhereLayer:
        layer = get_channel_layer(alias)
        if layer is None:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS, in Django's settings, has no {alias!r}")
        return layer

    def __iter__(self) -> Iterator[str]:
        return iter(configurations())

    def __len__(self) -> int:
        return len(configurations())

    def __contains__(self, alias: object) -> bool:
        return alias in configurations()


channel_layers = ChannelLayers()
