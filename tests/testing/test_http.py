"""HttpCommunicator: a request, its response, and an application that ends with the block."""

import anyio
import pytest

from trichannels.events import Receive, Scope, Send
from trichannels.exceptions import OutOfTurn
from trichannels.testing import ApplicationEnded, HttpCommunicator, UnexpectedEvent


async def upper(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's body in upper case, in two parts."""
    request = await receive()
    assert (request["type"], request["more_body"]) == ("http.request", False)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-method", scope["method"].encode())]})
    await send({"type": "http.response.body", "body": request["body"].upper(), "more_body": True})
    await send({"type": "http.response.body"})
    assert await receive() == {"type": "http.disconnect"}


EXPECTED = {"status": 201, "headers": [(b"x-method", b"POST")], "body": b"HALLO"}


async def test_calls() -> None:
    request = HttpCommunicator(upper, "post", "/path?q=1", body=b"hallo", headers=[(b"Host", b"x")])
    assert await request.get_response() == EXPECTED
    await request.wait()
    scope = request.scope
    assert (scope["type"], scope["method"], scope["path"], scope["query_string"]) == ("http", "POST", "/path", b"q=1")
    assert scope["headers"] == [(b"host", b"x")]
    with pytest.raises(TypeError, match="body is bytes"):
        HttpCommunicator(upper, "POST", "/", body="text")  # type: ignore[arg-type]


async def test_block() -> None:
    async with HttpCommunicator(upper, "POST", "/", b"hallo") as request:
        assert await request.get_response() == EXPECTED


async def test_leaving_the_block_tells_the_application_then_cancels_it(autojump_clock: object) -> None:
    seen = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        seen.append((await receive())["type"])
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise

    async with HttpCommunicator(endless, "GET", "/events") as request:
        assert (await request.receive_output())["status"] == 200
    assert seen == ["http.disconnect", "cancelled"]


async def test_a_stream_is_read_part_by_part(autojump_clock: object) -> None:
    async def ticks(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        number = 0
        while True:
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            number += 1
            await anyio.sleep(60)

    async with HttpCommunicator(ticks, "GET", "/") as request:
        assert (await request.receive_output())["type"] == "http.response.start"
        assert [(await request.receive_output(timeout=61))["body"] for _ in range(3)] == [b"0", b"1", b"2"]


async def test_errors_before_and_during_the_response() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/now":
            await send({"type": "http.response.start", "status": 200})
        raise ValueError(scope["path"])

    for path in ("/now", "/later"):
        with pytest.raises(ValueError, match=path):
            async with HttpCommunicator(fails, "GET", path) as request:
                await request.get_response()


async def test_a_response_that_is_cut_short() -> None:
    async def short(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async with HttpCommunicator(short, "GET", "/") as request:
        with pytest.raises(ApplicationEnded):
            await request.get_response()


async def test_a_body_without_a_start_is_refused() -> None:
    async def backwards(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"x"})

    with pytest.raises(OutOfTurn, match="while waiting"):
        async with HttpCommunicator(backwards, "GET", "/") as request:
            await request.get_response()


async def test_answers_that_are_no_answer() -> None:
    async def odd(scope: Scope, receive: Receive, send: Send) -> None:
        for kind in scope["kinds"]:
            await send({"type": kind, "status": 200})

    for kinds in (["odd"], ["http.response.start", "odd"]):
        request = HttpCommunicator(odd, "GET", "/")
        request.scope.update({"type": "custom", "kinds": kinds})
        with pytest.raises(UnexpectedEvent):
            await request.get_response()
        await request.wait()
