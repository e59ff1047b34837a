"""What the testing kit itself raises; each also is the builtin error that a test of Channels would expect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..events import Headers
from ..exceptions import TrichannelsError


class TimedOut(TrichannelsError, TimeoutError):
    """What the test waited for did not happen in time; the application is still running."""


class ApplicationEnded(TrichannelsError, TimeoutError):
    """The application has returned, so what the test waits for can never come (known at once, not after a timeout)."""


class UnexpectedEvent(TrichannelsError, AssertionError):
    """The application sent another event than the one that the test asked for."""

    def __init__(self, wanted: str, event: Mapping[str, Any]) -> None:
        super().__init__(f"expected {wanted}, but the application sent {dict(event)!r}")
        self.wanted, self.event = wanted, event


class TooManyEvents(TrichannelsError):
    """A queue between test and application is full: one side sends, and the other one does not read."""

    def __init__(self, writer: str, limit: int) -> None:
        reader = "receive them" if writer == "application" else "let it read them"
        super().__init__(f"the {writer} sent {limit} events that nobody has read: {reader}, or send fewer")
        self.limit = limit


class FaultInjected(TrichannelsError):
    """What a :class:`~trichannels.testing.faults.FaultyLayer` raises where it was told to fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """The HTTP response with which an application refused a WebSocket (extension ``websocket.http.response``)."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class SocketRefused(TrichannelsError, ConnectionRefusedError):
    """The application did not accept the WebSocket; it closed with ``code``, or responded with ``denial``."""

    def __init__(self, path: str, code: int | None, reason: str = "", denial: Denial | None = None) -> None:
        answer = f"close code {code}{f', {reason}' if reason else ''}"
        if denial is not None:
            answer = f"HTTP {denial.status}: {denial.body[:200]!r}"
        super().__init__(
            f"the application refused the WebSocket {path!r} ({answer}); to test a refusal, call connect()"
        )
        self.code, self.reason, self.denial = code, reason, denial
