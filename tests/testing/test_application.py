"""ApplicationCommunicator: both ways to run an application, errors, timeouts, order and bounds."""

import gc
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichannels.events import Event, Receive, Scope, Send
from trichannels.exceptions import BadEvent, ConnectionClosed, OutOfTurn
from trichannels.testing import ApplicationCommunicator, ApplicationEnded, TimedOut, TooManyEvents
from trichannels.testing import exchange as exchange_module
from trichannels.testing.exchange import Exchange

ODD: Scope = {"type": "odd"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes until told to stop or to fail."""
    while True:
        event = await receive()
        if event["type"] == "stop":
            return
        if event["type"] == "fail":
            raise event["error"]
        await send(event)


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


async def test_what_is_no_event_is_said() -> None:
    async with ApplicationCommunicator(echo, ODD) as app:
        with pytest.raises(BadEvent, match="an ASGI event is a dict with a 'type'"):
            await app.send_input({"text": "a"})

    async def untyped(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"text": "a"})

    with pytest.raises(BadEvent, match="an ASGI event is a dict with a 'type'"):
        await ApplicationCommunicator(untyped, ODD).receive_output()


async def test_calls_without_a_block(autojump_clock: object) -> None:
    app = ApplicationCommunicator(echo, ODD)
    await app.send_input({"type": "a"})
    await app.send_input({"type": "b"})
    assert [await app.receive_output(), await app.receive_output()] == [{"type": "a"}, {"type": "b"}]
    assert await app.receive_nothing()
    await app.send_input({"type": "stop"})
    await app.wait()
    assert await app.receive_nothing()
    app.stop()


async def test_a_block_ends_the_application() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            ended.append(True)

    async with ApplicationCommunicator(app, ODD):
        await anyio.wait_all_tasks_blocked()
        assert not ended
    assert ended


async def test_scope_may_change_before_the_first_call() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "user", "user": scope["user"]})

    one = ApplicationCommunicator(app, dict(ODD))
    one.scope["user"] = "ada"
    assert (await one.receive_output())["user"] == "ada"
    await one.wait()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, OSError])
async def test_the_error_is_the_object_that_was_raised(kind: type[BaseException], autojump_clock: object) -> None:
    error = kind("boom")
    app = ApplicationCommunicator(echo, ODD)
    await app.send_input({"type": "fail", "error": error})
    start = anyio.current_time()
    for call in (app.receive_output, app.wait, app.receive_nothing, lambda: app.send_input({"type": "x"})):
        with pytest.raises(kind) as caught:
            await call()
        assert caught.value is error
    assert anyio.current_time() == start
    app.stop(exceptions=False)
    with pytest.raises(kind):
        app.stop()


async def test_the_error_interrupts_a_waiting_call_at_once(autojump_clock: object) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.5)
        raise ValueError("late")

    start = anyio.current_time()
    async with ApplicationCommunicator(app, ODD) as application:
        with pytest.raises(ValueError, match="late"):
            await application.receive_output(timeout=100)
        with pytest.raises(ValueError, match="late"):
            await application.receive_nothing(timeout=100)
    assert anyio.current_time() - start == pytest.approx(0.5)


async def test_what_was_sent_before_the_error_comes_before_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "first"})
        raise ValueError("then")

    async with ApplicationCommunicator(app, ODD) as application:
        await anyio.wait_all_tasks_blocked()
        assert not await application.receive_nothing()
        assert await application.receive_output() == {"type": "first"}
        with pytest.raises(ValueError, match="then"):
            await application.receive_output()


async def test_an_unseen_error_is_raised_by_the_end_of_the_block() -> None:
    error = ValueError("unseen")
    with pytest.raises(ValueError) as caught:  # noqa: PT012
        async with ApplicationCommunicator(echo, ODD) as app:
            await app.send_input({"type": "fail", "error": error})
            await anyio.wait_all_tasks_blocked()
    assert caught.value is error


async def test_an_error_that_was_seen_is_not_raised_again_by_the_block() -> None:
    async with ApplicationCommunicator(echo, ODD) as app:
        await app.send_input({"type": "fail", "error": ValueError("seen")})
        with pytest.raises(ValueError, match="seen"):
            await app.wait()


async def test_the_tests_own_error_wins_and_names_the_other() -> None:
    with pytest.raises(KeyError) as caught:  # noqa: PT012
        async with ApplicationCommunicator(echo, ODD) as app:
            await app.send_input({"type": "fail", "error": ValueError("the cause")})
            await anyio.wait_all_tasks_blocked()
            raise KeyError("the symptom")
    assert "the cause" in caught.value.__notes__[0]


async def test_a_group_raised_in_the_block_stays_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError("x")])
    with pytest.raises(ExceptionGroup) as caught:
        async with ApplicationCommunicator(silent, ODD):
            raise group
    assert caught.value is group


async def test_a_timeout_leaves_the_application_running(autojump_clock: object) -> None:
    app = ApplicationCommunicator(echo, ODD)
    with pytest.raises(TimeoutError, match="sent nothing within 1 s"):
        await app.receive_output()
    with pytest.raises(TimedOut, match="did not end within 3 s"):
        await app.wait(timeout=3)
    await app.send_input({"type": "still here"})
    assert await app.receive_output(timeout=0.1) == {"type": "still here"}
    app.stop()
    await app.wait()


async def test_output_that_is_there_needs_no_time() -> None:
    async with ApplicationCommunicator(echo, ODD) as app:
        await app.send_input({"type": "a"})
        await anyio.wait_all_tasks_blocked()
        assert await app.receive_output(timeout=0) == {"type": "a"}


async def test_nothing_can_come_from_an_application_that_returned(autojump_clock: object) -> None:
    start = anyio.current_time()
    async with ApplicationCommunicator(echo, ODD) as app:
        await app.send_input({"type": "stop"})
        with pytest.raises(ApplicationEnded):
            await app.receive_output()
        with pytest.raises(TimeoutError):  # what a test written for Channels expects
            await app.receive_output()
        await app.send_input({"type": "ignored"})
    assert anyio.current_time() == start


async def test_receive_nothing_keeps_what_comes() -> None:
    async with ApplicationCommunicator(echo, ODD) as app:
        await app.send_input({"type": "a"})
        assert not await app.receive_nothing(timeout=10)
        assert await app.receive_output() == {"type": "a"}


async def test_cancelling_a_receive_loses_nothing(autojump_clock: object) -> None:
    async with ApplicationCommunicator(echo, ODD) as app:
        with anyio.move_on_after(0.5) as scope:
            await app.receive_output(timeout=10)
        assert scope.cancelled_caught
        await app.send_input({"type": "a"})
        with anyio.CancelScope() as scope:
            scope.cancel()
            await app.receive_output()
        assert await app.receive_output() == {"type": "a"}


async def test_cancelling_the_owner_of_the_block_cancels_the_application() -> None:
    cancelled = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    with anyio.CancelScope() as scope:
        async with ApplicationCommunicator(app, ODD):
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert cancelled


async def test_stop_inside_a_block_cancels_only_the_application() -> None:
    async with ApplicationCommunicator(silent, ODD) as app:
        await anyio.wait_all_tasks_blocked()
        app.stop()
        await app.wait()
        await anyio.wait_all_tasks_blocked()


async def test_stop_before_anything_has_run() -> None:
    ApplicationCommunicator(silent, ODD).stop()
    app = ApplicationCommunicator(silent, ODD)
    await app.send_input({"type": "x"})
    app.stop()
    await app.wait()


async def test_a_forgotten_application_warns_and_ends() -> None:
    app = ApplicationCommunicator(echo, ODD)
    await app.send_input({"type": "a"})
    running = app._exchange
    assert running is not None
    await anyio.wait_all_tasks_blocked()
    with pytest.warns(ResourceWarning, match="was never ended"):  # noqa: PT031
        del app
        gc.collect()
    await anyio.wait_all_tasks_blocked()
    assert running.done


async def test_the_application_does_not_inherit_context_variables() -> None:
    variable = ContextVar("variable", default="clean")
    variable.set("the test's")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0)
        await send({"type": "value", "value": variable.get()})

    async with ApplicationCommunicator(app, ODD) as block:
        assert (await block.receive_output())["value"] == "clean"
    calls = ApplicationCommunicator(app, ODD)
    assert (await calls.receive_output())["value"] == "clean"
    await calls.wait()


async def test_one_communicator_is_one_run() -> None:
    app = ApplicationCommunicator(silent, ODD)
    async with app:
        with pytest.raises(OutOfTurn, match="runs already"):
            async with app:
                raise AssertionError("not reached")


async def test_both_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "MAX_QUEUED", 3)

    async def chatty(scope: Scope, receive: Receive, send: Send) -> None:
        for number in range(4):
            await send({"type": "event", "number": number})

    async with ApplicationCommunicator(silent, ODD) as app:
        for _ in range(3):
            await app.send_input({"type": "x"})
        with pytest.raises(TooManyEvents, match="the test sent 3 events"):
            await app.send_input({"type": "x"})
    with pytest.raises(TooManyEvents, match="the application sent 3 events"):
        async with ApplicationCommunicator(chatty, ODD):
            await anyio.wait_all_tasks_blocked()


async def test_lifespan_is_checked_like_the_other_protocols() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        with pytest.raises(OutOfTurn):
            await send({"type": "lifespan.shutdown.complete"})
        with pytest.raises(BadEvent):
            await send({"kind": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.complete"})

    async with ApplicationCommunicator(app, {"type": "lifespan"}) as lifespan:
        await lifespan.send_input({"type": "lifespan.startup"})
        assert await lifespan.receive_output() == {"type": "lifespan.startup.complete"}
        await lifespan.wait()


@pytest.mark.parametrize(("version", "raises"), [("2.4", True), ("2.3", False), (None, True)])
async def test_send_after_the_peer_has_left(version: str | None, raises: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        seen.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except ConnectionClosed as error:
            seen.append((error.code, error.reason))
            raise

    asgi = {} if version is None else {"asgi": {"spec_version": version}}
    gone: Event = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
    async with ApplicationCommunicator(app, {"type": "websocket", **asgi}) as socket:
        await socket.send_input({"type": "websocket.connect"})
        assert await socket.receive_output() == {"type": "websocket.accept"}
        await socket.send_input(gone)
        await socket.wait()  # a ConnectionClosed is the normal end of an application whose peer has left
        assert await socket.receive_nothing()
    assert seen == [gone, gone, *([(4001, "bye")] if raises else [])]


def test_a_wrong_name_says_what_there_is() -> None:
    import trichannels.testing as kit

    with pytest.raises(AttributeError, match="WebsocketCommunicator"):
        _ = kit.ChannelsWhatever
    assert "LiveServer" in dir(kit)


KINDS = ["websocket.accept", "websocket.send", "websocket.close", "http.response.start", "nonsense"]


@given(st.lists(st.sampled_from(KINDS), max_size=8), st.integers(0, 8))
def test_the_application_is_held_to_the_tables(kinds: list[str], leave_at: int) -> None:
    """Whatever an application sends, what arrives is a legal conversation, and nothing arrives after the peer left."""

    async def scenario() -> None:
        exchange = Exchange({"type": "websocket"})
        for step, kind in enumerate(kinds):
            if step == leave_at:
                exchange.push({"type": "websocket.disconnect", "code": 1000})
            try:
                await exchange.send({"type": kind, "text": "x", "status": 200})
            except (OutOfTurn, ConnectionClosed):
                continue
        sent = [event["type"] for event in exchange.outputs]
        assert sent[:1] in ([], ["websocket.accept"], ["websocket.close"])
        assert sent.count("websocket.accept") <= 1
        assert "websocket.close" not in sent[:-1]
        assert set(sent[1:]) <= {"websocket.send", "websocket.close"}
        assert len(sent) <= leave_at

    anyio.run(scenario)
