"""A connection for subscriptions alone. It knows what is wanted, and sees to it that it is in force, again and again.

RESP3 answers SUBSCRIBE by pushes, one a channel; a refusal comes as an ordinary error. So each batch ends with a PING
whose text nobody else uses: what it has brought until then is its outcome.
Source: https://redis.io/docs/latest/develop/pubsub/
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import anyio

from ...exceptions import LayerRefused, LayerUnreachable, TrichannelsError
from .connection import open_connection, refused
from .lasting import Attempts, Lasting, Resolve, watched
from .outbox import Outbox, OutOfStep, Pending, packed
from .server import Bounds, Sink, Timeouts

log = logging.getLogger("trichannels.layers.redis")

BATCH = 500  # channels that one command names
AT_ONCE = 8  # batches that are on their way; what is wanted meanwhile goes together into the next one

# The verbs of pub/sub: plain, by pattern, and sharded, with the kinds of pushes that belong to each.
VERBS = {"": ("SUBSCRIBE", "UNSUBSCRIBE"), "p": ("PSUBSCRIBE", "PUNSUBSCRIBE"), "s": ("SSUBSCRIBE", "SUNSUBSCRIBE")}
BEGUN = {b"subscribe": "", b"psubscribe": "p", b"ssubscribe": "s"}
ENDED = {b"unsubscribe": "", b"punsubscribe": "p", b"sunsubscribe": "s"}
ELSEWHERE = ("MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN")  # a cluster's way to say: not here, or not now
Name = tuple[str, str]  # the kind of a subscription, and a channel or pattern


class Request:
    """Somebody who waits until some subscriptions are confirmed."""

    __slots__ = ("confirmed", "error", "missing", "names", "over")

    def __init__(self, names: Iterable[Name], confirmed: set[Name]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.missing = {name for name in self.names if name not in confirmed}
        self.confirmed = False
        self.over = anyio.Event()
        self.error: TrichannelsError | None = None


Handover = list[tuple[Name, int, list[Request]]]  # by how many calls it is held, and who waits for it


class Subscriber(Lasting):
    """The subscriptions of one process at one server. ``run`` is its whole life, in a task of its owner's.

    ``kind``: ``""`` for plain channels, ``"s"`` for those of a cluster's shards.
    """

    def __init__(
        self, label: str, resolve: Resolve, sink: Sink, timeouts: Timeouts, bounds: Bounds, kind: str = ""
    ) -> None:
        super().__init__(label, resolve, timeouts, bounds)
        self._sink, self._kind = sink, kind
        self.wanted: set[Name] = set()
        self.confirmed: set[Name] = set()
        self._held: Counter[Name] = Counter()  # by how many calls of subscribe() that have succeeded
        self._requests: dict[Name, list[Request]] = {}
        self._granted: set[Request] = set()  # those whose task has not woken up yet
        self._lost: set[Name] = set()  # the sink has been told so, and not yet that they are back
        self._restored: set[Name] = set()  # it is about to be told
        self._refused: set[Name] = set()  # somebody has been told
        self._wishes: dict[Name, bool] = {}  # what the server has not been told yet: to begin (True) or to end one
        self._on_their_way: Counter[Name] = Counter()  # commands that name it and are not answered
        self._batches = 0
        self._numbers = itertools.count()
        self._outbox: Outbox | None = None

    def __repr__(self) -> str:
        return f"<Subscriber to {self.label}, {len(self.confirmed)} of {len(self.wanted)} in force>"

    # ---- what is wanted

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str], timeout: float | None = None) -> None:
        """Want these from now on, and wait until they are confirmed.

        If that fails they are not wanted any more, except for those that another call has got, or waits for.
        """
        await anyio.lowlevel.checkpoint()
        names = [(self._kind, channel) for channel in channels] + [("p", pattern) for pattern in patterns]
        limit = self._timeouts.reply if timeout is None else timeout
        if self.denied is not None:
            raise copy(self.denied)
        request = Request(names, self.confirmed)
        try:
            self._want(request)
            with anyio.move_on_after(limit):
                await request.over.wait()
            self._granted.discard(request)
            if request.error is not None:
                raise copy(request.error) from request.error
            if not request.confirmed:
                raise LayerUnreachable(self.label, f"not subscribed within {limit:g} s: {self.problem}")
        except BaseException:
            self._give_up(request)
            raise

    def wants(self, channel: str) -> bool:
        """Say whether a channel is wanted."""
        return (self._kind, channel) in self.wanted

    def release(self, channels: Sequence[str]) -> "Handover":
        """Give up channels that another takes over, and tell that they are lost."""
        names = [(self._kind, channel) for channel in channels]
        self._lose([name for name in names if name in self.confirmed])
        handover = [(name, self._held[name], self._requests.pop(name, [])) for name in names if name in self.wanted]
        self._leave(names)
        return handover

    def adopt(self, handover: "Handover") -> None:
        """Want what another has given up; the sink is told when it is in force again."""
        names = [name for name, _, _ in handover]
        self.wanted.update(names)
        self._lost.update(name for name, held, _ in handover if held)
        for name, held, requests in handover:
            self._held[name] += held
            if requests:
                self._requests.setdefault(name, []).extend(requests)
        self._wish(names, True)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Want these no more, whoever wanted them; who still waits for one is told."""
        names = [(self._kind, channel) for channel in channels]
        for name in names:
            error = LayerUnreachable(self.label, f"unsubscribed from {name[1]} before that was confirmed")
            self._fail(name, error)
            for request in [request for request in self._granted if name in request.names]:
                self._take_back(request)
                request.error = error
        self._leave(names)

    def _want(self, request: Request) -> None:
        fresh = [name for name in request.missing if name not in self.wanted]
        for name in request.missing:
            self._requests.setdefault(name, []).append(request)
        self.wanted.update(fresh)
        self._wish(fresh, True)
        self._complete(request)

    def _complete(self, request: Request) -> None:
        if not request.missing:
            request.confirmed = True
            self._held.update(request.names)
            self._granted.add(request)
            request.over.set()

    def _take_back(self, request: Request) -> None:
        """What it was granted it does not hold any more."""
        self._granted.discard(request)
        request.confirmed = False
        for name in request.names:
            if name in self._held:
                self._held[name] -= 1

    def _give_up(self, request: Request) -> None:
        if request.confirmed:  # it was cancelled at that very moment
            self._take_back(request)
        for name in request.missing:
            waiting = self._requests.get(name, [])
            if request in waiting:
                waiting.remove(request)
            if not waiting:
                self._requests.pop(name, None)
        free = {name for name in request.names if self._held[name] <= 0 and name not in self._requests}
        if not free.isdisjoint(self.confirmed):  # a call that waits for others may have found it in force
            free.difference_update(*(other.names for waiting in self._requests.values() for other in waiting))
        self._leave(free)

    def _leave(self, names: Iterable[Name]) -> None:
        left = [name for name in names if name in self.wanted]
        for known in (self.wanted, self.confirmed, self._lost, self._restored, self._refused):
            known.difference_update(left)
        for name in left:
            self._held.pop(name, None)
        self._wish(left, False)

    # ---- what the server is told

    def _wish(self, names: Iterable[Name], begin: bool) -> None:
        """Tell the server as soon as may be; on the next connection, all that is wanted is asked for anyhow."""
        if self._outbox is None:
            return
        self._wishes.update(dict.fromkeys(names, begin))
        self._tell()

    def _tell(self) -> None:
        while self._wishes and self._batches < AT_ONCE:
            (kind, _), begin = next(iter(self._wishes.items()))
            alike = (name for name, wish in self._wishes.items() if (name[0], wish) == (kind, begin))
            most = 1 if kind == "s" else BATCH  # those of different slots must not stand in one command
            names = list(itertools.islice(alike, most))
            for name in names:
                del self._wishes[name]
            self._send(names, begin)

    def _send(self, names: Sequence[Name], begin: bool) -> None:
        if self._outbox is None:
            return
        verb = VERBS[names[0][0]][0 if begin else 1]
        token = f"trichannels-{next(self._numbers)}".encode()
        data = packed(verb, *(channel for _, channel in names)) + packed("PING", token)
        self._on_their_way.update(names)
        self._batches += 1
        self._outbox.put(_Batch(self, data, token, names, begin))

    def batch_over(self, names: Sequence[Name], begin: bool, error: Exception | None) -> None:
        """All answers to a batch are there; with an error, the server has carried out nothing of it."""
        self._batches -= 1
        if error is not None:
            for name in names:
                self._answered(name)
            self._sort_out([name for name in names if begin and name in self.wanted], len(names), error)
        self._tell()

    def _sort_out(self, names: list[Name], count: int, error: Exception) -> None:
        """A command that named ``count`` channels was refused: which of those still wanted does the server not like?"""
        half = (len(names) + 1) // 2
        if names and str(error).startswith(ELSEWHERE):
            self.moved([channel for _, channel in names])
        elif count == 1 and names:
            self._refuse(names[0], refused(self.label, error))
        elif names:
            for part in filter(None, (names[:half], names[half:])):
                self._send(part, True)

    def _refuse(self, name: Name, error: LayerRefused) -> None:
        if self._requests.get(name):
            self._fail(name, error)
        elif name not in self._refused:
            log.error("%s does not let us subscribe to %s again, which is tried on: %s", self.label, name[1], error)
            self._refused.add(name)

    def _fail(self, name: Name, error: TrichannelsError) -> None:
        for request in self._requests.pop(name, ()):
            request.error = error
            request.over.set()

    def ask_again(self) -> None:
        """Subscribe once more to what is wanted, not in force, and not being asked for. Called every now and then."""
        if len(self.confirmed) < len(self.wanted):
            missing = self.wanted - self.confirmed - self._on_their_way.keys()
            self._wish([name for name in missing if name not in self._wishes], True)

    # ---- the connection

    def _report(self) -> None:
        log.debug("%s: subscriptions: %s; trying again", self.label, self.problem)

    def _deny(self, error: TrichannelsError) -> None:
        super()._deny(error)
        for name in list(self._requests):
            self._fail(name, error)

    async def _once(self, attempts: Attempts) -> None:
        endpoint = await self._resolve()
        outbox = Outbox(self._bounds.commands, self._bounds.bytes)
        async with open_connection(
            endpoint, timeout=self._timeouts.connect, outbox=outbox, on_push=self._push, settle=self._settle,
            reply_bytes=self._bounds.reply_bytes,
        ) as connection:  # fmt: skip
            self.generation += 1
            self.connection, self._outbox, self.denied = connection, outbox, None
            attempts.begin()
            try:
                self._wish(list(self.wanted), True)
                await watched(connection, self._timeouts, self.ask_again)
            finally:
                self.connection = self._outbox = None
                self.problem = connection.problem or "the connection was closed"
                self._wishes.clear()
                self._on_their_way.clear()
                self._batches = 0
                self._lose(self.confirmed)

    # ---- what comes

    def _push(self, push: list[Any]) -> None:
        try:
            kind = push[0]
            if kind == b"message":
                channel, payload = push[1].decode(errors="replace"), push[2]
            elif kind == b"smessage":
                channel, payload = push[1].decode(errors="replace"), push[2]
                if ("s", channel) not in self.confirmed:
                    return None  # another node has it now, and brings what is published from now on
            elif kind == b"pmessage":
                channel, payload = push[2].decode(errors="replace"), push[3]
            elif kind in BEGUN:
                return self._confirm((BEGUN[kind], push[1].decode(errors="replace")))
            elif kind in ENDED and push[1] is not None:
                return self._dismiss((ENDED[kind], push[1].decode(errors="replace")))
            else:
                return None
        except (IndexError, AttributeError, TypeError) as error:
            raise OutOfStep(f"a push that has not its shape: {push!r:.100}") from error
        if self._restored:
            self._tell_restored()  # before what comes on them
        try:
            self._sink.message(channel, payload)
        except Exception:  # whoever publishes poison must not end the layer
            log.exception("a message on %s could not be taken", channel)
        return None

    def _answered(self, name: Name) -> bool:
        """One command that names it is answered; True if that was the last one."""
        if self._on_their_way[name] > 1:
            self._on_their_way[name] -= 1
            return False
        del self._on_their_way[name]
        return True

    def _confirm(self, name: Name) -> None:
        if not self._answered(name) or name not in self.wanted:
            return  # it was left, and perhaps is wanted again: this tells of the first time
        self.confirmed.add(name)
        self._refused.discard(name)
        if name in self._lost:
            self._restored.add(name)
        for request in self._requests.pop(name, ()):
            request.missing.discard(name)
            self._complete(request)

    def _dismiss(self, name: Name) -> None:
        """A subscription has ended: because we asked for that, or because the slot has moved to another node."""
        self._answered(name)
        if name in self.confirmed:
            self._lose({name})
            self.moved([name[1]])

    def moved(self, channels: Sequence[str]) -> None:
        """The server has dismissed these, unasked. A cluster's owner puts its own in place of this."""
        self.drop(f"it has ended subscriptions that are wanted, such as that to {channels[0]}")

    def _lose(self, names: Iterable[Name]) -> None:
        names = [name for name in names if name in self.wanted]
        untold = [name for name in names if name not in self._lost]
        self.confirmed.difference_update(names)
        self._restored.difference_update(names)
        self._lost.update(untold)
        if untold:
            self._sink.lost([channel for _, channel in untold])

    def _tell_restored(self) -> None:
        restored, self._restored = self._restored, set()
        self._lost.difference_update(restored)
        self._sink.restored([channel for _, channel in restored])

    async def _settle(self) -> None:
        if self._restored:
            self._tell_restored()
        await self._sink.settle()


class _Batch(Pending):
    """A command of pub/sub and the PING behind it."""

    __slots__ = ("begin", "names", "owner", "token")

    def __init__(self, owner: Subscriber, data: bytes, token: bytes, names: Sequence[Name], begin: bool) -> None:
        super().__init__(data, 2)
        self.owner, self.token, self.names, self.begin = owner, token, names, begin

    def take(self, answer: Any) -> bool:
        """A refusal and the PING's answer, or that alone. A busy server refuses both."""
        self.answers.append(answer)
        refusal = isinstance(answer, Exception)
        if answer != self.token and not refusal:
            raise OutOfStep("an answer to a PING that is not its text")
        return not refusal or len(self.answers) == 2

    def finish(self, error: TrichannelsError | None = None) -> None:
        super().finish(error)
        if error is None:
            first = self.answers[0]
            self.owner.batch_over(self.names, self.begin, first if isinstance(first, Exception) else None)
