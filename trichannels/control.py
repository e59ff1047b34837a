"""The control channel: one group in which all processes of a fleet hear what is meant for all of them.

It is heard wherever layers are open, on the layer ``default``, from their opening to their closing. What is said there,
and who may say it, is as safe as the layer is: whoever can publish on it can do so here.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from .bridge import call
from .bridge.home import Home, contained, home, this_loop
from .bridge.lane import in_lane
from .exceptions import LayerClosed, TrichannelsError
from .layers.base import ChannelLayer
from .layers.registry import get_channel_layer
from .nursery import collapsed
from .seam import on_loop

log = logging.getLogger("trichannels.control")

ALIAS = "default"
GROUP = "trichannels.control"
AGAIN = 1.0  # seconds after which it is heard again, when that has failed
CONTROLS = "controls"  # under which a loop keeps those that hear it, the newest last

Hearer = Callable[["Control", Mapping[str, Any]], Awaitable[None]]
Companion = Callable[["Control"], Awaitable[None]]

_HEARERS: dict[str, Hearer] = {}
_COMPANIONS: list[Companion] = []


def hear(kind: str, hearer: Hearer) -> None:
    """Have events of this type handled, in a task of its own, by all processes that import this."""
    _HEARERS[kind] = hearer


def go_along(companion: Companion) -> None:
    """Have this run for as long as the control channel is heard, in each loop."""
    if companion not in _COMPANIONS:
        _COMPANIONS.append(companion)


class Control:
    """What one process does about what it hears. ``layers`` are those that are open, by alias."""

    def __init__(self, layers: Mapping[str, ChannelLayer], group: TaskGroup) -> None:
        self.layers, self._group = layers, group

    @property
    def in_charge(self) -> bool:
        """Whether it is the one of its loop that does what is to be done once in a loop."""
        return controls()[-1:] == [self]

    def start_soon(self, func: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run something beside; its errors are logged."""
        self._group.start_soon(contained, func, *args)

    async def listen(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hear, and go on hearing; ``started`` once it is in force."""
        layer, first = self.layers[ALIAS], True
        while True:
            try:
                async with layer.subscribe(GROUP) as events:
                    if first:
                        task_status.started()
                        first = False
                    async for event in events:
                        self.heard(event)
            except LayerClosed:
                return
            except TrichannelsError as error:
                if first:
                    raise
                log.warning("the control channel is not heard: %s", error)
            await anyio.sleep(AGAIN)

    def heard(self, event: Mapping[str, Any]) -> None:
        """Do what an event asks for."""
        hearer = _HEARERS.get(event["type"])
        if hearer is not None:
            self.start_soon(hearer, self, event)


@asynccontextmanager
async def controlled(layers: Mapping[str, ChannelLayer]) -> AsyncIterator[None]:
    """For the block, hear the control channel of these layers, if they have a ``default``."""
    here = this_loop()
    async with collapsed(), anyio.create_task_group() as group:
        control = Control(layers, group)
        here.kept.setdefault(CONTROLS, []).append(control)
        try:
            if ALIAS in layers:
                await group.start(control.listen)
            for companion in _COMPANIONS:
                control.start_soon(companion, control)
            yield
        finally:
            here.kept[CONTROLS].remove(control)
            if not here.kept[CONTROLS]:
                del here.kept[CONTROLS]
            group.cancel_scope.cancel()


def controls(place: Home | None = None) -> list[Control]:
    """Return what hears the control channel in a loop: the running one, if no other is named."""
    found: list[Control] = (place or this_loop()).kept.get(CONTROLS, [])
    return found


def publish(event: Mapping[str, Any]) -> Any:
    """Tell it to all processes; in a thread this blocks, and on a loop it is awaited.

    Where no layer is there, it is told to this process alone. Raises what the layer raises.
    """
    if on_loop():
        return _publish(dict(event))
    layer = get_channel_layer(ALIAS)
    if layer is not None:
        return layer.group_send(GROUP, dict(event))
    if in_lane():
        return call(_publish, dict(event))
    return None


async def _publish(event: dict[str, Any]) -> None:
    layer = get_channel_layer(ALIAS)
    if layer is not None:
        await layer.group_send(GROUP, event)
        return
    place = home()
    for control in controls(place)[-1:]:
        if place is this_loop():
            control.heard(event)
        elif place is not None:
            place.call_soon(partial(control.heard, event))
