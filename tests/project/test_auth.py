"""Sessions and users in consumers: nothing is read before it is asked for, and Django's own functions do the rest."""

from http.cookies import SimpleCookie
from typing import Any

import anyio
import pytest
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection
from django.test import override_settings

from trichannels.auth import AuthMiddlewareStack, get_user, login, logout
from trichannels.consumer import AsyncConsumer
from trichannels.db import database_sync_to_async
from trichannels.exceptions import ConfigError
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter
from trichannels.sessions import (
    CookieMiddleware,
    SessionMiddleware,
    SessionMiddlewareStack,
    get_session,
    save_session,
)
from trichannels.testing import LiveServer
from trichannels.testing.websocket import WebsocketCommunicator

from .people import Counted, make_session, store, with_cookie

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]


def cookie_of(communicator: WebsocketCommunicator) -> Any:
    """Return the session cookie that came with the accept."""
    cookies = SimpleCookie()
    for name, value in communicator.response_headers or ():
        if name == b"set-cookie":
            cookies.load(value.decode())
    return cookies.get(settings.SESSION_COOKIE_NAME)


# ---- users


class Who(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "who":
            await self.send_json((await get_user(self.scope)).get_username())
        elif content == "together":
            names: list[str] = []

            async def ask() -> None:
                names.append((await get_user(self.scope)).get_username())

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ask)
            await self.send_json(names)
        elif content == "plainly":
            try:
                await self.send_json(self.scope["user"].get_username())
            except SynchronousOnlyOperation as error:
                await self.send_json(str(error)[:28])
        elif content == "out":
            await logout(self.scope)
            await self.send_json(self.scope["user"].is_authenticated)


class WhoInAThread(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(self.scope["user"].get_username())


async def test_who_is_there_is_read_once_however_many_ask(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)
    counted = Counted()
    await database_sync_to_async(lambda: connection.execute_wrappers.append(counted))()  # the only lane
    async with WebsocketCommunicator(AuthMiddlewareStack(Who.as_asgi()), "/", headers=with_cookie(key)) as socket:
        assert counted.queries == [], "nobody has asked yet"
        await socket.send_json_to("plainly")
        assert await socket.receive_json_from() == "the user is not known yet: w"
        await socket.send_json_to("together")
        assert await socket.receive_json_from(5) == ["ada"] * 5
        assert len(counted.queries) == 2
        await socket.send_json_to("who")
        assert await socket.receive_json_from() == "ada"
        await socket.send_json_to("plainly")
        assert await socket.receive_json_from() == "ada"
        assert len(counted.queries) == 2


async def test_without_a_cookie_nobody_is_asked() -> None:
    counted = Counted()
    await database_sync_to_async(lambda: connection.execute_wrappers.append(counted))()
    async with WebsocketCommunicator(AuthMiddlewareStack(Who.as_asgi()), "/") as socket:
        await socket.send_json_to("who")
        assert await socket.receive_json_from(5) == ""
        assert cookie_of(socket) is None
    assert counted.queries == []


async def test_a_blocking_handler_just_looks(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)
    app = AuthMiddlewareStack(WhoInAThread.as_asgi())
    async with WebsocketCommunicator(app, "/", headers=with_cookie(key)) as socket:
        await socket.send_json_to("who")
        assert await socket.receive_json_from(5) == "ada"


async def test_a_session_from_before_a_new_password_is_nobodys(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)

    def change() -> None:
        ada.set_password("another")
        ada.save()

    await database_sync_to_async(change)()
    async with WebsocketCommunicator(AuthMiddlewareStack(Who.as_asgi()), "/", headers=with_cookie(key)) as socket:
        await socket.send_json_to("who")
        assert await socket.receive_json_from(5) == ""


async def test_a_new_secret_key_with_the_old_one_as_a_fallback_keeps_the_session(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        async with WebsocketCommunicator(AuthMiddlewareStack(Who.as_asgi()), "/", headers=with_cookie(key)) as socket:
            await socket.send_json_to("who")
            assert await socket.receive_json_from(5) == "ada"


async def test_logging_out_ends_the_session(ada: Any) -> None:
    key = await database_sync_to_async(make_session)(ada)
    async with WebsocketCommunicator(AuthMiddlewareStack(Who.as_asgi()), "/", headers=with_cookie(key)) as socket:
        await socket.send_json_to("out")
        assert await socket.receive_json_from(5) is False
        await socket.send_json_to("who")
        assert await socket.receive_json_from() == ""
    assert not await database_sync_to_async(lambda: store().exists(key))()


async def test_logging_in_before_the_accept_sets_the_cookie(ada: Any) -> None:
    class Entering(Who):
        async def connect(self) -> None:
            await login(self.scope, ada)
            await self.accept()

    async with WebsocketCommunicator(AuthMiddlewareStack(Entering.as_asgi()), "/") as socket:
        cookie = cookie_of(socket)
        assert cookie["httponly"]
        await socket.send_json_to("who")
        assert await socket.receive_json_from(5) == "ada"
    app = AuthMiddlewareStack(Who.as_asgi())
    async with WebsocketCommunicator(app, "/", headers=with_cookie(cookie.value)) as socket:
        await socket.send_json_to("who")
        assert await socket.receive_json_from(5) == "ada"


# ---- sessions


class Counting(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        session = await get_session(self.scope)
        session["visits"] = session.get("visits", 0) + 1
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        session = await get_session(self.scope)
        session["said"] = content
        await save_session(self.scope)
        await self.send_json(session["visits"])


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine(engine: str, tmp_path: Any) -> None:
    module = f"django.contrib.sessions.backends.{engine}"
    with override_settings(SESSION_ENGINE=module, SESSION_FILE_PATH=str(tmp_path)):
        headers = None
        for visit in (1, 2, 3):
            app = SessionMiddlewareStack(Counting.as_asgi())
            async with WebsocketCommunicator(app, "/", headers=headers) as socket:
                cookie = cookie_of(socket)
                headers = with_cookie(cookie.value)
                await socket.send_json_to(f"visit {visit}")
                assert await socket.receive_json_from(5) == visit
        if engine != "signed_cookies":  # which are in the browser, and it cannot be told any more
            saved = await database_sync_to_async(lambda: dict(store(cookie.value).items()))()
            assert saved == {"visits": 3, "said": "visit 3"}


async def test_a_session_that_is_emptied_deletes_the_cookie() -> None:
    class Emptying(AsyncConsumer):
        async def websocket_connect(self, event: Any) -> None:
            await database_sync_to_async(lambda: self.scope["session"].flush())()
            await self.send({"type": "websocket.accept"})

    key = await database_sync_to_async(make_session)(None, a=1)
    async with WebsocketCommunicator(SessionMiddlewareStack(Emptying.as_asgi()), "/", headers=with_cookie(key)) as it:
        assert cookie_of(it).value == ""


async def test_what_is_missing_is_named() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await get_session(scope)

    async def nothing(*_: Any) -> Any: ...

    scope = {"type": "websocket", "headers": []}
    with pytest.raises(ConfigError, match="put SessionMiddlewareStack"):
        await app(scope, nothing, nothing)
    with pytest.raises(ConfigError, match="needs CookieMiddleware around it"):
        await SessionMiddleware(app)(scope, nothing, nothing)
    with pytest.raises(ConfigError, match="needs a scope with headers"):
        await CookieMiddleware(app)({"type": "channel"}, nothing, nothing)


@pytest.mark.trio_only
async def test_sockets_with_a_session_still_get_shared_frames_directly() -> None:
    """What saves the session stands between consumer and transport only until the accept."""
    seen: list[Any] = []

    class Room(AsyncJsonWebsocketConsumer):
        groups = ("room",)

        async def connect(self) -> None:
            (await get_session(self.scope))["here"] = True
            await self.accept()
            seen.append(self._instance)

    layer = InMemoryChannelLayer()
    app = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(Room.as_asgi())}, layers={"default": layer})
    async with LiveServer(app) as live, live.connect() as socket:
        assert any(name == b"set-cookie" for name, _ in socket.handshake_headers)
        await layer.group_send("room", {"type": "websocket.send", "text": "hello"})
        assert await socket.get_message() == "hello"
        assert seen[0].mailbox.passed == 1, "it went past the inbox"
