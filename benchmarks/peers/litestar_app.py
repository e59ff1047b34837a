"""Litestar with its channels plugin in memory; each member's subscriber has a task that sends."""

from typing import Any

from litestar import Litestar, get, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect

PAGE = "a page that never changes."
plugin = ChannelsPlugin(MemoryChannelsBackend(), channels=["all"])


@get("/", media_type="text/plain", sync_to_thread=False)
def page() -> str:
    return PAGE


@websocket("/echo")
async def echo(socket: Any) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


@websocket(["/group", "/unchanged"])
async def member(socket: Any, channels: ChannelsPlugin) -> None:
    async with (
        channels.start_subscription("all") as subscriber,
        subscriber.run_in_background(socket.send_text, join=False),
    ):
        await socket.accept()
        try:
            while True:
                channels.publish((await socket.receive_text()).encode(), "all")
        except WebSocketDisconnect:
            pass


application = Litestar([page, echo, member], plugins=[plugin], openapi_config=None)
