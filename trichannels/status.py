"""What the processes of a fleet are at: asked on the control channel, and answered by each for itself."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import anyio

from .control import ALIAS, GROUP, Control, hear
from .layers.base import ChannelLayer

log = logging.getLogger("trichannels.status")

ASK, ANSWER = "trichannels.status", "trichannels.status.answer"
MOST_GROUPS = 200  # that one process tells of: its largest
BEGAN = time.time()  # when this process imported us


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One process that has a layer open: where it runs, since when, and what it holds.

    ``sockets``: instances that use the layer. ``groups``: members by group, of the 200 largest; ``all_groups`` counts
    them all. ``dropped``: events that found no room, since the layer was opened.
    """

    host: str
    pid: int
    began: float
    sockets: int
    memberships: int
    all_groups: int
    dropped: int
    groups: Mapping[str, int]

    @classmethod
    def of(cls, layer: ChannelLayer) -> Self:
        """Return that of this process."""
        statistics, members = layer.statistics(), layer.members()
        largest = sorted(members, key=lambda group: members[group], reverse=True)[:MOST_GROUPS]
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            began=BEGAN,
            sockets=statistics.instances,
            memberships=statistics.memberships,
            all_groups=statistics.groups,
            dropped=statistics.dropped,
            groups={group: members[group] for group in largest},
        )

    def as_event(self) -> dict[str, Any]:
        """Return it as a message."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read it from a message."""
        return cls(**{name: event[name] for name in cls.__slots__})


async def _answer(control: Control, event: Mapping[str, Any]) -> None:
    layer = control.layers[ALIAS]
    await layer.send(event["to"], {"type": ANSWER, **ProcessStatus.of(layer).as_event()})


hear(ASK, _answer)


async def ask_processes(layer: ChannelLayer, patience: float) -> list[ProcessStatus]:
    """Ask all processes that have opened such a layer; returns those that answer within ``patience`` seconds."""
    channel = await layer.new_channel()
    await layer.group_send(GROUP, {"type": ASK, "to": channel})
    found: list[ProcessStatus] = []
    with anyio.move_on_after(patience):
        while True:
            event = await layer.receive(channel)
            try:
                found.append(ProcessStatus.from_event(event))
            except (KeyError, TypeError):
                log.warning("an answer that cannot be read, from a process of another version: %r", sorted(event))
    return sorted(found, key=lambda status: (status.host, status.pid))


def groups_of(statuses: list[ProcessStatus]) -> Iterator[tuple[str, int, int]]:
    """Yield each group, how many members it has, and in how many processes; the largest first."""
    members: dict[str, int] = {}
    places: dict[str, int] = {}
    for status in statuses:
        for group, count in status.groups.items():
            members[group] = members.get(group, 0) + count
            places[group] = places.get(group, 0) + 1
    for group in sorted(members, key=lambda group: (-members[group], group)):
        yield group, members[group], places[group]
