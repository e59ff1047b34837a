"""The smallest server there can be: gives an application its events and keeps what it sends."""

from collections.abc import Iterable
from typing import Any

import anyio

from trichannels.events import ASGIApp, Event, Receive, Scope, Send


class Seen:
    """An application that remembers its scopes, and says yes."""

    def __init__(self, name: str = "seen") -> None:
        self.name = name
        self.scopes: list[Scope] = []

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await send({"type": "seen", "by": self.name})

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword captures of the last scope."""
        kwargs: dict[str, Any] = self.scopes[-1]["url_route"]["kwargs"]
        return kwargs


async def run(app: ASGIApp, scope: Scope, events: Iterable[Event] = ()) -> list[Event]:
    """Run ``app`` to its end and return what it sent; after ``events`` its ``receive`` waits for good."""
    waiting, sent = list(events), []

    async def receive() -> Event:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    async def send(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(event)

    with anyio.fail_after(5):
        await app(scope, receive, send)
    return sent


async def connect(app: ASGIApp, path: str = "/", **scope: Any) -> list[Event]:
    """Ask for a WebSocket."""
    return await run(app, {"type": "websocket", "path": path, **scope}, [{"type": "websocket.connect"}])


async def get(app: ASGIApp, path: str = "/", **scope: Any) -> list[Event]:
    """Send a GET request."""
    return await run(app, {"type": "http", "method": "GET", "path": path, **scope}, [{"type": "http.request"}])
