"""WebsocketCommunicator: connecting, refusing, talking, leaving, and an application held to the rules of a server."""

from typing import Any

import anyio
import pytest

from trichannels.events import Event, Receive, Scope, Send
from trichannels.exceptions import BadEvent, ConnectionClosed, OutOfTurn
from trichannels.testing import SocketRefused, TimedOut, UnexpectedEvent, WebsocketCommunicator


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, then echo; the text "close" closes with 4000, "fail" fails as a consumer does, "crash" without a word."""
    assert (await receive())["type"] == "websocket.connect"
    chosen = (scope["subprotocols"] or [None])[0]
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-room", b"lobby")]})
    while (event := await receive())["type"] == "websocket.receive":
        match event.get("text"):
            case "close":
                await send({"type": "websocket.close", "code": 4000, "reason": "asked"})
                assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "asked"}
                return
            case "fail":
                await send({"type": "websocket.close", "code": 1011})
                await anyio.sleep(0.25)  # an instance takes a while to end
                raise ValueError("failed")
            case "crash":
                raise ValueError("crashed")
        await send({**event, "type": "websocket.send"})


def answering(*events: Event) -> Any:
    """Return an application that answers the connection with ``events`` and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for event in events:
            await send(event)

    return app


async def test_calls() -> None:
    socket = WebsocketCommunicator(echo, "/ws/", subprotocols=["v2", "v1"])
    assert await socket.connect() == (True, "v2")
    assert socket.response_headers == [(b"x-room", b"lobby")]
    await socket.send_to(text_data="hallo")
    assert await socket.receive_from() == "hallo"
    await socket.send_to(bytes_data=b"\x00")
    assert await socket.receive_from() == b"\x00"
    await socket.send_to(text_data="")
    assert await socket.receive_from() == ""
    await socket.send_json_to({"a": [1, None]})
    assert await socket.receive_json_from() == {"a": [1, None]}
    assert await socket.receive_nothing(timeout=0)
    await socket.disconnect()


async def test_block() -> None:
    async with WebsocketCommunicator(echo, "/ws/") as socket:
        assert socket.connected
        assert socket.subprotocol is None
        await socket.send_json_to("hallo")
        assert await socket.receive_json_from() == "hallo"
    await socket.wait()


async def test_leaving_the_block_tells_the_application_and_waits_for_it() -> None:
    seen: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        await anyio.sleep(0)
        seen.append({"type": "ended"})

    async with WebsocketCommunicator(app, "/"):
        pass
    assert seen == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}, {"type": "ended"}]


async def test_the_client_chooses_code_and_reason() -> None:
    seen: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())

    async with WebsocketCommunicator(app, "/") as socket:
        await socket.disconnect(4001, reason="bye")
    assert seen == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]


async def test_the_scope_is_a_servers() -> None:
    socket = WebsocketCommunicator(echo, "/r%C3%A4ume/1/?a=1&b=%20", headers=[(b"Origin", b"http://x")])
    scope = socket.scope
    assert (scope["type"], scope["path"], scope["raw_path"]) == ("websocket", "/räume/1/", b"/r%C3%A4ume/1/")
    assert scope["query_string"] == b"a=1&b=%20"
    assert scope["headers"] == [(b"origin", b"http://x")]
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert "websocket.http.response" in scope["extensions"]
    assert WebsocketCommunicator(echo, "/", spec_version="2.3").scope["spec_version"] == "2.3"
    assert WebsocketCommunicator(echo, "//host/x").scope["path"] == "/host/x"
    with pytest.raises(TypeError, match="a str, not bytes"):
        WebsocketCommunicator(echo, b"/")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pairs of bytes"):
        WebsocketCommunicator(echo, "/", headers=[("origin", "x")])  # type: ignore[list-item]


@pytest.mark.parametrize(("event", "code"), [({}, 1000), ({"code": 4003, "reason": "no"}, 4003)])
async def test_a_refusal(event: Event, code: int) -> None:
    app = answering({"type": "websocket.close", **event})
    socket = WebsocketCommunicator(app, "/")
    assert await socket.connect() == (False, code)
    assert socket.close_code == code
    await socket.wait()
    with pytest.raises(SocketRefused, match=f"close code {code}") as caught:
        async with WebsocketCommunicator(app, "/private"):
            raise AssertionError("not reached")
    assert (caught.value.code, caught.value.denial) == (code, None)
    assert isinstance(caught.value, ConnectionRefusedError)


DENIED = (
    {"type": "websocket.http.response.start", "status": 404, "headers": [(b"x", b"y")]},
    {"type": "websocket.http.response.body", "body": b"not ", "more_body": True},
    {"type": "websocket.http.response.body", "body": b"here"},
)


async def test_a_refusal_with_a_response() -> None:
    socket = WebsocketCommunicator(answering(*DENIED), "/")
    assert await socket.connect() == (False, 404)
    assert socket.denial is not None
    assert (socket.denial.status, socket.denial.headers, socket.denial.body) == (404, [(b"x", b"y")], b"not here")
    await socket.wait()
    with pytest.raises(SocketRefused, match="HTTP 404: b'not here'") as caught:
        async with WebsocketCommunicator(answering(*DENIED), "/"):
            raise AssertionError("not reached")
    assert caught.value.denial == socket.denial


async def test_a_server_without_denial_responses() -> None:
    with pytest.raises(OutOfTurn, match="does not offer"):
        async with WebsocketCommunicator(answering(*DENIED), "/", denial_response=False):
            raise AssertionError("not reached")


async def test_the_application_closes() -> None:
    async with WebsocketCommunicator(echo, "/") as socket:
        await socket.send_to(text_data="close")
        with pytest.raises(AssertionError, match=r"expected a message .* 'code': 4000") as caught:
            await socket.receive_from()
        assert isinstance(caught.value, UnexpectedEvent)
        assert (socket.close_code, socket.close_reason) == (4000, "asked")
        await socket.wait()  # a last disconnect event has let the application end


async def test_a_failure_is_raised_in_place_of_its_1011(autojump_clock: object) -> None:
    async with WebsocketCommunicator(echo, "/") as socket:
        await socket.send_to(text_data="fail")
        with pytest.raises(ValueError, match="failed"):
            await socket.receive_from()
        assert await socket.receive_output() == {"type": "websocket.close", "code": 1011}
        with pytest.raises(ValueError, match="failed"):
            await socket.receive_from()


async def test_a_1011_without_an_error_is_an_event(autojump_clock: object) -> None:
    async with WebsocketCommunicator(
        answering({"type": "websocket.accept"}, {"type": "websocket.close", "code": 1011}), "/"
    ) as socket:
        assert (await socket.receive_output())["code"] == 1011


async def test_a_crash_in_mid_connect_is_what_connecting_raises() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        async with WebsocketCommunicator(app, "/"):
            raise AssertionError("not reached")
    socket = WebsocketCommunicator(app, "/")
    with pytest.raises(ValueError, match="at once"):
        await socket.connect()


async def test_a_crash_is_seen_by_the_next_call(autojump_clock: object) -> None:
    start = anyio.current_time()
    with pytest.raises(ValueError, match="crashed"):  # noqa: PT012
        async with WebsocketCommunicator(echo, "/") as socket:
            await socket.send_to(text_data="crash")
            await socket.receive_from(timeout=1000)
    assert anyio.current_time() == start


async def test_an_application_that_does_not_end_is_reported_and_cancelled(autojump_clock: object) -> None:
    cancelled = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    with pytest.raises(TimedOut, match="has left, but the application did not end within 3 s"):
        async with WebsocketCommunicator(app, "/", timeout=3):
            pass
    assert cancelled
    with pytest.raises(KeyError):  # the test's own error is not hidden by it
        async with WebsocketCommunicator(app, "/"):
            raise KeyError
    socket = WebsocketCommunicator(app, "/")
    await socket.connect()
    with pytest.raises(TimedOut):
        await socket.disconnect()
    assert len(cancelled) == 2  # a timeout kills nothing
    socket.stop()
    await socket.wait()


ILLEGAL: list[tuple[type[Exception], tuple[Event, ...]]] = [
    (OutOfTurn, ({"type": "websocket.send", "text": "x"},)),
    (OutOfTurn, ({"type": "websocket.accept"}, {"type": "websocket.accept"})),
    (OutOfTurn, ({"type": "websocket.close"}, {"type": "websocket.send", "text": "x"})),
    (OutOfTurn, ({"type": "http.response.start", "status": 200},)),
    (BadEvent, ({"type": "websocket.accept"}, {"type": "websocket.send"})),
    (BadEvent, ({"type": "websocket.accept"}, {"type": "websocket.send", "text": b"x"})),
    (BadEvent, ({"type": "websocket.accept", "headers": [("a", "b")]},)),
    (BadEvent, ({"type": "websocket.close", "code": 1006},)),
    (BadEvent, ({"text": "x"},)),
    (BadEvent, (None,)),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("error", "events"), ILLEGAL)
async def test_illegal_sends_raise_inside_the_application(error: type[Exception], events: tuple[Event, ...]) -> None:
    raised: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for event in events[:-1]:
            await send(event)
        try:
            await send(events[-1])
        except Exception as problem:
            raised.append(problem)
            raise

    socket = WebsocketCommunicator(app, "/")
    await socket.send_input({"type": "websocket.connect"})
    with pytest.raises(error) as caught:
        await socket.wait()
    assert raised == [caught.value]


async def test_sending_to_a_client_that_left_raises_and_is_no_failure() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(ConnectionClosed):  # noqa: PT012
            while True:
                await send({"type": "websocket.send", "text": "tick"})
        await send({"type": "websocket.close"})

    async with WebsocketCommunicator(app, "/") as socket:
        assert await socket.receive_from() == "tick"


async def test_what_a_client_cannot_do() -> None:
    async with WebsocketCommunicator(echo, "/") as socket:
        with pytest.raises(OutOfTurn, match="second communicator"):
            await socket.connect()
        for wrong in ({}, {"text_data": "a", "bytes_data": b"a"}, {"text_data": b"a"}, {"bytes_data": "a"}):
            with pytest.raises(TypeError):
                await socket.send_to(**wrong)
        await socket.send_to(bytes_data=b"{}")
        with pytest.raises(UnexpectedEvent, match="JSON in a text message"):
            await socket.receive_json_from()


async def test_answers_that_are_no_answer() -> None:
    async def odd(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "custom.event"})

    socket = WebsocketCommunicator(odd, "/")
    socket.scope["type"] = "custom"
    with pytest.raises(UnexpectedEvent, match=r"websocket\.accept or websocket\.close"):
        await socket.connect()
    await socket.wait()
    socket = WebsocketCommunicator(answering(DENIED[0], {"type": "custom.event"}), "/")
    socket.scope["type"] = "custom"
    with pytest.raises(UnexpectedEvent, match=r"response\.body"):
        await socket.connect()
    await socket.wait()


REFUSALS: dict[str, list[Event]] = {
    "close": [{"type": "websocket.close", "code": 4401}],
    "denial": [
        {"type": "websocket.http.response.start", "status": 404, "headers": []},
        {"type": "websocket.http.response.body", "body": b"no"},
    ],
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_who_was_refused_has_nothing_to_end(refusal: str) -> None:
    heard = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for event in REFUSALS[refusal]:
            await send(event)
        heard.append((await receive())["type"])

    socket = WebsocketCommunicator(app, "/")
    assert (await socket.connect())[0] is False
    assert heard == ["websocket.disconnect"], "as from a server"
    await socket.wait()  # and who waits all the same may do so


async def test_an_error_after_the_refusal_is_not_lost() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4401})
        await anyio.sleep(0.01)
        raise KeyError("afterwards")

    with pytest.raises(KeyError, match="afterwards"):
        await WebsocketCommunicator(app, "/").connect()


async def test_one_that_does_not_end_after_its_refusal_is_the_tests_to_end(autojump_clock: object) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4401})
        await anyio.sleep_forever()

    socket = WebsocketCommunicator(app, "/")
    assert await socket.connect() == (False, 4401)
    socket.stop()
    await socket.wait()
