"""Paths, their captures, and the mistakes that are told where a route is written."""

import re
import string
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asgi import Seen
from trichannels.converters import converters, register_converter
from trichannels.events import Receive, Scope, Send
from trichannels.exceptions import InvalidRoute
from trichannels.patterns import path, re_path
from trichannels.routing import URLRouter

APP = Seen()
SLUG = st.text(string.ascii_letters + string.digits + "-_", min_size=1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(min_value=0),
    "slug": SLUG,
    "str": st.text(st.characters(exclude_characters="/"), min_size=1),
    "uuid": st.uuids(),
    "path": st.text(st.characters(exclude_characters="\n"), min_size=1),
}


@pytest.mark.parametrize(
    ("route", "given_path", "expected"),
    [
        ("ws/", "ws/", ("", (), {})),
        ("ws/", "ws", None),
        ("ws/", "ws/more", None),
        ("", "", ("", (), {})),
        ("a.b/", "axb/", None),
        ("<room>/", "lobby/", ("", (), {"room": "lobby"})),
        ("<str:room>/", "a/b/", None),
        ("<int:id>/", "007/", ("", (), {"id": 7})),
        ("<int:id>/", "-7/", None),
        ("<int:id>/", "9" * 5000 + "/", None),  # more digits than int() takes: no match, no error
        ("<slug:room>/", "a-b_C9/", ("", (), {"room": "a-b_C9"})),
        ("<slug:room>/", "a.b/", None),
        ("<uuid:id>", str(UUID(int=0xAB)), ("", (), {"id": UUID(int=0xAB)})),
        ("<uuid:id>", str(UUID(int=0xAB)).upper(), None),
        ("f/<path:rest>", "f/a/b/c", ("", (), {"rest": "a/b/c"})),
        ("<int:a>-<int:b>", "1-2", ("", (), {"a": 1, "b": 2})),
    ],
)  # fmt: skip
def test_path(route: str, given_path: str, expected: object) -> None:
    assert path(route, APP).pattern.match(given_path) == expected


def test_a_trailing_newline_is_not_the_end_of_a_path() -> None:
    assert path("ws/", APP).pattern.match("ws/\n") is None


@pytest.mark.parametrize(
    ("regex", "given_path", "expected"),
    [
        (r"^ws/(\d+)/$", "ws/12/", ("", ("12",), {})),
        (r"^ws/(?P<id>\d+)/(x)?$", "ws/12/", ("", (), {"id": "12"})),
        (r"^ws/(?P<id>\d+)?$", "ws/", ("", (), {})),
        (r"^ws/", "ws/more", ("more", (), {})),
        (r"^ws/$", "ws/more", None),
        (r"ws/$", "no/ws/", None),
        (re.compile("^WS/$", re.IGNORECASE), "ws/", ("", (), {})),
    ],
)
def test_re_path(regex: str | re.Pattern[str], given_path: str, expected: object) -> None:
    assert re_path(regex, APP).pattern.match(given_path) == expected


@given(st.data(), st.sampled_from(sorted(VALUES)))
def test_what_is_put_into_a_path_comes_out_of_it(data: st.DataObject, kind: str) -> None:
    value = data.draw(VALUES[kind])
    text = converters()[kind].to_url(value)
    assert path(f"a/<{kind}:it>/z", APP).pattern.match(f"a/{text}/z") == ("", (), {"it": value})


@given(SLUG, st.integers(min_value=0), st.text())
def test_in_front_of_a_router_a_beginning_matches_and_the_rest_is_left(room: str, number: int, rest: str) -> None:
    nested = path("<slug:room>/<int:number>/", URLRouter([]))
    assert nested.pattern.match(f"{room}/{number}/{rest}") == (rest, (), {"room": room, "number": number})


@given(st.text())
def test_text_without_captures_matches_itself_alone(text: str) -> None:
    try:
        route = path(text, APP)
    except InvalidRoute:
        return
    if not set("<>") & set(text):
        assert route.pattern.match(text) == ("", (), {})
        assert route.pattern.match(text + "x") is None


class Even:
    """Numbers that can be halved."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if int(value) % 2:
            raise ValueError
        return int(value) // 2

    def to_url(self, value: int) -> str:
        return str(value * 2)


def test_a_converter_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichannels.converters._CONVERTERS", dict(converters()))
    register_converter(Even, "even")
    register_converter(Even(), "paar")
    route = path("<even:half>/<paar:other>", APP)
    assert route.pattern.match("4/6") == ("", (), {"half": 2, "other": 3})
    assert route.pattern.match("4/5") is None
    with pytest.raises(InvalidRoute, match="taken"):
        register_converter(Even, "even")


class Lacking:
    """Neither converts nor knows how it looks."""

    def to_url(self, value: object) -> str:
        return str(value)


def with_regex(regex: object) -> object:
    return type("Wrong", (Even,), {"regex": regex})


@pytest.mark.parametrize(
    ("converter", "name", "says"),
    [
        (Lacking, "new", "no regex and no to_python"),
        (with_regex("["), "new", "not a regular expression"),
        (with_regex(3), "new", "not a regular expression"),
        (with_regex("(?P<a>x)"), "new", "must not name groups, and names a"),
        (Even, "int", "taken"),
        (Even, "", "empty"),
        (Even, "a:b", "choose another"),
    ],
)
def test_a_converter_that_cannot_work(converter: object, name: str, says: str) -> None:
    with pytest.raises(InvalidRoute, match=says):
        register_converter(converter, name)


class Consumer:
    """Given without ``as_asgi()``."""

    @classmethod
    def as_asgi(cls) -> Seen:
        return APP


class OnlyAwaited:
    """An ASGI application in the way of Starlette's endpoints: made with the three, then awaited."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def __await__(self) -> Any: ...


async def django_view(request: object) -> None: ...


@pytest.mark.parametrize(
    ("route", "app", "says"),
    [
        ("/ws/", APP, r"path\('/ws/'\): drop the leading '/'"),
        ("^ws/", APP, r"path\('\^ws/'\): .* re_path"),
        ("ws/$", APP, "re_path"),
        (r"(?P<id>\d+)/", APP, "re_path"),
        ("<int:id/", APP, "pairs"),
        ("int:id>/", APP, "pairs"),
        ("<<int:id>>/", APP, "pairs"),
        ("<number:id>/", APP, r"path\('<number:id>/'\): no converter 'number'; known: int, path, slug, str, uuid; add"),
        ("<int:2>/", APP, "'2' is not a name"),
        ("< id>/", APP, "' id' is not a name"),
        ("<>/", APP, "'' is not a name"),
        ("<:id>/", APP, "no converter ''"),
        ("<id>/<id>/", APP, "'id' is captured twice"),
        (b"ws/", APP, "a route is a str, not bytes"),
        ("ws/", Consumer, r"path\('ws/'\): Consumer is a class, not an application; give Consumer.as_asgi\(\)"),
        ("ws/", Seen, "Seen is a class, not an application; give an instance"),
        ("ws/", "chat.Consumer", "'chat.Consumer' is not an ASGI application"),
        ("ws/", django_view, r"must take \(scope, receive, send\), not \(request"),
    ],
)
def test_a_path_that_cannot_work_is_named(route: Any, app: Any, says: str) -> None:
    with pytest.raises(InvalidRoute, match=says):
        path(route, app)


@pytest.mark.parametrize(
    ("regex", "says"),
    [
        ("^/ws/$", r"re_path\('\^/ws/\$'\): drop the leading '/'"),
        (r"^\/ws/$", "drop the leading"),
        ("^ws/(", "not a regular expression"),
        (b"^ws/", "of str"),
        (7, "of str"),
    ],
)
def test_a_re_path_that_cannot_work_is_named(regex: Any, says: str) -> None:
    with pytest.raises(InvalidRoute, match=says):
        re_path(regex, APP)


def test_kwargs_must_be_a_dict() -> None:
    with pytest.raises(InvalidRoute, match="kwargs must be a dict, not str"):
        path("ws/", APP, "name")  # type: ignore[arg-type]


def test_what_may_stand_behind_a_route() -> None:
    assert path("ws/", OnlyAwaited).callback is OnlyAwaited
    assert path("ws/", APP, name="chat").name == "chat"
    assert repr(path("ws/", APP).pattern) == "path('ws/')"
    assert repr(re_path("^ws/", APP).pattern) == "re_path('^ws/')"


class Opaque(Seen):
    """A callable that does not tell what it takes."""

    __signature__ = "secret"


def test_an_application_that_does_not_tell_what_it_takes_is_believed() -> None:
    app = Opaque()
    assert path("ws/", app).callback is app
