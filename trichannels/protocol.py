"""Which event an ASGI application may send after which. Pure: no I/O, no clock, no event loop.

One table a protocol; :class:`Conversation` walks it. Our server and the testing kit use the same tables, so that a
test refuses what a real server would refuse.
"""

from collections.abc import Mapping
from typing import Any

from .events import check_sent
from .exceptions import OutOfTurn

Table = Mapping[str, Mapping[str, str]]

WEBSOCKET: Table = {
    "connecting": {
        "websocket.accept": "open",
        "websocket.close": "closed",
        "websocket.http.response.start": "denying",
    },
    "open": {"websocket.send": "open", "websocket.close": "closed"},
    "denying": {"websocket.http.response.body": "closed"},
    "closed": {},
}
HTTP: Table = {
    "waiting": {"http.response.start": "responding"},
    "responding": {"http.response.body": "closed"},
    "closed": {},
}
LIFESPAN: Table = {
    "starting": {"lifespan.startup.complete": "started", "lifespan.startup.failed": "closed"},
    "started": {"lifespan.shutdown.complete": "closed", "lifespan.shutdown.failed": "closed"},
    "closed": {},
}
TABLES: Mapping[str, tuple[Table, str]] = {
    "websocket": (WEBSOCKET, "connecting"),
    "http": (HTTP, "waiting"),
    "lifespan": (LIFESPAN, "starting"),
}


def advance(table: Table, state: str, event: Mapping[str, Any]) -> str:
    """Return the state after the application sends ``event``.

    Raises :class:`OutOfTurn` if the event may not come now. A body with ``more_body`` leaves the state as it is.
    """
    kind = event["type"]
    if kind not in table[state]:
        allowed = ", ".join(sorted(table[state])) or "nothing"
        raise OutOfTurn(f"{kind} is not allowed while {state}; allowed: {allowed}")
    return state if kind.endswith(".body") and event.get("more_body") else table[state][kind]


class Conversation:
    """The state of one exchange, from the application's side."""

    __slots__ = ("state", "table")

    def __init__(self, protocol: str) -> None:
        self.table, self.state = TABLES[protocol]

    def __repr__(self) -> str:
        return f"<Conversation {self.state}>"

    def sent(self, event: Mapping[str, Any]) -> str:
        """Check ``event``, move on, and return the new state; raises ``BadEvent`` or ``OutOfTurn`` and stays."""
        check_sent(event)
        self.state = advance(self.table, self.state, event)
        return self.state
