"""Sockets end with what let them in: in this process, in others, and without a signal."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
from django.conf import settings
from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.db import connection, transaction
from django.http import HttpRequest
from django.test import override_settings
from django.utils import timezone

from trichannels import revocation
from trichannels.auth import AuthMiddlewareStack, close_session, close_user, get_user, login, logout
from trichannels.bridge import Bridge
from trichannels.db import DjangoHooks, database_sync_to_async, use_database_bridge
from trichannels.generic.multiplexer import Multiplexer
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer
from trichannels.revocation import Rechecking, recheck, watches
from trichannels.routing import ProtocolTypeRouter
from trichannels.testing import UnexpectedEvent
from trichannels.testing.websocket import WebsocketCommunicator
from trichannels.validity import key_of

from .people import Counted, make_session, store, with_cookie

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]


class Who(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "who":
            await self.send_json((await get_user(self.scope)).get_username())
        elif content == "out":
            await logout(self.scope)
            await self.send_json("out")
        elif content == "sleep":
            await self.send_json("sleeping")
            await anyio.sleep(60)
        else:
            user = await database_sync_to_async(lambda: get_user_model().objects.get(username=content))()
            await login(self.scope, user)
            await self.send_json(self.scope["session"].session_key)


class WhoInAThread(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(self.scope["user"].get_username())


@asynccontextmanager
async def served(consumer: Any = Who, layers: Any = None) -> AsyncIterator[Any]:
    """An application whose layers, and with them the control channel, are open."""
    layers = {"default": InMemoryChannelLayer()} if layers is None else layers
    router = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(consumer.as_asgi())}, layers=layers)
    async with router.opened():
        yield router


@asynccontextmanager
async def one_lane() -> AsyncIterator[None]:
    """For the block, all queries are on one connection, which a test may have its hands on."""
    async with Bridge(1, hooks=DjangoHooks) as bridge:
        use_database_bridge(bridge)
        yield


def socket_with(app: Any, key: str) -> WebsocketCommunicator:
    return WebsocketCommunicator(app, "/", headers=with_cookie(key), timeout=5)


async def knows(socket: WebsocketCommunicator, name: str = "ada") -> None:
    """Let the consumer look who is there."""
    await socket.send_json_to("who")
    assert await socket.receive_json_from(5) == name


async def is_closed(socket: WebsocketCommunicator, reason: str = "") -> None:
    event = await socket.receive_output(5)
    assert event["type"] == "websocket.close", event
    assert (socket.close_code, socket.close_reason) == (4401, reason or socket.close_reason)
    await socket.wait(5)


async def is_open(socket: WebsocketCommunicator, name: str = "ada") -> None:
    await knows(socket, name)


def in_lane(func: Callable[..., Any], *args: Any) -> Any:
    return database_sync_to_async(func)(*args)


def log_out(key: str) -> None:
    """What a view does."""
    request = HttpRequest()
    request.session = store(key)
    request.user = auth.get_user(request)  # type: ignore[assignment, unused-ignore]
    auth.logout(request)


def new_password(user: Any) -> None:
    user.set_password("another")
    user.save()


def deactivate(user: Any) -> None:
    user.is_active = False
    user.save(update_fields=["is_active"])


# ---- what signals tell


@pytest.mark.parametrize("consumer", [Who, WhoInAThread])
async def test_a_logout_closes_the_sockets_of_that_session_alone(ada: Any, consumer: Any) -> None:
    one, other = await in_lane(make_session, ada), await in_lane(make_session, ada)
    async with (
        served(consumer) as app,
        socket_with(app, one) as first,
        socket_with(app, one) as second,
        socket_with(app, other) as third,
    ):
        await knows(first)
        await knows(third)
        await in_lane(log_out, one)
        await is_closed(first, "logged out")
        await is_closed(second, "logged out")  # though nobody had looked who that is
        await is_open(third)
        assert len(watches()) == 1


async def test_a_logout_closes_a_multiplexed_socket_as_a_whole(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    streams = Multiplexer({"one": Who.as_asgi(), "other": WhoInAThread.as_asgi()})
    app = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(streams)}, layers={"default": InMemoryChannelLayer()})
    async with app.opened(), socket_with(app, key) as socket:
        await socket.send_json_to({"stream": "other", "payload": "who"})
        assert await socket.receive_json_from(5) == {"stream": "other", "payload": "ada"}
        await in_lane(log_out, key)
        await is_closed(socket, "logged out")


@pytest.mark.parametrize(
    "change", [new_password, deactivate, lambda user: get_user_model().objects.get(pk=user.pk).delete()]
)
async def test_whoever_may_not_be_in_any_more_is_closed(ada: Any, change: Callable[[Any], None]) -> None:
    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket)
        await in_lane(change, ada)
        await is_closed(socket, "not allowed any more")


async def test_a_change_that_changes_nothing_of_that_closes_nobody(ada: Any) -> None:
    def change() -> None:
        ada.first_name = "Ada"
        ada.save()
        ada.save(update_fields=["last_login"])

    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket)
        await in_lane(change)
        await anyio.sleep(0.05)
        await is_open(socket)


async def test_what_is_rolled_back_closes_nobody(ada: Any) -> None:
    def change_and_fail() -> None:
        with suppress(KeyError), transaction.atomic():
            deactivate(ada)
            close_user(ada)
            raise KeyError

    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket)
        await in_lane(change_and_fail)
        await anyio.sleep(0.05)
        await is_open(socket)


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine(engine: str, ada: Any, tmp_path: Any) -> None:
    module = f"django.contrib.sessions.backends.{engine}"
    with override_settings(SESSION_ENGINE=module, SESSION_FILE_PATH=str(tmp_path)):
        key, other = await in_lane(make_session, ada), await in_lane(partial(make_session, ada, n=1))
        async with served() as app, socket_with(app, key) as socket, socket_with(app, other) as second:
            await knows(socket)
            await knows(second)
            await recheck(watches().known)  # all is well
            await in_lane(log_out, key)
            await is_closed(socket)
            await is_open(second)
            await in_lane(new_password, ada)
            await is_closed(second)


# ---- what is asked for


@pytest.mark.parametrize("where", ["in a lane", "on the loop"])
async def test_all_sockets_of_a_user_are_closed_on_demand(ada: Any, where: str) -> None:
    grace = await in_lane(lambda: get_user_model().objects.create_user("grace"))
    key, other = await in_lane(make_session, ada), await in_lane(make_session, grace)
    async with (
        served() as app,
        socket_with(app, key) as known,
        socket_with(app, key) as unknown,
        socket_with(app, other) as not_theirs,
    ):
        await knows(known)
        if where == "on the loop":
            await close_user(ada)
        else:
            await in_lane(close_user, ada.pk)
        await is_closed(known)
        await is_closed(unknown)
        await is_open(not_theirs, "grace")
    await in_lane(grace.delete)


@pytest.mark.parametrize("where", ["in a lane", "on the loop"])
async def test_all_sockets_of_a_session_are_closed_on_demand(ada: Any, where: str) -> None:
    key, other = await in_lane(make_session, ada), await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket, socket_with(app, other) as second:
        await (close_session(key) if where == "on the loop" else in_lane(close_session, key))
        await is_closed(socket)
        await is_open(second)


# ---- what no signal tells


@pytest.mark.parametrize(
    "change",
    [
        lambda: get_user_model().objects.filter(username="ada").update(is_active=False),
        lambda: get_user_model().objects.filter(username="ada").update(password="x"),
        lambda: get_user_model().objects.filter(username="ada")._raw_delete("default"),
        lambda: Session.objects.all()._raw_delete("default"),
        lambda: Session.objects.update(expire_date=timezone.now()),
    ],
    ids=["deactivated", "another password", "user gone", "session gone", "session expired"],
)
async def test_what_no_signal_tells_is_found_by_looking_again(ada: Any, change: Callable[[], Any]) -> None:
    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket, anyio.create_task_group() as group:
        await knows(socket)
        await in_lane(change)
        group.start_soon(Rechecking(0.05).run)
        await is_closed(socket)
        group.cancel_scope.cancel()


async def test_a_session_that_expires_ends_the_socket_then(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    soon = timezone.now() + timezone.timedelta(seconds=1)
    await in_lane(lambda: Session.objects.filter(session_key=key).update(expire_date=soon))
    async with served() as app, socket_with(app, key) as socket, anyio.create_task_group() as group:
        await knows(socket)
        await recheck(watches().known)
        group.start_soon(Rechecking(3600).run)
        await is_closed(socket, "the session is over")
        assert timezone.now() >= soon
        group.cancel_scope.cancel()


async def test_to_look_again_takes_few_queries(ada: Any) -> None:
    keys = [await in_lane(make_session, ada) for _ in range(20)]
    async with one_lane(), served() as app, AsyncExitStack() as stack:
        counted = Counted()
        await in_lane(lambda: connection.execute_wrappers.append(counted))
        for key in keys * 3:
            await knows(await stack.enter_async_context(socket_with(app, key)))
        counted.queries.clear()
        await recheck(watches().known)
        assert len(counted.queries) == 2, "one for all sessions, and one for all users"


async def test_a_database_that_is_away_closes_nobody(ada: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("the database is away")

    async with (
        one_lane(),
        served() as app,
        socket_with(app, await in_lane(make_session, ada)) as socket,
        anyio.create_task_group() as group,
    ):
        await knows(socket)
        await in_lane(lambda: connection.execute_wrappers.append(broken))
        group.start_soon(Rechecking(0.02).run)
        while "could not be looked at again: OSError" not in caplog.text:
            await anyio.sleep(0.01)
        await in_lane(lambda: connection.execute_wrappers.remove(broken))
        group.cancel_scope.cancel()
        await is_open(socket)


# ---- at any moment


async def test_who_is_revoked_while_being_read_is_closed(ada: Any) -> None:
    """The database is read before the change, and who it is becomes known after the change was told."""
    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        real = auth.get_user

        def slow(request: Any) -> Any:
            user = real(request)
            user.pk  # noqa: B018 - read
            deactivate(get_user_model().objects.get(username="ada"))  # meanwhile, elsewhere
            return user

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auth, "get_user", slow)
            await socket.send_json_to("who")
            try:
                assert await socket.receive_json_from(5) == "ada"
            except UnexpectedEvent:
                pass  # it was quicker than the answer
            else:
                await is_closed(socket)


async def test_a_handler_that_is_busy_does_not_hold_the_close_up(ada: Any) -> None:
    class Busy(Who):
        disconnect_grace = 0.1

    key = await in_lane(make_session, ada)
    async with served(Busy) as app, socket_with(app, key) as socket:
        await socket.send_json_to("sleep")
        assert await socket.receive_json_from(5) == "sleeping"
        await in_lane(log_out, key)
        await is_closed(socket)


async def test_before_the_accept_the_handshake_is_refused(ada: Any) -> None:
    reached = anyio.Event()

    class Slow(Who):
        disconnect_grace = 0.1

        async def connect(self) -> None:
            reached.set()
            await anyio.sleep(60)

    key = await in_lane(make_session, ada)
    async with served(Slow) as app, anyio.create_task_group() as group:
        socket = socket_with(app, key)
        answers: list[Any] = []

        async def connect() -> None:
            answers.append(await socket.connect(5))
            await socket.wait(5)

        group.start_soon(connect)
        await reached.wait()
        await in_lane(log_out, key)
    assert answers == [(False, 4401)]


async def test_a_consumer_that_logs_somebody_out_keeps_its_own_socket(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket, socket_with(app, key) as other:
        await socket.send_json_to("out")
        assert await socket.receive_json_from(5) == "out"
        await is_closed(other)
        await is_open(socket, "")


async def test_a_consumer_that_logs_somebody_in_has_another_session(ada: Any) -> None:
    async with served() as app, WebsocketCommunicator(app, "/", timeout=5) as socket:
        await socket.send_json_to("ada")
        key = await socket.receive_json_from(5)
        await close_session(key)
        await is_closed(socket)


async def test_other_applications_are_closed_as_well(ada: Any) -> None:
    seen: list[Any] = []

    class Foreign:
        @classmethod
        def as_asgi(cls) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send({"type": "websocket.accept"})
                seen.append((await receive())["type"])

            return app

    key = await in_lane(make_session, ada)
    async with served(Foreign) as app:
        socket = socket_with(app, key)
        await socket.connect(5)
        await close_session(key)
        event = await socket.receive_output(5)
        assert (event["type"], event["code"]) == ("websocket.close", 4401)
        await socket.disconnect()
    assert seen == ["websocket.disconnect"]


async def test_without_a_layer_the_process_itself_hears_it(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    layers = {"other": InMemoryChannelLayer()}
    async with served(layers=layers) as app, socket_with(app, key) as socket:
        await in_lane(log_out, key)
        await is_closed(socket)


async def test_nobody_who_is_anonymous_is_watched_by_user(ada: Any) -> None:
    key = await in_lane(make_session)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket, "")
        assert AnonymousUser().is_anonymous
        assert watches().known == []
        await in_lane(new_password, ada)
        await is_open(socket, "")
    assert len(watches()) == 0


# ---- what can go wrong on the way


async def test_a_transaction_that_is_managed_by_hand_hinders_nobody(ada: Any) -> None:
    def change() -> None:
        transaction.set_autocommit(False)
        try:
            deactivate(ada)
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        close_user(ada)

    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket)
        await in_lane(change)
        await is_closed(socket)


async def test_it_is_told_with_the_commit_of_the_users_own_database(ada: Any, postgres: Any) -> None:
    told: list[str] = []

    def change() -> None:
        call_command("migrate", verbosity=0, database="pg")
        there = get_user_model().objects.db_manager("pg").create_user("there")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(revocation, "publish", lambda event: told.append(event["user"]))
            with transaction.atomic(using="pg"):
                deactivate(there)
                close_user(there)
                assert told == []
            assert told == [str(there.pk)] * 2
            with suppress(KeyError), transaction.atomic(using="pg"):
                close_user(there)
                raise KeyError
            there.delete()
        assert len(told) == 3

    await in_lane(change)


async def test_a_cache_that_is_away_closes_nobody(ada: Any) -> None:
    def broken(self: Any, *args: Any, **more: Any) -> Any:
        raise OSError("the cache is away")

    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        key = await in_lane(make_session, ada)
        async with served() as app, socket_with(app, key) as socket:
            await knows(socket)
            await recheck(watches().known)
            with pytest.MonkeyPatch.context() as patch:
                for name in ("get", "get_many"):
                    patch.setattr(BaseCache, name, broken)
                    patch.setattr(LocMemCache, name, broken)
                with pytest.raises(OSError, match="the cache is away"):
                    await recheck(watches().known)
            await recheck(watches().known)
            await is_open(socket)


async def test_without_any_layer_it_works_within_the_process(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    async with served(layers={}) as app, socket_with(app, key) as socket:
        await knows(socket)
        await close_user(ada)
        await is_closed(socket)


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "signed_cookies"])
async def test_who_is_logged_in_over_somebody_elses_session_is_watched(engine: str, ada: Any) -> None:
    class Entering(Who):
        async def connect(self) -> None:
            await login(self.scope, grace)
            await recheck(watches().known)  # in the middle of it: the session is not saved yet
            await self.accept()

    grace = await in_lane(lambda: get_user_model().objects.create_user("grace"))
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        key = await in_lane(make_session, ada)
        async with served(Entering) as app, socket_with(app, key) as socket:
            await recheck(watches().known)
            await is_open(socket, "grace")
            await in_lane(deactivate, grace)
            await is_closed(socket, "not allowed any more")
    await in_lane(grace.delete)


async def test_a_new_secret_key_costs_nobody_the_session(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        async with served() as app, socket_with(app, key) as socket:
            await knows(socket)
            assert await in_lane(store().exists, key), "the browser still has this key"
            await recheck(watches().known)
            await is_open(socket)


async def test_one_socket_that_cannot_be_closed_does_not_keep_the_others_open(ada: Any) -> None:
    class Closing:
        @classmethod
        def as_asgi(cls) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["path"] != "/odd/":
                    await Who.as_asgi()(scope, receive, send)
                    return
                await receive()
                await get_user(scope)
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close"})
                await ended.wait()  # cleaning up

            return app

    ended = anyio.Event()
    key = await in_lane(make_session, ada)
    async with served(Closing) as app, AsyncExitStack() as stack:
        odd = WebsocketCommunicator(app, "/odd/", headers=with_cookie(key), timeout=5)
        await odd.connect(5)
        sockets = [await stack.enter_async_context(socket_with(app, key)) for _ in range(5)]
        for socket in sockets:
            await knows(socket)
        await in_lane(deactivate, ada)
        for socket in sockets:
            await is_closed(socket)
        ended.set()
        await odd.wait(5)


async def test_of_two_routers_each_is_heard_for_as_long_as_it_lives(ada: Any) -> None:
    def router() -> ProtocolTypeRouter:
        layers = {"default": InMemoryChannelLayer()}
        return ProtocolTypeRouter({"websocket": AuthMiddlewareStack(Who.as_asgi())}, layers=layers)

    key, first, second = await in_lane(make_session, ada), router(), router()
    async with socket_with(first, key) as one:  # in the degraded way: nobody owns the layers
        await knows(one)
        async with socket_with(second, key) as other:
            await knows(other)
            await one.disconnect()
            await in_lane(deactivate, ada)
            await is_closed(other)


async def test_a_logout_that_fails_leaves_the_socket_watched(ada: Any) -> None:
    class Out(Who):
        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            if content != "out":
                await super().receive_json(content)
                return
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(self.scope["session"]), "delete", broken)
                with pytest.raises(OSError, match="away"):
                    await logout(self.scope)
            await self.send_json("still in")

    def broken(*args: Any) -> None:
        raise OSError("the database is away")

    key = await in_lane(make_session, ada)
    async with served(Out) as app, socket_with(app, key) as socket:
        await knows(socket)
        await socket.send_json_to("out")
        assert await socket.receive_json_from(5) == "still in"
        await close_user(ada)
        await is_closed(socket)


async def test_sessions_that_expire_at_different_times_are_not_all_looked_at_each_time(ada: Any) -> None:
    keys = [await in_lane(make_session, ada) for _ in range(10)]
    asked: list[int] = []

    async def counted(these: Any) -> None:
        asked.append(len(these))
        await recheck(these)

    async with served() as app, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(socket_with(app, key)) for key in keys]
        for seconds, socket, key in reversed(list(zip([1.5, *[3600] * 9], sockets, keys, strict=True))):
            await knows(socket)
            then = timezone.now() + timezone.timedelta(seconds=seconds)
            await in_lane(lambda key=key, then=then: Session.objects.filter(session_key=key).update(expire_date=then))
        await recheck(watches().known)
        async with anyio.create_task_group() as group:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(revocation, "recheck", counted)
                group.start_soon(Rechecking(3600).run)
                await is_closed(sockets[0])
            group.cancel_scope.cancel()
        assert set(asked) == {1}


class Doorkeeper(ModelBackend):  # type: ignore[misc, unused-ignore]
    """A backend of a project's own, which knows more than the database does."""

    refused: ClassVar[set[str]] = set()

    def get_user(self, user_id: Any) -> Any:
        user = super().get_user(user_id)
        return None if user is not None and user.get_username() in self.refused else user


async def test_a_backend_of_a_projects_own_is_asked(ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.Doorkeeper"]):
        key = await in_lane(make_session, ada)
        async with served() as app, socket_with(app, key) as socket:
            await knows(socket)
            await recheck(watches().known)
            await is_open(socket)
            monkeypatch.setattr(Doorkeeper, "refused", {"ada"})
            await recheck(watches().known)
            await is_closed(socket, "not allowed any more")


async def test_a_backend_that_is_configured_no_more_lets_nobody_in(ada: Any) -> None:
    key = await in_lane(make_session, ada)
    async with served() as app, socket_with(app, key) as socket:
        await knows(socket)
        with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.Doorkeeper"]):
            await recheck(watches().known)
        await is_closed(socket, "not allowed any more")


def test_keys_are_those_that_sessions_hold(ada: Any) -> None:
    assert key_of(ada) == key_of(ada.pk) == key_of(str(ada.pk)) == ada._meta.pk.value_to_string(ada)
