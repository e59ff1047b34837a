"""What an application sends is checked field by field; headers become what ASGI wants."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.events import TRANSPORT, as_headers, check_sent, transport_of
from trichannels.exceptions import BadEvent

GOOD: list[dict[str, Any]] = [
    {"type": "websocket.accept"},
    {"type": "websocket.accept", "subprotocol": "v1", "headers": [(b"x", b"1"), [b"y", b"2"]]},
    {"type": "websocket.accept", "subprotocol": None, "headers": None},
    {"type": "websocket.send", "text": ""},
    {"type": "websocket.send", "bytes": b""},
    {"type": "websocket.send", "text": "x", "bytes": None},
    {"type": "websocket.send", "bytes": bytearray(b"x")},
    {"type": "websocket.send", "bytes": memoryview(b"x")},
    {"type": "websocket.close"},
    {"type": "websocket.close", "code": 4999, "reason": "ü" * 61},
    {"type": "websocket.close", "code": 1000, "reason": None},
    {"type": "http.response.start", "status": 100, "headers": ()},
    {"type": "websocket.http.response.start", "status": 599},
    {"type": "http.response.body"},
    {"type": "websocket.http.response.body", "body": b"x", "more_body": True},
    {"type": "somebody.elses"},
]

BAD: list[tuple[Any, str]] = [
    ({}, "a dict with a 'type' of str"),
    ({"type": None}, "a dict with a 'type' of str"),
    (["type"], "a dict with a 'type' of str"),
    ({"type": "websocket.accept", "subprotocol": b"v1"}, "'subprotocol' must be a str or None"),
    ({"type": "websocket.accept", "headers": {"a": "b"}}, "'headers' must be"),
    ({"type": "websocket.accept", "headers": [("a", b"b")]}, "'headers' must be"),
    ({"type": "websocket.accept", "headers": [(b"a",)]}, "'headers' must be"),
    ({"type": "websocket.accept", "headers": 1}, "'headers' must be"),
    ({"type": "websocket.send"}, "either 'text' or 'bytes', and not both"),
    ({"type": "websocket.send", "text": "a", "bytes": b"a"}, "and not both"),
    ({"type": "websocket.send", "text": b"a"}, "'text' must be a str, not bytes"),
    ({"type": "websocket.send", "bytes": "a"}, "'bytes' must be bytes, not str"),
    ({"type": "websocket.close", "code": "1000"}, "'code' must be"),
    ({"type": "websocket.close", "reason": "ü" * 62}, "at most 123 bytes"),
    ({"type": "websocket.close", "reason": b"x"}, "'reason' must be a str"),
    ({"type": "http.response.start"}, "'status' must be an int from 100 to 599, not None"),
    ({"type": "http.response.start", "status": 600}, "'status' must be"),
    ({"type": "http.response.start", "status": 200, "headers": [("a", "b")]}, "'headers' must be"),
    ({"type": "websocket.http.response.start", "status": "200"}, "'status' must be"),
    ({"type": "http.response.body", "body": "text"}, "'body' must be bytes, not str"),
    ({"type": "websocket.http.response.body", "body": None}, "'body' must be bytes, not NoneType"),
]


@pytest.mark.parametrize("event", GOOD)
def test_a_good_event_passes(event: dict[str, Any]) -> None:
    check_sent(event)


@pytest.mark.parametrize(("event", "problem"), BAD)
def test_a_bad_event_is_refused_and_its_field_is_named(event: Any, problem: str) -> None:
    with pytest.raises(BadEvent, match=problem) as caught:
        check_sent(event)
    if isinstance(event, dict) and event.get("type"):
        assert str(caught.value).startswith(event["type"])


@settings(deadline=None)
@given(st.integers(-1, 6000))
def test_the_codes_that_may_travel(code: int) -> None:
    # RFC 6455 section 7.4: 1004 is reserved, 1005, 1006 and 1015 are never sent.
    allowed = (1000 <= code < 1015 and code not in (1004, 1005, 1006)) or 3000 <= code < 5000
    event = {"type": "websocket.close", "code": code}
    if allowed:
        check_sent(event)
    else:
        with pytest.raises(BadEvent, match=f"not {code}$"):
            check_sent(event)


def test_headers_of_any_shape_become_pairs_of_bytes() -> None:
    wanted = [(b"x-name", b"J\xf6rg"), (b"x-two", b"2")]
    assert as_headers({"X-Name": "Jörg", "X-Two": "2"}) == wanted
    assert as_headers({b"X-Name": b"J\xf6rg", b"x-two": b"2"}) == wanted
    assert as_headers([(b"X-Name", "Jörg"), ("x-two", b"2")]) == wanted
    assert as_headers(pair for pair in wanted) == wanted
    assert as_headers(None) == []
    with pytest.raises(UnicodeEncodeError):
        as_headers({"x": "€"})


def test_the_transport_is_found_where_our_server_puts_it() -> None:
    ours = object()
    assert transport_of({"extensions": {TRANSPORT: ours}}) is ours
    assert transport_of({"extensions": {}}) is None
    assert transport_of({"extensions": None}) is None
    assert transport_of({}) is None
