"""Publishing to groups: one event or many, with a history or without; and what is kept while a server is away."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import groupby
from typing import TypeAlias

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ...exceptions import LayerUnreachable, OutcomeUnknown, TrichannelsError
from ...nursery import collapsed
from ..history import History, Position
from .backlog import Backlog, Event
from .hub import Hub
from .names import Native
from .options import Buffer
from .refusals import not_sent
from .server import RedisServer

Errors: TypeAlias = dict[int, TrichannelsError]  # by the index of the event

FRAME_EVENTS, FRAME_BYTES = 256, 64 * 1024  # of one group, that are published in one frame
LAST_WORDS = 1.0  # seconds in which a layer that closes sends what it has kept


class Publisher:
    """Sends events to the groups of a layer. With a ``buffer``, what cannot be sent is kept, and nothing overtakes it.

    ``timeout``: seconds for which who comes waits while what is kept is being sent. ``pause``: seconds before what was
    kept, and refused for now, is tried again.
    """

    def __init__(
        self,
        hub: Hub,
        history_of: Callable[[str], History | None],
        buffer: Buffer | None,
        *,
        timeout: float,
        pause: float,
    ) -> None:
        self._hub, self._history_of, self._buffer = hub, history_of, buffer
        self._timeout, self._pause = timeout, pause
        self.backlogs: dict[RedisServer, Backlog] = {}

    def __repr__(self) -> str:
        return f"<Publisher of {self._hub!r}, {self.backlogs or 'nothing kept'}>"

    async def send(self, group: str, sealed: bytes, key: str | None) -> Position | None:
        """Send an event; returns its position, if the group has a history."""
        if self._buffer is None:
            return await self._send(group, sealed, key)
        server, event = self._server_of(group), (group, sealed, key)
        backlog, part = self._backlog_of(server), self._part_of(server, group)
        if backlog.blocks(part):
            await self._pass(backlog, {part})
        if backlog.blocks(part):
            await checkpoint_if_cancelled()
            if not backlog.keep([(part, event)]):
                raise _full(server)
            await cancel_shielded_checkpoint()
            return None
        try:
            return await self._send(group, sealed, key)
        except OutcomeUnknown:
            raise  # to send it once more might send it twice
        except LayerUnreachable:
            if not backlog.keep([(part, event)]):
                raise
            return None

    async def send_many(self, events: Sequence[Event]) -> list[Position | None]:
        """Send events, all that go to one server at once; returns their positions.

        Raises :class:`LayerUnreachable` if none was sent, and :class:`OutcomeUnknown` if some were.
        """
        for server, backlog in list(self.backlogs.items()):
            if len(backlog):
                mine = {group for group, _, _ in events if self._server_of(group) is server}
                await self._pass(backlog, {self._part_of(server, group) for group in mine})
        shares = self._shared(events)
        positions: list[Position | None] = [None] * len(events)
        errors: Errors = {}
        self._keep_late([share for share in shares if share.late])
        shares = [share for share in shares if not share.late]
        if len(shares) == 1:
            await self._send_share(shares[0], positions, errors)
        elif shares:
            async with collapsed(), anyio.create_task_group() as group:
                for share in shares:
                    group.start_soon(self._send_share, share, positions, errors)
        else:
            await cancel_shielded_checkpoint()
        if errors:
            self._keep_unsent(shares, errors)
        if errors:
            raise _in_all(errors, len(events))
        return positions

    # ---- sending

    async def _send(self, group: str, sealed: bytes, key: str | None) -> Position | None:
        hub = self._hub
        history = self._history_of(group)
        if history is not None:
            return await hub.records_of(group).append(group, sealed, history, key)
        channel, server = hub.wire.events(group), self._server_of(group)
        await server.execute(server.publish_command, channel, hub.framing(server)(sealed), key=channel)
        return None

    async def _send_share(self, share: "Share", positions: list[Position | None], errors: Errors) -> None:
        try:
            if share.recorded:
                found = await self._hub.records_of(share.events[0][0]).append_many(share.events, self._history_of)
                for index, answer in zip(share.indexes, found, strict=True):
                    if isinstance(answer, TrichannelsError):
                        errors[index] = answer
                    else:
                        positions[index] = answer
            else:
                await self._publish(share, errors)
        except TrichannelsError as error:
            errors.update(dict.fromkeys(share.indexes, error))

    async def _publish(self, share: "Share", errors: Errors) -> None:
        """Publish events without histories."""
        hub, server = self._hub, share.server
        frames: list[tuple[str, bytes]] = []
        inside: list[Sequence[int]] = []  # the indexes of the events that each frame has
        for group, (indexes, sealed) in _by_group(share).items():
            channel = hub.wire.events(group)
            if isinstance(hub.wire, Native) and server.publish_command == "PUBLISH":
                for start, end in _parts(sealed):
                    part = sealed[start:end]
                    frames.append((channel, hub.wire.event(part[0]) if len(part) == 1 else hub.wire.many(part)))
                    inside.append(indexes[start:end])
            else:
                framing = hub.framing(server)
                frames += [(channel, framing(each)) for each in sealed]
                inside += [(index,) for index in indexes]
        for number, error in (await server.publish_many(frames)).items():
            errors.update(dict.fromkeys(inside[number], error))

    def _shared(self, events: Sequence[Event]) -> list["Share"]:
        """Sort out what goes where."""
        shares: dict[tuple[RedisServer, bool, bool], Share] = {}
        by_group: dict[str, Share] = {}
        for group in dict.fromkeys([group for group, _, _ in events]):
            server, recorded = self._server_of(group), self._history_of(group) is not None
            late = self._buffer is not None and self._backlog_of(server).blocks(self._part_of(server, group))
            by_group[group] = shares.setdefault((server, recorded, late), Share(server, recorded, late))
        if len(shares) == 1:  # nearly always
            for share in shares.values():
                share.indexes.extend(range(len(events)))
                share.events.extend(events)
        else:
            for index, event in enumerate(events):
                share = by_group[event[0]]
                share.indexes.append(index)
                share.events.append(event)
        return list(shares.values())

    # ---- keeping

    async def _pass(self, backlog: Backlog, parts: Iterable[int]) -> None:
        """Wait until what is kept has been sent, if that is being done; not for long."""
        with anyio.move_on_after(self._timeout):
            for part in parts:
                await backlog.passed(part)

    def _server_of(self, group: str) -> RedisServer:
        return self._hub.server_of(self._hub.name_to_hash(group))

    def _part_of(self, server: RedisServer, group: str) -> int:
        return server.part_of(self._hub.wire.events(group))

    def _backlog_of(self, server: RedisServer) -> Backlog:
        backlog = self.backlogs.get(server)
        if backlog is None:
            assert self._buffer is not None
            send, start_soon = partial(self._send_kept, server), self._hub.start_soon
            backlog = self.backlogs[server] = Backlog(self._buffer, send, start_soon, self._pause)
        return backlog

    def _keep(self, server: RedisServer, events: Mapping[int, Event]) -> bool:
        kept = [(self._part_of(server, event[0]), event) for _, event in sorted(events.items())]
        return self._backlog_of(server).keep(kept)

    def _keep_late(self, shares: Sequence["Share"]) -> None:
        """Keep those behind which older ones wait, in the order in which they were given; all of them or none."""
        late = _by_server(shares)
        for server, events in late.items():
            if not self._backlog_of(server).fits(events.values()):
                raise _full(server)
        for server, events in late.items():
            self._keep(server, events)

    def _keep_unsent(self, shares: Sequence["Share"], errors: Errors) -> None:
        """Keep what was not sent, if all of it has room; then it is no error."""
        if self._buffer is None:
            return
        for server, events in _by_server(shares).items():
            unsent = {index: event for index, event in events.items() if not_sent(errors.get(index))}
            if unsent and self._keep(server, unsent):
                for index in unsent:
                    del errors[index]

    async def _send_kept(self, server: RedisServer, events: Sequence[Event]) -> list[TrichannelsError | None]:
        """Send events that were kept; returns the error of each, or None."""
        results: list[TrichannelsError | None] = []
        for recorded, run in groupby(events, key=lambda event: self._history_of(event[0]) is not None):
            share = Share(server, recorded, late=False)
            share.events.extend(run)
            share.indexes.extend(range(len(share.events)))
            errors: Errors = {}
            await self._send_share(share, [None] * len(share.events), errors)
            results += [errors.get(index) for index in share.indexes]
            if away := next((error for error in errors.values() if not_sent(error)), None):
                results += [away] * (len(events) - len(results))
                break
        return results

    async def close(self) -> None:
        """Send what is kept, if that can be done soon."""
        with anyio.move_on_after(LAST_WORDS, shield=True):
            for backlog in list(self.backlogs.values()):
                await backlog.sent()
        for backlog in self.backlogs.values():
            backlog.give_up()


class Share:
    """What of many events goes to one ``server``; ``indexes``: which ones of all.

    ``recorded``: their groups have histories. ``late``: older ones are kept, behind which they have to wait.
    """

    __slots__ = ("events", "indexes", "late", "recorded", "server")

    def __init__(self, server: RedisServer, recorded: bool, late: bool) -> None:
        self.server, self.recorded, self.late = server, recorded, late
        self.indexes: list[int] = []
        self.events: list[Event] = []


def _by_server(shares: Iterable[Share]) -> dict[RedisServer, dict[int, Event]]:
    """Return the events of each server by their indexes."""
    found: dict[RedisServer, dict[int, Event]] = {}
    for share in shares:
        found.setdefault(share.server, {}).update(zip(share.indexes, share.events, strict=True))
    return found


def _by_group(share: Share) -> dict[str, tuple[list[int], list[bytes]]]:
    """Return the indexes and the messages of each group."""
    groups = {group for group, _, _ in share.events}
    if len(groups) == 1:  # often, and then it is done for a fraction
        return {groups.pop(): (share.indexes, [sealed for _, sealed, _ in share.events])}
    found: dict[str, tuple[list[int], list[bytes]]] = {}
    for index, (group, sealed, _) in zip(share.indexes, share.events, strict=True):
        mine = found.get(group)
        if mine is None:
            mine = found[group] = [], []
        mine[0].append(index)
        mine[1].append(sealed)
    return found


def _parts(sealed: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where the parts begin and end that go into one frame each."""
    if len(sealed) <= FRAME_EVENTS and sum(map(len, sealed)) <= FRAME_BYTES:
        yield 0, len(sealed)
        return
    start = size = 0
    for end, each in enumerate(sealed):
        if end > start and (size + len(each) > FRAME_BYTES or end - start >= FRAME_EVENTS):
            yield start, end
            start, size = end, 0
        size += len(each)
    yield start, len(sealed)


def _full(server: RedisServer) -> LayerUnreachable:
    return LayerUnreachable(server.label, "it is away, and the buffer of events is full")


def _in_all(errors: Errors, count: int) -> TrichannelsError:
    """Return what is to be raised if some of ``count`` events failed."""
    first = errors[min(errors)]
    worse = next((errors[index] for index in sorted(errors) if not not_sent(errors[index])), None)
    if worse is not None:
        return copy(worse)
    assert isinstance(first, LayerUnreachable)
    if len(errors) == count:
        return copy(first)
    done = f"{count - len(errors)} of {count} events were sent, the others were not"
    return OutcomeUnknown(first.where, f"{done}: {first.problem}")
