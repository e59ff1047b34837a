"""Finding the layers of an application, wherever routers and middleware keep them. What mistakes say: ``test_cli``."""

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from trichannels.events import ASGIApp, Receive, Scope, Send
from trichannels.exceptions import ConfigError
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.middleware import BaseMiddleware
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.security.websocket import OriginValidator
from trichannels.server.load import layers_of, require_shared_layers

pytestmark = pytest.mark.trio_only


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application."""


class Wrapped:
    """Somebody's middleware, which has no base."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def router(**layers: InMemoryChannelLayer) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"websocket": nothing}, layers=layers)


LAYER = InMemoryChannelLayer()
PLACES = [
    router(default=LAYER),
    Wrapped(Wrapped(router(default=LAYER))),
    BaseMiddleware(router(default=LAYER)),
    OriginValidator(router(default=LAYER), ["*"]),
    ProtocolTypeRouter({"http": nothing, "websocket": router(default=LAYER)}),
    URLRouter([path("chat/", router(default=LAYER))]),
    Starlette(routes=[Mount("/chat", app=router(default=LAYER))]),
]


@pytest.mark.parametrize("app", PLACES, ids=repr)
def test_a_layer_in_memory_is_found_behind_wrappers(app: ASGIApp) -> None:
    assert list(layers_of(app)) == [("default", LAYER)]
    with pytest.raises(ConfigError, match="layer 'default' is an InMemoryChannelLayer"):
        require_shared_layers(app, 2)
    require_shared_layers(app, 1)


def test_any_layer_in_memory_is_one_too_many() -> None:
    with pytest.raises(ConfigError, match="layer 'other'"):
        require_shared_layers(router(other=LAYER), 2)


def test_no_layer_is_no_reason() -> None:
    require_shared_layers(router(), 2)
    require_shared_layers(nothing, 2)


def test_a_circle_of_wrappers_ends() -> None:
    wrapper = Wrapped(nothing)
    wrapper.app = wrapper
    assert list(layers_of(wrapper)) == []
