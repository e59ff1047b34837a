"""Work queues on Redis: the contract, and what happens to them when workers and servers die."""

import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.testing.contract.queues import QueuesContract

from .queue_layers import QueueLayer
from .servers import shared_server

pytestmark = pytest.mark.server


class TestRedisQueues(QueuesContract):
    """On a real server; what one layer sends, another one's worker gets."""

    def make_layer(self) -> ChannelLayer:
        return QueueLayer(url=shared_server().url)

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, QueueLayer)
        return QueueLayer(url=layer.url, prefix=layer.prefix)
