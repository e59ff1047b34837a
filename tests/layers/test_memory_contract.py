"""The memory layer keeps the contract of layers."""

from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.testing.layers import LayerContract


class TestMemoryLayer(LayerContract):
    """On the real clock, as anybody's test suite runs it; what it sends has arrived when the send returns."""

    quiet = 0.03
    brief = 0.05

    def make_layer(self) -> ChannelLayer:
        return InMemoryChannelLayer(capacity=3)
