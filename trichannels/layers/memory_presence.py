"""The presence of the memory layer: who is in which group of this process, and the tasks that tell the members."""

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from itertools import islice
from math import inf
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import LayerClosed
from ..seam import Wake, loop_clock, open_wake
from .history import Position
from .presence import Diff, Presence, PresenceState, open_entries, pace, seal_entry
from .serializers import Message, Serializer

Tell: TypeAlias = Callable[[str, Message], Awaitable[object]]
StartSoon: TypeAlias = Callable[..., object]

MOST_EMPTY = 1024  # groups where nobody is, whose position is remembered
ABSENT = object()


class Room:
    """The presence of one group, and who waits for what becomes of it."""

    __slots__ = ("askers", "state", "telling", "told", "wake")

    def __init__(self, state: PresenceState) -> None:
        self.state = state
        self.wake: Wake = open_wake()
        self.telling = False  # there is a task that tells the members
        self.told = anyio.Event()  # set when the members have what is news now
        self.askers: list[Asker] = []  # who wants to know who is there as soon as there are no news

    def __repr__(self) -> str:
        return f"<Room of {self.state!r}>"


class Asker:
    """One who waits for a snapshot."""

    __slots__ = ("answer", "answered")

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: tuple[Position, list[bytes]] | None = None


class MemoryPresence:
    """A :class:`~trichannels.layers.presence.PresenceBoard` without a wire. ``tell`` sends an event to a group's
    members, ``start_soon`` starts a task of the layer.
    """

    def __init__(self, *, linger: float, serializer: Serializer, tell: Tell, start_soon: StartSoon) -> None:
        self._linger, self._serializer = linger, serializer
        self._tell_members, self._start_soon = tell, start_soon
        self._now = loop_clock()
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._empty: OrderedDict[str, None] = OrderedDict()  # groups where nobody is, the oldest first
        self._held: dict[str, set[tuple[str, str]]] = {}  # of each connection its groups and keys
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryPresence of {len(self._rooms)} groups>"

    @property
    def presences(self) -> int:
        return sum(map(len, self._held.values()))

    async def enter(self, group: str, connection: str, key: str, meta: Any) -> None:
        sealed = seal_entry(self._serializer, key, meta)
        await checkpoint()
        room = self._room(group)
        before = room.state.meta_of(connection, key, ABSENT)
        room.state.enter(connection, key, sealed)
        self._held.setdefault(connection, set()).add((group, key))
        self._empty.pop(group, None)
        try:
            await self._told(group, room)
        except BaseException:
            if room.state.meta_of(connection, key) is sealed:  # nobody has changed it since
                self._undo(group, room, connection, key, before)
            raise

    def _undo(self, group: str, room: Room, connection: str, key: str, before: object) -> None:
        if before is ABSENT:
            self.leave(group, connection, key)
        else:
            room.state.enter(connection, key, before)

    def leave(self, group: str, connection: str, key: str) -> None:
        room, held = self._rooms.get(group), self._held.get(connection, set())
        if room is None or (group, key) not in held:
            return
        held.discard((group, key))
        if not held:
            del self._held[connection]
        room.state.leave(connection, key, now=self._now())
        self._stir(group, room)

    def leave_all(self, connection: str) -> None:
        for group, key in list(self._held.get(connection, ())):
            self.leave(group, connection, key)

    async def snapshot(self, group: str) -> Presence:
        await checkpoint()
        room = self._room(group)
        if room.state.has_news:
            # Not now: else a burst, in which each arrival asks who is there, would be told one by one.
            asker = Asker()
            room.askers.append(asker)
            self._stir(group, room)
            await asker.answered.wait()
            self._require_open()
            assert asker.answer is not None
            position, entries = asker.answer
        else:
            position, entries = room.state.position, _entries_of(room.state)
        return Presence(group, open_entries(self._serializer, entries), position)

    async def count(self, group: str) -> int:
        await checkpoint()
        room = self._rooms.get(group)
        return 0 if room is None else room.state.count

    def flush(self) -> None:
        """Forget all presences, and tell nobody."""
        self._held.clear()
        for group, room in list(self._rooms.items()):
            room.state = self._new_state()
            self._let_go(room)
            self._note_if_empty(group, room)

    def close(self) -> None:
        """Wake whoever waits; the layer ends the tasks."""
        self._closed = True
        self._held.clear()
        for room in self._rooms.values():
            self._let_go(room)

    def _let_go(self, room: Room) -> None:
        told, room.told = room.told, anyio.Event()
        told.set()
        self._answer(room)

    def _require_open(self) -> None:
        if self._closed:
            raise LayerClosed("the layer")

    # ---- rooms

    def _room(self, group: str) -> Room:
        room = self._rooms.get(group)
        if room is None:
            room = self._rooms[group] = Room(self._new_state())
            self._note_if_empty(group, room)
        return room

    def _new_state(self) -> PresenceState:
        return PresenceState(secrets.token_hex(8), linger=self._linger)

    def _note_if_empty(self, group: str, room: Room) -> None:
        """Remember where the position of an empty group stands, but not for ever."""
        if room.state.count or room.telling:
            return
        self._empty[group] = None
        self._empty.move_to_end(group)
        for oldest in list(islice(self._empty, max(0, len(self._empty) - MOST_EMPTY))):
            del self._empty[oldest], self._rooms[oldest]

    # ---- telling the members

    async def _told(self, group: str, room: Room) -> None:
        """Wait until the members have the news that there are now."""
        if room.state.has_news:
            self._stir(group, room)
            await room.told.wait()
            self._require_open()

    def _stir(self, group: str, room: Room) -> None:
        """Let the group's task look at what is new, or begin it."""
        if room.telling:
            room.wake.ring()
            return
        room.telling = True
        self._empty.pop(group, None)
        self._start_soon(self._tell, group, room)

    async def _tell(self, group: str, room: Room) -> None:
        """Tell the members what is new, until there is nothing more to come by itself. One task for each group."""
        try:
            while True:
                room.state.expire(self._now())
                if room.state.has_news:
                    await self._tell_once(group, room)
                elif (due := room.state.next_expiry) < inf:
                    with anyio.CancelScope(deadline=due):
                        await room.wake.sleep()
                else:
                    return
        finally:
            room.telling = False
            self._note_if_empty(group, room)

    async def _tell_once(self, group: str, room: Room) -> None:
        diff = room.state.take()
        told, room.told = room.told, anyio.Event()
        self._answer(room)
        if diff is not None:
            try:
                await self._tell_members(group, self._opened(diff).event(group))
            finally:
                told.set()
            await anyio.sleep(pace(room.state.count))
        else:
            told.set()

    def _answer(self, room: Room) -> None:
        askers, room.askers = room.askers, []
        entries = _entries_of(room.state) if askers else []
        for asker in askers:
            asker.answer = room.state.position, entries
            asker.answered.set()

    def _opened(self, diff: Diff) -> Diff:
        joins, leaves = (
            open_entries(self._serializer, (entry for entries in part.values() for entry in entries))
            for part in (diff.joins, diff.leaves)
        )
        return Diff(joins, leaves, diff.position)


def _entries_of(state: PresenceState) -> list[bytes]:
    return [entry for entries in state.members().values() for entry in entries]
