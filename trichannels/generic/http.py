"""An HTTP consumer: the body is collected, ``handle(body)`` answers, a client that leaves ends it."""

from typing import Any

from ..consumer import AsyncConsumer
from ..events import Event, HeaderInput, as_headers
from ..exceptions import StopConsumer


class AsyncHttpConsumer(AsyncConsumer):
    """One instance for each request. Override ``handle``; a long or streamed answer may use groups and the nursery.

    ``max_body``: bytes of a request body; a larger one is answered with 413. When the client leaves, ``handle`` gets
    ``disconnect_grace`` seconds and is then cancelled; ``disconnect()`` follows in every case.
    """

    max_body: int = 10 * 1024 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.body: list[bytes] = []
        self._body_size = 0

    async def send_headers(self, *, status: int = 200, headers: HeaderInput | None = None) -> None:
        """Send status and headers; names and values may be str."""
        await self.send({"type": "http.response.start", "status": status, "headers": as_headers(headers)})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a piece of the body; with ``more_body`` another one follows."""
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}: encode it")
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(
        self, status: int, body: bytes, *, headers: HeaderInput | None = None, more_body: bool = False
    ) -> None:
        """Send status, headers and body."""
        await self.send_headers(status=status, headers=headers)
        await self.send_body(body, more_body=more_body)

    async def handle(self, body: bytes) -> None:
        """Override: answer the request with the ``send_…`` methods."""
        raise NotImplementedError("Subclasses of AsyncHttpConsumer must provide a handle() method.")

    async def disconnect(self) -> None:
        """Override: the request is over, answered or not. Runs once, as a WebSocket's does."""

    async def http_request(self, message: Event) -> None:
        """Collect the body, and handle the request when it is complete."""
        if piece := message.get("body"):
            self.body.append(piece)
            self._body_size += len(piece)
        if self._body_size > self.max_body:
            self.body.clear()
            await self.send_response(413, b"the request body is too large", headers={"Content-Type": "text/plain"})
            raise StopConsumer
        if not message.get("more_body"):
            await self.handle(b"".join(self.body))
            raise StopConsumer

    async def http_disconnect(self, message: Event) -> None:
        """Run ``disconnect()``."""
        await self.disconnect()
