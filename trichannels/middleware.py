"""The base of middleware: an ASGI application around another."""

from typing import Any

from .events import ASGIApp, Receive, Scope, Send
from .exceptions import ConfigError
from .patterns import check_app, routes_on


class BaseMiddleware:
    """Wraps an application and hands it a copy of the scope, so that changes stay inside.

    Subclass it, override ``__call__``, change ``scope`` and end with
    ``await super().__call__(scope, receive, send)``. One middleware object serves every instance at once: keep
    what belongs to one of them in the scope, never on ``self``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("populate_scope", "resolve_scope"):
            if name in vars(cls):  # it would look as if it checked who comes, and check nobody
                raise ConfigError(
                    f"{cls.__qualname__}.{name} is of Channels, and nobody calls it here: "
                    "change the scope in __call__, before super().__call__(scope, receive, send)"
                )

    def __init__(self, inner: ASGIApp) -> None:
        check_app(inner, type(self).__name__)
        self.inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner!r}>"

    @property
    def _path_routing(self) -> bool:
        # A router stays a router inside middleware, so that a path in front of it matches a beginning.
        return routes_on(self.inner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application with a copy of ``scope``; its errors and cancellation pass through."""
        await self.inner(dict(scope), receive, send)
