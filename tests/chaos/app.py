"""The application of the processes: sockets that are in a group, that publish, that are present; jobs; and numbers."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import anyio
import trio

from trichannels.consumer import AsyncConsumer
from trichannels.events import Event
from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, shared_payload
from trichannels.inbox import Inbox
from trichannels.layers.base import Subscription
from trichannels.layers.history import Position, Recovery
from trichannels.layers.presence import Presence, Roster, Step
from trichannels.layers.redis import hub as hubs
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, path

from .layers import DONE, WORK, make_layer, read_position, write_position

hubs.CHECK_EVERY = 1.0  # a minute is long, in a run that has a fault twice a second
LAYER = make_layer()
AWAY = 1013  # come again later


def since_of(scope: Any) -> Position | None:
    """Return the position that the client says it has reached."""
    asked = parse_qs(scope["query_string"].decode()).get("since")
    return read_position(asked[0].split(".", 1)) if asked else None


def joined(recovery: Recovery, asked: bool) -> str:
    return json.dumps(
        {"joined": write_position(recovery.position), "recovered": recovery.recovered, "count": recovery.count,
         "asked": asked}
    )  # fmt: skip


def seen(event: Event, position: Position | None) -> str:
    """Return the frame of an event; by its time the client knows how late it reads."""
    return json.dumps({"event": event["event"], "at": write_position(position), "now": time.monotonic()})


class Member(AsyncWebsocketConsumer):
    """Is in the group that its path names, from the position that its client has reached."""

    inbox = Inbox(messages=5000, bytes=2**24)

    async def connect(self) -> None:
        self.group = self.scope["url_route"]["kwargs"]["group"]
        since = since_of(self.scope)
        try:
            recovery = await self.join(self.group, since)
        except (LayerUnreachable, LayerRefused):
            await self.close(AWAY)
            return
        await self.accept()
        await self.send(joined(recovery, since is not None))

    async def chaos_event(self, event: Event) -> None:
        await self.send(seen(event, self.position))

    async def layer_resync(self, event: Event) -> None:
        assert event == {"type": "layer.resync", "group": self.group, "recovered": False}
        await self.send(json.dumps({"told": "resync", "at": write_position(self.position)}))

    async def layer_dropped(self, event: Event) -> None:
        await self.send('{"told": "dropped", "at": null}')


class Narrow(Member):
    """Has little room: what a burst brings too much ends the socket, whose client recovers."""

    inbox = Inbox(messages=20)


class Shared(Member):
    """Has its frames made once for all, and written past the instance. For groups without history."""

    @shared_payload
    def chaos_event(cls, event: Event) -> str:
        return seen(event, None)


class Follower(AsyncWebsocketConsumer):
    """Follows the group by a subscription, whose room is small: it lapses, and reads from the history."""

    room = Inbox(messages=30)

    async def connect(self) -> None:
        await self.accept()
        self.nursery.start_soon(self.follow)

    async def follow(self) -> None:
        group, since = self.scope["url_route"]["kwargs"]["group"], since_of(self.scope)
        try:
            async with self.channel_layer.subscribe(
                group, inbox=self.room, since=None if since is None else {group: since}
            ) as events:
                await self.send(joined(events.recoveries[group], since is not None))
                while True:
                    await self.send(json.dumps(await self.next_of(events, group)))
        except (LayerUnreachable, LayerRefused):
            await self.close(AWAY)

    async def next_of(self, events: Subscription, group: str) -> dict[str, Any]:
        """Return what is to be told of the next event; who cannot be read to from the history now tries again."""
        while True:
            try:
                event = await events.receive()
            except (LayerUnreachable, LayerRefused):
                continue
            if event["type"] in ("layer.resync", "layer.dropped"):
                at = events.positions.get(group) if event["type"] == "layer.resync" else None
                return {"told": event["type"].partition(".")[2], "at": write_position(at)}
            return json.loads(seen(event, events.positions.get(group)))  # type: ignore[no-any-return]


class Publisher(AsyncJsonWebsocketConsumer):
    """Sends what its client asks for, and tells what came of it."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        message = {"type": "chaos.event", "event": content["event"]}
        position = None
        try:
            position = await self.channel_layer.group_send(content["group"], message)
            outcome = "taken"
        except OutcomeUnknown:
            outcome = "unknown"
        except (LayerUnreachable, LayerRefused):
            outcome = "not done"
        await self.send_json({"outcome": outcome, "at": write_position(position)})


class Guest(AsyncJsonWebsocketConsumer):
    """Is present as long as its socket is open."""

    async def connect(self) -> None:
        named = self.scope["url_route"]["kwargs"]
        try:
            await self.track(named["group"], named["key"], named["visit"])
        except (LayerUnreachable, LayerRefused):
            await self.close(AWAY)
            return
        await self.accept()
        await self.send_json({"present": True})


class Watcher(AsyncJsonWebsocketConsumer):
    """Knows who is there by a snapshot and the diffs that follow it."""

    async def connect(self) -> None:
        self.group = self.scope["url_route"]["kwargs"]["group"]
        try:
            await self.join(self.group)
        except (LayerUnreachable, LayerRefused):
            await self.close(AWAY)
            return
        await self.accept()
        await self.look()

    async def look(self) -> None:
        """Begin with a new snapshot."""
        self.roster = Roster(await self.presence())

    async def presence(self) -> Presence:
        """Ask who is there, as soon as that can be known."""
        while True:
            try:
                return await self.channel_layer.presence(self.group)
            except (LayerUnreachable, LayerRefused):
                await anyio.sleep(0.05)

    async def presence_diff(self, event: Event) -> None:
        if self.roster.apply(event) is Step.GAP:
            await self.look()

    async def layer_resync(self, event: Event) -> None:
        await self.look()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        presence = await self.presence()
        await self.send_json({"followed": sorted(self.roster.members), "asked": presence.members})


class Worker(AsyncConsumer):
    """Writes down which jobs it has done. Each is a little work, so that a killed worker is in the middle of some."""

    async def chaos_job(self, event: Event) -> None:
        await anyio.sleep(event["seconds"])
        with open(os.environ[DONE], "a") as done:  # noqa: PTH123 - one write of a line, which the kernel does not split
            done.write(f"{event['number']}\n")


def tasks() -> int:
    """Count the tasks of this process."""

    def below(task: Any) -> Iterator[Any]:
        yield task
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                yield from below(child)

    root = trio.lowlevel.current_root_task()
    return sum(1 for _ in below(root)) - 1  # the one that asks


class Numbers(AsyncHttpConsumer):
    """What this process holds now."""

    async def handle(self, body: bytes) -> None:
        layer, hub = LAYER.statistics(), LAYER.hub
        servers = [server.statistics() for server in hub.servers]
        numbers = {
            "tasks": tasks(),
            "instances": layer.instances,
            "groups": layer.groups,
            "memberships": layer.memberships,
            "presences": layer.presences,
            "waiting": layer.waiting_messages,
            "feeds": len(hub.feeds),
            "line": len(hub._line),
            "connections": sum(server.connections for server in servers),
            "subscriptions": sum(server.subscriptions for server in servers),
            "in flight": sum(server.in_flight for server in servers),
            "unwritten": sum(server.waiting for server in servers),
            "reconnects": sum(server.reconnects for server in servers),
        }
        await self.send_response(200, json.dumps(numbers).encode())


class State(AsyncHttpConsumer):
    """Where this process's groups and their members stand, to be read by people."""

    async def handle(self, body: bytes) -> None:
        hub, lines = LAYER.hub, []
        for group, feed in hub.feeds.items():
            lines.append(f"{feed!r}, {feed.joiners} joining, {feed.undelivered} undelivered")
            for channel, member in hub.board.groups.get(group, {}).items():
                lines.append(f"    {channel} {member!r} {hub.board.mailboxes.get(channel)!r}")
        lines += [repr(server) for server in hub.servers]
        await self.send_response(200, "\n".join(lines).encode())


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("member/<str:group>/", Member.as_asgi()),
                path("narrow/<str:group>/", Narrow.as_asgi()),
                path("shared/<str:group>/", Shared.as_asgi()),
                path("follower/<str:group>/", Follower.as_asgi()),
                path("publish/", Publisher.as_asgi()),
                path("guest/<str:group>/<str:key>/<int:visit>/", Guest.as_asgi()),
                path("watcher/<str:group>/", Watcher.as_asgi()),
            ]
        ),
        "channel": ChannelNameRouter({WORK: Worker.as_asgi()}),
        "http": URLRouter([path("numbers/", Numbers.as_asgi()), path("state/", State.as_asgi())]),
    },
    layers={"default": LAYER},
)
