"""Node's ``ws`` as a client of a real server."""

import json
import subprocess
from pathlib import Path

import pytest
import trio

from trichannels.events import Event, Receive, Scope, Send

from ..foreign import NODE_WS, have, node
from .support import lifespan, serving

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only, pytest.mark.usefixtures("descriptors")]

SCRIPT = Path(__file__).parent / "node_client.js"

if have(node() is not None, "Node's ws as a client: there is no node, or no .venv-node, where `make test` puts ws"):

    @pytest.mark.parametrize("compressed", [False, True])
    async def test_node_speaks_with_us(compressed: bool) -> None:
        ends: list[Event] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await lifespan(receive, send)
                return
            assert scope["subprotocols"] == ["chat", "echo"]
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "echo"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({**event, "type": "websocket.send"})
            ends.append(event)

        async with serving(app, permessage_deflate=compressed) as server:
            address = server.addresses[0].replace("http", "ws", 1)
            with trio.fail_after(60):
                command = [str(node()), str(SCRIPT), str(NODE_WS), address]
                done = await trio.run_process(command, stdin=b"", capture_stdout=True, stderr=subprocess.STDOUT)
        assert json.loads(done.stdout) == {
            "offered": "",
            "protocol": "echo",
            "extensions": "permessage-deflate" if compressed else "",
            "pongs": ["are you there?"],
            "messages": [[False, "grüße ✓"], [True, "00ff"], [False, "in three fragments"], True],
            "closed": [4001, "had enough"],
        }
        assert ends == [{"type": "websocket.disconnect", "code": 4001, "reason": "had enough"}]
