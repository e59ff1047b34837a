"""pytest fixtures for users of trichannels, registered as a plugin by the package. Cheap to load: imports wait for use.

The fixtures are plain factories of ``async with`` blocks, so that any runner of async tests will do::

    async def test_chat(websocket_communicator):
        async with websocket_communicator(application, "/ws/lobby/") as socket: ...
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..layers.memory import InMemoryChannelLayer
    from .http import HttpCommunicator
    from .live import LiveServer
    from .websocket import WebsocketCommunicator

# What fails in the contract shows its values, as in a test file.
pytest.register_assert_rewrite("trichannels.testing.contract")


@pytest.fixture
def websocket_communicator() -> "type[WebsocketCommunicator]":
    """``async with websocket_communicator(app, "/ws/") as socket:`` connects, without a server."""
    from .websocket import WebsocketCommunicator

    return WebsocketCommunicator


@pytest.fixture
def http_communicator() -> "type[HttpCommunicator]":
    """``async with http_communicator(app, "GET", "/") as request:`` sends a request, without a server."""
    from .http import HttpCommunicator

    return HttpCommunicator


@pytest.fixture
def live_server_factory() -> "type[LiveServer]":
    """``async with live_server_factory(app) as live:`` serves on a real port; ``.in_thread(app)`` for sync tests."""
    from .live import LiveServer

    return LiveServer


@pytest.fixture
def memory_layer() -> "InMemoryChannelLayer":
    """A new, closed ``InMemoryChannelLayer``: open it by ``async with``, or give it to a ``ProtocolTypeRouter``."""
    from ..layers.memory import InMemoryChannelLayer

    return InMemoryChannelLayer()
