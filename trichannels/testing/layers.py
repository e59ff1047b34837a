"""``LayerContract``: the suite that any channel layer must pass, ours or a third party's."""

from .contract.cancellation import CancellationContract
from .contract.channels import ChannelsContract
from .contract.groups import GroupsContract
from .contract.history import HistoryContract
from .contract.lifetime import LifetimeContract
from .contract.messages import MessagesContract
from .contract.names import NamesContract
from .contract.presence import PresenceContract
from .contract.queues import QueuesContract
from .contract.refusals import RefusalsContract
from .contract.statistics import StatisticsContract
from .contract.subscriptions import SubscriptionsContract


class LayerContract(
    LifetimeContract,
    NamesContract,
    MessagesContract,
    ChannelsContract,
    GroupsContract,
    SubscriptionsContract,
    HistoryContract,
    QueuesContract,
    PresenceContract,
    RefusalsContract,
    CancellationContract,
    StatisticsContract,
):
    """Subclass it, say how to make a layer, and let pytest run it::

        class TestMyLayer(LayerContract):
            def make_layer(self):
                return MyLayer(url)

    The tests are ``async`` methods without async fixtures: any runner will do (pytest-trio, anyio's plugin with
    ``pytestmark = pytest.mark.anyio``, …), on either backend, on a real or a virtual clock. Each test opens its layer
    itself. ``make_peer(layer)`` returns a layer as another process would have it: then what crosses processes does so.

    ``queues = False``, ``history = False`` or ``presence = False`` in the class says that the layer leaves that out:
    the tests of it are skipped, and the layer must refuse what it does not have.

    The contract is that of :mod:`trichannels.layers.base`.
    """
