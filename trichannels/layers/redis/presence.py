"""The presence of groups in Redis, as one process sees it.

Each group has one writer, which sends what has changed, in order and in batches: whoever arrives in a burst is told of
in one diff. A beat, four to a lease, renews what this process holds, sends again what may be lost, and buries whoever
else's lease has run out in the groups that this process has seen: a process that died without a word need not be known
to anybody. All of that is one script, ``lua/presence.lua``.
"""

import heapq
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ...exceptions import LayerClosed, LayerUnreachable, OutcomeUnknown, TrichannelsError
from ...seam import loop_clock, open_wake
from ..presence import Presence, open_entries, pace, seal_entry
from ..serializers import Encrypted, Message, Serializer
from .names import Native
from .presence_answers import MARK, Answer, read_diff, read_entries
from .presence_room import Entry, Room
from .scripts import Script
from .server import RedisServer
from .waiter import Waiter

PRESENCE = Script.from_file("presence")

BATCH = 256  # changes that one script makes
VISITS = 32  # groups of a node that are renewed at once
MOST_SEEN = 1024  # groups in which this process holds nothing, and which it sweeps all the same
ENTRIES = 512  # of a snapshot that are read before others get a turn
BEATS = 4  # to a lease
RETRY = 0.05  # seconds before what failed with others is tried for oneself
WIRE_LEASE = 0.7  # of the lease: then the server takes a process for dead, which is found a beat later, that is in time
KEEP = 10  # leases for which the keys stay that nobody touches


class RedisPresence:
    """A :class:`~trichannels.layers.presence.PresenceBoard` in Redis, of one process.

    ``server_of`` tells which server a group is on, ``token`` names the process, ``start_soon`` starts a task of the
    layer. ``lease`` and ``linger`` are those of the layer, in seconds, as is ``timeout``, within which everything here
    succeeds or raises :class:`LayerUnreachable`. Call ``restored`` when a server is back, ``decode_diff`` with what
    comes to a group in frames of the kind ``names.PRESENCE``, and await ``close`` while the servers are still there.
    """

    def __init__(
        self,
        server_of: Callable[[str], RedisServer],
        names: Native,
        *,
        token: str,
        serializer: Serializer,
        lease: float,
        linger: float,
        start_soon: Callable[..., object],
        timeout: float = 5,
    ) -> None:
        self._server_of, self._names, self._token = server_of, names, token
        self._serializer, self._start_soon = serializer, start_soon
        self._pseudonym = serializer.pseudonym if isinstance(serializer, Encrypted) else None
        self._lease, self._linger, self._timeout = lease, linger, timeout
        self._beat = lease / BEATS
        self._settings = (
            max(1, int(lease * WIRE_LEASE * 1000)), int(linger * 1000), int((KEEP * lease + linger) * 1000),
        )  # fmt: skip
        self._now = loop_clock()
        self._rooms: dict[str, Room] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()  # rooms in which nothing is held, the oldest first
        self._held: dict[str, dict[tuple[str, str], None]] = {}  # of each connection its groups and fields
        self._sequence = 0  # of changes: one that arrives after a later one is void
        self._due: list[tuple[float, str]] = []  # a heap: when a group has something that ends
        self._due_at: dict[str, float] = {}  # the same, by group
        self._to_visit: dict[Hashable, dict[str, Room]] = {}  # by node, those who wait for a visit, by group
        self._visiting: set[Hashable] = set()  # nodes that are visited now
        self._bell = open_wake()
        self._beating = self._in_doubt = self._closed = False

    def __repr__(self) -> str:
        return f"<RedisPresence of {len(self._held)} connections in {len(self._rooms)} groups>"  # tasks are named by it

    @property
    def presences(self) -> int:
        return sum(map(len, self._held.values()))

    # ---- coming and going

    async def enter(self, group: str, connection: str, key: str, meta: Any) -> None:
        sealed = MARK + seal_entry(self._serializer, key, meta)
        await checkpoint_if_cancelled()
        room = self._room(group)
        entry = self._want(room, connection, self._field(group, connection, key), sealed)
        before, waiter = entry.settled, Waiter()
        entry.waiters.append(waiter)
        try:
            with self._in_time(room.server):
                await waiter.outcome()
        except BaseException:
            if entry.wanted is sealed and room.entries.get(entry.field) is entry:  # nobody has changed it since
                self._want(room, connection, entry.field, before if entry.settled is sealed else entry.settled)
            raise

    def leave(self, group: str, connection: str, key: str) -> None:
        field = self._field(group, connection, key)
        if (group, field) in self._held.get(connection, ()):
            self._let_go(group, connection, field)

    def leave_all(self, connection: str) -> None:
        for group, field in list(self._held.get(connection, ())):
            self._let_go(group, connection, field)

    def _let_go(self, group: str, connection: str, field: str) -> None:
        self._want(self._rooms[group], connection, field, None).settled = None

    def _want(self, room: Room, connection: str, field: str, sealed: bytes | None) -> Entry:
        """Write down what is wanted, and see to it that it is sent."""
        self._idle.pop(room.group, None)
        place = (room.group, field)
        if sealed is not None:
            self._held.setdefault(connection, {})[place] = None
        elif place in self._held.get(connection, ()):
            del self._held[connection][place]
            if not self._held[connection]:
                del self._held[connection]
        entry = room.want(field, sealed)
        self._write_soon(room)
        return entry

    def _field(self, group: str, connection: str, key: str) -> str:
        return f"{connection}\n{key if self._pseudonym is None else self._pseudonym(f'{group} {key}')}"

    @contextmanager
    def _in_time(self, server: RedisServer) -> Iterator[None]:
        try:
            with anyio.fail_after(self._timeout):
                yield
        except TimeoutError:
            raise LayerUnreachable(server.label, f"no answer within {self._timeout:g} s") from None

    # ---- who is there

    async def snapshot(self, group: str) -> Presence:
        await checkpoint()
        room = self._room(group)
        with self._in_time(room.server):
            await self._sent(room)
            raw = await self._read(room)
        sealed = read_entries(raw)
        members: dict[str, list[Any]] = {}
        for start in range(0, len(sealed), ENTRIES):
            for key, metas in open_entries(self._serializer, sealed[start : start + ENTRIES]).items():
                members.setdefault(key, []).extend(metas)
            await checkpoint()
        return Presence(group, members, Answer.of(raw).position)

    async def count(self, group: str) -> int:
        await checkpoint()
        room = self._room(group)
        with self._in_time(room.server):
            await self._sent(room)
            return Answer.of(await self._ask(room, "count")).count

    async def _sent(self, room: Room) -> None:
        """Wait until all is sent that this process has changed before."""
        while (waiter := room.barrier()) is not None:
            self._write_soon(room)
            try:
                await waiter.outcome()
            except LayerUnreachable:  # of what was sent before we asked: its time was over sooner than ours is
                await anyio.sleep(RETRY)

    async def _read(self, room: Room) -> Any:
        """Ask who is there; those who ask at once share an answer."""
        self._require_open()
        asker = Waiter()
        room.askers.append(asker)
        if not room.reading:
            room.reading = True
            self._start_soon(self._answer, room)
        return await asker.outcome()

    async def _answer(self, room: Room) -> None:
        """Read for those who have asked so far, until nobody asks. A task of the layer."""
        try:
            while room.askers:
                askers, room.askers = room.askers, []
                answer, error = None, None
                try:
                    answer = await self._ask(room, "read")
                except TrichannelsError as problem:
                    error = problem
                except BaseException:
                    error = LayerClosed("the layer")
                    raise
                finally:
                    for asker in askers:
                        asker.settle(error, answer)
        finally:
            room.reading = False
            self._note_if_idle(room)

    async def _ask(self, room: Room, what: str) -> Any:
        """Ask once more if the answer was lost: it changes nothing."""
        try:
            return await self._run(room, what, "")
        except OutcomeUnknown:
            return await self._run(room, what, "")

    def decode_diff(self, group: str, body: bytes) -> Message:
        """Return the event that a diff on the wire stands for; raises :class:`UnreadableMessage`."""
        if not self._closed:
            self._room(group)  # from now on it is swept
        return read_diff(body, self._serializer).event(group)

    # ---- rooms

    def _room(self, group: str) -> Room:
        self._require_open()
        room = self._rooms.get(group)
        if room is None:
            room = self._rooms[group] = Room(group, self._server_of(group))
            self._note_if_idle(room)
        if not self._beating:
            self._beating = True
            self._start_soon(self._watch)
        return room

    def _note_if_idle(self, room: Room) -> None:
        if not room.idle:
            return
        self._idle[room.group] = None
        for oldest in list(islice(self._idle, max(0, len(self._idle) - MOST_SEEN))):
            self._forget(oldest)

    def _forget(self, group: str) -> None:
        self._idle.pop(group, None)
        if group in self._rooms and self._rooms[group].idle:
            del self._rooms[group]

    def _require_open(self) -> None:
        if self._closed:
            raise LayerClosed("the layer")

    # ---- the writer

    def _write_soon(self, room: Room) -> None:
        if room.dirty and not room.writing and not self._closed:
            room.writing = True
            self._start_soon(self._write, room)

    async def _write(self, room: Room) -> None:
        """Send what is to be sent, until there is nothing more, or the server fails. A task of the layer."""
        try:
            while room.dirty:
                if (pause := room.not_before - self._now()) > 0:
                    await anyio.sleep(pause)
                if not await self._write_once(room):
                    return
        finally:
            room.writing = False
            self._note_if_idle(room)

    async def _write_once(self, room: Room) -> bool:
        batch = room.take(BATCH)
        if not batch:
            return True
        self._sequence += 1
        changes: list[Any] = []
        for entry, wanted, _ in batch:
            changes += (entry.field, b"" if wanted is None else wanted)
        try:
            raw = await self._run(room, "change", self._token, self._sequence, *changes)
            if not raw:
                raise OutcomeUnknown(room.server.label, "a change of the presence was overtaken by a later one")
        except TrichannelsError as error:
            room.fail(batch, error)
            self._try_again(room)
            return False
        except BaseException:
            room.fail(batch, LayerClosed("the layer"))
            raise
        answer = Answer.of(raw)
        room.failures = 0
        room.not_before = self._now() + pace(answer.count)
        room.confirm(batch, all_lost=answer.lapsed)
        self._come_again(room, answer)
        return True

    def _try_again(self, room: Room) -> None:
        """What could not be sent is sent again soon: it may have been one connection that broke, no more."""
        room.failures += 1
        pause = min(self._beat, RETRY * 2.0 ** min(room.failures, 16))
        self._see_to(room, random.uniform(0.5, 1) * pause)  # noqa: S311 - jitter

    async def _run(self, room: Room, what: str, owner: str, *more: Any, timeout: float | None = None) -> Any:
        names, group = self._names, room.group
        board = names.key(group, "presence")
        keys = [board, f"{board}:owners", f"{board}:lingering", f"{board}:{owner}" if owner else board]
        server = room.server
        arguments = (what, secrets.token_hex(8), owner, *self._settings, server.publish_command)
        return await server.run(
            PRESENCE, keys, (*arguments, names.events(group), *more), timeout=timeout or self._timeout
        )

    # ---- the beat

    def restored(self) -> None:
        """A server is back, or another one is in its place: look after everything now."""
        self._in_doubt = True
        self._bell.ring()

    async def _watch(self) -> None:
        """Renew what is held, and bury the dead, at every beat; and where something ends, when it does. A task."""
        next_beat = self._now() + self._beat * random.uniform(0.5, 1)  # noqa: S311 - not all processes at once
        while True:
            with anyio.CancelScope(deadline=min(next_beat, self._due[0][0] if self._due else inf)):
                await self._bell.sleep()
            now = self._now()
            if self._in_doubt or now >= next_beat:
                self._in_doubt, next_beat = False, now + self._beat
                self._visit_soon(self._rooms.values())
            else:
                self._visit_soon(self._rooms[group] for group in self._take_due(now) if group in self._rooms)

    def _visit_soon(self, rooms: Iterable[Room]) -> None:
        """Have groups visited, those of each node by a task of its own: one that is away holds up no other."""
        for room in rooms:
            node = room.server.node_of(self._names.key(room.group, "presence"))
            waiting = self._to_visit.setdefault(node, {})
            waiting[room.group] = room
            if node not in self._visiting:
                self._visiting.add(node)
                self._start_soon(self._visit, node, waiting)

    def _take_due(self, now: float) -> set[str]:
        due = set()
        while self._due and self._due[0][0] <= now:
            at, group = heapq.heappop(self._due)
            if self._due_at.get(group) == at:
                del self._due_at[group]
                due.add(group)
        return due

    def _come_again(self, room: Room, answer: Answer) -> None:
        if answer.again >= 0:
            self._see_to(room, answer.again)

    def _see_to(self, room: Room, seconds: float) -> None:
        """Visit a group after so many seconds, if not before."""
        at = self._now() + seconds
        if at < self._due_at.get(room.group, inf):
            self._due_at[room.group] = at
            heapq.heappush(self._due, (at, room.group))
            self._bell.ring()

    async def _visit(self, node: Hashable, waiting: dict[str, Room]) -> None:
        """Renew, or sweep, the groups of a node that wait for it; later, if it cannot be reached. A layer's task."""
        try:
            missed: list[Room] = []
            while waiting and not missed:
                rooms = [waiting.pop(group) for group in list(islice(waiting, VISITS))]
                async with anyio.create_task_group() as visitors:
                    for room in rooms:
                        visitors.start_soon(self._visit_one, room, missed)
            if missed:
                for room in [*missed, *waiting.values()]:
                    self._see_to(room, random.uniform(0.1, 1) * self._beat)  # noqa: S311 - not the same ones first
        finally:
            self._visiting.discard(node)
            del self._to_visit[node]

    async def _visit_one(self, room: Room, missed: list[Room]) -> None:
        if self._rooms.get(room.group) is not room:
            return
        changes, quiet = room.changes, room.quiet
        if not quiet:
            self._write_soon(room)
        owner = self._token if room.entries else ""
        try:
            raw = await self._run(room, "renew", owner, timeout=min(self._timeout, max(self._beat, 0.1)))
            answer = Answer.of(raw)
            unchanged = quiet and room.quiet and room.changes == changes
            if owner and unchanged and not answer.lapsed and answer.held != len(room.entries):
                await self._repair(room)
        except LayerUnreachable:
            missed.append(room)
        except TrichannelsError:
            pass  # the server refuses: whoever wants something of it is told so
        else:
            self._heed(room, owner, answer)

    def _heed(self, room: Room, owner: str, answer: Answer) -> None:
        if owner and answer.lapsed:
            room.doubt()
            self._write_soon(room)
        if answer.count == 0 and room.idle:
            self._forget(room.group)
        else:
            self._come_again(room, answer)

    async def _repair(self, room: Room) -> None:
        """The server has more or less than this process holds: a change that came too late for anybody to know."""
        board = self._names.key(room.group, "presence")
        fields = await room.server.execute("HKEYS", f"{board}:{self._token}", key=board)
        room.compare({field.decode() for field in fields} - {"#"})
        self._write_soon(room)

    # ---- the end

    async def close(self, patience: float = 1.0) -> None:
        """Let everybody leave who is still here, and tell the servers if they can be reached within ``patience``."""
        for connection in list(self._held):
            self.leave_all(connection)
        try:
            with anyio.move_on_after(patience, shield=True):
                for room in list(self._rooms.values()):
                    if not room.quiet:
                        await self._last_word(room)
        finally:
            self._closed = True
            for room in self._rooms.values():
                room.give_up(LayerClosed("the layer"))

    async def _last_word(self, room: Room) -> None:
        with suppress(TrichannelsError):  # then the lease runs out
            await self._sent(room)

    def flush(self) -> None:
        """Forget all presences of this process without a word to the server, from which the layer deletes them."""
        self._held.clear()
        for room in list(self._rooms.values()):
            room.give_up(None)
            self._note_if_idle(room)
