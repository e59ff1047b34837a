"""Routers: who gets a scope, with what in it, and what a scope that nobody takes gets."""

import re
from typing import Any

import pytest

from tests.asgi import Seen, connect, get, run
from trichannels.denial import DENIAL
from trichannels.events import ASGIApp, Receive, Scope, Send
from trichannels.exceptions import InvalidRoute, NoRoute
from trichannels.middleware import BaseMiddleware
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, path, re_path
from trichannels.security.websocket import OriginValidator

CONNECT = [{"type": "websocket.connect"}]
LIFESPAN = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


def seen_by(name: str) -> list[dict[str, Any]]:
    return [{"type": "seen", "by": name}]


class TestProtocolTypeRouter:
    """By the scope's type."""

    async def test_each_type_has_its_application(self) -> None:
        router = ProtocolTypeRouter({"http": Seen("page"), "websocket": Seen("socket")})
        assert await get(router) == seen_by("page")
        assert await connect(router) == seen_by("socket")

    async def test_an_unknown_type_is_named_and_so_are_the_known(self) -> None:
        router = ProtocolTypeRouter({"http": Seen(), "websocket": Seen()})
        with pytest.raises(NoRoute, match="scope type 'mqtt'; configured: 'http', 'websocket'"):
            await run(router, {"type": "mqtt"})

    async def test_without_layers_the_scope_is_passed_as_it_is(self) -> None:
        app, scope = Seen(), {"type": "http"}
        await run(ProtocolTypeRouter({"http": app}), scope)
        assert app.scopes[0] is scope

    @pytest.mark.parametrize(
        ("mapping", "says"),
        [
            ([Seen()], "takes a dict of name to application, not list"),
            ({"http": Seen}, "ProtocolTypeRouter, 'http': Seen is a class"),
            ({"websocket": None}, "ProtocolTypeRouter, 'websocket': None is not an ASGI application"),
        ],
    )
    def test_a_mistake_is_told_where_it_is_made(self, mapping: Any, says: str) -> None:
        with pytest.raises(InvalidRoute, match=says):
            ProtocolTypeRouter(mapping)

    @pytest.mark.parametrize(
        ("layers", "says"),
        [("memory", "layers is a dict"), ({"default": "memory"}, r"layers\['default'\] is 'memory', not a channel")],
    )
    def test_layers_that_are_none_are_told_of(self, layers: Any, says: str) -> None:
        with pytest.raises(InvalidRoute, match=says):
            ProtocolTypeRouter({}, layers)

    def test_it_says_what_it_routes(self) -> None:
        assert repr(ProtocolTypeRouter({"http": Seen()})) == "<ProtocolTypeRouter of 'http'>"


class TestURLRouter:
    """By the path."""

    async def test_captures_and_the_rest_of_the_path_are_in_the_scope(self) -> None:
        app = Seen()
        await connect(URLRouter([path("ws/<slug:room>/<int:page>/", app, {"kind": "chat"})]), "/ws/lobby/3/")
        assert app.scopes[0]["url_route"] == {"args": (), "kwargs": {"room": "lobby", "page": 3, "kind": "chat"}}
        assert app.scopes[0]["path_remaining"] == ""
        assert app.scopes[0]["path"] == "/ws/lobby/3/"

    async def test_unnamed_groups_are_positional(self) -> None:
        app = Seen()
        await connect(URLRouter([re_path(r"^ws/(\w+)/(\d+)$", app)]), "/ws/lobby/3")
        assert app.scopes[0]["url_route"] == {"args": ("lobby", "3"), "kwargs": {}}

    async def test_kwargs_of_the_route_win_over_captures(self) -> None:
        app = Seen()
        await connect(URLRouter([path("<room>/", app, {"room": "fixed"})]), "/lobby/")
        assert app.kwargs == {"room": "fixed"}

    async def test_the_first_route_that_matches_is_taken(self) -> None:
        router = URLRouter([path("a/", Seen("first")), path("<any>/", Seen("second")), path("a/", Seen("third"))])
        assert await get(router, "/a/") == seen_by("first")
        assert await get(router, "/b/") == seen_by("second")

    async def test_the_caller_s_scope_stays_as_it_is(self) -> None:
        scope = {"type": "http", "path": "/a/"}
        await run(URLRouter([path("a/", Seen())]), scope)
        assert scope == {"type": "http", "path": "/a/"}

    async def test_routes_may_come_from_a_generator(self) -> None:
        router = URLRouter(path(f"{name}/", Seen(name)) for name in "ab")
        assert await get(router, "/b/") == seen_by("b")
        assert await get(router, "/a/") == seen_by("a")

    @pytest.mark.parametrize(
        ("root", "asked", "found"),
        [
            ("/app", "/app/a/", True),
            ("/app/", "/app/a/", True),
            ("", "/a/", True),
            (None, "/a/", True),
            ("/app", "/a/", False),
            ("/app", "/appa/", False),
            ("/app", "/app/app/a/", False),
        ],
    )
    async def test_the_root_path_is_taken_off(self, root: str | None, asked: str, found: bool) -> None:
        sent = await get(URLRouter([path("a/", Seen())]), asked, root_path=root)
        assert (sent == seen_by("seen")) is found

    async def test_the_root_itself(self) -> None:
        assert await get(URLRouter([path("", Seen())]), "/app", root_path="/app") == seen_by("seen")

    async def test_a_scope_without_a_path_is_an_error(self) -> None:
        with pytest.raises(NoRoute, match="type 'channel' has no 'path'"):
            await run(URLRouter([]), {"type": "channel", "channel": "jobs"})

    async def test_other_types_with_a_path_are_routed_too(self) -> None:
        router = URLRouter([path("a/", Seen())])
        assert await run(router, {"type": "sse", "path": "/a/"}) == seen_by("seen")
        with pytest.raises(NoRoute, match="No route found for path '/b/' of scope type 'sse'"):
            await run(router, {"type": "sse", "path": "/b/"})

    async def test_a_lifespan_is_answered(self) -> None:
        sent = await run(URLRouter([]), {"type": "lifespan"}, LIFESPAN)
        assert [event["type"] for event in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class TestUnmatched:
    """A path that no route takes is an answer, not a traceback."""

    ROUTER = URLRouter([path("a/", Seen())])

    async def test_http_gets_404(self) -> None:
        start, body = await get(self.ROUTER, "/b/")
        assert start["status"] == 404
        assert dict(start["headers"]) == {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"14"}
        assert body == {"type": "http.response.body", "body": b"404 Not Found\n"}

    async def test_a_socket_gets_404_where_the_server_can_send_it(self) -> None:
        start, body = await connect(self.ROUTER, "/b/", extensions={DENIAL: {}})
        assert start["type"] == "websocket.http.response.start"
        assert start["status"] == 404
        assert body == {"type": "websocket.http.response.body", "body": b"404 Not Found\n"}

    @pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"tls": {}}}])
    async def test_elsewhere_its_handshake_is_refused(self, extensions: dict[str, Any]) -> None:
        assert await connect(self.ROUTER, "/b/", **extensions) == [{"type": "websocket.close"}]

    async def test_a_client_that_left_before_needs_no_answer(self) -> None:
        gone = [{"type": "websocket.disconnect", "code": 1006}]
        assert await run(self.ROUTER, {"type": "websocket", "path": "/b/"}, gone) == []

    async def test_a_client_that_leaves_meanwhile_is_no_error(self) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(_: object) -> None:
            raise OSError("gone")

        await self.ROUTER({"type": "websocket", "path": "/b/"}, receive, send)


class Quiet(BaseMiddleware):
    """Middleware that leaves a trace."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__({**scope, "quiet": True}, receive, send)


def by_function(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return middleware


class TestNesting:
    """A router behind a route goes on with the rest of the path."""

    async def test_captures_are_merged_the_inner_win(self) -> None:
        app = Seen()
        inner = URLRouter([re_path(r"^(\d+)/$", app), path("<who>/<at>/", app)])
        router = URLRouter([re_path(r"^x/(\w)/", inner), path("y/<who>/", inner, {"kind": "k"})])
        await connect(router, "/x/b/7/")
        assert app.scopes[-1]["url_route"] == {"args": ("b", "7"), "kwargs": {}}
        await connect(router, "/y/ann/bob/home/")
        assert app.kwargs == {"who": "bob", "at": "home", "kind": "k"}

    async def test_three_deep_with_a_root_path(self) -> None:
        router = URLRouter([path("a/", URLRouter([path("b/", URLRouter([path("c/", Seen())]))]))])
        assert await get(router, "/app/a/b/c/", root_path="/app") == seen_by("seen")

    @pytest.mark.parametrize("wrap", [Quiet, lambda app: OriginValidator(app, ["*"]), lambda app: Quiet(Quiet(app))])
    async def test_a_router_inside_middleware_is_still_a_router(self, wrap: Any) -> None:
        router = URLRouter([path("a/", wrap(URLRouter([path("b/", Seen())])))])
        assert await connect(router, "/a/b/") == seen_by("seen")

    async def test_so_is_one_inside_a_protocol_router(self) -> None:
        router = URLRouter([path("a/", ProtocolTypeRouter({"websocket": URLRouter([path("b/", Seen())])}))])
        assert await connect(router, "/a/b/") == seen_by("seen")

    @pytest.mark.parametrize("wrap", [lambda app: app, Quiet])
    async def test_where_the_inner_has_no_route_the_outer_goes_on(self, wrap: Any) -> None:
        router = URLRouter([path("a/", wrap(URLRouter([path("b/", Seen("b"))]))), path("a/c/", Seen("c"))])
        assert await connect(router, "/a/b/") == seen_by("b")
        assert await connect(router, "/a/c/") == seen_by("c")

    async def test_also_through_middleware_that_is_a_function(self) -> None:
        router = URLRouter([re_path("^a/", by_function(URLRouter([path("b/", Seen("b"))]))), path("a/c/", Seen("c"))])
        assert await connect(router, "/a/b/") == seen_by("b")
        assert await connect(router, "/a/c/") == seen_by("c")

    async def test_where_nobody_has_one_there_is_one_answer(self) -> None:
        inner = URLRouter([path("b/", Seen())])
        router = URLRouter([path("a/", inner), path("a/", URLRouter([path("x/", inner)]))])
        assert await connect(router, "/a/x/y/") == [{"type": "websocket.close"}]
        assert [event["type"] for event in await get(router, "/a/x/y/")] == [
            "http.response.start",
            "http.response.body",
        ]

    async def test_the_rest_of_a_foreign_router_is_taken_up(self) -> None:
        router = URLRouter([path("b/", Seen())])
        assert await get(router, "/a/b/", path_remaining="/b/") == seen_by("seen")
        assert (await get(router, "/a/c/", path_remaining="c/"))[0]["status"] == 404


class DjangoPattern:
    """The shape of Django's ``RegexPattern``."""

    def __init__(self, regex: str, name: str | None = None, is_endpoint: bool = False) -> None:
        self._regex, self.name, self.is_endpoint = regex, name, is_endpoint

    def __str__(self) -> str:
        return self._regex

    def match(self, given: str) -> tuple[str, tuple[str, ...], dict[str, str]] | None:
        found = (re.fullmatch if self.is_endpoint else re.match)(self._regex, given)
        return (given[found.end() :], (), found.groupdict()) if found else None


class DjangoPathPattern(DjangoPattern):
    """The shape of Django's ``RoutePattern``, which has both its text and the expression that it became."""

    def __init__(self, route: str, name: str | None = None, is_endpoint: bool = False) -> None:
        super().__init__(route + (r"\Z" if is_endpoint else ""), name, is_endpoint)
        self._route = route


class DjangoRoute:
    """The shape of Django's ``URLPattern``."""

    def __init__(self, pattern: Any, callback: Any, default_args: dict[str, Any] | None = None) -> None:
        self.pattern, self.callback, self.default_args = pattern, callback, default_args or {}

    def __str__(self) -> str:
        return str(self.pattern)


class Include(DjangoRoute):
    """The shape of Django's ``URLResolver``."""

    url_patterns: tuple[()] = ()


class TestDjangoPatterns:
    """By shape: Django is not imported."""

    async def test_they_are_routes(self) -> None:
        app = Seen()
        await connect(URLRouter([DjangoRoute(DjangoPattern("(?P<a>.)/", "n", True), app, {"b": 2})]), "/x/")
        assert app.kwargs == {"a": "x", "b": 2}

    async def test_in_front_of_a_router_a_beginning_matches_and_the_original_stays(self) -> None:
        pattern = DjangoPattern("(?P<a>.)/", "n", True)
        router = URLRouter([DjangoRoute(pattern, Quiet(URLRouter([path("b/", Seen())])))])
        assert await connect(router, "/x/b/") == seen_by("seen")
        assert pattern.is_endpoint

    @pytest.mark.parametrize(("route", "asked"), [("a/", "/a/b/"), ("", "/b/")])
    async def test_a_pattern_that_has_compiled_its_end_is_made_anew_from_its_text(self, route: str, asked: str) -> None:
        router = URLRouter([DjangoRoute(DjangoPathPattern(route, "n", True), URLRouter([path("b/", Seen())]))])
        assert await connect(router, asked) == seen_by("seen")

    @pytest.mark.parametrize(
        ("route", "says"),
        [
            ("ws/", "URLRouter, route 2: 'ws/' is not a route; make it with path"),
            (DjangoRoute("ws/", Seen()), "is not a route"),
            (Include(DjangoPattern("ws/"), None), r"route 2 \(ws/\): include\(\) is not supported"),
            (DjangoRoute(DjangoPattern("ws/"), Seen), r"route 2 \(ws/\): Seen is a class"),
            (DjangoRoute(re.compile("ws/"), URLRouter([])), "a Pattern cannot stand in front of a router"),
        ],
    )
    def test_mistakes_are_named(self, route: Any, says: str) -> None:
        with pytest.raises(InvalidRoute, match=says):
            URLRouter([path("", Seen()), route])

    def test_it_says_what_it_routes(self) -> None:
        assert (
            repr(URLRouter([path("a/", Seen()), re_path("^b", Seen())])) == "<URLRouter of path('a/'), re_path('^b')>"
        )


class TestChannelNameRouter:
    """By the channel's name."""

    async def test_each_channel_has_its_application(self) -> None:
        router = ChannelNameRouter({"jobs": Seen("jobs"), "mail": Seen("mail")})
        assert await run(router, {"type": "channel", "channel": "mail"}) == seen_by("mail")

    async def test_an_unknown_channel_is_named(self) -> None:
        router = ChannelNameRouter({"jobs": Seen()})
        with pytest.raises(NoRoute, match="channel name 'mail'; configured: 'jobs'"):
            await run(router, {"type": "channel", "channel": "mail"})

    async def test_a_scope_of_another_kind_is_told_where_it_belongs(self) -> None:
        router = ChannelNameRouter({"jobs": Seen()})
        with pytest.raises(NoRoute, match="type 'http' without a 'channel' key: map it to the type 'channel'"):
            await get(router)
        assert repr(router) == "<ChannelNameRouter of 'jobs'>"
