"""Server-sent events: a response that goes on, events in it, and a client that comes back where it was.

What the stream looks like is in ``event_stream``. HTML Standard, section 9.2:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Literal, cast

import anyio

from ..consumer import AsyncConsumer, Settings, check_settings
from ..events import Draining, Event, HeaderInput, Headers, Receive, Scope, Send, as_headers
from ..exceptions import AcceptConnection, ConnectionClosed, DenyConnection, OutOfTurn
from ..instance import Ending
from ..layers.history import Position, Recovery
from .event_stream import (
    NOWHERE,
    Reached,
    encode_comment,
    encode_event,
    encode_id,
    encode_retry,
    is_retry,
    last_event_id,
    read_id,
)

METHODS = ("GET", "HEAD")

# A stored stream would give one client's past to another. Browsers ask so anyway (section 9.2.2: cache mode
# "no-store"); this tells the caches on the way, which may also keep a 204 or 405 (RFC 9110 section 15.1).
NO_STORE: Headers = [(b"cache-control", b"no-store")]
HEAD: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *NO_STORE,
    (b"x-accel-buffering", b"no"),  # nginx would collect the events, and others that heed it
]
NO_LENGTH = (204, 304)  # statuses whose answers say nothing of a body's length (RFC 9110 section 8.6)
LAST_PART: Event = {"type": "http.response.body", "body": b"", "more_body": False}
JOIN_AGAIN_WITHIN = 60.0  # seconds after connect() has ended; then the id no longer says where the client was in others
LAST_PART_TIMEOUT = 1.0  # seconds for the end of a response whose client may take nothing any more

_HERE: ContextVar[Position | None] = ContextVar("trichannels_sse_here", default=None)

SETTINGS: Settings = {
    "keep_alive": (lambda value: value is None or _is_positive(value), "a number of seconds above 0, or None"),
    "retry": (lambda value: value is None or is_retry(value), "milliseconds as an int of 0 or more, or None"),
    "concurrency": (lambda value: value == 1, "1: events of a stream follow one another"),
}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


class EventStreamConsumer(AsyncConsumer):
    """One instance for each client of an event stream: join groups, send events. For scopes of type ``http``.

    Override ``connect`` to refuse, to join groups, or to send a first state; define handlers for the layer's events.

    ``groups``: names joined before ``connect()`` runs, and left with the stream. ``keep_alive``: seconds of silence
    after which a comment is sent; None for none. ``retry``: milliseconds that a client waits before it comes back; None
    leaves that to it. ``resync_event``: the type of the event that tells of a gap. ``positions_as_ids``: whether event
    ids are the layer's positions; with False they are yours alone, and ``join`` goes on from nowhere by itself.
    """

    groups: Iterable[str] | None = None
    keep_alive: float | None = 15.0  # section 9.2.7: some proxies drop a connection that is silent for long
    retry: int | None = None
    resync_event: str = "resync"
    positions_as_ids: bool = True

    _asked = False  # the request has come
    _begun = False  # connect() has begun: only then does disconnect() follow
    _settled = False  # connect() is done, and the client knows where it is
    _unjoined_until = math.inf  # when groups that the client was in, but has not joined again, are forgotten
    _open = False
    _answered = False  # with a whole response, so that nothing of it is left to be sent
    _writing = 0
    _quiet_since = 0.0
    _here: Position | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_settings(cls, SETTINGS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the whole life of one stream, and complete the response; raises what a handler raised."""
        self._last_event_id = self._told = last_event_id(scope)
        self._reached = Reached(read_id(self._last_event_id) if self.positions_as_ids else {})
        self._gaps: dict[str, Position | None] = {}
        self._opening = anyio.Lock()
        await super().__call__(scope, receive, send)
        await self._complete(send)

    # ---- what you override

    async def connect(self) -> None:
        """Override: a client asks. Refuse it by ``refuse()``, or return: then it is accepted."""

    async def recovery_failed(self, group: str) -> None:
        """Override: the client may have missed events of ``group``, and has been told. Send the state afresh, say.

        Its last event id moves on when this returns, so that a client that is lost before comes to the same again.
        """

    async def disconnect(self) -> None:
        """Override: the stream is over. Runs once, shielded, for at most ``disconnect_timeout`` seconds."""

    # ---- what you call

    @property
    def last_event_id(self) -> str:
        """What the client said in ``Last-Event-ID``, or in ``last_event_id`` of the query; "" if it said nothing."""
        return self._last_event_id

    async def accept(self, headers: HeaderInput | None = None) -> None:
        """Begin the stream; ``headers`` come beside ours, or in place of those of the same name.

        Only needed for headers: the first event does it, and so does the end of ``connect()``. Raises
        :class:`OutOfTurn` if it has begun.
        """
        async with self._opening:
            if self._open:
                raise OutOfTurn("the stream has begun: call accept() before anything is sent")
            await self._begin_response(as_headers(headers))

    async def refuse(self, status: int = 403, body: bytes = b"", headers: HeaderInput | None = None) -> None:
        """Answer with a status and a body instead of a stream: an ``EventSource`` then does not come back.

        Raises :class:`OutOfTurn` if the stream has begun. The instance ends.
        """
        async with self._opening:
            if self._open or self._answered:
                raise OutOfTurn("the stream has begun, or was refused: call refuse() first, and once")
            given = as_headers(headers)
            if status not in NO_LENGTH:
                given.append((b"content-length", b"%d" % len(body)))
            await self.base_send(_start(status, _beside(NO_STORE, given)))
            self._answered = True
            await self.base_send({**LAST_PART, "body": body if self._method == "GET" else b""})
        self._end()

    async def send_event(
        self,
        data: str | bytes,
        event: str | None = None,
        id: str | Literal[False] | None = None,  # noqa: A002 - the field's name
        retry: int | None = None,
    ) -> None:
        """Send an event. ``data``: text, or bytes of UTF-8. ``retry``: milliseconds.

        ``id``: None for the position of the layer's event that is being handled, if its group has history, else for
        none; False for none. Waits while the client takes nothing. Raises :class:`BadEvent` for what would arrive as
        something else, TypeError, and :class:`ConnectionClosed` when the stream has ended. Cancelled, it was sent or
        was not.
        """
        name = self._id_here() if id is None else None if id is False else id
        await self._write(encode_event(data, event, name, retry))
        self._told = self._told if name is None else name

    async def send_json_event(
        self,
        data: Any,
        event: str | None = None,
        id: str | Literal[False] | None = None,  # noqa: A002 - the field's name
        retry: int | None = None,
    ) -> None:
        """As :meth:`send_event`, with ``data`` as JSON; raises what ``encode_json`` raises."""
        await self.send_event(await self.encode_json(data), event, id, retry)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Return ``content`` as text."""
        return json.dumps(content)

    async def comment(self, text: str = "") -> None:
        """Send a comment, which clients ignore."""
        await self._write(encode_comment(text))

    async def close(self) -> None:
        """End the stream. The client comes back, unless it has been told not to, or is refused then."""
        self._end()

    async def join(self, group: str, since: Position | None = None) -> Recovery:
        """Enter a group: its events arrive as handler calls. In force on return; left by itself at the end.

        A client that comes back gets what it has missed of a group with history, in order and before anything newer;
        where that cannot be proven to be all, none of it: an event of type ``resync_event`` tells it, and
        ``recovery_failed(group)`` runs, both after ``connect()``. ``since`` is where to go on instead of where the
        client says it was, which is known until a minute after ``connect()``. Cancelled, it has joined nothing.
        """
        return await self._enter(group, since)

    async def leave(self, group: str) -> None:
        """Leave a group."""
        await super().leave(group)
        self._reached.forget(group)
        self._gaps.pop(group, None)

    # ---- handlers

    async def http_request(self, message: Event) -> None:
        """Join ``groups``, run ``connect()``, and begin the stream. A body is of no interest."""
        if self._asked:
            return
        self._asked = True
        if self._method not in METHODS:
            await self.refuse(405, headers=[("allow", ", ".join(METHODS))])
            return
        for group in self.groups or ():
            await self._enter(group, None)
        self._require_peer()
        self._begun = True
        try:
            await self.connect()
        except AcceptConnection:
            pass
        except DenyConnection:
            await self.refuse()
        if self._instance.ending is None:
            await self._settle()

    async def sse_send(self, message: Event) -> None:
        """An event of the layer that is one of the stream: ``data``, or ``json``, with ``event``, ``id``, ``retry``."""
        data = message["data"] if "data" in message else await self.encode_json(message["json"])
        await self.send_event(data, message.get("event"), message.get("id"), message.get("retry"))

    async def layer_resync(self, event: Event) -> None:
        """There may be a gap in the events of a group: tell the client."""
        await self._tell_gap(event["group"], self.position)

    async def http_disconnect(self, message: Event) -> None:
        """Run ``disconnect()`` if ``connect()`` had begun; the groups have been left already."""
        if self._begun:
            await self.disconnect()

    async def dispatch(self, message: Event) -> None:
        """Run the handler of an event; what it sends has the event's position as its id."""
        here = self.position
        if here is None or message.get("type") == "layer.resync":
            await super().dispatch(message)
            return
        # Not for tasks that send something else meanwhile: with this id, the client would not get what is sent here.
        token = _HERE.set(here)
        self._here = here
        try:
            await super().dispatch(message)
        finally:
            self._here = None
            _HERE.reset(token)
        self._reached.advance(here)

    # ---- the response

    @property
    def _method(self) -> str:
        return str(self.scope["method"])

    async def _begin_response(self, given: Headers) -> None:
        await self.base_send(_start(200, _beside(HEAD, given)))
        self._open = True
        if self._method == "HEAD":
            self._end()
            return
        # Sent at once, because a server may keep the head until something of the body has come.
        await self._put(encode_comment() if self.retry is None else encode_retry(self.retry))
        if hasattr(self._instance.transport, "when_draining"):
            cast(Draining, self._instance.transport).when_draining(self._restart)
        if self.keep_alive is not None:
            self.nursery.start_soon(self._beat, self.keep_alive, name="keep-alive")

    async def _begin_anyhow(self) -> None:
        """Begin the stream unless a task that ``connect()`` has started did so, or is about to."""
        async with self._opening:
            if not self._open:
                await self._begin_response([])

    async def _write(self, block: bytes) -> None:
        if not self._open:
            await self._begin_anyhow()
        await self._put(block)

    async def _put(self, block: bytes) -> None:
        """Send a block whole, so that no other gets into it."""
        self._writing += 1
        try:
            await self.base_send({"type": "http.response.body", "body": block, "more_body": True})
        finally:
            self._writing -= 1
            self._quiet_since = anyio.current_time()

    async def _beat(self, seconds: float) -> None:
        """Send a comment after each ``seconds`` in which nothing else was sent."""
        while True:
            await anyio.sleep_until(self._quiet_since + seconds)
            if self._writing:  # the client takes nothing: one more comment would only wait as well
                await anyio.sleep(seconds)
            elif anyio.current_time() < self._quiet_since + seconds:
                continue
            elif self._here is None and self._forget_unjoined():
                await self._tell_position()  # nothing else may do so for long, and an id would never get shorter
            else:
                await self._put(encode_comment())

    def _end(self) -> None:
        self._instance.end(Ending("closed", 1000))

    def _restart(self) -> None:
        """The server drains: the client comes back to whoever listens then."""
        self._instance.end(Ending("closed", 1012, "the server restarts"))

    async def _complete(self, send: Send) -> None:
        """End the response if the client is there, as far as can be known. A failure is the server's to show."""
        ending = self._instance.ending
        if self._answered or ending is None or ending.cause == "disconnected":
            return
        with suppress(OSError), anyio.move_on_after(LAST_PART_TIMEOUT):
            if not self._open:
                # Stopped before it began; but an inbox that has overflowed may do better next time.
                overrun = ending.cause == "overrun"
                await send(_start(200, HEAD) if overrun else _start(204, NO_STORE))
            await send({**LAST_PART})

    # ---- positions

    async def _enter(self, group: str, since: Position | None) -> Recovery:
        new = not self._follows(group)
        if since is None and new and self.positions_as_ids:
            self._forget_unjoined()
            since = self._reached.of(group)
        if since == NOWHERE:  # the client has been here, nobody can say where: a history is not asked
            recovery = await super().join(group)
            recovery = replace(recovery, recovered=recovery.position is None)
        else:
            recovery = await super().join(group, since)
        if not recovery.recovered:
            self._gaps[group] = recovery.position
            if self.positions_as_ids and recovery.position is not None:
                self._reached.hold(group, since or NOWHERE)
        elif new and self.positions_as_ids:
            self._reached.enter(group, recovery.position if since is None or since == NOWHERE else since)
        if self._settled:
            await self._tell_gaps()
        return recovery

    def _follows(self, group: str) -> bool:
        layer = self._instance.layer
        return layer is not None and group in layer.groups_of(self.channel_name)

    async def _settle(self) -> None:
        """``connect()`` is done: begin, and tell the client of gaps, and where it is before the first event comes."""
        await self._begin_anyhow()
        self._require_peer()
        self._settled = True
        self._unjoined_until = anyio.current_time() + JOIN_AGAIN_WITHIN
        await self._tell_gaps()

    async def _tell_gaps(self) -> None:
        while self._gaps:
            group = next(iter(self._gaps))
            await self._tell_gap(group, self._gaps.pop(group))
        await self._tell_position()

    async def _tell_gap(self, group: str, position: Position | None) -> None:
        """Tell the client; only then does it go on from there, or one that is lost meanwhile would never know."""
        token = _HERE.set(None)
        try:
            await self._write(encode_event("", self.resync_event))
            await self.recovery_failed(group)
        finally:
            _HERE.reset(token)
        if self.positions_as_ids:
            if self._follows(group):  # recovery_failed() may have left it
                self._reached.enter(group, position)
            await self._tell_position()

    async def _tell_position(self) -> None:
        """Give the client an id, unless it has that already, or there are no positions: the ids are its own then."""
        self._forget_unjoined()
        name = self._reached.id()
        if name and name != self._told:
            await self._write(encode_id(name))
            self._told = name

    def _id_here(self) -> str | None:
        here = _HERE.get()
        if here is None or here is not self._here or not self.positions_as_ids or not self._reached.knows(here):
            return None
        self._forget_unjoined()
        return self._reached.id(here)

    def _forget_unjoined(self) -> bool:
        """Drop what the client says of groups that it has had its time to join again, lest the id grow for ever."""
        return anyio.current_time() >= self._unjoined_until and self._reached.forget_unjoined()

    def _require_peer(self) -> None:
        ending = self._instance.ending
        if ending is not None:
            raise ConnectionClosed(ending.code, ending.reason)


def _start(status: int, headers: Headers) -> Event:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _beside(ours: Headers, given: Headers) -> Headers:
    """Return headers: those given, and ours of other names."""
    names = {name for name, _ in given}
    return [*(pair for pair in ours if pair[0] not in names), *given]
