"""A channel layer for blocking code, and for loops that are not its own: it finds the way to where the layer is open.

In a thread its methods block. On any loop they are awaited, so ``async_to_sync(layer.group_send)(…)`` works as well,
whose ever ``async_to_sync`` it is.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from anyio import to_thread

from ..bridge import call
from ..bridge.home import Home, awaitable_too, home, this_loop
from ..bridge.lane import in_lane
from ..exceptions import BridgeClosed, InvalidChannelLayerError
from ..seam import on_loop
from .base import ChannelLayer, require_channel_name, require_group_name, type_of
from .configured import after_commit, blocking_layer, configured_layers
from .history import Position
from .serializers import Message, Serializer

OPEN = "layers"  # under which a loop keeps those that are open on it, by alias, the newest last


def newest(at: Home | None, alias: str) -> ChannelLayer | None:
    """Return the layer that is open on a loop under an alias; None if there is none."""
    found = at.kept.get(OPEN, {}).get(alias) if at is not None else None
    return found[-1] if found else None


class BlockingLayer(Protocol):
    """What stands in for a layer where no loop has it open."""

    def close(self) -> None:
        """Give connections back."""

    def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        """Send to a channel."""

    def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        """Send to a group."""


class AnywhereLayer:
    """The channel layer ``alias``, from wherever it is used: what ``get_channel_layer()`` returns in blocking code.

    Where a loop has it open, that does it: the loop that a thread was called from. Elsewhere (a WSGI server, Celery, a
    management command) it is done by a blocking client that ``CHANNEL_LAYERS`` describes. Raises what the layer
    raises, and :class:`InvalidChannelLayerError` where neither is there.
    """

    def __init__(self, alias: str = "default", at: tuple[Home, ChannelLayer] | None = None) -> None:
        self.alias, self._at = alias, at

    def __repr__(self) -> str:
        return f"<AnywhereLayer {self.alias!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnywhereLayer) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.alias, self._at

    # ---- what it does; each blocks in a thread, and is awaited on a loop

    @awaitable_too
    def send(self, channel: str, message: Message, *, delay: float = 0, on_commit: bool | str = False) -> Any:
        """Send to one channel, ``delay`` seconds from now; ``on_commit`` as in ``group_send``."""
        if on_commit:
            require_channel_name(channel)
            message = self._kept(message)
        return self._do("send", channel, message, on_commit=on_commit, delay=delay)

    @awaitable_too
    def group_send(
        self, group: str, message: Message, idempotency_key: str | None = None, *, on_commit: bool | str = False
    ) -> Any:
        """Send to every member of a group; returns the position where the group has history.

        ``on_commit``, in a thread: send once Django's transaction is committed (of the default database, or the one
        that is named); at once where there is none, and never if it is rolled back. What is sent is the message as it
        is now; None is returned, and an error of sending is logged. A name or a message that is wrong is an error now.
        """
        if on_commit:
            require_group_name(group)
            message = self._kept(message)
        return self._do("group_send", group, message, idempotency_key, on_commit=on_commit)

    @awaitable_too
    def group_send_many(self, events: Sequence[tuple[str, Message]]) -> Any:
        """Send ``(group, message)`` pairs."""
        return self._do("group_send_many", events)

    @awaitable_too
    def group_add(self, group: str, channel: str) -> Any:
        """Put a channel into a group."""
        return self._do("group_add", group, channel)

    @awaitable_too
    def group_discard(self, group: str, channel: str) -> Any:
        """Take a channel out of a group."""
        return self._do("group_discard", group, channel)

    @awaitable_too
    def presence(self, group: str) -> Any:
        """Return who is present in a group."""
        return self._do("presence", group)

    @awaitable_too
    def presence_count(self, group: str) -> Any:
        """Return how many are present in a group."""
        return self._do("presence_count", group)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the layer has, where it is open on the running loop, or on the one that has called us."""
        found = None if name.startswith("__") else self._at[1] if self._at is not None else newest(home(), self.alias)
        if found is None:
            raise AttributeError(f"{self!r} has no {name!r} here: use the layer itself, in async code")
        return getattr(found, name)

    # ---- how

    def _do(self, method: str, *args: Any, on_commit: bool | str = False, **more: Any) -> Any:
        work = partial(self._elsewhere, method, *args, **more)
        if on_loop() or _is_called_by_asgiref():
            if on_commit:
                _refuse_on_commit()
            return work()
        blocking = partial(self._block, method, work, partial(self._without_loop, method, *args, **more))
        if on_commit:
            after_commit(blocking, None if on_commit is True else on_commit)
            return None
        return blocking()

    def _kept(self, message: Message) -> Message:
        """Return a copy of a message that is sent later; raises what is wrong with it."""
        if on_loop():
            _refuse_on_commit()
        found, _ = self._found(None)
        layer = found or configured_layers().get(self.alias)  # whether it can be reached is for later
        serializer: Serializer = (layer or blocking_layer(self.alias)).serializer
        type_of(message)
        return serializer.decode(serializer.encode(message))

    async def _elsewhere(self, method: str, *args: Any, **more: Any) -> Any:
        """Have it done, on whichever loop we are."""
        here = this_loop()
        layer, at = self._found(here)
        if layer is None or at is None:
            return await to_thread.run_sync(partial(self._without_loop, method, *args, **more))
        work: Callable[..., Any] = partial(getattr(layer, method), *args, **more)
        return await (work() if at is here else at.run(work))

    def _found(self, here: Home | None) -> tuple[ChannelLayer | None, Home | None]:
        if self._at is not None:
            return self._at[1], self._at[0]
        for place in (here, home()):
            if (layer := newest(place, self.alias)) is not None:
                return layer, place
        return None, None

    def _block(self, method: str, work: Callable[[], Any], without_loop: Callable[[], Any]) -> Any:
        """Have it done, in a thread."""
        if in_lane():
            return call(work)
        _, at = self._found(None)
        try:
            return at.block(work) if at is not None else without_loop()
        except BridgeClosed:
            return without_loop()

    def _without_loop(self, method: str, *args: Any, **more: Any) -> Any:
        layer = blocking_layer(self.alias)
        if not hasattr(layer, method):
            raise InvalidChannelLayerError(f"{method}: {layer!r} cannot do that; it takes async code, on a server")
        return getattr(layer, method)(*args, **more)


def _is_called_by_asgiref() -> bool:
    """Say whether our method was called by asgiref's ``async_to_sync``: in a thread, to be awaited on a loop."""
    caller = sys._getframe(3)
    return caller.f_globals.get("__name__") == "asgiref.sync"


def _refuse_on_commit() -> NoReturn:
    raise InvalidChannelLayerError(
        "on_commit=True is for blocking code, where transactions are: in async code send after the block of "
        "lease(atomic=True), or within a function that runs in a lane"
    )
