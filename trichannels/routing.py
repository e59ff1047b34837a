"""Routers: ASGI applications that choose another by protocol, path or channel name.

What a path is and captures is in ``patterns``; who keeps the layers open is in ``layers/host.py``.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from http import HTTPStatus
from importlib import import_module
from typing import Any, Protocol, Self

from .converters import register_converter
from .denial import refuse
from .events import ASGIApp, Receive, Scope, Send
from .exceptions import ConfigError, InvalidRoute, NoRoute
from .inhouse import Post, checked_posts, open_workers
from .layers.base import ChannelLayer
from .layers.host import SETTINGS_HOST, LayerHost
from .lifespan import run_lifespan
from .patterns import Matched, Pattern, Route, check_app, path, re_path, routes_on

__all__ = [
    "ChannelNameRouter",
    "ProtocolTypeRouter",
    "Route",
    "URLRouter",
    "get_default_application",
    "path",
    "re_path",
    "register_converter",
]

logger = logging.getLogger("trichannels.routing")

MISS = "trichannels.miss"
"""Scope key of the note on which a nested router says that it has no route, so that the outer tries its next."""


def _checked(mapping: Mapping[str, ASGIApp], where: str) -> Mapping[str, ASGIApp]:
    if not isinstance(mapping, Mapping):
        raise InvalidRoute(f"{where} takes a dict of name to application, not {type(mapping).__name__}")
    for name, app in mapping.items():
        check_app(app, f"{where}, {name!r}")
    return dict(mapping)


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in mapping) or "nothing"


def _check_layers(layers: Mapping[str, ChannelLayer]) -> None:
    if not isinstance(layers, Mapping):
        raise InvalidRoute(f"ProtocolTypeRouter: layers is a dict such as {{'default': layer}}, not {layers!r}")
    for alias, layer in layers.items():
        if not hasattr(layer, "__aenter__"):
            raise InvalidRoute(f"ProtocolTypeRouter: layers[{alias!r}] is {layer!r}, not a channel layer")


def _checked_workers(
    workers: Iterable[str] | Mapping[str, Mapping[str, Any]],
    applications: Mapping[str, ASGIApp],
    layers: Mapping[str, ChannelLayer],
) -> list[Post]:
    try:
        posts = checked_posts(workers)
    except ConfigError as error:
        raise InvalidRoute(f"ProtocolTypeRouter: {error}") from error
    application = applications.get("channel")
    if application is None:
        raise InvalidRoute("ProtocolTypeRouter: workers need an application that is mapped to 'channel'")
    for post in posts:
        if post.rules.alias not in layers:
            raise InvalidRoute(
                f"ProtocolTypeRouter: the worker on {post.channel!r} needs a layer {post.rules.alias!r} in layers"
            )
        if isinstance(application, ChannelNameRouter) and post.channel not in application.application_mapping:
            raise InvalidRoute(
                f"ProtocolTypeRouter: {application!r} has no application for the worker on {post.channel!r}"
            )
    return posts


class ProtocolTypeRouter:
    """Chooses by ``scope["type"]``, and keeps the channel layers open.

    ``layers`` maps aliases to channel layers; without it, they are what Django's ``CHANNEL_LAYERS`` describes, if
    there is a Django that is set up. They are open

    - from the server's lifespan startup to its shutdown (an application mapped to ``"lifespan"`` runs within), or
    - inside ``async with application.opened():``, for a parent application that owns the lifespan (Starlette forwards
      none to a mounted application), or
    - degraded, where neither is there (daphne sends no lifespan): from the first instance until the last has ended, see
      :mod:`trichannels.layers.host`.

    Applications find them in ``scope["channel_layers"]``, and ``get_channel_layer()`` finds them too.

    ``workers`` names channels whose jobs are worked on in this very process, by the application that is mapped to
    ``"channel"``: a list, or a dict of names to options of :func:`~trichannels.worker.run_worker` (``concurrency``,
    ``retry``, ``drain_time``) and ``layer``, the alias. They work from the startup to the shutdown, or inside
    ``opened()``; they drain before the layers close. Not where the layers are open in the degraded way.
    """

    def __init__(
        self,
        application_mapping: Mapping[str, ASGIApp],
        layers: Mapping[str, ChannelLayer] | None = None,
        workers: Iterable[str] | Mapping[str, Mapping[str, Any]] = (),
    ) -> None:
        _check_layers(layers or {})
        self.application_mapping = _checked(application_mapping, "ProtocolTypeRouter")
        self._host = SETTINGS_HOST if layers is None else LayerHost(dict(layers))
        self._posts = _checked_workers(workers, self.application_mapping, self.layers) if workers else []

    def __repr__(self) -> str:
        return f"<ProtocolTypeRouter of {_names(self.application_mapping)}>"

    @property
    def layers(self) -> Mapping[str, ChannelLayer]:
        """The channel layers by their aliases: those that are open in the running loop, or would be opened."""
        return self._host.layers

    @property
    def _path_routing(self) -> bool:
        return any(routes_on(app) for app in self.application_mapping.values())

    @asynccontextmanager
    async def opened(self, *, workers: bool = True) -> AsyncIterator[Self]:
        """Keep the layers open for this block, and the ``workers`` at work; once, however many blocks there are.

        Raises what the layers raise when they open and close. Leave the block in the task that entered it.
        """
        work = workers and self._posts and not self._host.has_owner
        async with self._host.owned(), self._working() if work else nullcontext():
            yield self

    def _working(self) -> AbstractAsyncContextManager[None]:
        return open_workers(self, self.layers, self._posts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for this scope; raises :class:`NoRoute` for a type that is not mapped."""
        kind = scope["type"]
        app = self.application_mapping.get(kind)
        if kind == "lifespan":
            beside = self._working if self._posts and not self._host.has_owner else None
            await run_lifespan(self._with_layers(scope), receive, send, self._opened_alone, app, beside)
        elif app is None:
            raise NoRoute(
                f"No application configured for scope type {kind!r}; configured: {_names(self.application_mapping)}"
            )
        elif self._carried(scope):
            await app(scope, receive, send)
        elif self._host.has_owner:  # as with borrowed(), but nothing is kept for as long as a socket lives
            await app(self._with_layers(scope), receive, send)
        else:
            async with self._host.borrowed():
                await app(self._with_layers(scope), receive, send)

    def _opened_alone(self) -> AbstractAsyncContextManager[Self]:
        return self.opened(workers=False)

    def _carried(self, scope: Scope) -> bool:
        """Say whether an outer router keeps these very layers open already."""
        carried = scope.get("channel_layers", {})
        return all(carried.get(alias) is layer for alias, layer in self.layers.items())

    def _with_layers(self, scope: Scope) -> Scope:
        return {**scope, "channel_layers": {**scope.get("channel_layers", {}), **self.layers}}


class RouteShape(Protocol):
    """What :func:`path` gives, and what ``django.urls.path`` gives."""

    @property
    def pattern(self) -> Pattern:
        """Matches the beginning of a path."""

    @property
    def callback(self) -> ASGIApp:
        """The application behind it."""

    @property
    def default_args(self) -> Mapping[str, Any]:
        """Added to the captures."""


class _Miss:
    """Says whether a nested router found no route."""

    missed = False


class URLRouter:
    """Chooses by the path: the first route that matches, in order.

    ``routes`` come from :func:`path` and :func:`re_path`, or from Django's functions of these names. The application
    finds the captures in ``scope["url_route"]`` as ``{"args": tuple, "kwargs": dict}``, those of outer routers
    included, and the rest of the path in ``scope["path_remaining"]``. A router behind a route, also inside middleware
    that derives from ``BaseMiddleware``, goes on with that rest; if it has no route either, the next one is tried here.

    A path that nothing matches gets 404 (as a denial response on a WebSocket, else its handshake is refused with 403).
    ``root_path`` is taken off first; a path outside of it matches nothing (ASGI: ``path`` includes ``root_path``).
    """

    _path_routing = True

    def __init__(self, routes: Iterable[RouteShape]) -> None:
        self.routes = tuple(_adopt(route, f"URLRouter, route {number}") for number, route in enumerate(routes, 1))

    def __repr__(self) -> str:
        return f"<URLRouter of {', '.join(str(route.pattern) for route in self.routes)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application of the first route that matches; answers a lifespan itself.

        Raises :class:`NoRoute` for a scope without a path, and for an unmatched one that is neither HTTP nor WebSocket.
        """
        if scope["type"] == "lifespan":
            await run_lifespan(scope, receive, send, nullcontext)
            return
        rest = _path_to_route(scope)
        for route in self.routes:
            matched = None if rest is None else route.pattern.match(rest)
            if matched is not None:
                miss = _Miss()
                await route.callback(_narrowed(scope, route, matched, miss), receive, send)
                if not miss.missed:
                    return
        await self._unmatched(scope, receive, send)

    async def _unmatched(self, scope: Scope, receive: Receive, send: Send) -> None:
        if MISS in scope:
            scope[MISS].missed = True
        elif scope["type"] in ("http", "websocket"):
            logger.debug("no route for %s %r; %r", scope["type"], scope["path"], self)
            await refuse(scope, receive, send, HTTPStatus.NOT_FOUND)
        else:
            raise NoRoute(f"No route found for path {scope['path']!r} of scope type {scope['type']!r} in {self!r}")


def _path_to_route(scope: Scope) -> str | None:
    """Return what is left to route on, without its leading slashes; None outside of the root path."""
    rest: str | None = scope.get("path_remaining")
    if rest is None:
        rest = scope.get("path")
        if rest is None:
            raise NoRoute(f"a scope of type {scope['type']!r} has no 'path': URLRouter cannot route it")
        root = (scope.get("root_path") or "").rstrip("/")
        if root and rest != root and not rest.startswith(root + "/"):
            return None
        rest = rest[len(root) :]
    return rest.lstrip("/")


def _narrowed(scope: Scope, route: Route, matched: Matched, miss: _Miss) -> Scope:
    rest, args, kwargs = matched
    outer = scope.get("url_route", {})
    return {
        **scope,
        "path_remaining": rest,
        "url_route": {
            "args": (*outer.get("args", ()), *args),
            "kwargs": {**outer.get("kwargs", {}), **kwargs, **route.default_args},
        },
        MISS: miss,
    }


def _adopt(route: RouteShape, where: str) -> Route:
    """Return ``route`` as ours; a pattern of Django in front of a router is made one that matches a beginning."""
    if isinstance(route, Route):
        return route
    if hasattr(route, "url_patterns"):
        raise InvalidRoute(f"{where} ({route}): include() is not supported; nest another URLRouter instead")
    if not hasattr(route, "callback") or not hasattr(getattr(route, "pattern", None), "match"):
        raise InvalidRoute(f"{where}: {route!r} is not a route; make it with path() or re_path()")
    check_app(route.callback, f"{where} ({route.pattern})")
    pattern = _beginning(route.pattern, where) if routes_on(route.callback) else route.pattern
    return Route(pattern, route.callback, dict(route.default_args or {}), getattr(route, "name", None))


def _beginning(pattern: Any, where: str) -> Pattern:
    """Make a Django pattern anew that need not match to the end; the caller's own stays as it is."""
    # RoutePattern has both, and what it compiled to in _regex; an empty route is one too.
    source = getattr(pattern, "_route", getattr(pattern, "_regex", None))
    if source is None:
        raise InvalidRoute(f"{where} ({pattern}): a {type(pattern).__name__} cannot stand in front of a router")
    beginning: Pattern = type(pattern)(source, pattern.name, is_endpoint=False)
    return beginning


class ChannelNameRouter:
    """Chooses by ``scope["channel"]``: what a worker runs for each named channel."""

    def __init__(self, application_mapping: Mapping[str, ASGIApp]) -> None:
        self.application_mapping = _checked(application_mapping, "ChannelNameRouter")

    def __repr__(self) -> str:
        return f"<ChannelNameRouter of {_names(self.application_mapping)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application of this channel; raises :class:`NoRoute` if there is none."""
        if "channel" not in scope:
            raise NoRoute(
                f"ChannelNameRouter got a scope of type {scope['type']!r} without a 'channel' key: "
                "map it to the type 'channel' of a ProtocolTypeRouter, and to no other"
            )
        app = self.application_mapping.get(scope["channel"])
        if app is None:
            configured = _names(self.application_mapping)
            raise NoRoute(f"No application configured for channel name {scope['channel']!r}; configured: {configured}")
        await app(scope, receive, send)


def get_default_application() -> ASGIApp:
    """Return what Django's setting ``ASGI_APPLICATION`` names; raises :class:`ConfigError`."""
    from django.conf import settings

    path = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(f"ASGI_APPLICATION must be a path such as 'mysite.asgi.application', not {path!r}")
    module, _, name = path.rpartition(".")
    try:
        application: ASGIApp = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"ASGI_APPLICATION is {path!r}, but there is no module {error.name!r}") from error
    except AttributeError as error:
        raise ConfigError(f"ASGI_APPLICATION is {path!r}, but {module!r} has no {name!r}") from error
    return application
