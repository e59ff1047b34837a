"""For blocking tests: the layers of ``CHANNEL_LAYERS``, open on an event loop in another thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..bridge.home import at_home, this_loop
from ..exceptions import InvalidChannelLayerError
from ..layers import get_channel_layer
from ..layers.base import Subscription
from ..layers.configured import configurations_for_tests
from ..layers.serializers import Message
from ..routing import ProtocolTypeRouter
from ..seam import on_loop
from .errors import TimedOut, UnexpectedEvent


class Heard:
    """What groups were sent since the block of :meth:`OpenedLayers.subscribe` began."""

    def __init__(self, portal: BlockingPortal, subscription: Subscription) -> None:
        self._portal, self._subscription = portal, subscription

    def receive(self, timeout: float = 1.0) -> Message:
        """Return the next event; raises :class:`TimedOut` if none comes within ``timeout`` seconds."""
        event = self._portal.call(self._next, timeout)
        if event is None:
            raise TimedOut(f"nothing was sent to the group within {timeout:g} s")
        return event

    def receive_nothing(self, timeout: float = 0.1) -> None:
        """Return if nothing comes within ``timeout`` seconds; raises :class:`UnexpectedEvent` with what came."""
        event = self._portal.call(self._next, timeout)
        if event is not None:
            raise UnexpectedEvent("nothing", event)

    async def _next(self, timeout: float) -> Message | None:
        with anyio.move_on_after(timeout):
            return await self._subscription.receive()
        return None


class OpenedLayers:
    """The layers that are open while a block of :func:`opened_layers` lasts."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal

    @contextmanager
    def subscribe(self, *groups: str, alias: str = "default") -> Iterator[Heard]:
        """For the block, hear what is sent to groups of the layer ``alias``."""
        layer = self._portal.call(get_channel_layer, alias)
        if layer is None:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS has no {alias!r}")
        with self._portal.wrap_async_context_manager(layer.subscribe(*groups)) as subscription:
            yield Heard(self._portal, subscription)


@contextmanager
def opened_layers(*, backend: str = "trio") -> Iterator[OpenedLayers]:
    """In a blocking test: for the block, what the test's thread sends through a layer reaches somebody::

        def test_saving_tells_the_room(db):
            with opened_layers() as layers, layers.subscribe("chat.lobby") as events:
                Message.objects.create(room="lobby", text="hi")  # whose signal sends
                assert events.receive()["text"] == "hi"

    Opens the layers of ``CHANNEL_LAYERS``, by their ``TEST_CONFIG`` where there is one, on an event loop of ``backend``
    in a thread of its own. Raises what they raise when they open and close.
    """
    if on_loop():
        raise RuntimeError("opened_layers() is for blocking tests: in async ones, `async with application.opened()`")
    with (
        configurations_for_tests(),
        start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(ProtocolTypeRouter({}).opened()),
        at_home(portal.call(this_loop)),
    ):
        yield OpenedLayers(portal)
