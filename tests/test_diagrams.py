"""The diagrams of the docs are what the tables give, and the tables are what an instance does."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from docs.diagrams import DRAWINGS, FOLDER, table_of_causes
from trichannels import consumer
from trichannels.events import Event
from trichannels.exceptions import StopConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.inbox import Inbox
from trichannels.instance import CAUSES, Cause, Instance, Step
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.testing.websocket import WebsocketCommunicator

from .sockets import socket_to

PAGES = Path(__file__).parent.parent / "docs"


@pytest.mark.once
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_diagram_is_what_the_tables_give(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == DRAWINGS[name](), "run: python docs/diagrams.py"


@pytest.mark.once
def test_the_page_has_the_causes_of_an_end_and_its_steps() -> None:
    page = (PAGES / "lifetimes.md").read_text(encoding="utf-8")
    assert table_of_causes() in page, f"put this into docs/lifetimes.md:\n\n{table_of_causes()}"
    steps = re.findall(r"^\d\. \*\*(.+?)\.?\*\*", page, re.MULTILINE)
    assert steps == [step.title for step in Step if step is not Step.OVER]


# ---- the tables, against what an instance does


class Told(AsyncWebsocketConsumer):
    """Ends as it is told to."""

    closed_with: list[int]
    groups = ("room",)
    inbox = Inbox(messages=1, overflow="disconnect")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "close":
            await self.close(4000)
        elif text_data == "stop":
            raise StopConsumer
        elif text_data == "fail":
            raise ZeroDivisionError
        for _ in range(3 if text_data == "flood" else 0):
            await self.channel_layer.group_send("room", {"type": "chat.message"})

    async def chat_message(self, event: Event) -> None:
        pass

    async def disconnect(self, code: int) -> None:
        self.closed_with.append(code)


def says(text: str) -> Callable[[WebsocketCommunicator], Awaitable[None]]:
    async def act(socket: WebsocketCommunicator) -> None:
        await socket.send_to(text)
        await socket.wait()

    return act


async def fails(socket: WebsocketCommunicator) -> None:
    with pytest.raises(ZeroDivisionError):
        await says("fail")(socket)


async def leaves(socket: WebsocketCommunicator) -> None:
    await socket.disconnect(code=4000)


async def is_cancelled(socket: WebsocketCommunicator) -> None:
    socket.stop()
    await socket.wait()


ENDS: dict[Cause, Callable[[WebsocketCommunicator], Awaitable[None]]] = {
    "disconnected": leaves,
    "closed": says("close"),
    "failed": fails,
    "stopped": says("stop"),
    "overrun": says("flood"),
    "cancelled": is_cancelled,
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_an_end_takes_its_steps_in_their_order(cause: Cause, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Step] = []
    lives: list[Instance] = []

    class Recorded(Instance):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "step" and value is not None:
                taken.append(value)
                lives[:] = [self]

    monkeypatch.setattr(consumer, "Instance", Recorded)
    monkeypatch.setattr(Told, "closed_with", [], raising=False)
    async with InMemoryChannelLayer() as layer:
        socket = socket_to(Told, layer=layer)
        await socket.connect()
        await ENDS[cause](socket)
    meaning = CAUSES[cause]
    left_out = {Step.CLOSE} if meaning.said_by else set()  # a socket that is closed already
    left_out |= set() if meaning.graced else {Step.GRACE}
    assert taken == [step for step in Step if step not in left_out]
    assert Told.closed_with == [4000 if meaning.said_by else meaning.code]
    assert repr(lives[0]).endswith(f" {cause}, over>")
