"""The Redis layer keeps the contract of layers, in one process and between two."""

import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing.contract.base import ContractBase
from trichannels.testing.layers import LayerContract

from .servers import fresh_prefix, shared_server

pytestmark = pytest.mark.server


class OnARealServer(ContractBase):
    """Layers of one prefix, and a way to wait for what is on its way between them."""

    quiet = 0.03
    made: list[RedisChannelLayer]

    def setup_method(self) -> None:
        self.made = []

    def make(self, prefix: str) -> RedisChannelLayer:
        return RedisChannelLayer(url=shared_server().url, prefix=prefix, capacity=3)

    def make_layer(self) -> ChannelLayer:
        self.made.append(self.make(fresh_prefix()))
        return self.made[-1]

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, RedisChannelLayer)
        peer = self.make(layer.wire.prefix)
        peer.capacity, peer.presence_linger = layer.capacity, layer.presence_linger
        self.made.append(peer)
        return peer

    async def settle(self) -> None:
        """What was published before comes before a new subscription is confirmed: no clock is needed."""
        for layer in self.made:
            if layer.opened:
                for server in layer.hub.servers:
                    await server.subscribe(["barrier"])
                    server.unsubscribe(["barrier"])
                await layer.hub.drain()


class TestRedisLayer(OnARealServer, LayerContract):
    """What one sends, the other one receives, over a real server."""


@pytest.mark.once
class TestEncryptedRedisLayer(TestRedisLayer):
    """The same, with keys."""

    def make(self, prefix: str) -> RedisChannelLayer:
        return RedisChannelLayer([shared_server().url], prefix, capacity=3, symmetric_encryption_keys=["new", "old"])

    # These two count bytes, of which there are fewer once they are decrypted.
    test_what_waits_and_what_was_delivered = None  # type: ignore[assignment]
    test_what_was_dropped_and_why = None  # type: ignore[assignment]
