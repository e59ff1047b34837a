"""Cookies and Django's sessions in the scope."""

# mypy: allow-subclassing-any

from http.cookies import SimpleCookie
from importlib import import_module
from typing import Any

from .library import as_json, blocking, ended, output, told
from .rows import documented_at

behaviour = documented_at("topics/sessions.html")
NAME = "sessionid"


def store(key: str | None = None) -> Any:
    """Return a session of Django's."""
    from django.conf import settings

    return import_module(settings.SESSION_ENGINE).SessionStore(key)


async def made(**values: Any) -> str:
    """Return the key of a new session with these values."""

    def make() -> str:
        session = store()
        session.update(values)
        session.save()
        return str(session.session_key)

    return str(await blocking(make))


async def saved(key: str | None) -> Any:
    """Return what is saved in a session; None if there is no such session."""

    def read() -> Any:
        session = store(key)
        return dict(session.items()) if key and session.exists(key) else None

    return await blocking(read)


def cookie(key: str, name: str = NAME) -> list[tuple[bytes, bytes]]:
    """Return the headers of a browser with a session."""
    return [(b"cookie", f"{name}={key}".encode())]


def cookies_of(headers: Any) -> dict[str, Any]:
    """Return the cookies that a response sets: of each its value and its attributes."""
    found: SimpleCookie = SimpleCookie()
    for name, value in headers or ():
        if name.lower() == b"set-cookie":
            found.load(value.decode())
    return {
        morsel.key: {"value": morsel.value, **{name: value for name, value in morsel.items() if value}}
        for morsel in found.values()
    }


def http(lib: Any, act: Any, status: int = 200, stack: Any = None) -> Any:
    """Return an application within a session stack: it does something with the session in a thread, and answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said = await lib.database_sync_to_async(act)(scope["session"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": as_json(said).encode()})

    return (stack or lib.SessionMiddlewareStack)(app)


async def answer(lib: Any, application: Any, headers: Any = None) -> Any:
    """Return the response of an application."""
    async with lib.request(application, headers=headers) as client:
        return await client.get_response(3)


def seeded(value: int) -> Any:
    """Return what changes a session."""
    return lambda session: session.update({"seed": value})


# ---- cookies


@behaviour(
    "#basic-usage", "`CookieMiddleware` puts the cookies into `scope['cookies']`, a dict", same={"a": "b", "c": "d e"}
)
async def cookies_in_the_scope(lib: Any) -> Any:
    async with lib.socket(_telling_cookies(lib), headers=[(b"cookie", b'a=b; c="d e"')]) as client:
        return await client.receive_json_from()


@behaviour(
    "#basic-usage",
    "Cookies in several headers, as HTTP/2 sends them",
    theirs={"a": "b"},
    ours={"a": "b", "c": "d"},
    better="all of them are there; Channels reads the first header",
)
async def cookies_in_several_headers(lib: Any) -> Any:
    async with lib.socket(_telling_cookies(lib), headers=[(b"cookie", b"a=b"), (b"cookie", b"c=d")]) as client:
        return await client.receive_json_from()


def _telling_cookies(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(as_json(self.scope["cookies"]))

    return lib.CookieMiddleware(Consumer.as_asgi())


@behaviour(
    "#basic-usage",
    "These middlewares are for scopes with headers: any other is a `ValueError`",
    same="ValueError",
)
async def a_scope_without_headers(lib: Any) -> Any:
    async with lib.scope(lib.CookieMiddleware(lib.AsyncConsumer.as_asgi()), {"type": "test"}) as client:
        return await told(client.wait())


@behaviour(
    "#basic-usage",
    "`CookieMiddleware.set_cookie(event, name, value, …)` sets a cookie with an event",
    same={"a": {"value": "b", "path": "/x", "max-age": "10", "secure": True, "httponly": True, "samesite": "strict"}},
)
def setting_a_cookie(lib: Any) -> Any:
    event: dict[str, Any] = {"type": "http.response.start", "status": 200}
    options = {"max_age": 10, "path": "/x", "secure": True, "httponly": True, "samesite": "strict"}
    lib.CookieMiddleware.set_cookie(event, "a", "b", **options)
    found = cookies_of(event["headers"])
    found["a"].pop("expires", None)
    found["a"]["samesite"] = found["a"]["samesite"].lower()
    return found


@behaviour(
    "#basic-usage",
    "A cookie that `set_cookie()` sets without options is for the whole site, and `SameSite` is `lax`",
    same={"a": {"value": "b", "path": "/", "samesite": "lax"}},
)
def setting_a_plain_cookie(lib: Any) -> Any:
    event: dict[str, Any] = {"type": "http.response.start", "status": 200}
    lib.CookieMiddleware.set_cookie(event, "a", "b")
    return cookies_of(event["headers"])


# ---- sessions


@behaviour("#basic-usage", "`SessionMiddleware` without `CookieMiddleware` is a `ValueError`", same="ValueError")
async def no_cookies(lib: Any) -> Any:
    application = lib.SessionMiddleware(lib.AsyncWebsocketConsumer.as_asgi())
    async with lib.opened(), lib.client(application) as client:
        return await ended(client, {"type": "websocket.connect"})


@behaviour("#basic-usage", "A blocking consumer reads the session of the cookie in `scope['session']`", same=7)
async def reading_in_a_blocking_consumer(lib: Any) -> Any:
    class Consumer(lib.WebsocketConsumer):
        def connect(self) -> None:
            self.accept()
            self.send(as_json(self.scope["session"]["seed"]))

    headers = cookie(await made(seed=7))
    async with lib.socket(lib.SessionMiddlewareStack(Consumer.as_asgi()), headers=headers) as client:
        return await client.receive_json_from(3)


@behaviour(
    "#basic-usage",
    "Async code uses Django's own async methods of a session, such as `aget()`",
    same=[7, None],
)
async def reading_in_async_code(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            session = self.scope["session"]
            await self.send(as_json([await session.aget("seed"), await session.aget("other")]))

    headers = cookie(await made(seed=7))
    async with lib.socket(lib.SessionMiddlewareStack(Consumer.as_asgi()), headers=headers) as client:
        return await client.receive_json_from(3)


@behaviour(
    "#basic-usage",
    "Async code that reads a session like a dict is a `SynchronousOnlyOperation`",
    same="SynchronousOnlyOperation",
)
async def reading_a_session_on_the_loop(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.scope["session"]["seed"]

    headers = cookie(await made(seed=7))
    application = lib.SessionMiddlewareStack(Consumer.as_asgi())
    async with lib.opened(), lib.client(application, headers=headers) as client:
        await client.send_input({"type": "websocket.connect"})
        return await told(client.wait())


@behaviour(
    "#session-persistence",
    "A session that was changed is saved with the response, and its cookie set",
    same=[{"seed": 7}, True],
)
async def saved_with_the_response(lib: Any) -> Any:
    response = await answer(lib, http(lib, seeded(7)))
    found = cookies_of(response["headers"])[NAME]
    return [await saved(found["value"]), bool(found["max-age"])]


@behaviour("#session-persistence", "One that was not changed is not, and sets no cookie", same=[7, {}])
async def not_saved_unchanged(lib: Any) -> Any:
    response = await answer(lib, http(lib, lambda session: session["seed"]), cookie(await made(seed=7)))
    return [int(response["body"]), cookies_of(response["headers"])]


@behaviour(
    "#session-persistence", "With `SESSION_SAVE_EVERY_REQUEST` it is saved, and its cookie sent, every time", same=True
)
async def saved_every_time(lib: Any) -> Any:
    from django.test import override_settings

    key = await made(seed=7)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        response = await answer(lib, http(lib, lambda session: None), cookie(key))
    return bool(cookies_of(response["headers"])[NAME]["value"] == key)


@behaviour("#session-persistence", "With a response of status 500 it is not saved", same=[{"seed": 7}, {}])
async def not_saved_after_a_failure(lib: Any) -> Any:
    key = await made(seed=7)
    response = await answer(lib, http(lib, seeded(8), 500), cookie(key))
    return [await saved(key), cookies_of(response["headers"])]


@behaviour(
    "#basic-usage",
    "The cookie has the name, domain, path and flags of Django's settings",
    same={
        "value": True,
        "domain": "good.example",
        "path": "/x",
        "secure": True,
        "httponly": True,
        "samesite": "strict",
    },
)
async def settings_of_the_cookie(lib: Any) -> Any:
    from django.test import override_settings

    changes = {
        "SESSION_COOKIE_NAME": "other", "SESSION_COOKIE_DOMAIN": "good.example", "SESSION_COOKIE_PATH": "/x",
        "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Strict",
    }  # fmt: skip
    with override_settings(**changes):
        response = await answer(lib, http(lib, seeded(7)))
        found = cookies_of(response["headers"])["other"]
    for name in ("expires", "max-age"):
        found.pop(name)
    return {**found, "value": bool(found["value"]), "samesite": found["samesite"].lower()}


@behaviour("#session-persistence", "A session that is emptied has its cookie deleted", same=["", "0"])
async def an_emptied_session(lib: Any) -> Any:
    response = await answer(lib, http(lib, lambda session: session.flush()), cookie(await made(seed=7)))
    found = cookies_of(response["headers"])[NAME]
    return [found["value"], found["max-age"]]


@behaviour(
    "#session-persistence",
    "A session that was changed here, and deleted elsewhere meanwhile",
    theirs="SuspiciousOperation",
    ours=[200, {}],
    different="the response goes out, without a cookie; Channels raises in the place of the response",
)
async def deleted_meanwhile(lib: Any) -> Any:
    key = await made(seed=7)

    def change(session: Any) -> None:
        session["seed"] = 8
        store(key).delete()

    async with lib.request(http(lib, change), headers=cookie(key)) as client:
        await client.send_input({"type": "http.request"})
        start = await output(client)
    return [start["status"], cookies_of(start["headers"])] if isinstance(start, dict) else start


@behaviour(
    "#session-persistence",
    "In a WebSocket consumer, what is changed after the accept is not saved by itself",
    same=[{"seed": 7}, {"seed": 8}],
)
async def a_socket_does_not_save(lib: Any) -> Any:
    class Consumer(lib.WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.scope["session"]["seed"] = 8
            if text_data == "save":
                self.scope["session"].save()
            self.send("done")

    key = await made(seed=7)
    found = []
    async with lib.socket(lib.SessionMiddlewareStack(Consumer.as_asgi()), headers=cookie(key)) as client:
        for what in ("change", "save"):
            await client.send_to(what)
            await client.receive_from(3)
            found.append(await saved(key))
    return found


async def _saved_by(lib: Any, consumer: Any) -> Any:
    """Let a consumer hear something, and return its session as it is saved then."""
    key = await made(seed=7)
    async with lib.socket(lib.SessionMiddlewareStack(consumer.as_asgi()), headers=cookie(key)) as client:
        await client.send_to("go")
        await client.receive_from(3)
    return await saved(key)


@behaviour("#session-persistence", "Async code saves it by `database_sync_to_async(session.save)()`", same={"seed": 8})
async def async_code_saves(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            session = self.scope["session"]

            def change() -> None:
                session["seed"] = 8

            await lib.database_sync_to_async(change)()
            await lib.database_sync_to_async(session.save)()
            await self.send("done")

    return await _saved_by(lib, Consumer)


@behaviour(
    "#session-persistence",
    "… or by Django's `session.asave()`",
    same={"seed": 8},
)
async def async_code_saves_by_asave(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.scope["session"].aset("seed", 8)
            await self.scope["session"].asave()
            await self.send("done")

    return await _saved_by(lib, Consumer)


@behaviour(
    "#session-persistence",
    "In a WebSocket consumer, what is changed before the accept is not saved by itself",
    theirs=[{"seed": 7}, False],
    ours=[{"seed": 8}, False],
    better="it is saved with the accept",
)
async def a_socket_that_changes_before_the_accept(lib: Any) -> Any:
    key = await made(seed=7)
    return await _changed_in_connect(lib, cookie(key), key)


@behaviour(
    "#session-persistence",
    "A session that begins in `connect()`, without a cookie yet",
    theirs=[None, False],
    ours=[{"seed": 8}, True],
    better="it is saved, and its cookie set, with the accept",
)
async def a_session_that_begins_in_a_socket(lib: Any) -> Any:
    return await _changed_in_connect(lib, None, None)


async def _changed_in_connect(lib: Any, headers: Any, key: str | None) -> Any:
    class Consumer(lib.WebsocketConsumer):
        def connect(self) -> None:
            self.scope["session"]["seed"] = 8
            self.accept()

    async with lib.socket(lib.SessionMiddlewareStack(Consumer.as_asgi()), headers=headers) as client:
        found = cookies_of(client.response_headers).get(NAME)
        return [await saved(key or (found["value"] if found else None)), found is not None and key is None]


@behaviour("#basic-usage", "Within another session middleware, an inner one leaves the session as it is", same=True)
async def a_stack_within_a_stack(lib: Any) -> Any:
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["session"])

    async def between(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["session"])
        await lib.SessionMiddleware(inner)(scope, receive, send)

    application = lib.SessionMiddlewareStack(between)
    async with lib.scope(application, {"type": "http", "path": "/", "headers": []}) as client:
        await client.wait()
    return seen[0] is seen[1]
