"""The page and its files, over HTTP. They are read once, when this module is imported."""

from importlib.resources import files
from typing import Any

from ..generic.http import AsyncHttpConsumer

TYPES = {
    "page.html": "text/html; charset=utf-8",
    "chat.css": "text/css; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

FILES = {name: files(__package__).joinpath("web", name).read_bytes() for name in TYPES}

LOBBY = b"/room/lobby"

# Nothing from elsewhere, nothing inline, no frames: https://www.w3.org/TR/CSP3/
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

SAFE = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


class Door(AsyncHttpConsumer):
    """``/`` leads to the lobby."""

    async def handle(self, body: bytes) -> None:
        await self.send_response(302, b"", headers=[(b"location", LOBBY), *SAFE])


class Page(AsyncHttpConsumer):
    """One of the files, to whoever asks with GET or HEAD."""

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    async def handle(self, body: bytes) -> None:
        if self.scope["method"] not in ("GET", "HEAD"):
            await self.send_response(405, b"", headers=[(b"allow", b"GET, HEAD"), *SAFE])
            return
        content = FILES[self.name]
        headers = [(b"content-type", TYPES[self.name].encode()), (b"content-length", b"%d" % len(content)), *SAFE]
        await self.send_response(200, content if self.scope["method"] == "GET" else b"", headers=headers)


class Missing(AsyncHttpConsumer):
    """Everything else: say what a room's address looks like."""

    async def handle(self, body: bytes) -> None:
        text = b"There is no such page. A room is /room/NAME: letters, digits, - and _, at most 64 of them.\n"
        await self.send_response(404, text, headers=[(b"content-type", b"text/plain; charset=utf-8"), *SAFE])
