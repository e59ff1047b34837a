"""Who keeps a router's layers open: an owner's block, or else a task for as long as they are used.

ASGI gives an application no lifetime but the lifespan, which daphne does not send and a Starlette mount does not
forward. There the first instance starts a task that opens the layers, and the last one ends it: the degraded way. What
that costs: the first instance waits for the opening, an error of opening is that instance's, and what waits in a layer
is lost whenever nobody is connected.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
from anyio.lowlevel import RunVar

from ..seam import HostTask, of_this_loop, on_loop, spawn_host
from .base import ChannelLayer
from .configured import claim_layers, configured_layers, release_layers
from .registry import registered

COMPANIONS: list[Callable[[Mapping[str, ChannelLayer]], AbstractAsyncContextManager[object]]] = []
"""Blocks that are entered once layers are open, even if there are none, and left before they close."""

CLOSE_TIMEOUT = 5.0
"""Seconds that the last instance waits, shielded, for layers of the degraded way to close."""


@asynccontextmanager
async def open_layers(layers: Mapping[str, ChannelLayer]) -> AsyncIterator[None]:
    """Open each layer and register them for ``get_channel_layer()`` of the running loop; close them in reverse."""
    layers = dict(layers)
    async with AsyncExitStack() as stack:
        for layer in {id(layer): layer for layer in layers.values()}.values():
            try:
                await stack.enter_async_context(layer)
            except Exception as error:
                aliases = ", ".join(repr(alias) for alias in layers if layers[alias] is layer)
                error.add_note(f"while opening the channel layer {aliases}")
                raise
        stack.enter_context(registered(layers))
        for companion in COMPANIONS:
            await stack.enter_async_context(companion(layers))
        yield


class Keeper:
    """A task that holds layers open for its users; the last to leave ends it. It is not used again."""

    def __init__(self, layers: Mapping[str, ChannelLayer]) -> None:
        self._layers = layers
        self._ready, self._unused = anyio.Event(), anyio.Event()
        self._users = 0
        self._task: HostTask = spawn_host(self._hold, "trichannels layers")

    def __repr__(self) -> str:
        return f"<Keeper for {self._users} instances, {self._task!r}>"

    async def _hold(self) -> None:
        try:
            async with open_layers(self._layers):
                self._ready.set()
                await self._unused.wait()
        finally:
            release_layers(self._layers)
            self._ready.set()

    @property
    def spent(self) -> bool:
        """True once it lets nobody in any more: it is closing, or has ended."""
        return self._unused.is_set() or self._task.over

    async def over(self) -> None:
        """Wait until its task has ended."""
        await self._task.wait()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Hold the layers open for this block.

        Raises what the opening raised; the last user also gets what the closing raised. Cancellation while opening, if
        nobody else waits, cancels the opening.
        """
        self._users += 1
        try:
            await self._ready.wait()
            if self._task.error:
                raise self._task.error
            yield
        except BaseException as error:
            await self._leave()
            if self._task.error not in (None, error):
                error.add_note(f"the channel layers had failed: {self._task.error!r}")
            raise
        await self._leave()
        if not self._users and self._task.error:
            raise self._task.error

    async def _leave(self) -> None:
        self._users -= 1
        if self._users:
            return
        self._unused.set()
        if not self._ready.is_set():
            self._task.cancel()
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._task.wait()


class _State:
    """What is open on one event loop."""

    def __init__(self) -> None:
        self.owned = False
        self.keeper: Keeper | None = None
        self.layers: Mapping[str, ChannelLayer] | None = None  # of the settings, while they are open here


class LayerHost:
    """The layers of one router, and whether they are open on the running loop.

    Without ``layers`` they are those of Django's settings, of which each loop has its own.
    """

    def __init__(self, layers: Mapping[str, ChannelLayer] | None) -> None:
        self._layers = layers
        self._states: RunVar[_State] = RunVar("trichannels layers")

    def _state(self) -> _State:
        return of_this_loop(self._states, _State)

    @property
    def layers(self) -> Mapping[str, ChannelLayer]:
        """The layers that are open on the running loop, or that would be opened."""
        if self._layers is not None:
            return self._layers
        chosen = self._state().layers if on_loop() else None
        return chosen if chosen is not None else configured_layers()

    def _choose(self, state: _State) -> Mapping[str, ChannelLayer]:
        """Return the layers that are to be opened now."""
        if self._layers is not None:
            return self._layers
        state.layers = claim_layers()
        return state.layers

    @property
    def has_owner(self) -> bool:
        """Whether the layers are open on the running loop, and stay so."""
        return self._state().owned

    @asynccontextmanager
    async def owned(self) -> AsyncIterator[None]:
        """Open the layers for this block, unless they are open already; its errors pass through."""
        state = self._state()
        if state.owned or state.keeper:
            async with self.borrowed():
                yield
            return
        state.owned = True
        layers: Mapping[str, ChannelLayer] = {}
        try:
            layers = self._choose(state)
            async with open_layers(layers):
                yield
        finally:
            release_layers(layers)
            state.owned, state.layers = False, None

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[None]:
        """Use the owner's layers for this block; without an owner, open them in the degraded way."""
        state = self._state()
        if state.owned:
            yield
            return
        keeper = await self._keeper(state)
        async with keeper.used():
            yield

    async def _keeper(self, state: _State) -> Keeper:
        while (keeper := state.keeper) is not None and keeper.spent:
            await keeper.over()
            if state.keeper is keeper:
                state.keeper = state.layers = None
        if keeper is None:
            keeper = state.keeper = Keeper(self._choose(state))
        return keeper


SETTINGS_HOST = LayerHost(None)
"""Of all routers that are given no layers: together they open those of Django's settings, once for each loop."""
