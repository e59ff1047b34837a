"""Routers: by type, by path, by channel."""

# mypy: allow-subclassing-any

import json
from importlib import import_module
from typing import Any

from .library import as_json, output, told, told_at_once
from .rows import DOCS, documented_at

behaviour = documented_at("topics/routing.html")
DEPLOYING = f"{DOCS}deploying.html"


class Says:
    """An application that says which one it is, and what it finds in its scope."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route = scope.get("url_route", {})
        found = [self.name, list(route.get("args", ())), dict(route.get("kwargs", {}))]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": as_json(found).encode()})


def _django() -> Any:
    return import_module("django.urls")


async def _asked(lib: Any, router: Any, path: str, **more: Any) -> Any:
    """Return what the application behind a path says, or what comes instead."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", **more}
    async with lib.scope(router, scope) as client:
        await client.send_input({"type": "http.request"})
        start = await output(client)
        if not isinstance(start, dict) or start["status"] != 200:
            return start if isinstance(start, str) else start["status"]
        return json.loads((await client.receive_output())["body"])


@behaviour("#protocoltyperouter", "`ProtocolTypeRouter` chooses by the type of the scope", same=["for http", [], {}])
async def by_type(lib: Any) -> Any:
    router = lib.ProtocolTypeRouter({"http": Says("for http"), "websocket": Says("for sockets")})
    return await _asked(lib, router, "/")


@behaviour("#protocoltyperouter", "A type that is not mapped is a `ValueError`", same="ValueError")
async def an_unmapped_type(lib: Any) -> Any:
    async with lib.scope(lib.ProtocolTypeRouter({}), {"type": "mqtt"}) as client:
        return await told(client.wait())


@behaviour(
    "#protocoltyperouter",
    "The lifespan of a server",
    theirs="ValueError",
    ours={"type": "lifespan.startup.complete"},
    better="it is answered, and opens and closes the layers; to Channels it is a type that is not mapped",
    tests=("tests/layers/test_host.py::test_the_lifespan_opens_and_closes_them",),
)
async def the_lifespan(lib: Any) -> Any:
    client = lib.ApplicationCommunicator(lib.ProtocolTypeRouter({}), {"type": "lifespan", "asgi": {"version": "3.0"}})
    async with lib.stopped(client):
        await client.send_input({"type": "lifespan.startup"})
        return await output(client)


@behaviour(
    "#urlrouter",
    "Routes are Django's `path()`; its captures are in `scope['url_route']['kwargs']`",
    same=["room", [], {"number": 7, "name": "a-b"}],
)
async def a_path(lib: Any) -> Any:
    router = lib.URLRouter([_django().path("room/<int:number>/<slug:name>/", Says("room"))])
    return await _asked(lib, router, "/room/7/a-b/")


@behaviour("#urlrouter", "… or `re_path()`: named groups are keyword captures", same=["room", [], {"name": "lobby"}])
async def named_groups(lib: Any) -> Any:
    router = lib.URLRouter([_django().re_path(r"^room/(?P<name>\w+)/$", Says("room"))])
    return await _asked(lib, router, "/room/lobby/")


@behaviour("#urlrouter", "Unnamed groups are in `args`", same=["room", ["7", "b"], {}])
async def unnamed_groups(lib: Any) -> Any:
    router = lib.URLRouter([_django().re_path(r"^room/(\d+)/(\w+)/$", Says("room"))])
    return await _asked(lib, router, "/room/7/b/")


@behaviour(
    "#urlrouter", "As soon as one group has a name, those without are left out", same=["room", [], {"name": "b"}]
)
async def mixed_groups(lib: Any) -> Any:
    router = lib.URLRouter([_django().re_path(r"^room/(\d+)/(?P<name>\w+)/$", Says("room"))])
    return await _asked(lib, router, "/room/7/b/")


@behaviour(
    "#urlrouter", "The third argument of a route is added to the captures", same=["room", [], {"n": 1, "kind": "x"}]
)
async def default_arguments(lib: Any) -> Any:
    router = lib.URLRouter([_django().path("<int:n>/", Says("room"), {"kind": "x"})])
    return await _asked(lib, router, "/1/")


@behaviour(
    "#urlrouter",
    "The first route that matches is taken; the last may match everything",
    same=[["first", [], {}], ["all", [], {}]],
)
async def the_first_route(lib: Any) -> Any:
    django = _django()
    routes = [django.path("a/", Says("first")), django.path("a/", Says("second")), django.re_path("", Says("all"))]
    router = lib.URLRouter(routes)
    return [await _asked(lib, router, path) for path in ("/a/", "/b/")]


@behaviour(
    "#urlrouter",
    "A path that no route matches",
    theirs="ValueError",
    ours=404,
    better="404; Channels raises",
)
async def no_route(lib: Any) -> Any:
    return await _asked(lib, lib.URLRouter([_django().path("a/", Says("a"))]), "/b/")


@behaviour(
    "#urlrouter",
    "The same, of a WebSocket",
    theirs=["ValueError", "ValueError"],
    ours=[404, "websocket.close"],
    better="refused with 404; where the server cannot send a response, with a close, which is a 403 to the client",
    tests=("tests/server/test_websocket.py::test_close_before_accept_is_403",),
)
async def no_route_for_a_socket(lib: Any) -> Any:
    router = lib.URLRouter([_django().path("a/", lib.AsyncWebsocketConsumer.as_asgi())])
    found = []
    answers: list[dict[str, Any]] = [{"websocket.http.response": {}}, {}]
    for extensions in answers:
        async with lib.opened(), lib.client(router, "/b/") as client:
            client.scope["extensions"] = extensions
            await client.send_input({"type": "websocket.connect"})
            event = await output(client)
            found.append(event.get("status", event["type"]) if isinstance(event, dict) else event)
    return found


@behaviour(
    "",
    "Routers may be nested: an inner one goes on with the rest of the path, and its captures are added",
    same=["inner", [], {"a": 1, "b": "x"}],
)
async def nested_routers(lib: Any) -> Any:
    inner = lib.URLRouter([_django().path("<str:b>/", Says("inner"))])
    return await _asked(lib, lib.URLRouter([_django().path("outer/<int:a>/", inner)]), "/outer/1/x/")


@behaviour("", "If the inner one has no route, the next one outside is tried", same=["fallback", [], {}])
async def back_to_the_outer_router(lib: Any) -> Any:
    inner = lib.URLRouter([_django().path("b/", Says("inner"))])
    router = lib.URLRouter([_django().path("a/", inner), _django().path("a/c/", Says("fallback"))])
    return await _asked(lib, router, "/a/c/")


@behaviour(
    "#urlrouter",
    "Nesting does not work with `path()` if there is middleware around the inner router",
    theirs="ValueError",
    ours=["inner", [], {}],
    better="it works, with middleware that derives from `BaseMiddleware`",
)
async def middleware_around_an_inner_router(lib: Any) -> Any:
    inner = lib.BaseMiddleware(lib.URLRouter([_django().path("b/", Says("inner"))]))
    return await _asked(lib, lib.URLRouter([_django().path("a/", inner)]), "/a/b/")


@behaviour(
    "#urlrouter",
    "Django's `include()` in a router",
    theirs="ImproperlyConfigured",
    ours="ValueError",
    different="refused as well, with a `ValueError`",
)
async def an_include(lib: Any) -> Any:
    django = _django()
    included = django.path("a/", django.include([django.path("b/", Says("b"))]))
    return told_at_once(lambda: lib.URLRouter([included]))


@behaviour(DEPLOYING, "The `root_path` is taken off before routes are matched", same=["a", [], {}])
async def the_root_path(lib: Any) -> Any:
    return await _asked(lib, lib.URLRouter([_django().path("a/", Says("a"))]), "/app/a/", root_path="/app")


@behaviour("#urlrouter", "A scope without a path is a `ValueError`", same="ValueError")
async def no_path(lib: Any) -> Any:
    async with lib.scope(lib.URLRouter([]), {"type": "http", "headers": []}) as client:
        return await told(client.wait())


@behaviour(
    "#protocoltyperouter",
    "HTTP goes to Django's views by `get_asgi_application()`",
    same=[200, "a page of /page/"],
)
async def views_of_django(lib: Any) -> Any:
    module = "trichannels.django.http" if lib.ours else "django.core.asgi"  # as `trichannels upgrade` writes it
    router = lib.ProtocolTypeRouter({"http": import_module(module).get_asgi_application()})
    async with lib.request(router, "/page/", headers=[(b"host", b"testserver")]) as client:
        response = await client.get_response(5)
        return [response["status"], response["body"]]


@behaviour("#channelnamerouter", "`ChannelNameRouter` chooses by the name of the channel", same={"type": "made"})
async def by_channel(lib: Any) -> Any:
    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            await self.send({"type": "made"})

    router = lib.ChannelNameRouter({"thumbnails": Consumer.as_asgi()})
    async with lib.scope(router, {"type": "channel", "channel": "thumbnails"}) as client:
        await client.send_input({"type": "make"})
        return await client.receive_output()


@behaviour(
    "#channelnamerouter",
    "An unknown name, or a scope that has none, is a `ValueError`",
    same=["ValueError", "ValueError"],
)
async def an_unknown_channel(lib: Any) -> Any:
    found = []
    for scope in ({"type": "channel", "channel": "other"}, {"type": "channel"}):
        async with lib.scope(lib.ChannelNameRouter({"thumbnails": Says("thumbnails")}), scope) as client:
            found.append(await told(client.wait()))
    return found


@behaviour("", "The setting `ASGI_APPLICATION` names the root application", same="tests.behaviour.urls")
def the_default_application(lib: Any) -> Any:
    return lib.get_default_application().__module__


@behaviour(
    "",
    "An `ASGI_APPLICATION` that is missing or leads nowhere",
    theirs=["ImproperlyConfigured"] * 3,
    ours=["ValueError"] * 3,
    different="refused as well, with a `ValueError`",
)
def no_default_application(lib: Any) -> Any:
    from django.test import override_settings

    found = []
    for path in (None, "tests.behaviour.urls.nothing", "tests.behaviour.nowhere.application"):
        with override_settings(ASGI_APPLICATION=path):
            found.append(told_at_once(lambda: str(lib.get_default_application())))
    return found
