"""The base of middleware."""

import pytest

from tests.asgi import Seen, get, run
from trichannels.events import Receive, Scope, Send
from trichannels.exceptions import ConfigError, InvalidRoute
from trichannels.middleware import BaseMiddleware
from trichannels.patterns import routes_on
from trichannels.routing import URLRouter


class Adding(BaseMiddleware):
    """Adds to its scope in place, as middleware of Channels does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = dict(scope)
        scope["user"] = "ann"
        await super().__call__(scope, receive, send)


class Rude(Seen):
    """Writes into the scope that it was given."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["mine"] = True
        await super().__call__(scope, receive, send)


async def test_the_inner_application_gets_a_copy_of_the_scope() -> None:
    app, scope = Rude(), {"type": "http", "path": "/"}
    assert await run(BaseMiddleware(app), scope) == [{"type": "seen", "by": "seen"}]
    assert scope == {"type": "http", "path": "/"}
    assert app.scopes == [{"type": "http", "path": "/", "mine": True}]


async def test_a_subclass_changes_what_is_within() -> None:
    app = Seen()
    await get(Adding(app))
    assert app.scopes[0]["user"] == "ann"


async def test_errors_pass_through() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("inner")

    with pytest.raises(KeyError, match="inner"):
        await get(BaseMiddleware(failing))


def test_it_routes_on_if_what_is_within_does() -> None:
    assert routes_on(BaseMiddleware(Adding(URLRouter([]))))
    assert not routes_on(BaseMiddleware(Seen()))


def test_around_something_else_than_an_application_it_is_a_mistake() -> None:
    with pytest.raises(InvalidRoute, match="Adding: Seen is a class, not an application; give an instance"):
        Adding(Seen)  # type: ignore[arg-type]
    assert repr(Adding(Seen())) == "<Adding of seen>"


@pytest.mark.parametrize("name", ["populate_scope", "resolve_scope"])
def test_what_channels_would_call_is_refused_rather_than_forgotten(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is of Channels, and nobody calls it here"):
        type("TokenAuth", (BaseMiddleware,), {name: lambda self, scope: None})
