"""Which sites may open a WebSocket here: middleware that looks at the Origin header (RFC 6455 section 10.2).

A browser sends cookies along with a handshake from any site, and no same-origin rule stops it: without this check every
page can open a socket in its visitor's name. How origins are compared is in ``security/origins.py``.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Self

from ..denial import refuse
from ..events import ASGIApp, Receive, Scope, Send
from ..exceptions import InvalidRoute
from ..patterns import check_app, routes_on
from .origins import Origin, Rule, parse_hosts, parse_origin, parse_rules

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]


class WebsocketDenier:
    """Refuses every WebSocket with 403 (by a denial response where the server offers it, else by closing)."""

    @classmethod
    def as_asgi(cls) -> Self:
        """Return the application, as a consumer's ``as_asgi`` does."""
        return cls()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake; returns once the answer is sent, or the client is gone."""
        await refuse(scope, receive, send, HTTPStatus.FORBIDDEN)


class OriginValidator:
    """Lets a WebSocket through if its Origin header is allowed, else refuses it with 403.

    ``allowed_origins``: see :func:`~trichannels.security.origins.parse_rule`; a mistake in them raises
    :class:`InvalidRoute` here. A missing, malformed or repeated header passes only where ``"*"`` is allowed.
    """

    def __init__(self, application: ASGIApp, allowed_origins: Iterable[str | re.Pattern[str]]) -> None:
        check_app(application, type(self).__name__)
        self.application = application
        if isinstance(allowed_origins, str | re.Pattern):
            # A str would be taken letter by letter.
            raise InvalidRoute(f"{type(self).__name__}: allowed origins are a list: [{allowed_origins!r}]")
        self.allowed_origins = tuple(allowed_origins)
        self._rules = parse_rules(self.allowed_origins)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.application!r}>"

    @property
    def _path_routing(self) -> bool:
        return routes_on(self.application)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or refuse; raises :class:`InvalidRoute` for a scope that is not a WebSocket."""
        if scope["type"] != "websocket":
            raise InvalidRoute(
                f"You cannot use {type(self).__name__} on a non-WebSocket connection (this is {scope['type']!r}): "
                "put it inside the 'websocket' entry of a ProtocolTypeRouter"
            )
        app = self.application if self.valid_origin(_origin(scope)) else WebsocketDenier()
        await app(scope, receive, send)

    def valid_origin(self, origin: Origin | None) -> bool:
        """Say whether this origin may come in; None stands for a missing, malformed or repeated header."""
        return any(rule(origin) for rule in self.rules())

    def rules(self) -> tuple[Rule, ...]:
        """Return the tests of which one must hold."""
        return self._rules


class AllowedHostsOriginValidator(OriginValidator):
    """An :class:`OriginValidator` for the hosts of Django's ``ALLOWED_HOSTS``, any scheme and port.

    The settings are read at each handshake. With ``DEBUG`` and no hosts set, localhost is allowed, as in Django.
    """

    def __init__(self, application: ASGIApp) -> None:
        super().__init__(application, ())

    def rules(self) -> tuple[Rule, ...]:
        """Return the tests that the settings stand for now."""
        from django.conf import settings

        hosts = settings.ALLOWED_HOSTS
        if settings.DEBUG and not hosts:
            hosts = [".localhost", "127.0.0.1", "[::1]"]
        return parse_hosts(hosts)


def _origin(scope: Scope) -> Origin | None:
    found = [value for name, value in scope.get("headers", ()) if name.lower() == b"origin"]
    return parse_origin(found[0]) if len(found) == 1 else None
