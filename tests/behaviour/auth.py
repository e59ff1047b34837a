"""Users in the scope: who is there, logging in and out, and what ends that."""

# mypy: allow-subclassing-any

from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import async_to_sync

from .library import as_json, blocking, ended, name_of, told
from .rows import documented_at
from .sessions import NAME, cookie, cookies_of, made, saved

behaviour = documented_at("topics/authentication.html")

DJANGO = "#django-authentication"
LOGIN = "#how-to-log-a-user-in-out"
BACKEND = "django.contrib.auth.backends.ModelBackend"


def users() -> Any:
    """Return the manager of Django's users."""
    from django.contrib.auth import get_user_model

    return get_user_model().objects


@asynccontextmanager
async def user(name: str = "ada") -> Any:
    """Have a user for a block."""

    def make() -> Any:
        users().filter(username=name).delete()
        return users().create_user(name, password="first")

    yield await blocking(make)
    await blocking(lambda: users().filter(username=name).delete())


async def logged_in(who: Any, **values: Any) -> str:
    """Return the key of a session in which a user is logged in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

    hashed = who.get_session_auth_hash()
    return await made(**{SESSION_KEY: str(who.pk), BACKEND_SESSION_KEY: BACKEND, HASH_SESSION_KEY: hashed}, **values)


def blocking_consumer(lib: Any, act: Any) -> Any:
    """Return the application of a blocking consumer that tells what ``act(scope)`` returns, at each frame."""

    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            try:
                self.send(as_json(act(self.scope)))
            except Exception as error:  # noqa: BLE001 - that is what is looked at
                self.send(as_json(name_of(error)))

    return lib.AuthMiddlewareStack(Consumer.as_asgi())


def async_consumer(lib: Any, act: Any) -> Any:
    """Return the same of an async one, with an async ``act(scope)``."""

    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(as_json(await told(act(self.scope))))

    return lib.AuthMiddlewareStack(Consumer.as_asgi())


async def asked(lib: Any, application: Any, key: str | None = None) -> Any:
    """Return what a consumer tells."""
    async with lib.socket(application, headers=cookie(key) if key else None) as client:
        await client.send_to("go")
        return await client.receive_json_from(3)


@behaviour(DJANGO, "`AuthMiddlewareStack` puts the user of the session into `scope['user']`", same=["ada", True])
async def the_user(lib: Any) -> Any:
    consumer = blocking_consumer(lib, lambda scope: [scope["user"].username, scope["user"].is_authenticated])
    async with user() as ada:
        return await asked(lib, consumer, await logged_in(ada))


@behaviour(
    DJANGO, "Without a session, or with one that is not known, it is `AnonymousUser`", same=[[True, True], [True, True]]
)
async def nobody(lib: Any) -> Any:
    def tell(scope: Any) -> Any:
        from django.contrib.auth.models import AnonymousUser

        return [scope["user"].is_anonymous, scope["user"] == AnonymousUser()]

    return [await asked(lib, blocking_consumer(lib, tell), key) for key in (None, "unknown")]


@behaviour(
    DJANGO,
    "Async code looks into `scope['user']`",
    theirs="ada",
    ours="SynchronousOnlyOperation",
    different="`await get_user(scope)` first: the user is read when somebody asks, and not for each socket",
    tests=("tests/project/test_auth.py::test_who_is_there_is_read_once_however_many_ask",),
)
async def the_user_in_async_code(lib: Any) -> Any:
    async def tell(scope: Any) -> Any:
        return scope["user"].username

    async with user() as ada:
        return await asked(lib, async_consumer(lib, tell), await logged_in(ada))


@behaviour(LOGIN, "`await get_user(scope)` returns the user", same=["ada", "ada"])
async def get_user_in_async_code(lib: Any) -> Any:
    async def tell(scope: Any) -> Any:
        return [(await lib.get_user(scope)).username, scope["user"].username]

    async with user() as ada:
        return await asked(lib, async_consumer(lib, tell), await logged_in(ada))


@behaviour(
    LOGIN,
    "In blocking code, `async_to_sync(get_user)(scope)` does",
    same="ada",
)
async def get_user_in_blocking_code(lib: Any) -> Any:
    consumer = blocking_consumer(lib, lambda scope: async_to_sync(lib.get_user)(scope).username)
    async with user() as ada:
        return await asked(lib, consumer, await logged_in(ada))


@behaviour(DJANGO, "`AuthMiddleware` without `SessionMiddleware` is a `ValueError`", same="ValueError")
async def no_session_middleware(lib: Any) -> Any:
    application = lib.AuthMiddleware(lib.AsyncWebsocketConsumer.as_asgi())
    async with lib.opened(), lib.client(application) as client:
        return await ended(client, {"type": "websocket.connect"})


@behaviour(
    LOGIN, "`get_user`, `login` and `logout` without a session in the scope are `ValueError`", same=["ValueError"] * 3
)
async def no_session(lib: Any) -> Any:
    async with user() as ada:
        calls = lib.get_user({}), lib.login({}, ada), lib.logout({})
        return [await told(call) for call in calls]


@behaviour(DJANGO, "A `user` that outer middleware has put into the scope stays", same="ada")
async def a_user_of_other_middleware(lib: Any) -> Any:
    inner = blocking_consumer(lib, lambda scope: scope["user"].username)
    async with user() as ada:

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            await inner({**scope, "user": ada}, receive, send)

        return await asked(lib, outer)


@behaviour(
    "#custom-authentication", "Middleware of one's own may read the user by `database_sync_to_async`", same="ada"
)
async def a_user_by_the_query(lib: Any) -> Any:
    get_user = lib.database_sync_to_async(lambda pk: users().get(pk=pk))

    class QueryAuth:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["user"] = await get_user(int(scope["query_string"]))
            await self.app(scope, receive, send)

    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(as_json(self.scope["user"].username))

    async with user() as ada, lib.socket(QueryAuth(Consumer.as_asgi()), f"/?{ada.pk}") as client:
        return await client.receive_json_from(3)


# ---- logging in


async def _logs_in(lib: Any, who: Any, key: str | None, *, save: bool = True) -> Any:
    """Log somebody in over a socket; return who is there then, and the key of the session."""

    async def act(scope: Any) -> Any:
        await lib.login(scope, who)
        if save:
            await lib.database_sync_to_async(scope["session"].save)()
        return [scope["user"].username, scope["session"].session_key]

    return await asked(lib, async_consumer(lib, act), key)


@behaviour(
    LOGIN,
    "`await login(scope, user)` and saving the session log a user in, here and in what comes later",
    same=["ada", "ada"],
)
async def logging_in(lib: Any) -> Any:
    async with user() as ada:
        who, key = await _logs_in(lib, ada, None)
        return [who, await asked(lib, blocking_consumer(lib, lambda scope: scope["user"].username), key)]


@behaviour(
    LOGIN,
    "In blocking code, `async_to_sync(login)(scope, user)` and `scope['session'].save()` do",
    same=["ada", "ada"],
)
async def logging_in_from_blocking_code(lib: Any) -> Any:
    async with user() as ada:

        def act(scope: Any) -> Any:
            async_to_sync(lib.login)(scope, ada)
            scope["session"].save()
            return [scope["user"].username, scope["session"].session_key]

        who, key = await asked(lib, blocking_consumer(lib, act))
        return [who, await asked(lib, blocking_consumer(lib, lambda scope: scope["user"].username), key)]


@behaviour(LOGIN, "After the accept, a login that nobody saves is forgotten", same=["ada", ""])
async def a_login_that_nobody_saves(lib: Any) -> Any:
    async with user() as ada:
        who, key = await _logs_in(lib, ada, await made(seed=7), save=False)
        return [who, await asked(lib, blocking_consumer(lib, lambda scope: scope["user"].username), key)]


@behaviour(
    LOGIN,
    "A login before the accept is not saved by itself",
    theirs=[False, None],
    ours=[True, "ada"],
    better="it is saved, and its cookie set, with the accept",
)
async def logging_in_before_the_accept(lib: Any) -> Any:
    async with user() as ada:

        class Consumer(lib.AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await lib.login(self.scope, ada)
                await self.accept()

        async with lib.socket(lib.AuthMiddlewareStack(Consumer.as_asgi())) as client:
            found = cookies_of(client.response_headers).get(NAME)
        key = found["value"] if found else None
        who = key and await asked(lib, blocking_consumer(lib, lambda scope: scope["user"].username), key)
        return [found is not None, who]


@behaviour(LOGIN, "A login gives the session another key, and keeps what was in it", same=[True, 7])
async def another_key(lib: Any) -> Any:
    before = await made(seed=7)
    async with user() as ada:
        _, after = await _logs_in(lib, ada, before)
        return [after != before, (await saved(after))["seed"]]


@behaviour(LOGIN, "… but not what was in the session of another user", same=[True, False])
async def another_user(lib: Any) -> Any:
    async with user() as ada, user("grace") as grace:
        before = await logged_in(grace, seed=7)
        _, after = await _logs_in(lib, ada, before)
        return [after != before, "seed" in await saved(after)]


@behaviour(LOGIN, "A login sends Django's `user_logged_in`", same=["ada"])
async def the_signal_of_a_login(lib: Any) -> Any:
    from django.contrib.auth import user_logged_in

    seen = []

    def hear(sender: Any, user: Any, **more: Any) -> None:
        seen.append(user.username)

    user_logged_in.connect(hear)
    try:
        async with user() as ada:
            await _logs_in(lib, ada, None)
    finally:
        user_logged_in.disconnect(hear)
    return seen


@behaviour(
    LOGIN,
    "With several backends, `login()` has to be told which: else it is a `ValueError`",
    same=["ValueError", "ada"],
)
async def several_backends(lib: Any) -> Any:
    from django.test import override_settings

    other = "django.contrib.auth.backends.AllowAllUsersModelBackend"

    async with user() as ada:

        async def act(scope: Any) -> Any:
            refused = await told(lib.login(scope, ada))
            await lib.login(scope, ada, backend=other)
            return [refused, scope["user"].username]

        with override_settings(AUTHENTICATION_BACKENDS=[BACKEND, other]):
            return await asked(lib, async_consumer(lib, act))


# ---- logging out, and what else ends it


@behaviour(
    LOGIN, "`await logout(scope)` deletes the session; the user is `AnonymousUser` from then on", same=[True, None]
)
async def logging_out(lib: Any) -> Any:
    async def act(scope: Any) -> Any:
        await lib.get_user(scope)
        await lib.logout(scope)
        return scope["user"].is_anonymous

    async with user() as ada:
        key = await logged_in(ada)
        return [await asked(lib, async_consumer(lib, act), key), await saved(key)]


@behaviour(
    LOGIN,
    "In blocking code, `async_to_sync(logout)(scope)` does",
    same=[True, None],
)
async def logging_out_from_blocking_code(lib: Any) -> Any:
    def act(scope: Any) -> Any:
        async_to_sync(lib.logout)(scope)
        return scope["user"].is_anonymous

    async with user() as ada:
        key = await logged_in(ada)
        return [await asked(lib, blocking_consumer(lib, act), key), await saved(key)]


@behaviour(LOGIN, "A logout sends Django's `user_logged_out`", same=["ada"])
async def the_signal_of_a_logout(lib: Any) -> Any:
    from django.contrib.auth import user_logged_out

    seen = []

    def hear(sender: Any, user: Any, **more: Any) -> None:
        seen.append(user.username)

    async def act(scope: Any) -> Any:
        await lib.logout(scope)

    user_logged_out.connect(hear)
    try:
        async with user() as ada:
            await asked(lib, async_consumer(lib, act), await logged_in(ada))
    finally:
        user_logged_out.disconnect(hear)
    return seen


@behaviour(DJANGO, "A session that was begun with another password is nobody's", same="")
async def another_password(lib: Any) -> Any:
    async with user() as ada:
        key = await logged_in(ada)

        def change() -> None:
            ada.set_password("second")
            ada.save()

        await blocking(change)
        return await asked(lib, blocking_consumer(lib, lambda scope: scope["user"].username), key)


@behaviour(
    LOGIN,
    "A user who logs out elsewhere keeps the socket; `get_user(scope)` is to be asked now and then",
    theirs="open",
    ours=4401,
    better="the socket is closed with 4401; so it is when its session expires",
    tests=("tests/project/test_revocation.py::test_a_session_that_expires_ends_the_socket_then",),
)
async def logged_out_elsewhere(lib: Any) -> Any:
    async def log_out(scope: Any) -> Any:
        await lib.logout(scope)

    async def nothing(scope: Any) -> Any:
        """Stay."""

    async with user() as ada:
        key = await logged_in(ada)
        async with lib.socket(async_consumer(lib, nothing), headers=cookie(key)) as client:
            await asked(lib, async_consumer(lib, log_out), key)
            return await _closed(client, lib.patience)


@behaviour(
    LOGIN,
    "A password is changed elsewhere while a socket is open",
    theirs="open",
    ours=4401,
    better="it is closed with 4401; so it is when the user is deactivated or deleted",
    tests=("tests/project/test_revocation.py::test_whoever_may_not_be_in_any_more_is_closed",),
)
async def a_password_changed_elsewhere(lib: Any) -> Any:
    async def look(scope: Any) -> Any:
        await lib.get_user(scope)

    async with user() as ada, lib.socket(async_consumer(lib, look), headers=cookie(await logged_in(ada))) as client:
        await client.send_to("look")
        await client.receive_from(3)

        def change() -> None:
            ada.set_password("second")
            ada.save()

        await blocking(change)
        return await _closed(client, lib.patience)


async def _closed(client: Any, patience: float) -> Any:
    event = await told(client.receive_output(patience))
    return event["code"] if isinstance(event, dict) else "open" if event == "TimeoutError" else event
