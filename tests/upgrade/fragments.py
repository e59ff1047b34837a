"""The code of ``docs/upgrading/``: the pattern fails here as the page says, and its cure does not.

A check takes the block, and completes what it leaves out.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio

from trichannels.exceptions import ConnectionClosed
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.testing import WebsocketCommunicator

from ..docs.pages import DOCS
from ..docs.whole import before_and_after, in_a_function, on_trio
from .pairs import left

NO_LOOP = "no (running|current) event loop|'NoneType' object has no attribute 'create_future'"


async def nothing() -> None:
    """What a page calls ``work()``, ``a()`` or ``b()``."""


class Made:
    """Coroutine functions whose coroutines are closed if nobody awaits them."""

    def __init__(self) -> None:
        self.coroutines: list[Coroutine[Any, Any, None]] = []

    def __call__(self) -> Coroutine[Any, Any, None]:
        self.coroutines.append(nothing())
        return self.coroutines[-1]

    def close(self) -> None:
        for one in self.coroutines:
            one.close()


def asyncio_on_trio(source: str) -> None:
    """Each left half fails on trio, and each right half runs."""
    queue, *calls, handler = before_and_after(source)
    fails = [f"{queue[0]}\nawait self.queue.get()", *(before for before, _ in calls)]
    with closing(Made()) as made:
        names = {"asyncio": asyncio, "anyio": anyio, **dict.fromkeys(("work", "a", "b"), made)}
        for before in fails:
            with pytest.raises((AttributeError, RuntimeError), match=NO_LOOP), ThreadPoolExecutor(1) as thread:
                # In the main thread, gather() would make a loop that nobody closes.
                thread.submit(on_trio, in_a_function(before, names), SimpleNamespace()).result()
    names |= dict.fromkeys(("work", "a", "b"), nothing)
    runs = [f"{queue[1]}\nsend.close(); receive.close()", *(after for _, after in calls)]
    for after in runs:
        on_trio(in_a_function(after, names))
    assert not is_caught(handler[0], names)
    assert is_caught(handler[1], names)


def is_caught(handler: str, names: Mapping[str, Any]) -> bool:
    """Say whether an ``except`` sees trio's cancellation."""
    seen: list[None] = []
    piece = in_a_function(
        f"with anyio.CancelScope() as scope:\n    scope.cancel()\n    try: await anyio.sleep(1)\n"
        f"    {handler.replace('…', 'seen.append(None)')}",
        {**names, "seen": seen},
    )
    on_trio(piece)
    return bool(seen)


def a_task_of_a_socket(source: str) -> None:
    """``create_task`` fails on trio and is listed by the command; the nursery's task ends before ``disconnect()``."""
    (start, connect), (_, disconnect) = before_and_after(source)
    assert (connect, disconnect) == ("connect()", "disconnect()")
    (line,) = left(f"import asyncio\n\nclass A(AsyncConsumer):\n    async def connect(self):\n        {start}\n")
    assert "use self.nursery.start_soon(function, *args)" in line

    happened: list[str] = []

    class Ticks(AsyncJsonWebsocketConsumer):
        cure = "self.nursery.start_soon(self.tick)"

        async def connect(self) -> None:
            await self.accept()
            await in_a_function(self.cure, {"asyncio": asyncio})(self)

        async def tick(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                happened.append("cancelled")

        async def disconnect(self, code: int) -> None:
            happened.append("disconnect")

    class Before(Ticks):
        cure = start

        def tick(self) -> Any:  # never awaited, so it may not be a coroutine
            return None

    async def comes(consumer: type[Ticks]) -> None:
        async with WebsocketCommunicator(consumer.as_asgi(), "/"):
            await anyio.wait_all_tasks_blocked()

    assert f"`{Ticks.cure}`" in page("channels-4.md")
    on_trio(comes, Ticks)
    assert happened == ["cancelled", "disconnect"]
    with pytest.raises(RuntimeError, match=NO_LOOP):
        on_trio(comes, Before)


def an_error_that_is_the_end(source: str) -> None:
    """``except Exception`` logs the normal end; with the cure in front of it, it passes."""
    lines = source.splitlines()
    (logs, cure) = before_and_after(lines[-1])[0]
    cure = cure.removesuffix("before it").strip()
    told: list[str] = []

    async def send_json(content: object) -> None:
        raise ConnectionClosed(1006)

    names = {"logger": SimpleNamespace(exception=told.append), "update": {}, "ConnectionClosed": ConnectionClosed}
    consumer = SimpleNamespace(send_json=send_json)
    before = [*lines[:-1], logs]
    on_trio(in_a_function("\n".join(before), names), consumer)
    assert told == ["cannot send"]
    with pytest.raises(ConnectionClosed):
        on_trio(in_a_function("\n".join([*before[:2], cure, *before[2:]]), names), consumer)
    assert told == ["cannot send"]


def of_another_library(source: str) -> None:
    """What is left behind: it is Python, and nobody here runs it."""
    compile(source, "before", "exec")


def a_room_of_two(source: str) -> None:
    """What one says, both hear."""
    names: dict[str, Any] = {}
    exec(source, names)
    consumer = next(value for name, value in names.items() if name in ("Chat", "Chatroom"))
    routes = URLRouter([path("<room>/", consumer.as_asgi())])
    application = ProtocolTypeRouter({"websocket": routes}, layers={"default": InMemoryChannelLayer()})

    async def chat() -> None:
        ada, bob = (WebsocketCommunicator(application, "/lobby/", timeout=5) for _ in range(2))
        async with application.opened(), ada, bob:
            await ada.send_to(text_data="hello")
            assert await ada.receive_from(5) == await bob.receive_from(5) == "hello"

    trio.run(chat)


def a_middleware(source: str) -> None:
    """Middleware of Channels 2, which is called with the scope alone, fails; the one of the page does not."""
    names: dict[str, Any] = {"language_of": lambda scope: "eo"}
    exec(source, names)

    class Says(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send_json(self.scope["language"])

    async def comes(application: Any) -> Any:
        async with WebsocketCommunicator(application, "/") as socket:
            return await socket.receive_json_from()

    shown = re.search(r"`(def __call__\(self, scope\): .*?)`", page("channels-3-and-2.md"))
    assert shown
    exec(f"class Before:\n    def __init__(self, inner): self.inner = inner\n    {shown[1]}\n", names)
    assert on_trio(comes, names["Language"](Says.as_asgi())) == "eo"
    with pytest.raises(TypeError, match="positional argument"):
        on_trio(comes, names["Before"](Says.as_asgi()))


def page(name: str) -> str:
    """Return a page's text."""
    return (DOCS / "upgrading" / name).read_text()


UPGRADING: Mapping[tuple[str, str], Callable[[str], None]] = {
    ("upgrading/channels-1.md", "from trichannels.generic.websocket import WebsocketConsumer"): a_room_of_two,
    ("upgrading/channels-3-and-2.md", "from trichannels.middleware import BaseMiddleware"): a_middleware,
    ("upgrading/channels-4.md", "self.queue = asyncio.Queue()"): asyncio_on_trio,
    ("upgrading/channels-4.md", "self.task = asyncio.create_task(self.tick())"): a_task_of_a_socket,
    ("upgrading/channels-4.md", "try:"): an_error_that_is_the_end,
    ("upgrading/starlette-broadcaster.md", "async def chatroom_ws(websocket):"): of_another_library,
    ("upgrading/starlette-broadcaster.md", "from trichannels.generic.websocket import AsyncWebsocketConsumer"): (
        a_room_of_two
    ),
}
"""Page and first line of each, up to a comment."""
