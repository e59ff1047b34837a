"""The contract once more, with the peer in a process of its own."""

import pytest

from trichannels.layers.base import ChannelLayer
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing.contract.groups import GroupsContract
from trichannels.testing.contract.history import HistoryContract
from trichannels.testing.contract.subscriptions import SubscriptionsContract

from .elsewhere import ElsewhereLayer
from .servers import shared_server
from .test_layer_contract import OnARealServer

pytestmark = [pytest.mark.server, pytest.mark.once]


class TestAcrossProcesses(OnARealServer, GroupsContract, SubscriptionsContract, HistoryContract):
    """Those parts in which one process talks to another."""

    patience = 20

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        assert isinstance(layer, RedisChannelLayer)
        return ElsewhereLayer(shared_server().url, layer.wire.prefix, capacity=layer.capacity)

    # What it tests lies within one process.
    test_a_flush_begins_a_new_history = None  # type: ignore[assignment]
