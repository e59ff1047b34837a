"""Checks of the pages' pieces that need a project, which is set up before this is imported: ``in_a_project.py``."""

import asyncio
import json
import signal
import sys
import threading
import traceback
import unittest
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import trio
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.test import TestCase, override_settings

import trichannels.auth
import trichannels.sessions
from trichannels.db import database_bridge, database_sync_to_async
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer, get_channel_layer, host
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.testing import WebsocketCommunicator, opened_layers

from ..project.people import make_session, store, with_cookie
from .in_a_project import IN_A_PROJECT
from .pages import blocks
from .whole import in_a_function

PATIENCE = 20  # seconds for each
ORIGIN = [(b"origin", b"http://testserver"), (b"host", b"testserver")]


def an_asgi_file(source: str) -> None:
    consumers: Any = ModuleType("chat.consumers")
    consumers.ChatConsumer = AsyncWebsocketConsumer
    sys.modules |= {"chat": ModuleType("chat"), "chat.consumers": consumers}
    names: dict[str, Any] = {}
    exec(source, names)
    application = names["application"]

    async def connects() -> None:
        async with application.opened(), WebsocketCommunicator(application, "/ws/chat/", ORIGIN):
            pass

    assert set(application.application_mapping) == {"http", "websocket"}
    trio.run(connects)


def a_signal(source: str) -> None:
    names: dict[str, Any] = {"receiver": receiver, "post_save": post_save, "Message": Group}
    exec(source, names)
    tell: Callable[..., None] = names["tell"]
    router = ProtocolTypeRouter({}, layers={"default": InMemoryChannelLayer()})

    async def hears() -> Any:
        async with router.opened(), router.layers["default"].subscribe("chat") as events:
            await database_sync_to_async(tell)(instance=SimpleNamespace(text="hello"))
            return await anext(events)

    assert trio.run(hears)["text"] == "hello"


def a_consumer_with_users(source: str) -> None:
    names: dict[str, Any] = {"ProtocolTypeRouter": ProtocolTypeRouter, "URLRouter": URLRouter, "path": path}
    exec(source, names)
    key = make_session(get_user_model().objects.create_user("ada"))

    async def comes(headers: Any) -> bool:
        socket = WebsocketCommunicator(names["application"], "/ws/chat/", headers)
        accepted, _ = await socket.connect()
        await socket.disconnect()
        return accepted

    assert not trio.run(comes, [])
    assert trio.run(comes, with_cookie(key))
    assert store(key)["seen"]


def a_lease(source: str) -> None:
    done: list[str] = []

    async def announce(order: object) -> None:
        done.append("announced")

    def create(item: str) -> object:
        done.append(item)
        return order

    order = SimpleNamespace(confirm=lambda: done.append("confirmed"))
    orders = SimpleNamespace(objects=SimpleNamespace(create=create))
    names = {"database_bridge": database_bridge, "Order": orders, "announce": announce}
    trio.run(in_a_function(source, names))
    assert done == ["tea", "announced", "confirmed"]


def both_ways_to_test(source: str) -> None:
    def count() -> int:
        return int(Group.objects.count())

    class Counts(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            counts.append(await database_sync_to_async(count)())
            await self.accept()

    counts: list[int] = []
    names: dict[str, Any] = {
        "TestCase": TestCase, "pytest": pytest, "WebsocketCommunicator": WebsocketCommunicator,
        "application": Counts.as_asgi(),
    }  # fmt: skip
    exec(source, names)
    names["ChatTests"].setUp = lambda self: Group.objects.create(name="of the test")
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["ChatTests"]).run(result)
    assert not result.errors + result.failures, result
    assert counts == [1], "what the test has put into its transaction is seen"
    trio.run(names["test_chat"])
    assert counts == [1, 0]


def a_blocking_test_of_what_sends(source: str) -> None:
    class Message:
        """Stands for a model whose signal tells the room."""

        @staticmethod
        def create(room: str, text: str) -> None:
            layer: Any = get_channel_layer()
            layer.group_send(f"chat.{room}", {"type": "chat.message", "text": text})

        objects: Any

    Message.objects = Message
    names: dict[str, Any] = {"opened_layers": opened_layers, "Message": Message}
    exec(source, names)
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "trichannels.layers.InMemoryChannelLayer"}}):
        names["test_saving_tells_the_room"](db=None)


def who_is_there(source: str) -> None:
    looks, then, session = source.splitlines()
    names = {"get_user": trichannels.auth.get_user, "get_session": trichannels.sessions.get_session}

    class Chat(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            user = await in_a_function(looks, names, result="user")(self)
            try:
                user.is_authenticated  # noqa: B018
            except SynchronousOnlyOperation:
                seen.append("refused")
            seen.append(await in_a_function(then, names, result="user.is_authenticated")(self))
            seen.append(self.scope["user"].is_authenticated)
            assert not (await in_a_function(session, names, result="session")(self)).modified
            await self.accept()

    async def comes() -> None:
        async with WebsocketCommunicator(trichannels.auth.AuthMiddlewareStack(Chat.as_asgi()), "/"):
            pass

    seen: list[object] = []
    trio.run(comes)
    assert seen == ["refused", False, False]


def a_middleware_with_tokens(source: str) -> None:
    class Chat(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            assert await trichannels.auth.get_user(self.scope) is self.scope["user"] is user
            await self.accept()

    async def user_of_token(scope: object) -> object:
        return user

    async def comes() -> None:
        async with WebsocketCommunicator(application, "/"):
            pass

    user = AnonymousUser()
    names: dict[str, Any] = {"user_of_token": user_of_token}
    exec(source, names)
    application = names["TokenAuth"](trichannels.auth.AuthMiddlewareStack(Chat.as_asgi()))
    trio.run(comes)


def a_lost_update(source: str) -> None:
    both = threading.Barrier(2, timeout=20)
    kept = [0]

    def read() -> int:
        found = kept[0]
        both.wait()  # in Channels, where all calls share one thread, nobody would come by
        return found

    def write(count: int) -> None:
        kept[0] = count

    piece = in_a_function(source, {"database_sync_to_async": database_sync_to_async, "read": read, "write": write})

    async def two() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(piece)
            nursery.start_soon(piece)

    trio.run(two)
    assert kept == [1], "one of the two was lost"


def layers_of_a_fixture(source: str) -> None:
    """pytest-asyncio runs a fixture's halves in two tasks: a plain block fails there, that of the page does not."""
    fixture = SimpleNamespace(fixture=lambda **options: lambda function: function)
    names: dict[str, Any] = {"pytest_asyncio": fixture, "asyncio": asyncio, "ProtocolTypeRouter": ProtocolTypeRouter}
    exec(source, names)

    async def plain() -> AsyncIterator[None]:
        async with ProtocolTypeRouter({}).opened():
            yield

    async def both_halves(function: Callable[[], AsyncIterator[None]]) -> None:
        halves = function()
        await asyncio.create_task(anext(halves))  # type: ignore[arg-type]
        assert host.SETTINGS_HOST.has_owner
        with suppress(StopAsyncIteration):
            await asyncio.create_task(anext(halves))  # type: ignore[arg-type]
        assert not host.SETTINGS_HOST.has_owner

    asyncio.run(both_halves(names["layers"]))
    with pytest.raises(RuntimeError, match="exit cancel scope in a different task"):
        asyncio.run(both_halves(plain))


def too_late(*_: object) -> None:
    raise TimeoutError(f"it takes more than {PATIENCE} s")


def outcome(check: Callable[[str], None], source: str) -> str:
    signal.alarm(PATIENCE)
    try:
        check(source)
    except Exception:  # noqa: BLE001 - told to the test
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def main() -> None:
    """Run them all, and print what came of each as JSON."""
    signal.signal(signal.SIGALRM, too_late)
    call_command("migrate", verbosity=0)
    checks = {IN_A_PROJECT[one.name]: one.source for one in blocks() if one.name in IN_A_PROJECT}
    json.dump({name: outcome(globals()[name], source) for name, source in checks.items()}, sys.stdout)
