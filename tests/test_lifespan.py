"""A router's lifespan: its layers around an inner lifespan, and every way in which one of them can fail."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio
import pytest

from tests.asgi import run
from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.lifespan import run_lifespan

BOTH: list[Event] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
STARTED: Event = {"type": "lifespan.startup.complete"}
STOPPED: Event = {"type": "lifespan.shutdown.complete"}


class Log(list[str]):
    """What happened, in order: resources that open and close, events that are sent."""

    def resources(
        self, *, opening: Exception | None = None, closing: Exception | None = None
    ) -> Callable[[], AbstractAsyncContextManager[None]]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[None]:
            if opening:
                raise opening
            self.append("open")
            try:
                yield
            finally:
                self.append("close")
            if closing:
                raise closing

        return opened

    def app(self, resources: Callable[[], AbstractAsyncContextManager[None]], inner: ASGIApp | None = None) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def logged(event: Event) -> None:
                self.append(event["type"].removeprefix("lifespan."))
                await send(event)

            await run_lifespan(scope, receive, logged, resources, inner)

        return app


async def live(app: ASGIApp) -> list[Event]:
    return await run(app, {"type": "lifespan", "state": {}}, BOTH)


def failure(phase: str, message: str) -> Event:
    return {"type": f"lifespan.{phase}.failed", "message": message}


async def test_resources_are_open_between_startup_and_shutdown() -> None:
    log = Log()
    assert await live(log.app(log.resources())) == [STARTED, STOPPED]
    assert log == ["open", "startup.complete", "close", "shutdown.complete"]


async def test_what_does_not_open_fails_the_startup_with_its_notes() -> None:
    error = ConnectionRefusedError("no Redis there")
    error.add_note("while opening the channel layer 'default'")
    log = Log()
    told = "ConnectionRefusedError: no Redis there; while opening the channel layer 'default'"
    assert await live(log.app(log.resources(opening=error))) == [failure("startup", told)]


async def test_what_does_not_close_fails_the_shutdown() -> None:
    log = Log()
    sent = await live(log.app(log.resources(closing=OSError("stuck"))))
    assert sent == [STARTED, failure("shutdown", "OSError: stuck")]


async def test_an_inner_lifespan_runs_within() -> None:
    log = Log()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["db"] = "open"
        log.append("inner up")
        await send(STARTED)
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append("inner down")
        await send(STOPPED)

    assert await live(log.app(log.resources(), inner)) == [STARTED, STOPPED]
    assert log == ["open", "inner up", "startup.complete", "inner down", "close", "shutdown.complete"]


@pytest.mark.parametrize("raises", [False, True])
async def test_an_inner_startup_that_failed_is_passed_on_after_closing(raises: bool) -> None:
    log = Log()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(failure("startup", "no database"))
        if raises:  # as Starlette does, having told already
            raise RuntimeError("no database")

    assert await live(log.app(log.resources(), inner)) == [failure("startup", "no database")]
    assert log == ["open", "close", "startup.failed"]


async def test_an_inner_shutdown_that_failed_is_passed_on() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        await send(failure("shutdown", "dirty"))

    log = Log()
    told = failure("shutdown", "dirty\nOSError: stuck")
    assert await live(log.app(log.resources(closing=OSError("stuck")), inner)) == [STARTED, told]


async def test_an_inner_error_before_the_start_is_told_with_its_traceback() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no settings")

    log = Log()
    (sent,) = await live(log.app(log.resources(), inner))
    assert sent["type"] == "lifespan.startup.failed"
    assert sent["message"].startswith("Traceback")
    assert "LookupError: no settings" in sent["message"]
    assert log == ["open", "close", "startup.failed"]


async def test_an_inner_error_at_shutdown_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        raise LookupError("lost")

    log = Log()
    _, sent = await live(log.app(log.resources(), inner))
    assert sent["type"] == "lifespan.shutdown.failed"
    assert "LookupError: lost" in sent["message"]
    assert not caplog.records


async def test_an_inner_error_while_serving_is_logged_and_the_resources_stay(caplog: pytest.LogCaptureFixture) -> None:
    shutdown = anyio.Event()
    log, sent = Log(), []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        raise LookupError("lost")

    events = iter(BOTH)

    async def receive() -> Event:
        event = next(events)
        if event["type"] == "lifespan.shutdown":
            await shutdown.wait()
        return event

    async def send(event: Event) -> None:
        sent.append(event["type"])

    async def serve() -> None:
        await log.app(log.resources(), inner)({"type": "lifespan"}, receive, send)

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        assert log == ["open", "startup.complete"]
        assert [record.getMessage() for record in caplog.records] == [
            "the lifespan application failed while the server runs"
        ]
        shutdown.set()
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_an_inner_application_that_returns_early_is_stood_in_for(steps: int) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if steps:
            await receive()
        if steps > 1:
            await send(STARTED)

    log = Log()
    assert await live(log.app(log.resources(), inner)) == [STARTED, STOPPED]
    assert log == ["open", "startup.complete", "close", "shutdown.complete"]


async def test_an_inner_event_out_of_turn_fails_it() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await send(STOPPED)

    (sent,) = await live(Log().app(nullcontext, inner))
    assert sent["type"] == "lifespan.startup.failed"
    assert "lifespan.shutdown.complete is not allowed while starting" in sent["message"]


async def test_cancelled_it_closes_the_resources_and_says_nothing() -> None:
    log = Log()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(run, log.app(log.resources()), {"type": "lifespan"}, BOTH[:1])
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert log == ["open", "startup.complete", "close"]
