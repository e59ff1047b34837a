"""``ApplicationCommunicator``: run any ASGI application, give it events, and look at what it sends."""

import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from ..events import ASGIApp, Event, Scope
from ..exceptions import OutOfTurn
from ..seam import HostTask, spawn_host
from .errors import ApplicationEnded, TimedOut
from .exchange import Exchange

APPLICATION_FAILED = 1011


class ApplicationCommunicator:
    """One run of an ASGI application, seen from a test. Works on trio and asyncio, on real and on virtual clocks.

    Two ways to use it::

        async with ApplicationCommunicator(app, scope) as application:      # ends with the block
            await application.send_input({"type": "lifespan.startup"})
            assert (await application.receive_output())["type"] == "lifespan.startup.complete"

        application = ApplicationCommunicator(app, scope)                   # Channels' calls
        await application.send_input(...)
        await application.wait()                                            # or stop()

    In the second, the application starts with the first call, in a task that no block owns; a test that forgets to end
    it gets a ``ResourceWarning``. Change ``scope`` as you like before that first call.

    What an application sends comes in the order in which it happened, then its error: the very object that it raised,
    at once, from the next call that finds nothing else to give. ``send_input`` and ``wait`` raise it first of all. If
    no call has raised it, the end of the block does. Sends that break the ASGI specification raise inside the
    application. All timeouts are in seconds; one that passes leaves the application running.
    Every ``async`` method may be cancelled: no event is lost by it.
    """

    timeout: float = 1
    """How long the end of a block waits for the application, in seconds."""

    def __init__(self, application: ASGIApp, scope: Scope) -> None:
        self.application = application
        self.scope = scope
        self._exchange: Exchange | None = None
        self._host: HostTask | None = None
        self._block: AbstractAsyncContextManager[Self] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scope.get('path', '')!r} {self._exchange or 'not started'}>"

    def __del__(self) -> None:
        if getattr(self, "_host", None) is None or self._exchange is None or self._exchange.done:
            return
        message = f"{self!r} was never ended: use 'async with', or call wait(), disconnect() or stop()"
        with suppress(RuntimeError):  # its event loop may be gone
            self._exchange.cancel()
        warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    async def __aenter__(self) -> Self:
        if self._block is not None or self._exchange is not None:
            raise OutOfTurn(f"{self!r} runs already: enter the block first, or make another communicator")
        self._block = self._opened()
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, trace)

    async def send_input(self, message: Event) -> None:
        """Give the application one event. Raises the application's error if it has failed."""
        exchange = self._running()
        await checkpoint()
        exchange.raise_error()
        exchange.push(message)

    async def receive_output(self, timeout: float = 1) -> Event:
        """Return the next event of the application.

        Raises its error if it has failed, :class:`ApplicationEnded` if it has returned, both at once, and
        :class:`TimedOut` (a ``TimeoutError``) after ``timeout`` seconds. A ``websocket.close`` with code 1011 is what a
        client sees of a failure: the error that follows it is raised in its place, and the event comes after it.
        """
        exchange = self._running()
        await checkpoint()
        with deadline(timeout, "the application sent nothing"):
            await exchange.until(lambda: exchange.outputs or exchange.done)
        if not exchange.outputs:
            exchange.raise_error()
            raise ApplicationEnded("the application has returned: it will send nothing more")
        if not exchange.reported and _tells_failure(exchange.outputs[0]):
            with anyio.move_on_after(timeout):
                await exchange.until(lambda: exchange.done)
            exchange.raise_error()
        return exchange.outputs.popleft()

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Say whether the application stays silent for ``timeout`` seconds; what it sends meanwhile is kept.

        ``interval`` is there for Channels' sake: nothing is polled. Raises the application's error if it fails.
        """
        exchange = self._running()
        await checkpoint()
        with anyio.move_on_after(timeout):
            await exchange.until(lambda: exchange.outputs or exchange.done)
        if not exchange.outputs:
            exchange.raise_error()
        return not exchange.outputs

    async def wait(self, timeout: float = 1) -> None:
        """Wait for the application to end, and raise its error if it failed; :class:`TimedOut` leaves it running."""
        exchange = self._running()
        await checkpoint()
        with deadline(timeout, "the application did not end"):
            await exchange.until(lambda: exchange.done)
            if self._host is not None:
                await self._host.wait()
        exchange.raise_error()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application if it runs; if it has failed and ``exceptions``, raise its error. Does not wait."""
        if self._exchange is None:
            return
        if not self._exchange.done:
            self._exchange.cancel()
        elif exceptions:
            self._exchange.raise_error()

    def _running(self) -> Exchange:
        if self._exchange is None:
            self._exchange = Exchange(self.scope)
            # Like a server's, the application's context variables are not the caller's. No reference to self goes
            # along: __del__ tells a test that it forgot the application.
            work = partial(self._exchange.run, self.application, self.scope)
            self._host = Context().run(spawn_host, work, f"application under test {self.scope.get('path', '')}")
        return self._exchange

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Self]:
        failure: BaseException | None = None
        # The error is carried around the task group, not through it, so no ExceptionGroup is made of it.
        async with anyio.create_task_group() as nursery:
            self._exchange = exchange = Exchange(self.scope)
            Context().run(nursery.start_soon, exchange.run, self.application, self.scope)
            try:
                await self._begin()
                yield self
            except BaseException as error:  # noqa: BLE001 - raised again below
                failure = error
            try:
                await self._finish()
            except Exception as error:  # noqa: BLE001 - raised again below
                failure = failure or error
            nursery.cancel_scope.cancel()
        self._report(exchange, failure)

    def _report(self, exchange: Exchange, failure: BaseException | None) -> None:
        unseen = None if exchange.reported else exchange.error
        if failure is None and unseen is not None:
            exchange.raise_error()
        if failure is not None:
            if unseen is not None and unseen is not failure:
                failure.add_note("The application failed, too:\n" + "".join(traceback.format_exception(unseen)))
            raise failure

    async def _begin(self) -> None:
        """What the block does before its body."""

    async def _finish(self) -> None:
        """What the block does after its body, before what still runs is cancelled."""


def _tells_failure(event: Event) -> bool:
    return event["type"] == "websocket.close" and event.get("code") == APPLICATION_FAILED


@contextmanager
def deadline(seconds: float, problem: str) -> Iterator[None]:
    """Raise :class:`TimedOut`, with ``problem`` in words, if the block takes longer than ``seconds``."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise TimedOut(f"{problem} within {seconds} s; it is still running") from None
