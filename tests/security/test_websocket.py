"""Who may open a socket: the middleware around the rules of ``test_origins``."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from tests.asgi import Seen, connect, get
from trichannels.denial import DENIAL
from trichannels.exceptions import InvalidRoute
from trichannels.patterns import routes_on
from trichannels.routing import URLRouter
from trichannels.security.websocket import AllowedHostsOriginValidator, OriginValidator, WebsocketDenier

IN, OUT = [{"type": "seen", "by": "seen"}], [{"type": "websocket.close"}]


def origin(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"example.com"), *((b"origin", value.encode()) for value in values)]


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        (origin("https://example.com"), IN),
        ([(b"Origin", b"https://a.org:81")], IN),
        (origin("https://evil.com"), OUT),
        (origin("null"), OUT),
        (origin(""), OUT),
        (origin(), OUT),
        ([], OUT),
        (origin("https://example.com", "https://evil.com"), OUT),
        (origin("https://example.com", "https://example.com"), OUT),
    ],
)
async def test_only_what_is_allowed_comes_in(headers: Any, answer: Any) -> None:
    app = OriginValidator(Seen(), ["https://example.com", re.compile(r"https://[a-z]\.org:81")])
    assert await connect(app, headers=headers) == answer


@pytest.mark.parametrize("headers", [origin("https://a.com"), origin(), origin("null"), origin("a", "b")])
async def test_the_star_lets_everybody_in(headers: Any) -> None:
    assert await connect(OriginValidator(Seen(), ["*"]), headers=headers) == IN


async def test_a_scope_without_headers_has_no_origin() -> None:
    assert await connect(OriginValidator(Seen(), ["example.com"])) == OUT


async def test_refused_is_403_where_the_server_can_send_it() -> None:
    start, body = await connect(OriginValidator(Seen(), []), extensions={DENIAL: {}}, headers=origin("http://a.com"))
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 403
    assert body["body"] == b"403 Forbidden\n"


async def test_something_else_than_a_socket_is_a_mistake() -> None:
    with pytest.raises(InvalidRoute, match=r"OriginValidator on a non-WebSocket connection \(this is 'http'\)"):
        await get(OriginValidator(Seen(), ["*"]))


@pytest.mark.parametrize("origins", ["example.com", re.compile("x")])
def test_origins_that_are_no_list_are_a_mistake(origins: Any) -> None:
    with pytest.raises(InvalidRoute, match="allowed origins are a list"):
        OriginValidator(Seen(), origins)


@pytest.mark.parametrize("app", [Seen, None])
def test_around_something_else_than_an_application_it_is_a_mistake(app: Any) -> None:
    with pytest.raises(InvalidRoute, match="OriginValidator: "):
        OriginValidator(app, ["*"])


def test_the_origins_may_be_any_iterable_and_are_kept() -> None:
    validator = OriginValidator(Seen(), (name for name in ["a.com", "b.com"]))
    assert validator.allowed_origins == ("a.com", "b.com")
    assert repr(validator) == "<OriginValidator of seen>"
    assert not routes_on(validator)
    assert routes_on(OriginValidator(URLRouter([]), ["*"]))


async def test_the_denier_refuses_all() -> None:
    assert await connect(WebsocketDenier()) == OUT
    assert (await connect(WebsocketDenier.as_asgi(), extensions={DENIAL: {}}))[0]["status"] == 403


class TestAllowedHosts:
    """Django's settings say who may come in; they are read late, and again each time."""

    @pytest.fixture
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        settings = SimpleNamespace(ALLOWED_HOSTS=["example.com", ".example.org", "10.0.0.0/8"], DEBUG=False)
        monkeypatch.setitem(__import__("sys").modules, "django.conf", SimpleNamespace(settings=settings))
        return settings

    @pytest.mark.parametrize(
        ("site", "answer"),
        [
            ("http://example.com", IN),
            ("https://example.com:8443", IN),
            ("https://a.example.org", IN),
            ("https://a.example.com", OUT),
            ("http://localhost", OUT),
        ],
    )
    @pytest.mark.usefixtures("settings")
    async def test_the_hosts_of_the_settings(self, site: str, answer: Any) -> None:
        assert await connect(AllowedHostsOriginValidator(Seen()), headers=origin(site)) == answer

    async def test_they_are_read_when_a_socket_comes(self, settings: SimpleNamespace) -> None:
        app = AllowedHostsOriginValidator(Seen())
        settings.ALLOWED_HOSTS = ["late.com"]
        assert await connect(app, headers=origin("http://late.com")) == IN
        settings.ALLOWED_HOSTS = ["*"]
        assert await connect(app, headers=origin()) == IN

    @pytest.mark.parametrize(
        "site", ["http://localhost:8000", "http://a.localhost", "http://127.0.0.1", "http://[::1]:80"]
    )
    @pytest.mark.parametrize(("debug", "answer"), [(True, IN), (False, OUT)])
    async def test_while_debugging_localhost(
        self, settings: SimpleNamespace, site: str, debug: bool, answer: Any
    ) -> None:
        settings.ALLOWED_HOSTS, settings.DEBUG = [], debug
        assert await connect(AllowedHostsOriginValidator(Seen()), headers=origin(site)) == answer
