"""The same routes and origins through Channels and Django themselves: what they do is what we do.

Known differences, all meant: an unmatched path is answered instead of raised; an allowed origin without a scheme but
with a port holds for that port only; a root path ends at a slash.
"""

from importlib import import_module
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.asgi import Seen, run
from trichannels import routing as ours
from trichannels.security.websocket import OriginValidator

# Neither has types.
channels = import_module("channels.routing")
channels_security = import_module("channels.security.websocket")
django = import_module("django.urls")
parse = import_module("urllib.parse").urlparse

UUID = "075194d3-6885-417e-a8a8-6c931e272f00"
ROUTES = st.sampled_from(
    [
        "",
        "a/",
        "ab",
        "a",
        "<x>/",
        "<int:n>/",
        "<slug:s>",
        "<path:p>",
        "<uuid:u>/",
        "a/<int:n>/<str:x>/",
        "<int:n>-<int:m>",
    ]
)
REGEXES = st.sampled_from(
    ["", "^a/", "^a/$", "a/$", r"^(\d+)/", r"^(?P<n>\d+)/$", r"^(\w)(?P<x>/)?", "b", "^(a)?(b)?/$", r"^a\$$", "^$"]
)
LEAF = st.tuples(
    st.sampled_from(["path", "re_path"]), ROUTES, REGEXES, st.dictionaries(st.sampled_from("nxk"), st.just("fixed"))
)
TABLE = st.recursive(
    st.lists(st.tuples(LEAF, st.none()), max_size=3),
    lambda inner: st.lists(st.tuples(LEAF, st.none() | inner), max_size=3),
)
PATHS = st.lists(
    st.sampled_from(["a", "b", "ab", "/", "/", "7", "12", "-", "$", "\n", "é", UUID]), max_size=8
).map("".join)  # fmt: skip


def build(table: Any, router: Any, module: Any, leaf: Any) -> Any:
    """Make one table of routes with one of the two libraries."""
    return router(
        [
            getattr(module, kind)(
                route if kind == "path" else regex,
                leaf if inner is None else build(inner, router, module, leaf),
                kwargs,
            )
            for (kind, route, regex, kwargs), inner in table
        ]
    )


def ask(router: Any, leaf: Seen, path: str) -> Any:
    """Return what the application behind the route finds in its scope, or None if there is no route."""
    leaf.scopes.clear()
    try:
        anyio.run(run, router, {"type": "http", "path": path})
    except ValueError as error:
        assert "No route found" in str(error)  # noqa: PT017 - Channels raises where we answer
    return [(scope["url_route"], scope["path_remaining"]) for scope in leaf.scopes]


@pytest.mark.once
@given(TABLE, PATHS)
@example([(("path", "", "", {}), [(("path", "a/", "", {}), None)])], "/a/")
@example([(("path", "a/", "", {}), [(("path", "b/", "", {}), None)]), (("path", "a/c/", "", {}), None)], "/a/c/")
@example([(("re_path", "", "^(a)", {}), [(("re_path", "", "(b)", {"k": "fixed"}), None)])], "/a/xb/")
def test_the_same_paths_give_the_same_captures(table: Any, path: str) -> None:
    leaf = Seen()
    theirs = ask(build(table, channels.URLRouter, django, leaf), leaf, path)
    assert ask(build(table, ours.URLRouter, ours, leaf), leaf, path) == theirs
    # and Django's own routes in our router
    assert ask(build(table, ours.URLRouter, django, leaf), leaf, path) == theirs


@pytest.mark.once
def test_an_include_of_django_is_refused_with_its_name() -> None:
    include = django.path("chat/", django.include([django.path("a/", Seen())]))
    with pytest.raises(ValueError, match=r"URLRouter, route 1 \(.*chat/.*\): include\(\) is not supported"):
        ours.URLRouter([include])


HOSTS = st.sampled_from(["example.com", "a.example.com", "b.a.example.com", "xexample.com", "localhost", "[::1]"])
SCHEMES = st.sampled_from(["http", "https", "ws", "wss", "tauri"])
PORTS = st.sampled_from(["", ":80", ":443", ":8000"])
WITH_SCHEME = st.tuples(SCHEMES, st.just("://"), st.sampled_from(["", "."]), HOSTS, PORTS).map("".join)
PATTERNS = WITH_SCHEME | st.tuples(st.sampled_from(["", "."]), HOSTS).map("".join) | st.just("*")
ORIGINS = st.tuples(SCHEMES, st.just("://"), HOSTS, PORTS).map("".join)


@pytest.mark.once
@given(
    st.lists(PATTERNS.filter(lambda pattern: ".[" not in pattern), max_size=3),
    ORIGINS | st.sampled_from(["null", "", "example.com"]),
)
def test_the_same_origins_come_in(allowed: list[str], origin: str) -> None:
    theirs = channels_security.OriginValidator(None, allowed).valid_origin(parse(origin))
    headers = [(b"origin", origin.encode())]
    sent = anyio.run(run, OriginValidator(Seen(), allowed), _handshake(headers), [{"type": "websocket.connect"}])
    assert (sent[0]["type"] == "seen") is theirs


def _handshake(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "websocket", "path": "/", "headers": headers}
