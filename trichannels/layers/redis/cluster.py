"""A Redis Cluster: a link to each master, and its sharded pub/sub. Slots move, nodes come and go; keys stay found.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import logging
import random
from collections.abc import AsyncIterator, Collection, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from ...backoff import Backoff
from ...exceptions import (
    InvalidChannelLayerError,
    LayerRefused,
    LayerUnreachable,
    OutcomeUnknown,
    TrichannelsError,
)
from ...nursery import collapsed
from .address import Cluster, Endpoint
from .connection import Connection, open_connection, ours
from .link import Link
from .outbox import packed, packed_all
from .refusals import not_sent
from .scripts import Script, run_script
from .server import Arg, Bounds, Command, RedisServer, RedisStatistics, Sink, Timeouts
from .slots import Place, SlotTable, read_slots, redirection, slot_of
from .standalone import delete_on
from .subscriber import Subscriber

log = logging.getLogger("trichannels.layers.redis")

REFRESH_EVERY = 30.0  # seconds, where nothing else has led to it
PAUSE = (0.02, 0.5)  # seconds before a command is tried again: at first, and at the most
TOO_LATE = 1 / 16  # of the time for a command is left: another attempt could hardly be answered
AGAIN = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")


class Node:
    """One master: its commands and its subscriptions. ``run`` is its life; ``leave`` ends it."""

    def __init__(self, endpoint: Endpoint, cluster: "ClusterServer") -> None:
        self.endpoint, self._cluster = endpoint, cluster
        timeouts, bounds = cluster.timeouts, cluster.bounds
        self.link = Link(endpoint.label, self.where, timeouts, bounds)
        self.subscriber = ShardSubscriber(self, cluster)
        self._scope = anyio.CancelScope()
        self._timeouts, self._bounds = timeouts, bounds

    def __repr__(self) -> str:
        return f"<Node {self.endpoint.label}>"

    async def where(self) -> Endpoint:
        return self.endpoint

    async def run(self) -> None:
        with self._scope:
            async with collapsed(), anyio.create_task_group() as group:
                group.start_soon(self.link.run)
                group.start_soon(self.subscriber.run)

    def leave(self) -> None:
        """It has no slots any more."""
        self._scope.cancel()


class ShardSubscriber(Subscriber):
    """The subscriptions at one node. What the node sends away goes to whoever has the slot now."""

    def __init__(self, node: Node, cluster: "ClusterServer") -> None:
        super().__init__(node.endpoint.label, node.where, cluster.sink, cluster.timeouts, cluster.bounds, "s")
        self._cluster = cluster

    def moved(self, channels: Sequence[str]) -> None:
        self._cluster.look_soon()


class ClusterServer(RedisServer):
    """All masters of a cluster. One task looks after the table of slots, and moves subscriptions after their slots."""

    publish_command = "SPUBLISH"

    def __init__(self, target: Cluster, sink: Sink, timeouts: Timeouts, bounds: Bounds, group: TaskGroup) -> None:
        self.label, self.sink, self.timeouts, self.bounds = target.label, sink, timeouts, bounds
        self._seeds, self._group = target.endpoints, group
        self._table = SlotTable()
        self._nodes: dict[Place, Node] = {}
        self._at: dict[str, Node] = {}  # where each channel that is wanted is subscribed to
        self._look = anyio.Event()
        self._looked = anyio.Event()  # set, and made anew, after each look
        self._problem = "not looked for yet"

    def __repr__(self) -> str:
        return f"<ClusterServer of {len(self._nodes)} masters, {len(self._at)} channels>"

    # ---- commands

    async def execute(self, *command: Arg, key: str = "", timeout: float | None = None) -> Any:
        answer = await self._submit(slot_of(key or _first_key(command)), packed(*command), timeout)
        if isinstance(answer, Exception):
            raise ours(self.label, answer)
        return answer

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], *, timeout: float | None = None
    ) -> Any:
        slots = {slot_of(key) for key in keys}
        if len(slots) != 1:
            raise InvalidChannelLayerError(f"the keys of a script must be in one slot of a cluster: {list(keys)}")
        ask = partial(self._submit, slots.pop())
        answer = await run_script(ask, script, [len(keys), *keys, *args], self._limit(timeout))
        if isinstance(answer, Exception):
            raise ours(self.label, answer)
        return answer

    def part_of(self, key: str) -> int:
        return slot_of(key)

    def node_of(self, key: str) -> Hashable:
        place = self._table.owner(slot_of(key))
        return self if place is None else self._nodes.get(place, self)

    async def pipeline(self, commands: Sequence[tuple[str, Command]], *, timeout: float | None = None) -> list[Any]:
        """As the contract says. Per node all go together; what is redirected follows one by one, in order."""
        limit = self._limit(timeout)
        deadline = anyio.current_time() + limit
        slots = [slot_of(key or _first_key(command)) for key, command in commands]
        answers: list[Any] = [None] * len(commands)
        unsent = list(range(len(commands)))
        while unsent:
            parts: dict[Node, list[int]] = {}
            waiting, unsent = unsent, []
            for index in waiting:
                try:
                    node = await self._node_of(slots[index], deadline - anyio.current_time())
                except LayerUnreachable as error:
                    answers[index] = error
                else:
                    parts.setdefault(node, []).append(index)
            async with collapsed(), anyio.create_task_group() as group:
                for node, indexes in parts.items():
                    part = Part(indexes, slots, commands, answers, unsent)
                    group.start_soon(self._send_part, node, part, deadline, _patience(limit))
            unsent.sort()
            if (left := deadline - anyio.current_time()) <= limit * TOO_LATE:
                break
            if unsent:
                self.look_soon()
                await self._seen(min(PAUSE[0], left))
        if answers and all(isinstance(answer, LayerUnreachable) for answer in answers):
            raise next((answer for answer in answers if isinstance(answer, OutcomeUnknown)), answers[0])
        return answers

    async def _send_part(self, node: Node, part: "Part", deadline: float, patience: float) -> None:
        """Fill in the answers of what one node has, or the errors."""
        data = packed_all([part.commands[index][1] for index in part.indexes])
        left = deadline - anyio.current_time()
        try:
            found = await node.link.submit(data, len(part.indexes), left, patience=patience)
        except TrichannelsError as error:
            self.look_soon()
            found = [error] * len(part.indexes)
            if not_sent(error):
                part.unsent.extend(part.indexes)
        failed: dict[int, TrichannelsError] = {}  # by slot: what could not follow, and so must nothing after it
        for index, answer in zip(part.indexes, found, strict=True):
            if isinstance(answer, Exception) and _again(str(answer)):
                slot = part.slots[index]
                answer = failed.get(slot) or await self._follow_up(slot, part.commands[index][1], deadline)
                if isinstance(answer, LayerUnreachable):
                    failed[slot] = answer
            part.answers[index] = ours(self.label, answer) if isinstance(answer, Exception) else answer

    async def _follow_up(self, slot: int, command: Command, deadline: float) -> Any:
        """Return the answer to a command that was redirected, or the error."""
        try:
            return await self._submit(slot, packed(*command), max(0.0, deadline - anyio.current_time()))
        except TrichannelsError as error:
            return error

    def _limit(self, timeout: float | None) -> float:
        return self.timeouts.reply if timeout is None else timeout

    async def _submit(self, slot: int, data: bytes, timeout: float | None) -> Any:
        """Send a command to whoever has its slot, and follow it where it goes; an error may be what is returned."""
        limit = self._limit(timeout)
        deadline, backoff = anyio.current_time() + limit, Backoff(*PAUSE)
        asked: Node | None = None  # where an ASK leads, this once
        failure: LayerUnreachable | None = None
        while (left := deadline - anyio.current_time()) > limit * TOO_LATE:
            node = asked or await self._node_of(slot, left)
            prefix, asked = (ASKING if asked is not None else b""), None
            try:
                answers = await node.link.submit(prefix + data, 2 if prefix else 1, left, patience=_patience(limit))
            except OutcomeUnknown:
                self.look_soon()
                raise
            except LayerUnreachable as error:
                failure = error
                self.look_soon()
                await self._seen(min(backoff.limit, left))
                continue
            answer = answers[-1]
            if not isinstance(answer, Exception) or not _again(str(answer)):
                return answer
            found = redirection(str(answer))
            if found is None:  # the slot is on its way, or the cluster counts its votes
                await anyio.sleep(min(backoff.next(), left))
            elif found.kind == "ASK":
                asked = self._node_at(self._place(found.place, node))
            else:
                self._table = self._table.with_owner(slot, self._place(found.place, node))
                self._node_at(self._place(found.place, node))
            self.look_soon() if found is None or found.kind == "MOVED" else None
        raise failure or LayerUnreachable(self.label, f"the cluster did not settle within {limit:g} s: {self._problem}")

    def _place(self, place: Place, said_by: Node) -> Place:
        return place if place[0] else (said_by.endpoint.host, place[1])

    # ---- nodes

    async def _node_of(self, slot: int, patience: float) -> Node:
        """Return the master of a slot, as far as is known; waits until one is."""
        with anyio.move_on_after(patience):
            while (place := self._table.owner(slot)) is None:
                self.look_soon()
                await self._looked.wait()
            return self._node_at(place)
        raise LayerUnreachable(
            self.label, f"nobody is known to have slot {slot} within {patience:g} s: {self._problem}"
        )

    def _node_at(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Node(self._seeds[0].at(*place), self)
            self._group.start_soon(node.run)
        return node

    async def _seen(self, patience: float) -> None:
        """Wait until the table has been looked at once more, but not for long."""
        with anyio.move_on_after(patience):
            await self._looked.wait()

    def look_soon(self) -> None:
        """Have the table of slots looked at."""
        self._look.set()

    async def look_after(self) -> None:
        """Keep the table, the nodes and the subscriptions in order. A task of the owner's runs it for ever."""
        pause = PAUSE[0]
        while True:
            if await self._refresh():
                self._settle_nodes()
                pause = PAUSE[0]
            self._looked.set()
            self._looked = anyio.Event()
            quiet = self._healthy
            with anyio.move_on_after(REFRESH_EVERY if quiet else random.uniform(pause / 2, pause)):  # noqa: S311
                await self._look.wait()
                await anyio.sleep(PAUSE[0])  # who asks on and on must not make us do nothing else
            self._look = anyio.Event()
            pause = min(2 * pause, PAUSE[1])

    @property
    def _healthy(self) -> bool:
        """Whether every master is connected, and every subscription in force."""
        return bool(self._nodes) and all(
            node.link.connection is not None and node.subscriber.wanted == node.subscriber.confirmed
            for node in self._nodes.values()
        )

    async def _refresh(self) -> bool:
        """Ask who has which slots: any node that answers."""
        connected = [node.endpoint for node in self._nodes.values() if node.link.connection is not None]
        for endpoint in dict.fromkeys([*connected, *(node.endpoint for node in self._nodes.values()), *self._seeds]):
            try:
                async with open_connection(endpoint, timeout=self.timeouts.connect) as connection:
                    answer = await connection.ask("CLUSTER", "SLOTS", timeout=self.timeouts.reply)
                table = read_slots(answer, endpoint.host)
            except (LayerUnreachable, LayerRefused) as error:
                self._problem = str(error)
                continue
            if table.places:
                self._table = table
                return True
            self._problem = f"{endpoint.label} knows of no slots"
        return False

    def _settle_nodes(self) -> None:
        """Begin with new masters, move subscriptions after their slots, leave the masters that have none."""
        for place in self._table.places:
            self._node_at(place)
        self._follow(self._at)
        for place, node in list(self._nodes.items()):
            if place not in self._table.places:
                del self._nodes[place]
                node.leave()

    # ---- subscriptions

    def _owner(self, channel: str) -> Node | None:
        place = self._table.owner(slot_of(channel))
        return None if place is None else self._node_at(place)

    def _follow(self, channels: Iterable[str]) -> None:
        moves: dict[tuple[Node, Node], list[str]] = {}
        for channel in list(channels):
            old, new = self._at[channel], self._owner(channel)
            if new is not None and new is not old:
                moves.setdefault((old, new), []).append(channel)
                self._at[channel] = new
        for (old, new), moved in moves.items():
            new.subscriber.adopt(old.subscriber.release(moved))
        for node in {self._at[channel] for channel in channels}:
            node.subscriber.ask_again()

    async def subscribe(
        self, channels: Sequence[str], *, patterns: Sequence[str] = (), timeout: float | None = None
    ) -> None:
        if patterns:
            raise InvalidChannelLayerError("a cluster's sharded pub/sub has no patterns")
        limit = self._limit(timeout)
        with anyio.move_on_after(limit):
            parts: dict[Node, list[str]] = {}
            for channel in channels:
                node = self._at.get(channel) or await self._node_of(slot_of(channel), limit)
                self._at[channel] = node
                parts.setdefault(node, []).append(channel)
            try:
                async with collapsed(), anyio.create_task_group() as group:
                    for node, part in parts.items():
                        group.start_soon(node.subscriber.subscribe, part, (), limit)
            except BaseException:
                self._forget(channels)
                raise
            return
        self._forget(channels)
        raise LayerUnreachable(self.label, f"not subscribed within {limit:g} s: {self._problem}")

    def _forget(self, channels: Collection[str]) -> None:
        for channel in channels:
            node = self._at.get(channel)
            if node is not None and not node.subscriber.wants(channel):
                del self._at[channel]

    def unsubscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:
            node = self._at.pop(channel, None)
            if node is not None:
                node.subscriber.unsubscribe([channel])

    # ---- the rest

    def dedicated(self, key: str) -> AbstractAsyncContextManager[Connection]:
        return self._dedicated(key)

    @asynccontextmanager
    async def _dedicated(self, key: str) -> AsyncIterator[Connection]:
        node = await self._node_of(slot_of(key), self.timeouts.connect)
        async with open_connection(node.endpoint, timeout=self.timeouts.connect) as connection:
            yield connection

    async def delete_matching(self, pattern: str) -> int:
        await self._node_of(0, self.timeouts.connect)
        return sum([await delete_on(node.link, pattern) for node in list(self._nodes.values())])

    def statistics(self) -> RedisStatistics:
        links = [node.link for node in self._nodes.values()]
        subscribers = [node.subscriber for node in self._nodes.values()]
        generations = [link.generation for link in links] + [each.generation for each in subscribers]
        return RedisStatistics(
            connections=sum(link.connection is not None for link in links)
            + sum(each.connection is not None for each in subscribers),
            generation=sum(link.generation for link in links),
            reconnects=sum(max(0, generation - 1) for generation in generations),
            in_flight=sum(link.outbox.under_way for link in links),
            waiting=sum(link.outbox.waiting for link in links),
            subscriptions=len(self._at),
        )


ASKING = packed("ASKING")


def _patience(limit: float) -> float:
    """Return the seconds for one node. Another one may have the slot by then: what is not written goes there."""
    return max(limit / 8, 0.1)


def _again(answer: str) -> bool:
    return answer.startswith(("MOVED ", "ASK ", *AGAIN))


def _first_key(command: Sequence[Arg]) -> str:
    if len(command) < 2:
        raise InvalidChannelLayerError(f"{command[0]!r} names no key by which a cluster's node could be found")
    return str(command[1])


@dataclass(frozen=True, slots=True)
class Part:
    """Those of many ``commands`` that one node is asked at once: their ``indexes``, and where the outcome is put."""

    indexes: list[int]
    slots: Sequence[int]
    commands: Sequence[tuple[str, Command]]
    answers: list[Any]
    unsent: list[int]


@asynccontextmanager
async def open_cluster(target: Cluster, sink: Sink, timeouts: Timeouts, bounds: Bounds) -> AsyncIterator[RedisServer]:
    """Keep connections to the masters of a cluster for the block."""
    async with collapsed(), anyio.create_task_group() as group:
        server = ClusterServer(target, sink, timeouts, bounds, group)
        group.start_soon(server.look_after)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()
