"""The Redis layer keeps the contract of layers, in one process and between two."""

import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing.layers import LayerContract

from .servers import fresh_prefix, shared_server

pytestmark = pytest.mark.server


class TestRedisLayer(LayerContract):
    """What one sends, the other one receives, over a real server."""

    quiet = 0.02

    def make_layer(self) -> ChannelLayer:
        return RedisChannelLayer(url=shared_server().url, prefix=fresh_prefix(), capacity=3)

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, RedisChannelLayer)
        peer = RedisChannelLayer(url=shared_server().url, prefix=layer.wire.prefix, capacity=layer.capacity)
        peer.presence_linger = layer.presence_linger
        return peer


class TestEncryptedRedisLayer(TestRedisLayer):
    """The same, with keys and in JSON."""

    def make_layer(self) -> ChannelLayer:
        return self._make(fresh_prefix())

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, RedisChannelLayer)
        peer = self._make(layer.wire.prefix)
        peer.capacity = layer.capacity
        peer.presence_linger = layer.presence_linger
        return peer

    def _make(self, prefix: str) -> RedisChannelLayer:
        return RedisChannelLayer([shared_server().url], prefix, capacity=3, symmetric_encryption_keys=["new", "old"])

    # These two count bytes, of which there are fewer once they are decrypted.
    test_what_waits_and_what_was_delivered = None  # type: ignore[assignment]
    test_what_was_dropped_and_why = None  # type: ignore[assignment]
