"""Containment: what fails in one connection stays there, is counted, and is reported once. Lists what may pass on."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import trio

from ..exceptions import ConnectionClosed
from .statistics import Counters

LOG = logging.getLogger("trichannels.server")

# A cancellation belongs to whoever cancelled, Ctrl-C in an embedding program to that program. SystemExit does not pass:
# an application's sys.exit() must not end its neighbours.
PASSING = (trio.Cancelled, KeyboardInterrupt)

# What Starlette makes of our ConnectionClosed and of the disconnect event. By their names: any other error may be a
# bug, also one that was raised while a ConnectionClosed was handled.
OTHER_NAMES = {("starlette.requests", "ClientDisconnect"), ("starlette.websockets", "WebSocketDisconnect")}


def divide(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what must pass on and what failed; either may be None. A group that holds one failure is unwrapped."""
    if isinstance(error, BaseExceptionGroup):
        passing, failed = error.split(PASSING)
        return passing, None if failed is None else unwrapped(failed)
    return (error, None) if isinstance(error, PASSING) else (None, error)


def unwrapped(error: BaseException) -> BaseException:
    """Return the only error inside a group, or ``error`` itself if it is no group or holds several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def is_normal_end(error: BaseException) -> bool:
    """Say whether ``error`` is only an application's way of noticing that its peer has left."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_normal_end(inner) for inner in error.exceptions)
    return isinstance(error, ConnectionClosed) or (type(error).__module__, type(error).__qualname__) in OTHER_NAMES


def describe(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    peer = f"{client[0]}:{client[1]}" if client else "a unix socket"
    return " ".join(filter(None, [scope["type"], scope.get("path"), "from", peer]))


async def contained(
    run: Callable[[], Awaitable[None]], what: str, counters: Counters, *, left: Callable[[], bool] = lambda: False
) -> BaseException | None:
    """Await ``run()``, and do with its failure what :func:`contain` does; ``left()`` is asked then."""
    try:
        await run()
    except BaseException as error:  # noqa: BLE001 - contain() raises what must pass
        return contain(error, what, counters, left=left())
    return None


def contain(
    error: BaseException, what: str | Mapping[str, Any], counters: Counters, *, left: bool = False
) -> BaseException | None:
    """Count, log and return the failure in ``error``, if there is one, and raise what must pass on.

    ``what`` failed is told in words, or by a scope. A ``ConnectionClosed`` is returned but neither counted nor logged
    if ``left`` says that the peer has left.
    """
    passing, failed = divide(error)
    if failed is not None and not (left and is_normal_end(failed)):
        counters.failures += 1
        LOG.error("%s: failed", what if isinstance(what, str) else describe(what), exc_info=failed)
    if passing is not None:
        raise passing from None
    return failed


class Losable(Protocol):
    """What can be cut (``wire.Wire``)."""

    def lose(self) -> None: ...


def cut(wire: Losable, when: str) -> None:
    """Log the exception that is being handled, and cut the one connection that it came from; never raises.

    For what runs once for all connections of a server: nothing that one of them brings may stop the others.
    """
    LOG.exception("%r: failed while %s", wire, when)
    try:
        wire.lose()
    except Exception:
        LOG.exception("%r: failed while it was cut", wire)
