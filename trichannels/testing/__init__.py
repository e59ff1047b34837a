"""What a test of an application needs: communicators, a live server, a layer contract, injected faults.

Nothing is imported before its name is used, and no daphne at all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import ApplicationCommunicator
    from .cases import ChannelsLiveServerTestCase, on_test_thread, run_on_test_thread, shared_connections
    from .errors import (
        ApplicationEnded,
        Denial,
        FaultInjected,
        SocketRefused,
        TimedOut,
        TooManyEvents,
        UnexpectedEvent,
    )
    from .faults import FaultyLayer
    from .http import HttpCommunicator
    from .layers import LayerContract
    from .live import LiveServer
    from .opened import OpenedLayers, opened_layers
    from .websocket import WebsocketCommunicator

HOMES = {
    "ApplicationCommunicator": "application",
    "ApplicationEnded": "errors",
    "ChannelsLiveServerTestCase": "cases",
    "Denial": "errors",
    "FaultInjected": "errors",
    "FaultyLayer": "faults",
    "HttpCommunicator": "http",
    "LayerContract": "layers",
    "LiveServer": "live",
    "OpenedLayers": "opened",
    "SocketRefused": "errors",
    "TimedOut": "errors",
    "TooManyEvents": "errors",
    "UnexpectedEvent": "errors",
    "WebsocketCommunicator": "websocket",
    "on_test_thread": "cases",
    "opened_layers": "opened",
    "run_on_test_thread": "cases",
    "shared_connections": "cases",
}

__all__ = [
    "ApplicationCommunicator",
    "ApplicationEnded",
    "ChannelsLiveServerTestCase",
    "Denial",
    "FaultInjected",
    "FaultyLayer",
    "HttpCommunicator",
    "LayerContract",
    "LiveServer",
    "OpenedLayers",
    "SocketRefused",
    "TimedOut",
    "TooManyEvents",
    "UnexpectedEvent",
    "WebsocketCommunicator",
    "on_test_thread",
    "opened_layers",
    "run_on_test_thread",
    "shared_connections",
]


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
