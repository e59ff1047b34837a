"""Every error of the package, under one root, and the table of close codes.

::

    TrichannelsError
    ├── ConnectionClosed           (OSError)       the peer is gone, or the socket was closed
    ├── OutOfTurn                  (RuntimeError)  an ASGI event that may not follow the last one
    ├── BadEvent                   (ValueError)    an ASGI event or message that is malformed
    ├── NoHandler                  (ValueError)    no method of the consumer takes this event type
    ├── InvalidName                (TypeError)     a channel or group name breaks the rules
    ├── UnserializableMessage      (TypeError)     a message would not come back as it was sent
    ├── UnreadableMessage          (ValueError)    what arrived cannot be decrypted, or is no message of ours
    ├── MessageTooLarge                            a message is over its size limit
    ├── ChannelFull                                the channel is at capacity; nothing was queued
    ├── LayerClosed                (RuntimeError)  the layer is not open
    ├── LayerUnreachable                           the layer's server did not take it in time; nothing was done
    │   └── OutcomeUnknown                         it was handed over, and the answer was lost: done, or not
    ├── LayerRefused                               the layer's server answered with an error
    ├── BridgeSaturated                            every thread of a bridge is busy, and stays so
    ├── BridgeClosed               (RuntimeError)  the bridge has ended
    ├── InvalidChannelLayerError   (ValueError)    a layer that is configured wrongly, or not at all
    ├── ConfigError                (ValueError)    a server option, command line or consumer's setting that is wrong
    ├── InvalidRoute               (ValueError)    a route that cannot work, found where it is made
    ├── NoRoute                    (ValueError)    no application is mapped to a scope's type or channel
    ├── StartupFailed              (RuntimeError)  the application refused to start, or took too long
    ├── RequestAborted                             the client left before its request was complete
    ├── RequestTimeout                             the client took too long to send its request
    └── ControlFlow                                raised by a handler to steer, not to report
        ├── AcceptConnection
        ├── DenyConnection
        └── StopConsumer
"""

from dataclasses import dataclass


class TrichannelsError(Exception):
    """The root: ``except TrichannelsError`` catches whatever this package raises. Each can be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls __init__ with the finished text in place of the facts.
        return _rebuilt, (type(self), self.args, dict(vars(self)))


def _rebuilt(kind: type[Exception], args: tuple[object, ...], facts: dict[str, object]) -> Exception:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(facts)
    return error


class ConnectionClosed(TrichannelsError, OSError):
    """The socket is closed: nothing more can be sent.

    Raised by ``send`` once the peer has left (ASGI spec 2.4: ``send`` raises an ``OSError`` then).
    Let it end your handler: an instance takes it as the normal end of its socket, not as a failure.
    """

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"the connection is closed ({code}{f', {reason}' if reason else ''})")
        self.code, self.reason = code, reason


class OutOfTurn(TrichannelsError, RuntimeError):
    """The application sent an event that may not follow what it sent before."""


class BadEvent(TrichannelsError, ValueError):
    """An ASGI event, or a layer message, lacks something or has it in the wrong shape."""


class NoHandler(TrichannelsError, ValueError):
    """The consumer has no method for an event's type."""

    def __init__(self, consumer: str, event_type: str, handler: str) -> None:
        super().__init__(
            f"No handler for message type {event_type}: {consumer} has no method {handler!r}; "
            "define it, or do not send it this type"
        )
        self.event_type, self.handler = event_type, handler


class InvalidName(TrichannelsError, TypeError):
    """A channel or group name breaks the rules of :mod:`trichannels.layers.base`."""


class UnserializableMessage(TrichannelsError, TypeError):
    """A message holds something that would not arrive as it was sent; ``path`` says where."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"the message cannot be sent: {path} {problem}")
        self.path, self.problem = path, problem


class UnreadableMessage(TrichannelsError, ValueError):
    """What arrived cannot be read as a message: another key, another format, another sender; ``problem`` says more."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"a message cannot be read: {problem}")
        self.problem = problem


class MessageTooLarge(TrichannelsError):
    """A message is larger than its limit allows."""


class ChannelFull(TrichannelsError):
    """The channel is at its capacity in messages, or at its bound of bytes; the message was not queued."""

    def __init__(self, channel: str, capacity: int) -> None:
        super().__init__(
            f"{channel!r} has no room for this message: it takes {capacity} messages, and its bound of bytes; "
            "read it faster, send less at once, or raise its bounds"
        )
        self.channel, self.capacity = channel, capacity


class LayerClosed(TrichannelsError, RuntimeError):
    """The layer was used outside its block."""

    def __init__(self, layer: str) -> None:
        super().__init__(
            f"{layer} is not open: use it inside 'async with layer:', or give it to "
            "ProtocolTypeRouter(..., layers={'default': layer}), which opens it with the server"
        )


class LayerUnreachable(TrichannelsError):
    """The server behind a layer could not be reached in time. What was asked for was not done; try again later."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where, self.problem = where, problem


class OutcomeUnknown(LayerUnreachable):
    """The connection broke, or the deadline passed, after the command was written: it was carried out, or was not."""


class LayerRefused(TrichannelsError):
    """The server behind a layer answered with an error: no permission, out of memory, a wrong type, ...

    ``code`` is the first word of the answer, such as ``"OOM"`` or ``"NOPERM"``.
    """

    def __init__(self, where: str, answer: str, advice: str = "") -> None:
        super().__init__(f"{where} answered: {answer}" + (f" ({advice})" if advice else ""))
        self.where, self.answer, self.code = where, answer, answer.partition(" ")[0]


class BridgeSaturated(TrichannelsError):
    """No thread of a bridge became free in time; ``holders`` has them, the longest first: name and seconds of each."""

    def __init__(self, limit: int, seconds: float, holders: tuple[tuple[str, float], ...]) -> None:
        named = ", ".join(f"{name} for {held:.1f} s" for name, held in holders[:10])
        super().__init__(
            f"none of {limit} threads became free within {seconds:g} s: held by {named or 'nobody any more'}; "
            "let blocking calls end sooner, or raise the bridge's limit"
        )
        self.limit, self.seconds, self.holders = limit, seconds, holders


class BridgeClosed(TrichannelsError, RuntimeError):
    """The bridge has ended, or is about to: it runs nothing more."""

    def __init__(self, bridge: str) -> None:
        super().__init__(f"{bridge} has ended: use it inside 'async with bridge:', or while its server runs")


class InvalidChannelLayerError(TrichannelsError, ValueError):
    """A channel layer is not configured, or its configuration is wrong."""


class ConfigError(TrichannelsError, ValueError):
    """A server option, a command line or a consumer's setting is wrong; the text is the one line to show the user."""


class InvalidRoute(TrichannelsError, ValueError):
    """A route, an origin or an application in a router that cannot work; raised where it is made, and names it."""


class NoRoute(TrichannelsError, ValueError):
    """A router has no application for a scope: its type, channel name or path is in none of its entries."""


class StartupFailed(TrichannelsError, RuntimeError):
    """The application's ``lifespan.startup`` failed or took too long; the text is the one line to show the user."""


class RequestAborted(TrichannelsError):
    """The client disconnected before its request had been read."""


class RequestTimeout(TrichannelsError):
    """The client took too long to send its request."""


class ControlFlow(TrichannelsError):
    """Raised by a handler to steer its instance; never a failure."""


class AcceptConnection(ControlFlow):
    """Raised during ``connect()``: accept the socket."""


class DenyConnection(ControlFlow):
    """Raised during ``connect()``: refuse the socket."""


class StopConsumer(ControlFlow):
    """Raised by a handler: end this instance now, in the ordinary order of closing."""


@dataclass(frozen=True, slots=True)
class CloseCode:
    """What a WebSocket close code means, and whether a client should come back (with a backoff)."""

    code: int
    meaning: str
    reconnect: bool


# RFC 6455 section 7.4.1 and the IANA registry "WebSocket Close Code Number"; 4000-4999 are an application's own.
CLOSE_CODES = {
    entry.code: entry
    for entry in (
        CloseCode(1000, "done", False),
        CloseCode(1001, "going away", True),
        CloseCode(1002, "the peer broke the protocol", False),
        CloseCode(1003, "a kind of data that is not taken here", False),
        CloseCode(1005, "closed without a code", True),
        CloseCode(1006, "lost without a close frame", True),
        CloseCode(1007, "text that is not UTF-8", False),
        CloseCode(1008, "against the rules of this server", False),
        CloseCode(1009, "a message over the size limit", False),
        CloseCode(1011, "the application failed", True),
        CloseCode(1012, "the server restarts", True),
        CloseCode(1013, "overloaded, or you read too slowly: try again later", True),
        CloseCode(4401, "not logged in, or no longer", False),
        CloseCode(4403, "not allowed", False),
    )
}


def should_reconnect(code: int) -> bool:
    """Say whether a client that saw ``code`` should try again; codes without an entry mean no."""
    entry = CLOSE_CODES.get(code)
    return entry is not None and entry.reconnect
