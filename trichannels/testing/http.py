"""``HttpCommunicator``: one HTTP request to an application, without a server."""

from typing import Any

import anyio

from ..events import ASGIApp
from .application import ApplicationCommunicator
from .errors import UnexpectedEvent
from .scopes import RawHeaders, connection_scope


class HttpCommunicator(ApplicationCommunicator):
    """One request, with its whole body, and its response::

        async with HttpCommunicator(app, "POST", "/items/?page=2", body=b"...") as request:
            response = await request.get_response()
            assert response["status"] == 201

    The end of the block tells the application that the client has left, and cancels it ``timeout`` seconds later if it
    still runs. For a response that is read part by part, call ``receive_output()`` instead of ``get_response()``.
    """

    def __init__(
        self,
        application: ASGIApp,
        method: str,
        path: str,
        body: bytes = b"",
        headers: RawHeaders | None = None,
        *,
        timeout: float = 1,
    ) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"the body is bytes, not {type(body).__name__}")
        scope = connection_scope("http", path, headers, None)
        super().__init__(application, scope | {"scheme": "http", "method": method.upper()})
        self.body, self.timeout = body, timeout
        self.sent_request = False

    async def get_response(self, timeout: float = 1) -> dict[str, Any]:
        """Send the request and return the response: ``{"status": int, "headers": [(bytes, bytes)], "body": bytes}``.

        ``timeout`` is for each part of the response.
        """
        await self.send_request()
        start = await self.receive_output(timeout)
        if start["type"] != "http.response.start":
            raise UnexpectedEvent("http.response.start", start)
        body = bytearray()
        more = True
        while more:
            part = await self.receive_output(timeout)
            if part["type"] != "http.response.body":
                raise UnexpectedEvent("http.response.body", part)
            body += part.get("body") or b""
            more = bool(part.get("more_body"))
        return {"status": start["status"], "headers": list(start.get("headers") or ()), "body": bytes(body)}

    async def send_request(self) -> None:
        """Send the request, once; the other calls do it by themselves where they need to."""
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body, "more_body": False})

    async def _begin(self) -> None:
        await self.send_request()

    async def _finish(self) -> None:
        exchange = self._running()
        if not exchange.done:
            exchange.push({"type": "http.disconnect"})
            with anyio.move_on_after(self.timeout):
                await exchange.until(lambda: exchange.done)
