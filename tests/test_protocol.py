"""Which event may follow which: every row of the tables, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.exceptions import BadEvent, OutOfTurn
from trichannels.protocol import HTTP, LIFESPAN, TABLES, WEBSOCKET, Conversation, Table, advance

ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "hi"}
CLOSE = {"type": "websocket.close"}
DENY = {"type": "websocket.http.response.start", "status": 403}
DENY_BODY = {"type": "websocket.http.response.body", "body": b"no"}
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"x"}
MORE = {**BODY, "more_body": True}

WALKS = [
    ("websocket", [ACCEPT, SEND, SEND, CLOSE], ["open", "open", "open", "closed"]),
    ("websocket", [CLOSE], ["closed"]),
    ("websocket", [DENY, {**DENY_BODY, "more_body": True}, DENY_BODY], ["denying", "denying", "closed"]),
    ("http", [START, MORE, MORE, BODY], ["responding", "responding", "responding", "closed"]),
    ("lifespan", [{"type": "lifespan.startup.failed"}], ["closed"]),
    (
        "lifespan",
        [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}],
        ["started", "closed"],
    ),
    ("lifespan", [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.failed"}], ["started", "closed"]),
]


@pytest.mark.parametrize(("protocol", "events", "states"), WALKS)
def test_a_conversation_that_keeps_the_order(protocol: str, events: list[dict[str, Any]], states: list[str]) -> None:
    conversation = Conversation(protocol)
    assert [conversation.sent(event) for event in events] == states


REFUSALS = [
    ("websocket", [], SEND, "websocket.send is not allowed while connecting; allowed: websocket.accept, websocket.cl"),
    ("websocket", [], DENY_BODY, "while connecting"),
    ("websocket", [ACCEPT], ACCEPT, "while open; allowed: websocket.close, websocket.send"),
    ("websocket", [ACCEPT], DENY, "while open"),
    ("websocket", [ACCEPT, CLOSE], SEND, "while closed; allowed: nothing"),
    ("websocket", [ACCEPT, CLOSE], CLOSE, "while closed"),
    ("websocket", [DENY], ACCEPT, "while denying; allowed: websocket.http.response.body"),
    ("http", [], BODY, "while waiting; allowed: http.response.start"),
    ("http", [START], START, "while responding"),
    ("http", [START, BODY], BODY, "while closed"),
    ("http", [], ACCEPT, "while waiting"),
    ("lifespan", [], {"type": "lifespan.shutdown.complete"}, "while starting"),
]


@pytest.mark.parametrize(("protocol", "events", "event", "problem"), REFUSALS)
def test_an_event_out_of_turn_is_refused_and_changes_nothing(
    protocol: str, events: list[dict[str, Any]], event: dict[str, Any], problem: str
) -> None:
    conversation = Conversation(protocol)
    for earlier in events:
        conversation.sent(earlier)
    state = conversation.state
    with pytest.raises(OutOfTurn, match=problem):
        conversation.sent(event)
    assert conversation.state == state
    assert repr(conversation) == f"<Conversation {state}>"


def test_a_malformed_event_is_refused_before_its_turn_is_looked_at() -> None:
    conversation = Conversation("websocket")
    with pytest.raises(BadEvent):
        conversation.sent({"type": "websocket.send", "text": 1})
    assert conversation.state == "connecting"


@pytest.mark.parametrize("event", [CLOSE, ACCEPT, START])
def test_only_a_body_can_have_more_to_come(event: dict[str, Any]) -> None:
    conversation = Conversation(event["type"].partition(".")[0])
    before = conversation.state
    assert conversation.sent({**event, "more_body": True}) != before


@settings(deadline=None)
@pytest.mark.once
@given(st.sampled_from([WEBSOCKET, HTTP, LIFESPAN]), st.data())
def test_no_walk_leaves_the_tables(table: Table, data: st.DataObject) -> None:
    state = next(iter(table))
    kinds = sorted({kind for row in table.values() for kind in row})
    for kind in data.draw(st.lists(st.sampled_from(kinds), max_size=8)):
        if kind in table[state]:
            state = advance(table, state, {"type": kind})
            assert state in table
        else:
            with pytest.raises(OutOfTurn):
                advance(table, state, {"type": kind})


def test_every_state_of_a_table_is_reached() -> None:
    for table, start in TABLES.values():
        targets = {target for row in table.values() for target in row.values()}
        assert set(table) == targets | {start}
