"""The chat as an application: who is here, who types, what is said, and what is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trichannels.demo.chat import build
from trichannels.demo.requests import NAME_LIMIT, TEXT_LIMIT
from trichannels.routing import ProtocolTypeRouter
from trichannels.testing.websocket import WebsocketCommunicator


@asynccontextmanager
async def opened() -> AsyncIterator[ProtocolTypeRouter]:
    application = build()
    async with application.opened():
        yield application


@asynccontextmanager
async def entered(
    application: ProtocolTypeRouter, name: str, room: str = "tea"
) -> AsyncIterator[WebsocketCommunicator]:
    async with WebsocketCommunicator(application, f"/ws/{room}") as socket:
        await socket.send_json_to({"kind": "enter", "name": name})
        assert simple(await socket.receive_json_from()) == ("welcome", name)
        assert simple(await socket.receive_json_from()) == ("entered", name)
        yield socket


def simple(event: dict[str, Any]) -> tuple[str, str]:
    return event["kind"], event["name"]


async def test_each_sees_who_is_here() -> None:
    async with opened() as application, entered(application, "Ada") as ada:
        async with entered(application, "Grace") as grace:
            assert simple(await ada.receive_json_from()) == ("entered", "Grace")
            assert simple(await grace.receive_json_from()) == ("here", "Ada")
            assert await ada.receive_nothing()
        assert simple(await ada.receive_json_from()) == ("left", "Grace")


async def test_rooms_are_apart() -> None:
    async with opened() as application, entered(application, "Ada") as ada, entered(application, "Bob", "coffee"):
        assert await ada.receive_nothing()


async def test_what_is_said_reaches_all_in_order_and_the_speaker_too() -> None:
    async with opened() as application, entered(application, "Ada") as ada, entered(application, "Grace") as grace:
        await ada.receive_json_from()
        await grace.receive_json_from()
        for text in ("one", "<b>two</b>", "drei 🫖"):
            await ada.send_json_to({"kind": "say", "text": text})
        for socket in (ada, grace):
            heard = [await socket.receive_json_from() for _ in range(3)]
            assert [event["text"] for event in heard] == ["one", "<b>two</b>", "drei 🫖"]
            assert all(simple(event) == ("said", "Ada") and event["at"].endswith("+00:00") for event in heard)


async def test_typing_is_shown_to_the_others_only() -> None:
    async with opened() as application, entered(application, "Ada") as ada, entered(application, "Grace") as grace:
        await ada.receive_json_from()
        await grace.receive_json_from()
        await grace.send_json_to({"kind": "typing", "active": True})
        event = await ada.receive_json_from()
        assert (event["kind"], event["active"]) == ("typing", True)
        assert await grace.receive_nothing()


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"kind": "say", "text": "x" * (TEXT_LIMIT + 1)}, "A message may have"),
        ({"kind": "say", "text": " "}, "at least one character"),
        ({"kind": "enter", "name": "Ada again"}, "You are in already"),
        ({"kind": "shout"}, "not understood"),
    ],
)
async def test_a_bad_request_gets_an_answer_and_keeps_its_socket(request_: dict[str, str], problem: str) -> None:
    async with opened() as application, entered(application, "Ada") as ada:
        await ada.send_json_to(request_)
        event = await ada.receive_json_from()
        assert event["kind"] == "error"
        assert problem in event["text"]
        await ada.send_json_to({"kind": "say", "text": "still here"})
        assert (await ada.receive_json_from())["text"] == "still here"


async def test_bytes_and_no_json_are_refused_too() -> None:
    async with opened() as application, entered(application, "Ada") as ada:
        await ada.send_to(bytes_data=b"\xff")
        await ada.send_to(text_data="no json")
        assert [(await ada.receive_json_from())["kind"] for _ in range(2)] == ["error", "error"]


async def test_nobody_speaks_before_entering() -> None:
    async with opened() as application, WebsocketCommunicator(application, "/ws/tea") as socket:
        await socket.send_json_to({"kind": "say", "text": "boo"})
        assert (await socket.receive_json_from())["text"] == "Say who you are first."
        await socket.send_json_to({"kind": "enter", "name": "x" * (NAME_LIMIT + 1)})
        assert (await socket.receive_json_from())["kind"] == "error"
        await socket.send_json_to({"kind": "enter", "name": "Ada"})
        assert simple(await socket.receive_json_from()) == ("welcome", "Ada")


async def test_who_never_entered_leaves_without_a_word() -> None:
    async with opened() as application, entered(application, "Ada") as ada:
        async with WebsocketCommunicator(application, "/ws/tea"):
            pass
        assert await ada.receive_nothing()


@pytest.mark.parametrize("path", ["/ws/", "/ws/with space", "/ws/" + "x" * 65, "/elsewhere"])
async def test_a_room_has_a_short_plain_name(path: str) -> None:
    async with opened() as application:
        accepted, _ = await WebsocketCommunicator(application, path).connect()
        assert not accepted
