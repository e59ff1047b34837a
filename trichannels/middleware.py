"""The base of middleware: an ASGI application around another."""

from .events import ASGIApp, Receive, Scope, Send
from .patterns import check_app, routes_on


class BaseMiddleware:
    """Wraps an application and hands it a copy of the scope, so that changes stay inside.

    Subclass it, override ``__call__``, change ``scope`` and end with
    ``await super().__call__(scope, receive, send)``. One middleware object serves every instance at once: keep
    what belongs to one of them in the scope, never on ``self``.
    """

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
