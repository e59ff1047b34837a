"""``WebsocketCommunicator``: the client's side of one WebSocket, without a server."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..denial import DENIAL
from ..events import ASGIApp, Event, Headers
from ..exceptions import OutOfTurn
from .application import ApplicationCommunicator, deadline
from .errors import Denial, SocketRefused, TimedOut, UnexpectedEvent
from .scopes import RawHeaders, connection_scope


class WebsocketCommunicator(ApplicationCommunicator):
    """A WebSocket client that talks to ``application`` in memory::

        async with WebsocketCommunicator(app, "/ws/lobby/?token=1") as socket:
            await socket.send_json_to({"text": "hi"})
            assert await socket.receive_json_from() == {"text": "hi"}

    Entering the block connects, and raises :class:`SocketRefused` if the application does not accept. Leaving it
    disconnects with code 1000 and waits up to ``timeout`` seconds for the application, which must end by then
    (:class:`TimedOut`). Channels' calls ``connect()``, ``disconnect()`` and the rest do the same without a block.

    ``headers`` are pairs of bytes, ``subprotocols`` what the client offers. ``denial_response=False`` is a server that
    lacks the extension ``websocket.http.response``; ``spec_version`` below "2.4" one whose ``send`` stays silent after
    the client has left. ``scope`` may be changed before the connection is made.
    """

    def __init__(
        self,
        application: ASGIApp,
        path: str,
        headers: RawHeaders | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
        *,
        denial_response: bool = True,
        timeout: float = 1,
    ) -> None:
        scope = connection_scope("websocket", path, headers, spec_version)
        scope |= {"scheme": "ws", "subprotocols": list(subprotocols or ())}
        if denial_response:
            scope["extensions"][DENIAL] = {}
        if spec_version:
            scope["spec_version"] = spec_version
        super().__init__(application, scope)
        self.timeout = timeout
        self.connected = False
        self.subprotocol: str | None = None
        """The subprotocol that the application chose."""
        self.response_headers: Headers | None = None
        """The headers that the application sent with its acceptance."""
        self.denial: Denial | None = None
        """The HTTP response with which it refused, if it sent one."""
        self.close_code: int | None = None
        """The code with which the application closed or refused the socket, once the test has received it."""
        self.close_reason = ""
        self._asked = False

    async def connect(self, timeout: float = 1) -> tuple[bool, str | int | None]:
        """Ask for the connection: ``(True, subprotocol)``, or ``(False, close code)``, or ``(False, HTTP status)``.

        The HTTP status is that of a denial response; the rest of it is in ``denial``. An application that has refused
        is given up to ``timeout`` seconds to end; raises its error if it fails.
        """
        if self._asked:
            raise OutOfTurn("connect() was called already; a second connection needs a second communicator")
        self._asked = True
        await self.send_input({"type": "websocket.connect"})
        event = await self.receive_output(timeout)
        match event["type"]:
            case "websocket.accept":
                self.connected, self.subprotocol = True, event.get("subprotocol")
                self.response_headers = list(event.get("headers") or ())
                return True, self.subprotocol
            case "websocket.close":
                await self._end_refused(timeout)
                return False, self.close_code
            case "websocket.http.response.start":
                self.denial = await self._read_denial(event, timeout)
                await self._end_refused(timeout)
                return False, self.denial.status
            case _:
                raise UnexpectedEvent("websocket.accept or websocket.close", event)

    async def receive_output(self, timeout: float = 1) -> Event:
        """As :meth:`ApplicationCommunicator.receive_output`; notes the close code in passing."""
        event = await super().receive_output(timeout)
        if event["type"] == "websocket.close":
            self.close_code, self.close_reason = event.get("code", 1000), event.get("reason") or ""
        return event

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one text or one binary message to the application; an empty one is a message, too."""
        if (text_data is None) == (bytes_data is None):
            raise TypeError("give either text_data or bytes_data, and not both")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data is a str, not {type(text_data).__name__}")
        if bytes_data is not None and not isinstance(bytes_data, bytes):
            raise TypeError(f"bytes_data is bytes, not {type(bytes_data).__name__}")
        data = {"text": text_data} if bytes_data is None else {"bytes": bytes_data}
        await self.send_input({"type": "websocket.receive", **data})

    async def send_json_to(self, data: Any) -> None:
        """Send ``data`` as JSON in a text message."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> str | bytes:
        """Return the next message; if the socket closes instead, :class:`UnexpectedEvent` (an ``AssertionError``)."""
        event = await self.receive_output(timeout)
        if event["type"] != "websocket.send":
            raise UnexpectedEvent("a message (websocket.send)", event)
        text, data = event.get("text"), event.get("bytes")
        return text if isinstance(text, str) else bytes(data or b"")

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """Return the next message, a text of JSON, decoded."""
        message = await self.receive_from(timeout)
        if not isinstance(message, str):
            raise UnexpectedEvent("JSON in a text message", {"type": "websocket.send", "bytes": message})
        return json.loads(message)

    async def disconnect(self, code: int = 1000, timeout: float = 1, *, reason: str = "") -> None:
        """Leave, and wait up to ``timeout`` seconds for the application to end; raises its error if it failed."""
        await self.send_input({"type": "websocket.disconnect", "code": code, "reason": reason})
        await self.wait(timeout)

    async def _read_denial(self, start: Event, timeout: float) -> Denial:
        body = bytearray()
        event = start
        while event is start or event.get("more_body"):
            event = await self.receive_output(timeout)
            if event["type"] != "websocket.http.response.body":
                raise UnexpectedEvent("websocket.http.response.body", event)
            body += event.get("body") or b""
        return Denial(status=start["status"], headers=list(start.get("headers") or ()), body=bytes(body))

    async def _end_refused(self, timeout: float) -> None:
        with suppress(TimedOut):  # else it is still there, and so is the duty to end it
            await self.wait(timeout)

    async def _begin(self) -> None:
        accepted, _ = await self.connect(self.timeout)
        if not accepted:
            raise SocketRefused(self.scope["path"], self.close_code, self.close_reason, self.denial)

    async def _finish(self) -> None:
        exchange = self._running()
        if not exchange.done:
            exchange.push({"type": "websocket.disconnect", "code": 1000, "reason": ""})
            with deadline(self.timeout, "the client has left, but the application did not end"):
                await exchange.until(lambda: exchange.done)
