"""Each program in ``examples/`` runs and does what it says."""

import json
import re
from functools import partial
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url
from websockets.sync.client import connect

from examples import chat, clock, embedded, guestbook, thumbnails
from trichannels.testing import LiveServer
from trichannels.testing.http import HttpCommunicator
from trichannels.testing.websocket import WebsocketCommunicator


async def test_chat() -> None:
    async with (
        chat.application.opened(),
        WebsocketCommunicator(chat.application, "/ws/lobby/") as ada,
        WebsocketCommunicator(chat.application, "/ws/lobby/") as grace,
        WebsocketCommunicator(chat.application, "/ws/elsewhere/") as stranger,
    ):
        await ada.send_json_to({"text": "hello"})
        assert await ada.receive_json_from() == {"text": "hello"}
        assert await grace.receive_json_from() == {"text": "hello"}
        assert await stranger.receive_nothing()


async def test_clock(autojump_clock: object) -> None:
    async with HttpCommunicator(clock.application, "GET", "/") as request:
        page = await request.get_response()
    assert b'new EventSource("/time/")' in page["body"]
    assert b'addEventListener("tick"' in page["body"]
    async with HttpCommunicator(clock.application, "GET", "/time/") as request:
        assert (await request.receive_output())["status"] == 200
        assert (await request.receive_output())["body"] == b"retry: 1000\n\n"
        for _ in range(3):
            body = (await request.receive_output(timeout=2))["body"].decode()
            assert re.fullmatch(r"event: tick\ndata: \d\d:\d\d:\d\d\n\n", body)


async def test_thumbnails() -> None:
    async with (
        thumbnails.application.opened(),
        WebsocketCommunicator(thumbnails.application, "/gallery/") as socket,
    ):
        await socket.send_json_to({"picture": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]})
        assert await socket.receive_json_from() == {"thumbnail": [[1, 3], [7, 9]]}


async def test_guestbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestbook, "DATABASE", str(tmp_path / "book.sqlite3"))
    async with guestbook.bridge, guestbook.application.opened():
        async with WebsocketCommunicator(guestbook.application, "/guestbook/") as ada:
            assert await ada.receive_json_from() == {"entries": []}
            for name in ("Ada", "Grace"):
                await ada.send_json_to({"name": name})
                assert await ada.receive_json_from() == {"entry": name}
            await ada.send_json_to({"name": ""})
            assert await ada.receive_json_from() == {"error": 'send {"name": "…"}'}
        async with WebsocketCommunicator(guestbook.application, "/guestbook/") as late:
            assert await late.receive_json_from() == {"entries": ["Ada", "Grace"]}


@pytest.mark.server
@pytest.mark.trio_only
async def test_embedded(descriptors: None) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(embedded.main, bind="127.0.0.1:0", seconds=0.01))
            (address,) = server.addresses
            async with open_websocket_url(f"{address.replace('http', 'ws')}/prices/") as socket:
                prices = [json.loads(await socket.get_message())["price"] for _ in range(3)]
            nursery.cancel_scope.cancel()
    assert all(isinstance(price, float) for price in prices)


@pytest.mark.server
@pytest.mark.trio_only
@pytest.mark.once
@pytest.mark.parametrize("host", ["starlette", "litestar"])
def test_inside_other_frameworks(host: str) -> None:
    app = import_module(f"examples.inside_{host}").app
    with LiveServer.in_thread(app) as live, connect(f"{live.ws_url}/live/ws/lobby/") as socket:
        socket.send('{"text": "hello"}')
        assert json.loads(socket.recv(10)) == {"text": "hello"}
        assert "said" in httpx.post(f"{live.url}/announce/lobby", content="hi", trust_env=False).text
        assert json.loads(socket.recv(10)) == {"text": "hi"}
