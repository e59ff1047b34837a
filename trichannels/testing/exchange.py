"""What lies between a test and one application: two bounded queues, and the rules of a real server. Starts no task."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ..denial import DENIAL
from ..events import ASGIApp, Event, Scope, check_sent
from ..exceptions import ConnectionClosed, OutOfTurn
from ..protocol import TABLES, Conversation
from .errors import TooManyEvents

DISCONNECTS = {"websocket.disconnect", "http.disconnect"}
MAX_QUEUED = 10_000
"""How many unread events either queue holds at most."""


class Exchange:
    """One run of one application. The test's side never blocks the application's side, nor the reverse."""

    def __init__(self, scope: Scope) -> None:
        kind = str(scope.get("type"))
        self.conversation = Conversation(kind) if kind in TABLES else None
        self.inputs: deque[Event] = deque()
        self.outputs: deque[Event] = deque()
        self.done = False
        self.error: BaseException | None = None
        self.reported = False
        self._offers_denial = DENIAL in (scope.get("extensions") or {})
        self._raises_when_gone = _spec_version(scope) >= (2, 4)
        self._last: Event | None = None
        self._gone: tuple[int, str] | None = None
        self._cancel_scope = anyio.CancelScope()
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        state = "ended" if self.done else "running"
        return f"<Exchange {state}, {self.conversation}, {len(self.inputs)} unread in, {len(self.outputs)} unread out>"

    async def run(self, application: ASGIApp, scope: Scope) -> None:
        """Run the application to its end. Its error is kept for the test, not raised; a cancellation passes."""
        try:
            with self._cancel_scope:
                await application(scope, self.receive, self.send)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - a SystemExit, too, is for the test to see
            # Once the peer has left, a ConnectionClosed out of the application is its normal end.
            if not (isinstance(error, ConnectionClosed) and self._gone):
                self.error = error
        finally:
            self.done = True
            self._signal()

    def cancel(self) -> None:
        """Cancel the application, and only it."""
        self._cancel_scope.cancel()

    async def receive(self) -> Event:
        """The application's ``receive``; after the disconnect event, it returns that event again and again."""
        await checkpoint()
        while not self.inputs:
            if self._last is not None:
                return dict(self._last)
            await self._changed.wait()
        return self.inputs.popleft()

    async def send(self, event: Event) -> None:
        """The application's ``send``: always a checkpoint, and refuses what a real server refuses."""
        await checkpoint()
        if not self._takes(event):
            return
        if len(self.outputs) >= MAX_QUEUED:
            raise TooManyEvents("application", MAX_QUEUED)
        self.outputs.append(dict(event))
        self._signal()

    def push(self, event: Mapping[str, Any]) -> None:
        """Queue an event of the test for the application."""
        check_sent(event)  # or who answers it would stumble
        if event["type"] in DISCONNECTS:
            self._gone = self._gone or (event.get("code") or 1005, event.get("reason") or "")
            self.hang_up(dict(event))
        elif len(self.inputs) >= MAX_QUEUED:
            raise TooManyEvents("test", MAX_QUEUED)
        else:
            self.inputs.append(dict(event))
            self._signal()

    def hang_up(self, event: Event) -> None:
        """Let ``event``, a disconnect, be the last thing that the application receives; the first one counts."""
        if self._last is None:
            self._last = event
            self._signal()

    def raise_error(self) -> None:
        """Raise the application's error, the very object, if it has failed."""
        if self.error is not None:
            self.reported = True
            raise self.error

    async def until(self, ready: Callable[[], object]) -> None:
        """Wait until ``ready()`` is true; it is looked at after each event and at the application's end."""
        while not ready():
            await self._changed.wait()

    def _takes(self, event: Event) -> bool:
        check_sent(event)
        if self.conversation is None:
            return True
        was = self.conversation.state
        if self._gone and was != "closed":
            if self._raises_when_gone:
                raise ConnectionClosed(*self._gone)
            return False
        if event["type"].startswith(DENIAL) and not self._offers_denial:
            raise OutOfTurn(f"{event['type']}: this server does not offer the extension {DENIAL!r}; close the socket")
        if self.conversation.sent(event) == "closed":
            self._end_conversation(event, was)
        return True

    def _end_conversation(self, event: Event, was: str) -> None:
        # A server hands the application a last disconnect after its own close, response or refusal.
        if event["type"] == "http.response.body":
            self.hang_up({"type": "http.disconnect"})
        elif event["type"].startswith("websocket."):
            code, reason = (event.get("code", 1000), event.get("reason") or "") if was == "open" else (1006, "")
            self.hang_up({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _signal(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def _spec_version(scope: Scope) -> tuple[int, ...]:
    version = (scope.get("asgi") or {}).get("spec_version") or "2.5"
    return tuple(int(part) for part in version.split("."))
