"""The application's lifespan, as a block: started before the first connection, shut down after the last one.

Not hypercorn's: that one breaks on an application that returns at once from a lifespan scope, and is cancelled together
with the server, before ``lifespan.shutdown`` could run.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..events import ASGIApp, Event, Scope
from ..exceptions import OutOfTurn, StartupFailed
from ..protocol import Conversation
from .contain import divide

LOG = logging.getLogger("trichannels.server")


class _Lifespan:
    """One application's lifespan: what it was told, and what it said."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self.app, self.state = app, state
        self.scope = trio.CancelScope(shield=True)
        self.conversation = Conversation("lifespan")
        self.started, self.ended, self.stopping = trio.Event(), trio.Event(), trio.Event()
        self.asked = self.supported = False
        self.failure: str | None = None

    async def run(self) -> None:
        """Run the application; it outlives a cancellation of the server until its shutdown has been tried."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            with self.scope:
                await self.app(scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - even sys.exit() in there is reported, not obeyed
            passing, failed = divide(error)
            if failed is not None:
                self._report(failed)
            if passing is not None:
                raise passing from None
        finally:
            self.ended.set()
            self.started.set()

    def _report(self, error: BaseException) -> None:
        if self.failure is not None:
            return  # it has said so itself, and then raised as well
        if self.supported:
            LOG.error("lifespan: failed", exc_info=error)
        elif not isinstance(error, Exception):
            self.failure = f"{type(error).__name__}: {error}"
        else:
            # ASGI lifespan 2.0: an exception here says that the application has no lifespan; serve without.
            LOG.warning("the application takes no lifespan events (%s: %s)", type(error).__name__, error)

    async def receive(self) -> Event:
        if not self.asked:
            self.asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self.stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        if not event["type"].startswith("lifespan."):
            raise OutOfTurn(f"{event['type']} is no lifespan event")
        self.conversation.sent(event)
        if event["type"].endswith(".failed"):
            self.failure = str(event.get("message", ""))
            LOG.error("%s: %s", event["type"], self.failure)
        self.supported = True
        (self.started if event["type"].startswith("lifespan.startup") else self.ended).set()

    async def start_up(self, timeout: float) -> None:
        with trio.move_on_after(timeout) as patience:
            await self.started.wait()
        if patience.cancelled_caught:
            raise StartupFailed(f"lifespan.startup took more than {timeout:g} s: fix it, or raise startup_timeout")
        if self.failure is not None:
            lines = self.failure.strip().splitlines() or ["it gave no message"]
            raise StartupFailed(f"the application refused to start: {lines[-1]}")

    async def shut_down(self, timeout: float) -> None:
        if not self.supported or self.failure is not None:
            return
        self.stopping.set()
        with trio.move_on_after(timeout) as patience:
            await self.ended.wait()
        if patience.cancelled_caught:
            LOG.error("lifespan.shutdown took more than %g s and was cancelled", timeout)


@asynccontextmanager
async def open_lifespan(
    app: ASGIApp, state: dict[str, Any], startup_timeout: float, shutdown_timeout: Callable[[], float]
) -> AsyncIterator[None]:
    """Start the application up; leaving the block, for whatever reason, shuts it down within ``shutdown_timeout()``.

    Raises ``StartupFailed`` (wrapped in a group by the nursery). Cancellation of the block does not cancel the
    shutdown, which is shielded and bounded.
    """
    lifespan = _Lifespan(app, state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lifespan.run)
        try:
            await lifespan.start_up(startup_timeout)
            yield
        finally:
            with trio.CancelScope(shield=True):
                await lifespan.shut_down(shutdown_timeout())
            lifespan.scope.cancel()
