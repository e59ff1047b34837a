"""``manage.py channels_status``: the processes that are there, their sockets, groups and queues, through the layer."""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ....exceptions import ConfigError, InvalidChannelLayerError, TrichannelsError
from ....layers.base import ChannelLayer
from ....layers.configured import make_layers
from ....layers.memory import InMemoryChannelLayer
from ....layers.queues import QueueStatistics
from ....routing import ChannelNameRouter, get_default_application
from ....server.queue_command import check_channels
from ....status import ProcessStatus, ask_processes, groups_of

ALIAS = "default"  # on which the control channel is
LISTED = 20  # groups that are shown
LONGEST = 3600.0  # seconds


class Command(BaseCommand):  # type: ignore[misc, unused-ignore]
    """Asks each process, and waits a second for the answers."""

    requires_system_checks = ()  # what is wrong is told in one line
    help = "Lists live processes, sockets, groups and queues, as the processes that have the layer open tell it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Say how long to wait, and in which form to tell."""
        parser.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for answers (default: 1)")
        parser.add_argument("--queue", action="append", default=[], help="also a queue that ASGI_APPLICATION has not")
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, and print."""
        if not 0 < options["timeout"] <= LONGEST:
            raise CommandError(f"--timeout takes seconds, more than 0 and at most {LONGEST:g}", returncode=2)
        try:
            layers = make_layers()
        except InvalidChannelLayerError as error:
            raise CommandError(str(error), returncode=2) from error
        layer = layers.get(ALIAS)
        if layer is None:
            raise CommandError(f"CHANNEL_LAYERS has no {ALIAS!r}", returncode=2)
        if isinstance(layer, InMemoryChannelLayer):
            raise CommandError(
                f"CHANNEL_LAYERS[{ALIAS!r}] is in memory: it ends at its own process, and nobody else can be asked",
                returncode=2,
            )
        names = sorted({*options["queue"], *_routed()})
        try:
            check_channels(names)
        except ConfigError as error:
            raise CommandError(f"--queue: {error}", returncode=2) from error
        try:
            found, queues = anyio.run(_ask, layer, options["timeout"], names, backend="trio")
        except TrichannelsError as error:
            raise CommandError(str(error)) from error
        lines = [_as_json(found, queues)] if options["json"] else _as_text(found, queues)
        self.stdout.write("\n".join(lines))


def _routed() -> Iterator[str]:
    """Yield the names of the channels that the project has applications for."""
    from ....server.load import parts_of

    if getattr(settings, "ASGI_APPLICATION", None) is None:
        return
    try:
        app = get_default_application()
    except ConfigError as error:
        raise CommandError(str(error), returncode=2) from error
    for part in parts_of(app):
        if isinstance(part, ChannelNameRouter):
            yield from part.application_mapping


async def _ask(
    layer: ChannelLayer, patience: float, names: Sequence[str]
) -> tuple[list[ProcessStatus], dict[str, QueueStatistics]]:
    async with layer:
        processes = await ask_processes(layer, patience)
        queues = {}
        for name in names:
            async with layer.open_queue(name) as queue:
                queues[name] = await queue.depth()
    return processes, queues


def _as_json(processes: list[ProcessStatus], queues: dict[str, QueueStatistics]) -> str:
    return json.dumps(
        {
            "processes": [process.as_event() for process in processes],
            "queues": {name: dataclasses.asdict(one) for name, one in queues.items()},
        }
    )


def _as_text(processes: list[ProcessStatus], queues: dict[str, QueueStatistics]) -> list[str]:
    sockets = sum(process.sockets for process in processes)
    lines = [f"{_count(len(processes), 'process', 'processes')}, {_count(sockets, 'socket', 'sockets')}"]
    for process in processes:
        lines.append(
            f"  {process.host} {process.pid}: for {_lasted(time.time() - process.began)}, "
            f"{_count(process.sockets, 'socket', 'sockets')}, {_count(process.all_groups, 'group', 'groups')}"
            + (f", {process.dropped} events dropped" if process.dropped else "")
        )
    groups = list(groups_of(processes))
    lines.append(_count(len(groups), "group", "groups"))
    for name, members, places in groups[:LISTED]:
        where = _count(places, "process", "processes")
        lines.append(f"  {name}: {_count(members, 'member', 'members')} in {where}")
    if len(groups) > LISTED:
        lines.append(f"  and {len(groups) - LISTED} more")
    lines.append(_count(len(queues), "queue", "queues"))
    for name, queue in queues.items():
        lines.append(
            f"  {name}: {queue.waiting} waiting, {queue.running} running, {queue.delayed} delayed, {queue.dead} dead"
        )
    return lines


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _lasted(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
