"""The pytest plugin: it is registered, its fixtures work under any runner, and loading it costs next to nothing."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from trichannels.events import Receive, Scope, Send
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.testing import HttpCommunicator, LiveServer, WebsocketCommunicator


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await receive()
    else:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})


async def test_fixtures(
    websocket_communicator: type[WebsocketCommunicator],
    http_communicator: type[HttpCommunicator],
    live_server_factory: type[LiveServer],
    memory_layer: InMemoryChannelLayer,
) -> None:
    async with websocket_communicator(app, "/") as socket, http_communicator(app, "GET", "/") as request:
        assert socket.connected
        assert (await request.get_response())["status"] == 204
    async with memory_layer as layer:
        assert layer.opened
    assert live_server_factory is LiveServer


def test_it_is_registered(pytestconfig: pytest.Config) -> None:
    (entry,) = [point for point in entry_points(group="pytest11") if point.name == "trichannels"]
    assert entry.value == "trichannels.testing.plugin"
    assert pytestconfig.pluginmanager.hasplugin("trichannels")


def test_loading_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import trichannels.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.partition(".")[0] != "trichannels"} == set()
    assert loaded == ["trichannels", "trichannels.testing", "trichannels.testing.plugin"]
