"""One application instance: a socket, its nursery, its inbox, and the order in which they end.

While it lives, the task that runs it takes from the inbox and runs the handlers: the *worker*. What the socket brings
is put into the inbox by our server's transport itself, elsewhere by a task that calls ``receive()``: the *pump*.
Background tasks live in ``nursery``. ``CAUSES`` says what ends it, with which code and how gently; whatever it was,
the end takes the steps of :class:`Step` in their order. ``docs/diagrams.py`` draws both.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from .events import (
    WATCH,
    Event,
    Feeding,
    Receive,
    Scope,
    Send,
    Shared,
    Shares,
    can_share,
    counts,
    feeding,
    printable,
    transport_of,
)
from .exceptions import ConnectionClosed, InvalidChannelLayerError, OutOfTurn, StopConsumer
from .inbox import OVERHEAD, Envelope, Inbox, InboxStatistics, Item, Mailbox, Place
from .layers.base import ChannelLayer
from .layers.history import Position, Recovery
from .nursery import Nursery, collapsed, sort_out
from .seam import being_cancelled

log = logging.getLogger("trichannels.instance")

# where handlers run side by side
_POSITION: ContextVar[Place | None] = ContextVar("trichannels_position", default=None)

BURST = 64  # events handled after which others get a turn, should no handler have waited for anything
TURNS = 3  # of the event loop, for a disconnect that a server has queued to reach us
END_OF_JOB = "channel.end"  # from a worker, behind its one message: to be heeded once that is handled
FOREIGN_PATIENCE = 1.0  # seconds for which a full client side pauses the reading on servers that are not ours
CLOSE_FRAME_TIMEOUT = 1.0  # seconds for the last frame; shorter, a loop that stands still would change its code

Cause = Literal["disconnected", "closed", "stopped", "failed", "overrun", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a cause means for the end. ``said_by``: whose code and reason it has, where they say any."""

    when: str
    code: int
    reason: str = ""
    said_by: str = ""
    heard_out: bool = False  # what the client had handed over before is still handled
    graced: bool = True  # running handlers get their grace


CAUSES: Mapping[Cause, Meaning] = {
    "disconnected": Meaning(when="the client leaves or vanishes", code=1005, said_by="the client", heard_out=True),
    "closed": Meaning(when="`await self.close(code)`", code=1000, said_by="you"),
    "failed": Meaning(when="a handler or a task in the nursery raises", code=1011),
    "stopped": Meaning(when="a handler raises `StopConsumer`", code=1000),
    "overrun": Meaning(
        when="the inbox overflows under the policy `disconnect`", code=1013, reason="too slow: try again later"
    ),
    "cancelled": Meaning(when="the server, or the owner of the task, cancels it", code=1001, graced=False),
}


class Step(Enum):
    """What an end does, in this order; a step that has nothing to do is left out."""

    QUIET = "No new events", "memberships and what waits from the layer are forgotten, at once and locally"
    GRACE = "Running handlers", "have `disconnect_grace` seconds, then they are cancelled"
    NURSERY = "The nursery", "is over: its tasks were cancelled, and have ended"
    GOODBYE = "`disconnect(code)`", "once, if `connect()` had begun: shielded, layer open, at most `disconnect_timeout`"
    CLOSE = "The socket", f"is closed if it still is open, with {CAUSES['failed'].code} after a failure"
    OVER = "Over", "nothing of it is left; a failure leaves as itself, with a note of where"

    def __init__(self, title: str, what: str) -> None:
        self.title, self.what = title, what


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an instance ends: the first cause counts."""

    cause: Cause
    code: int
    reason: str = ""


def because(cause: Cause, code: int | None = None, reason: str | None = None) -> Ending:
    """Return the end that a cause brings, with the code and the reason that were said, or else those of the table."""
    meaning = CAUSES[cause]
    return Ending(cause, code or meaning.code, reason or meaning.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatistics:
    """What an instance holds now, and what it has handled."""

    state: str
    channel: str
    groups: tuple[str, ...]
    tasks: int
    handlers: int
    handled: int
    discarded: int
    inbox: InboxStatistics


class Owner(Protocol):
    """What an instance asks of its consumer."""

    concurrency: int
    disconnect_grace: float
    disconnect_timeout: float
    inbox: Inbox

    async def dispatch(self, message: Event) -> None:
        """Handle one event."""

    def handling(self, message: Event) -> Awaitable[None]:
        """Return what handles one event: ``dispatch()``, or a shorter way to the same."""

    def handles(self, event_type: str) -> bool:
        """Say whether there is a handler for events of this type."""

    def shares(self) -> Shares | None:
        """Say of which event types all instances send the same, and what makes that of an event; None for none."""

    def order_key(self, message: Event) -> Hashable | None:
        """Name the sequence that an event belongs to when handlers run concurrently; None for no order."""


class Instance:
    """One socket's application instance; ``run`` is its whole life."""

    def __init__(
        self, owner: Owner, scope: Scope, receive: Receive, send: Send, *, layer: ChannelLayer | None = None
    ) -> None:
        self.owner, self.scope, self.layer = owner, scope, layer
        self._name = type(owner).__qualname__
        self._receive, self._send = receive, send
        self.protocol: str = scope["type"]
        self._goodbye_type = f"{self.protocol}.disconnect"
        self._last_types = (self._goodbye_type, END_OF_JOB) if self.protocol == "channel" else (self._goodbye_type,)
        self.transport = transport_of(scope)
        self.channel_name = ""
        self.nursery: Nursery | None = None
        self.mailbox = Mailbox(owner.inbox, overrun=self._overrun)
        self.ending: Ending | None = None
        self.step: Step | None = None  # that the end has reached
        self.error: BaseException | None = None
        self._feeding = feeding(self.transport, receive)
        self._shares = owner.shares()
        self._direct: Callable[[Shared], bool] | None = None
        self._handling = CancelScope()
        self._begun = False  # the first handler, connect(), has begun
        self._accepted = False
        self._closed = False  # the application has closed, or refused, the socket
        self._gone = False  # receive() has told of the disconnect
        self._handlers = self._handled = self._discarded = 0
        self._from_layer = 0  # handlers that have an event of the layer: no later one may overtake it
        self._sequences: dict[Hashable, anyio.Event] = {}
        self._position: Place | None = None  # of the event that is handled, one at a time

    def __repr__(self) -> str:
        step = "" if self.step is None else f", {self.step.name.lower()}"
        return f"<Instance {self.described} {self.state}{step}>"

    # ---- looking at it

    @property
    def described(self) -> str:
        """The consumer, the path and the channel, for reports."""
        where = printable(self.scope.get("path") or self.scope.get("channel") or "")
        channel = f" on channel {self.channel_name}" if self.channel_name else ""
        return f"{self._name} at {self.protocol} {where}{channel}"

    @property
    def state(self) -> str:
        """``"connecting"``, ``"open"``, or the cause of the end."""
        if self.ending is not None:
            return self.ending.cause
        return "open" if self._accepted or self.protocol != "websocket" else "connecting"

    @property
    def position(self) -> Position | None:
        """Where the event of the layer that is being handled stands in its group's history; None if it has none."""
        place = _POSITION.get() if self.owner.concurrency > 1 else self._position
        return None if place is None else Position(place.offset, place.epoch)

    def statistics(self) -> InstanceStatistics:
        """Return what the instance holds and has handled."""
        groups = self.layer.groups_of(self.channel_name) if self.layer is not None else ()
        return InstanceStatistics(
            state=self.state,
            channel=self.channel_name,
            groups=groups,
            tasks=self.nursery.tasks if self.nursery is not None else 0,
            handlers=self._handlers,
            handled=self._handled + self.mailbox.passed,
            discarded=self._discarded,
            inbox=self.mailbox.statistics(),
        )

    # ---- what the consumer calls

    async def send(self, event: Event) -> None:
        """Send an ASGI event to the server. Each call sees a cancellation; others run at least every now and then.

        Raises :class:`ConnectionClosed` once the instance is ending or the peer has left.
        """
        if self.ending is not None:
            await checkpoint()
            raise ConnectionClosed(self.ending.code, self.ending.reason)
        try:
            await self._send(event)
        except Exception as error:
            await self._hear_the_server_out()
            if self.ending is not None:
                # The end overtook it while it was on its way: no mistake, whatever the server calls it.
                raise ConnectionClosed(self.ending.code, self.ending.reason) from error
            foreign = isinstance(error, OSError) and not isinstance(error, ConnectionClosed)
            if foreign:  # ASGI spec 2.4: the peer is gone
                raise ConnectionClosed from error
            raise
        if event["type"] != "websocket.send":
            self._note(event)
        if self.transport is None:
            await checkpoint()  # some servers return at once when the peer has left: a loop would freeze us all

    async def _hear_the_server_out(self) -> None:
        """Let the pump take its turn: a server that closes by itself may refuse to send before it has told us why."""
        for _ in range(TURNS if self.transport is None else 0):
            if self.ending is None:
                await checkpoint()

    def _note(self, event: Event) -> None:
        """The server has taken this event: what does it mean for us?"""
        if event["type"] == "websocket.accept":
            self._accepted = True
            if self._shares is not None and can_share(self.transport, self._send):
                self._direct = self.transport.share(self._shares)
                self._write_through()
        elif event["type"] in ("websocket.close", "websocket.http.response.body"):
            self._closed = True
            if not event.get("more_body"):
                self.end(because("closed", event.get("code"), event.get("reason")))

    def _write_through(self) -> None:
        """Let events that are frames already go straight to the socket, unless they would overtake another."""
        self.mailbox.direct = None if self._from_layer or self.ending is not None else self._direct

    async def join(self, group: str, since: Position | None = None) -> Recovery:
        """Enter a group; in force when this returns, left by itself when the socket ends."""
        recovery = await self.need_layer().join(group, self.channel_name, since)
        if self.ending is not None:
            raise ConnectionClosed(self.ending.code, self.ending.reason)
        return recovery

    async def leave(self, group: str) -> None:
        """Leave a group."""
        await self.need_layer().group_discard(group, self.channel_name)

    async def track(self, group: str, key: str, meta: Any = None) -> None:
        """Be present in a group as ``key``; in force when this returns, over when the socket ends."""
        if self.ending is None:
            await self.need_layer().enter_presence(group, self.channel_name, key, meta)
        else:
            await checkpoint()
        if self.ending is not None:
            raise ConnectionClosed(self.ending.code, self.ending.reason)

    async def untrack(self, group: str, key: str) -> None:
        """Be no longer present as ``key``."""
        self.need_layer().leave_presence(group, self.channel_name, key)
        await checkpoint()

    def need_layer(self) -> ChannelLayer:
        """Return the layer, or raise :class:`InvalidChannelLayerError`."""
        if self.layer is None:
            raise InvalidChannelLayerError(
                f"{self._name} has no channel layer: give one to "
                "ProtocolTypeRouter(..., layers={'default': InMemoryChannelLayer()})"
            )
        return self.layer

    async def close_from_outside(self, code: int, reason: str) -> None:
        """Close the socket now, whatever its handlers are at; they get their grace, and cannot send any more."""
        try:
            if self.ending is None and self.protocol == "websocket":
                with suppress(ConnectionClosed, OutOfTurn), anyio.move_on_after(CLOSE_FRAME_TIMEOUT):
                    await self.send({"type": "websocket.close", "code": code, "reason": reason})
        finally:
            self.end(Ending("closed", code, reason))

    def end(self, ending: Ending) -> None:
        """Begin the end, at once and without waiting; the first cause counts."""
        if self.ending is not None:
            return
        self.ending, self.step = ending, Step.QUIET
        meaning = CAUSES[ending.cause]
        self.mailbox.direct = self._direct = None
        self._detach()
        if meaning.heard_out:
            self.mailbox.close_layer_side()
        else:
            self._discarded += self.mailbox.close()
        if meaning.graced:
            self._handling.deadline = anyio.current_time() + self.owner.disconnect_grace
            self.step = Step.GRACE

    def _overrun(self) -> None:
        self.end(because("overrun"))

    def _peer_gone(self, code: int | None, reason: str | None) -> None:
        ending = because("disconnected", code, reason)
        if self.ending is not None and self.ending.cause == "disconnected":
            self.ending = ending  # a failed send told first, without the peer's own code
        self.end(ending)

    def _fed_up(self, code: int, reason: str) -> None:
        """The peer has left, and the transport has handed over all that it has left us."""
        self._gone = True
        self._peer_gone(code, reason)
        self.mailbox.finish()

    def _detach(self) -> None:
        if self.layer is not None and self.channel_name:
            self.layer.detach(self.channel_name)

    # ---- its life

    async def run(self) -> None:
        """Live, end in order, and raise what failed, unwrapped."""
        layer, watch = self.layer, self.scope.get(WATCH)
        if layer is not None:
            layer.require_open()
        if watch is not None:
            watch.close = self.close_from_outside
        with nullcontext() if layer is None else layer.in_use():
            try:
                if layer is not None:
                    self.channel_name = layer.attach(self.mailbox)
                    self.mailbox.messages = self.owner.inbox.messages or layer.get_capacity(self.channel_name)
                try:
                    # Whoever wakes this task wakes each coroutine between here and its sleep: so they are few.
                    if self._feeding is not None:
                        self._open(self._feeding)
                        await self._work()
                    else:
                        await self._live_elsewhere()
                except anyio.get_cancelled_exc_class():
                    self.end(because("cancelled"))
                    raise
                finally:
                    await self._farewell()
            except anyio.get_cancelled_exc_class():
                if self.error is not None:  # the cancellation must go on: nobody else will tell
                    log.error("%s failed", self.described, exc_info=self.error)
                raise
            finally:
                self._detach()
                self._let_go()
                self.step = Step.OVER
        if self.error is not None:
            error, self.error = self.error, None  # its traceback leads to us
            error.add_note(f"in {self.described}")
            try:
                raise error
            finally:
                del error

    def _let_go(self) -> None:
        """Leave no circle of references: the consumer keeps us, to tell how the socket has ended; we let go of it."""
        self.mailbox.let_go()
        if (watch := self.scope.get(WATCH)) is not None:
            watch.close = None
        if self.nursery is not None:
            self.nursery.let_go()
        del self.owner

    def _open(self, feeding: Feeding) -> None:
        """Begin to live on our own server, which needs no task beside this one."""
        self.nursery = Nursery(feeding.spawn, self._weigh, self._stop)
        self.mailbox.resume = feeding.resume
        feeding.feed(self.mailbox.take)
        feeding.when_gone(self._fed_up)

    async def _live_elsewhere(self) -> None:
        """Read and work until ended; returns when handlers and background tasks are over."""
        async with collapsed(), anyio.create_task_group() as staff:
            self.nursery = Nursery(staff.start_soon, self._weigh, self._stop)
            if self.transport is not None:
                self.transport.when_gone(self._peer_gone)
            if counts(self.transport):
                self.transport.count_in(self.mailbox.client_waiting)
            reading = CancelScope()
            staff.start_soon(self._pump, reading, name=f"pump of {self._name}")
            await self._work()
            reading.cancel()

    def _stop(self) -> None:
        """The nursery was cancelled, by whoever has it."""
        self.end(because("stopped"))
        self.mailbox.finish()

    async def _pump(self, reading: CancelScope) -> None:
        """Move what the socket brings into the inbox, until the disconnect."""
        with reading, self._judged():
            while True:
                if self.transport is not None:
                    await self.mailbox.client_room()
                event = await self._receive()
                kind = event["type"]
                if kind in ("websocket.disconnect", "http.disconnect"):
                    break
                if kind == END_OF_JOB:
                    self._gone = True
                    self.mailbox.put(event, OVERHEAD)
                    return
                if self.transport is None:
                    await self._brief_room()
                self.mailbox.put(event, _size(event))
                if self.transport is None:
                    await checkpoint()  # some servers return at once while they have more: let the worker take its turn
            self._gone = True
            self._peer_gone(event.get("code"), event.get("reason"))
        self.mailbox.finish()

    async def _brief_room(self) -> None:
        """On servers that are not ours: wait for room, but not for long. Not to receive would wedge some of them."""
        with anyio.move_on_after(FOREIGN_PATIENCE):
            await self.mailbox.client_room()
        if self.mailbox.client_full:
            self._overrun()

    async def _work(self) -> None:
        """Run handlers until the inbox is closed and empty, or the grace is over; then end the nursery."""
        assert self.nursery is not None
        try:
            with self._handling:
                await (self._side_by_side() if self.owner.concurrency > 1 else self._one_by_one())
            self._discarded += self.mailbox.close()
        except anyio.get_cancelled_exc_class():
            self.end(because("cancelled"))  # first of all, as any end begins
            raise
        finally:
            self.nursery.end()
            await self.nursery.over()

    async def _one_by_one(self) -> None:
        """Run each handler when the one before it is done. All in one coroutine: every message passes through here."""
        mailbox = self.mailbox
        while (item := mailbox.get_nowait()) is not None or not mailbox.over:
            if item is None:
                await mailbox.wait()
                if self._feeding is not None:
                    self._feeding.begin_turn()
                continue
            from_layer = item.type != "client"
            if from_layer:
                self._hold_back(1)
                self._position = item.position
            self._handlers += 1
            try:
                shared = self._shared(item) if from_layer and self._shares is not None else None
                await (self._handling_of(item.open()) if shared is None else self.send(shared))
            except BaseException as raised:  # noqa: BLE001 - nothing is lost: each part of it is judged
                self._sift(raised)
            finally:
                self._handlers -= 1
                self._handled += 1
                if from_layer:
                    self._hold_back(-1)
                    self._position = None
            if not self._handled % BURST:
                await checkpoint()

    async def _side_by_side(self) -> None:
        """Run up to ``concurrency`` handlers at once; the first one, ``connect``, alone."""
        slots = anyio.Semaphore(self.owner.concurrency)
        async with collapsed(), anyio.create_task_group() as crew:
            await slots.acquire()
            while (item := await self.mailbox.get()) is not None:
                if not self._begun:
                    with self._judged():
                        await self._handle(item.open())
                    continue
                if item.type != "client":
                    self._hold_back(1)  # now: before the task begins, another event might come
                crew.start_soon(self._handle_beside, item, slots)
                await slots.acquire()  # before the next is taken: what waits is the inbox's to bound and to count

    async def _handle_beside(self, item: Item, slots: anyio.Semaphore) -> None:
        """Run one of several handlers; those with one ``order_key`` follow each other."""
        try:
            with self._judged():
                _POSITION.set(item.position)
                event = item.open()
                key = self.owner.order_key(event)
                if key is None:
                    await self._handle(event)
                else:
                    await self._handle_in_turn(key, event)
        finally:
            if item.type != "client":
                self._hold_back(-1)
            slots.release()

    async def _handle_in_turn(self, key: Hashable, event: Event) -> None:
        before, done = self._sequences.get(key), anyio.Event()
        self._sequences[key] = done
        try:
            if before is not None:
                await before.wait()
            await self._handle(event)
        finally:
            done.set()
            if self._sequences.get(key) is done:
                del self._sequences[key]

    def _hold_back(self, change: int) -> None:
        """Count the handlers that have an event of the layer; while there is one, no other event may overtake it."""
        self._from_layer += change
        if self._direct is not None:
            self._write_through()

    def _shared(self, item: Item) -> Event | None:
        """Return what all members send for this event, if it could not be written at once; None if each has its own."""
        serializer = self._shares(item.type) if self._shares is not None else None
        return None if serializer is None or not isinstance(item, Envelope) else {**item.sent_as(serializer)}

    def _handling_of(self, event: Event) -> Awaitable[None]:
        if event.get("type") in self._last_types:
            raise StopConsumer  # somebody sent it: disconnect() runs once, when the socket has really ended
        self._begun = True
        return self.owner.handling(event)

    async def _handle(self, event: Event) -> None:
        self._handlers += 1
        try:
            await self._handling_of(event)
        finally:
            self._handlers -= 1
            self._handled += 1

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Turn what a handler or a background task raised into the end it means. Cancellation passes."""
        try:
            yield
        except BaseException as raised:  # noqa: BLE001 - nothing is lost: each part of it is judged
            self._sift(raised)

    def _sift(self, raised: BaseException) -> None:
        """Judge each failure in ``raised``, and raise the cancellation that is left, if there is one."""
        cancelled = self._weigh(raised)
        if cancelled is not None:
            try:
                raise cancelled from None
            finally:
                del cancelled, raised  # no cycle through this frame

    def _weigh(self, raised: BaseException) -> BaseException | None:
        """Judge each failure in ``raised``; return the cancellation that is left, if there is one."""
        failures, cancelled = sort_out(raised)
        for error in failures:
            self._judge(error)
        if cancelled is None or being_cancelled():
            return cancelled
        stray = RuntimeError("a cancellation came out of something that was awaited, but nobody has cancelled us")
        stray.__cause__ = cancelled
        self._judge(stray)
        return None

    def _judge(self, error: BaseException) -> None:
        if isinstance(error, StopConsumer):
            self.end(because("stopped"))
        elif isinstance(error, ConnectionClosed) and not (self.protocol == "channel" and self._is_open):
            if self._is_open:  # else the end has a cause that will be told
                self.end(Ending("disconnected", error.code, error.reason))
        elif self.error is None:
            self.end(because("failed"))
            self.error = error
            self._discarded += self.mailbox.close()  # also where it fails while ending: nothing more is handled
        elif error is not self.error:
            log.error("%s failed once more while it was ending", self.described, exc_info=error)

    @property
    def _is_open(self) -> bool:
        """Whether the nursery takes tasks. A job has no peer: what is closed then was somebody else's."""
        return self.nursery is None or self.nursery.state == "open"

    # ---- its end

    async def _farewell(self) -> None:
        """Say goodbye in a child task: a shield in place does not stop asyncio's own ``task.cancel()``."""
        self.end(because("stopped"))
        self._detach()
        self._discarded += self.mailbox.close()
        self.step = Step.NURSERY
        if self.nursery is not None:
            self.nursery.state, self.nursery.tasks = "over", 0  # asyncio's own cancel() stops some before they begin
        if self._feeding is not None:  # our server is on trio, where a shield holds; and its transport drains by itself
            await self._goodbye()
            return
        async with collapsed(), anyio.create_task_group() as group:
            if not self._gone:
                group.start_soon(self._drain)
            group.start_soon(self._goodbye, group.cancel_scope)

    async def _drain(self) -> None:
        """Discard what still comes, so that no server waits for us to take it."""
        with self._judged():  # what a server raises here must not take the place of the error that ended us
            while not self._gone:
                event = await self._receive()
                self._gone = event["type"].endswith(".disconnect") or event["type"] == END_OF_JOB

    async def _goodbye(self, rest: CancelScope | None = None) -> None:
        if self._begun and self.owner.handles(self._goodbye_type):
            self.step = Step.GOODBYE
            with CancelScope(shield=True) as wall:
                wall.deadline = anyio.current_time() + self.owner.disconnect_timeout
                if self.transport is not None:
                    self.transport.bound(wall)
                await self._disconnect()
            if wall.cancelled_caught:
                log.error(
                    "disconnect() of %s did not end in %g s and was cancelled: do less in it, or raise "
                    "disconnect_timeout",
                    self.described,
                    self.owner.disconnect_timeout,
                )
        if self._to_be_closed:
            self.step = Step.CLOSE
            with CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_FRAME_TIMEOUT):
                await self._close()
        if rest is not None:
            rest.cancel()

    async def _disconnect(self) -> None:
        assert self.ending is not None
        with self._judged():
            await self.owner.dispatch(
                {"type": self._goodbye_type, "code": self.ending.code, "reason": self.ending.reason}
            )

    @property
    def _to_be_closed(self) -> bool:
        """Whether the socket still is open. A failure before the handshake is the server's to answer (500)."""
        if self.protocol != "websocket" or self._closed or self._gone or self.state == "disconnected":
            return False
        return self.error is None or self._accepted

    async def _close(self) -> None:
        assert self.ending is not None
        code = CAUSES["failed"].code if self.error is not None else self.ending.code
        with self._judged():
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": self.ending.reason})
            except OSError as error:
                raise ConnectionClosed from error


def _size(event: Event) -> int:
    """Return about how many bytes of memory an event of the socket takes."""
    data: str | bytes | None = event.get("text") or event.get("bytes") or event.get("body")
    if not data:
        return OVERHEAD
    return OVERHEAD + (len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data))
