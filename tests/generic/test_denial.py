"""Refusing a socket with an HTTP response of one's own."""

import pytest

from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.testing import WebsocketCommunicator


class Teapot(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.deny(418, b"no coffee here", headers={"X-Pot": "tea"})


class BlockingTeapot(WebsocketConsumer):
    def connect(self) -> None:
        self.deny(418, b"no coffee here", headers={"X-Pot": "tea"})


@pytest.mark.parametrize("consumer", [Teapot, BlockingTeapot])
async def test_the_client_gets_the_response(consumer: type[Teapot]) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    assert await communicator.connect() == (False, 418)
    assert communicator.denial is not None
    assert communicator.denial.body == b"no coffee here"
    assert (b"x-pot", b"tea") in communicator.denial.headers
    await communicator.wait()


@pytest.mark.parametrize("consumer", [Teapot, BlockingTeapot])
async def test_a_server_without_the_extension_refuses_plainly(consumer: type[Teapot]) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/", denial_response=False)
    assert await communicator.connect() == (False, 1000)
    await communicator.wait()
