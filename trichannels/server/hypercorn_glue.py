"""The only file that imports hypercorn. What it leans on is not hypercorn's public API: the minor version is pinned,
and ``tests/server/test_hypercorn_internals.py`` says in plain words which part changed if one does.

hypercorn gives us its configuration, TLS context, access log, and its HTTP/1.1 and HTTP/2 protocols, behind one object
per connection (``ProtocolWrapper``). We bring the socket, the tasks and the applications. Its settings are read in
``config_file.py``.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import randint
from typing import Any, Protocol

import h11
import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, PriorityUpdated, RequestReceived
from h2.events import Event as H2Event
from h2.exceptions import H2Error
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Trailers
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hyperframe.exceptions import HyperframeError

from ..events import Headers
from .handshake import Upgrade, is_upgrade
from .head import MOST_HEADERS

__all__ = ["Closed", "Config", "Event", "HTTPProtocol", "RawData", "Updated", "UpgradeRequested", "WorkerContext"]

END_OF_HEAD = re.compile(rb"\n\r?\n")
LOOSE_LINE = re.compile(rb"(?<!\r)\n|\n[ \t]")
LOOK = 2.0  # seconds between two looks whether a peer has left, while nothing is read from it


class UpgradeRequested(Exception):
    """The client asks for a WebSocket over HTTP/1.1: hypercorn is done with this connection."""

    def __init__(self, upgrade: Upgrade) -> None:
        super().__init__("upgrade")
        self.upgrade = upgrade


class Owner(Protocol):
    """The connection (``http.py``): what hypercorn's protocols call their task group, and what ours need beside."""

    @property
    def write_timeout(self) -> float: ...
    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]: ...
    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None: ...
    def look(self) -> None: ...
    def overdue(self) -> None: ...


class _Turn:
    """The turn of a pipelined request: until it comes nothing is read, so that only a look tells of a peer's leave."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._come, self._look = trio.Event(), look

    async def clear(self) -> None:
        self._come = trio.Event()

    async def set(self) -> None:
        self._come.set()

    def is_set(self) -> bool:
        return self._come.is_set()

    async def wait(self) -> None:
        while not self._come.is_set():
            with trio.move_on_after(LOOK):
                await self._come.wait()
                return
            self._look()


class _StrictHTTP(h11.Connection):
    """h11's parser, except that every line of a head must end in CRLF, and none may continue the one before.

    RFC 9112 sections 2.2 and 5.2 allow both either way; but where a proxy in front reads such lines otherwise, one of
    the two sees headers, or a request, that the other does not.
    """

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            data = self.trailing_data[0]
            end = END_OF_HEAD.search(data)
            if LOOSE_LINE.search(data, 0, end.end() if end else len(data)):
                raise h11.RemoteProtocolError("a bare line feed, or a folded line", error_status_hint=400)
        return super().next_event()


class _H11(H11Protocol):
    """hypercorn's HTTP/1.1, except that it hands over where it would begin a WebSocket of its own.

    What h11 would take but should not be served is refused: see :func:`_refused`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.can_read = _Turn(self.task_group.look)  # type: ignore[attr-defined]
        self.connection = _StrictHTTP(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def _create_stream(self, request: h11.Request) -> None:
        headers, version = list(request.headers), request.http_version.decode()
        if status := _refused(request, headers, self.config.h11_max_incomplete_size):
            await self._send_error_response(status)
            await self.send(Closed())
        elif is_upgrade(request.method, headers, version):
            rest = bytes(self.connection.trailing_data[0])
            raise UpgradeRequested(Upgrade(target=request.target, headers=headers, http_version=version, rest=rest))
        else:
            await super()._create_stream(request)


def _refused(request: h11.Request, headers: Headers, most_bytes: int) -> int:
    """Return the status with which a request is refused before any application sees it; 0 if it is not."""
    names = {name for name, _ in headers}
    # RFC 9112 section 6.3: a request with both may be an attempt to smuggle another one past a proxy.
    if {b"transfer-encoding", b"content-length"} <= names:
        return 400
    # h11 minds the size of a head only while it is incomplete.
    size = len(request.target) + sum([len(name) + len(value) + len(b": \r\n") for name, value in headers])
    if size > most_bytes or len(headers) > MOST_HEADERS:
        return 431
    # RFC 9110 section 9.3.6: for proxies. h11 would take a 2xx for a tunnel, and no body after it.
    return 501 if request.method == b"CONNECT" else 0


class _H2(H2Protocol):
    """hypercorn's HTTP/2, except that what breaks one stream leaves the others alone.

    And that what waits for room in a client's window is bounded in size (hypercorn lets its application go on whenever
    it has tried to send) and in time: a stream of which no byte goes for ``write_timeout`` is reset.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.owner: Owner = self.task_group  # type: ignore[assignment]
        self._patience: defaultdict[int, set[trio.CancelScope]] = defaultdict(set)
        self._moved = trio.lowlevel.ParkingLot()  # bytes of some stream have gone

    async def _handle_events(self, events: Sequence[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # The response was complete before the request; what was under way counts for the window all the same.
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, RequestReceived) and not _is_whole(event.headers or []):
                self.connection.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            else:
                await super()._handle_events([event])
        await self._flush()

    async def _priority_updated(self, event: PriorityUpdated) -> None:
        """Leave it at that: RFC 9113 section 5.3 deprecates these, and a thousand of them would fill the tree."""

    async def stream_send(self, event: StreamEvent) -> None:
        if not isinstance(event, Body | Data | EndBody | EndData | Trailers):
            await super().stream_send(event)
            return
        waiting = self._patience[event.stream_id]
        with trio.CancelScope(deadline=self._deadline()) as patience:
            waiting.add(patience)
            try:
                await super().stream_send(event)
                while self._is_full(event.stream_id):
                    await self._moved.park()
            finally:
                waiting.discard(patience)
                if not waiting:
                    self._patience.pop(event.stream_id, None)
        if patience.cancelled_caught:
            await self._give_up(event.stream_id)

    async def _send_data(self, stream_id: int) -> None:
        waiting = self.stream_buffers[stream_id]
        before = len(waiting.buffer)
        await super()._send_data(stream_id)
        if len(waiting.buffer) < before:
            self._moved.unpark_all()
            for patience in self._patience.get(stream_id, ()):
                patience.deadline = self._deadline()

    def _is_full(self, stream_id: int) -> bool:
        return stream_id in self.stream_buffers and len(self.stream_buffers[stream_id].buffer) >= BUFFER_HIGH_WATER

    def _deadline(self) -> float:
        return trio.current_time() + self.owner.write_timeout

    async def _give_up(self, stream_id: int) -> None:
        self.owner.overdue()
        with suppress(H2Error):
            self.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
        await self._flush()
        await self._close_stream(stream_id)
        await self._window_updated(stream_id)  # hypercorn drops the stream's data when it next looks at it


def _is_whole(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Say whether hypercorn can make a scope of a request's head; of a CONNECT only a WebSocket's (RFC 8441)."""
    said = dict(headers)
    method, path = said.get(b":method", b""), said.get(b":path", b"")
    return bool(method and path and method.isascii() and path.isascii()) and (
        method.upper() != b"CONNECT" or said.get(b":protocol") == b"websocket"
    )


class HTTPProtocol(ProtocolWrapper):
    """hypercorn's side of one connection. ``handle`` raises :class:`UpgradeRequested` for a WebSocket upgrade."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._for_each = args[:9]
        self.protocol = (_H2 if isinstance(self.protocol, H2Protocol) else _H11)(*self._for_each)

    async def handle(self, event: Event) -> None:
        upgrade: tuple[Any, ...] = ()
        try:
            await self.protocol.handle(event)
            return
        except H2ProtocolAssumedError as error:
            data = error.data
        except H2CProtocolRequiredError as error:
            data, upgrade = error.data, (error.headers, error.settings)
        self.protocol = _H2(*self._for_each)
        try:
            await self.protocol.initiate(*upgrade)
        except (ValueError, H2Error, HyperframeError):  # the client's HTTP2-Settings make no sense
            await self.send(Closed())
        else:
            await self.protocol.handle(RawData(data))


def worker_context(config: Config) -> WorkerContext:
    """Return what hypercorn's protocols share in a process: whether it drains, and how many requests it has left."""
    limit = config.max_requests
    return WorkerContext(None if limit is None else limit + randint(0, config.max_requests_jitter))  # noqa: S311


def log_access(config: Config, scope: Any, status: int, seconds: float) -> None:
    """Write the access log's line for a WebSocket's handshake, as hypercorn writes those for HTTP."""
    log = config.log
    if log.access_logger is not None:
        log.access_logger.info(log.access_log_format, log.atoms(scope, {"status": status, "headers": []}, seconds))
