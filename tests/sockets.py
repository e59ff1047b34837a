"""A consumer behind a communicator, with or without a layer, on a server of ours or on a foreign one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from anyio import CancelScope

from trichannels.consumer import AsyncConsumer
from trichannels.events import TRANSPORT
from trichannels.layers.base import ChannelLayer
from trichannels.testing.http import HttpCommunicator
from trichannels.testing.websocket import WebsocketCommunicator


class OurTransport:
    """What our own server offers to the instance: it tells when the peer has left, and bounds the goodbye."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[int, str], None]] = []
        self.bounded: list[CancelScope] = []

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        self.callbacks.append(callback)

    def bound(self, scope: CancelScope) -> None:
        self.bounded.append(scope)

    def peer_leaves(self, code: int = 1001, reason: str = "") -> None:
        for callback in self.callbacks:
            callback(code, reason)


def socket_to(
    consumer: type[AsyncConsumer],
    path: str = "/ws/",
    *,
    layer: ChannelLayer | None = None,
    transport: OurTransport | None = None,
    timeout: float = 1,
    **initkwargs: Any,
) -> WebsocketCommunicator:
    """Return a client of a consumer, not connected yet."""
    socket = WebsocketCommunicator(consumer.as_asgi(**initkwargs), path, timeout=timeout)
    return _prepared(socket, layer, transport)


def request_to(
    consumer: type[AsyncConsumer],
    method: str = "GET",
    body: bytes = b"",
    *,
    layer: ChannelLayer | None = None,
    transport: OurTransport | None = None,
    timeout: float = 1,
) -> HttpCommunicator:
    """Return a request to a consumer, not sent yet."""
    return _prepared(HttpCommunicator(consumer.as_asgi(), method, "/page", body, timeout=timeout), layer, transport)


Client = TypeVar("Client", WebsocketCommunicator, HttpCommunicator)


def _prepared(client: Client, layer: ChannelLayer | None, transport: OurTransport | None) -> Client:
    if layer is not None:
        client.scope["channel_layers"] = {"default": layer}
    if transport is not None:
        client.scope["extensions"][TRANSPORT] = transport
    return client


@asynccontextmanager
async def connected(
    consumer: type[AsyncConsumer], path: str = "/ws/", **settings: Any
) -> AsyncIterator[WebsocketCommunicator]:
    """Connect a client to a consumer for the length of a block."""
    async with socket_to(consumer, path, **settings) as socket:
        yield socket
