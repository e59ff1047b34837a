"""The lifespan of a router: something to hold open between startup and shutdown, and an inner lifespan within.

Source: ASGI lifespan 2.0, https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

import logging
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio

from .events import ASGIApp, Event, Receive, Scope, Send
from .nursery import collapsed
from .protocol import Conversation

logger = logging.getLogger("trichannels.lifespan")


async def run_lifespan(
    scope: Scope,
    receive: Receive,
    send: Send,
    resources: Callable[[], AbstractAsyncContextManager[object]],
    inner: ASGIApp | None = None,
    beside: Callable[[], AbstractAsyncContextManager[object]] | None = None,
) -> None:
    """Answer a lifespan scope: ``resources()`` is open from before the inner startup until after the inner shutdown.

    ``beside()`` is open from after the inner startup until before the inner shutdown, in a task of its own.

    An error of either becomes ``lifespan.startup.failed`` or ``lifespan.shutdown.failed`` with its text: it is told
    once, and not raised as well. An inner application that returns early (it has no lifespan to speak of) is stood in
    for. Cancellation closes the resources and passes through.
    """
    exchange = _Exchange(await receive(), receive, send)
    try:
        async with resources():
            if beside is None:
                await exchange.live(inner, scope)
            else:
                await _accompanied(exchange, inner, scope, beside)
    except Exception as error:  # noqa: BLE001 - told to the server, which logs it
        exchange.fail(_describe(error))
    await send(exchange.outcome)


async def _accompanied(
    exchange: "_Exchange",
    inner: ASGIApp | None,
    scope: Scope,
    beside: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    companion = exchange.companion = _Companion()
    async with collapsed(), anyio.create_task_group() as group:
        group.start_soon(companion.run, beside)
        await exchange.live(inner, scope)
        await companion.end()
        group.cancel_scope.cancel()


class _Companion:
    """A block in a task of its own: whoever begins and ends it may be in any task of an inner application."""

    def __init__(self) -> None:
        self.begin, self._ended, self._over = anyio.Event(), anyio.Event(), anyio.Event()

    async def run(self, block: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        try:
            await self.begin.wait()
            async with block():
                await self._ended.wait()
        finally:
            self._over.set()

    async def end(self) -> None:
        """Wait until the block has ended, if it had begun."""
        self._ended.set()
        if self.begin.is_set():
            await self._over.wait()


class _Exchange:
    """One lifespan: the start is passed on as it happens, the last word is held back until all is closed."""

    def __init__(self, startup: Event, receive: Receive, send: Send) -> None:
        self._startup: Event | None = startup
        self._receive, self._send = receive, send
        self._inner = Conversation("lifespan")
        self._started = self._asked = False
        self.companion: _Companion | None = None
        self.outcome: Event = {"type": "lifespan.shutdown.complete"}

    @property
    def _failed(self) -> bool:
        kind: str = self.outcome["type"]
        return kind.endswith(".failed")

    def fail(self, message: str) -> None:
        """Make failure the outcome; a second failure is added to the first."""
        if self._failed:
            message = f"{self.outcome.get('message', '')}\n{message}"
        phase = "shutdown" if self._started else "startup"
        self.outcome = {"type": f"lifespan.{phase}.failed", "message": message}

    async def live(self, inner: ASGIApp | None, scope: Scope) -> None:
        """Run from startup to shutdown; returns early if the startup failed."""
        if inner is not None:
            await self._run(inner, scope)
        if not self._started and not self._failed:
            await self._start()
        while self._started and not self._asked:
            await self.receive()

    async def _start(self) -> None:
        self._startup, self._started = None, True
        await self._send({"type": "lifespan.startup.complete"})
        if self.companion is not None:
            self.companion.begin.set()

    async def _run(self, inner: ASGIApp, scope: Scope) -> None:
        try:
            await inner(scope, self.receive, self.send)
        except Exception as error:
            if self._failed:
                return  # this error has been told: Starlette raises it again after its "failed" event
            if self._started and not self._asked:
                # The sockets go on, and so must their layers; the server can be told only at the end.
                logger.exception("the lifespan application failed while the server runs")
            self.fail("".join(traceback.format_exception(error)))

    async def receive(self) -> Event:
        """Receive, for the inner application."""
        if self._startup is not None:
            event, self._startup = self._startup, None
            return event
        event = await self._receive()
        self._asked = self._asked or event["type"] == "lifespan.shutdown"
        if self._asked and self.companion is not None:
            await self.companion.end()
        return event

    async def send(self, event: Event) -> None:
        """Send, for the inner application; raises ``OutOfTurn`` for an event that may not come now."""
        self._inner.sent(event)
        if event["type"] == "lifespan.startup.complete":
            await self._start()
        else:
            self.outcome = event


def _describe(error: Exception) -> str:
    return "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
