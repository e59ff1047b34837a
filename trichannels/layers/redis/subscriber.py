"""A connection for subscriptions alone. It knows what is wanted, and sees to it that it is in force, again and again.

RESP3 answers SUBSCRIBE by pushes, one a channel; a refusal comes as an ordinary error. So each batch ends with a PING
whose text nobody else uses: what it has brought until then is its outcome.
Source: https://redis.io/docs/latest/develop/pubsub/
"""

import itertools
import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from copy import copy
from typing import Any

import anyio

from ...exceptions import LayerRefused, LayerUnreachable, TrichannelsError
from .connection import DENIED, Connection, open_connection, refused
from .link import Resolve, watched
from .outbox import Outbox, Pending, packed
from .server import Bounds, Sink, Timeouts

log = logging.getLogger("trichannels.layers.redis")

BATCH = 500  # channels that one command names

# The verbs of pub/sub: plain, by pattern, and sharded, with the kinds of pushes that belong to each.
VERBS = {"": ("SUBSCRIBE", "UNSUBSCRIBE"), "p": ("PSUBSCRIBE", "PUNSUBSCRIBE"), "s": ("SSUBSCRIBE", "SUNSUBSCRIBE")}
ELSEWHERE = ("MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN")  # a cluster's way to say: not here, or not now
Name = tuple[str, str]  # the kind of a subscription, and a channel or pattern


class Request:
    """Somebody who waits until some subscriptions are confirmed."""

    __slots__ = ("error", "missing", "over")

    def __init__(self, missing: Iterable[Name]) -> None:
        self.missing, self.over = set(missing), anyio.Event()
        self.error: TrichannelsError | None = None


Requests = dict[Name, list[Request]]


class Subscriber:
    """The subscriptions of one process at one server. ``run`` is its whole life, in a task of its owner's.

    ``kind``: ``""`` for plain channels, ``"s"`` for those of a cluster's shards.
    """

    def __init__(
        self, label: str, resolve: Resolve, sink: Sink, timeouts: Timeouts, bounds: Bounds, kind: str = ""
    ) -> None:
        self.label, self._resolve, self._sink, self._timeouts, self._bounds = label, resolve, sink, timeouts, bounds
        self._kind = kind
        self.wanted: set[Name] = set()
        self.confirmed: set[Name] = set()
        self._lost: set[Name] = set()
        self._restored: list[str] = []
        self._asked: Counter[Name] = Counter()  # subscribe commands on their way, for what was left and wanted again
        self._requests: Requests = {}
        self._outbox: Outbox | None = None
        self._numbers = itertools.count()
        self.connection: Connection | None = None
        self.generation = 0
        self.problem = "no connection yet"
        self.denied: LayerRefused | None = None

    def __repr__(self) -> str:
        return f"<Subscriber to {self.label}, {len(self.confirmed)} of {len(self.wanted)} in force>"

    # ---- what is wanted

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str], timeout: float | None = None) -> None:
        """Want these from now on, and wait until they are confirmed; if that fails, they are not wanted any more."""
        names = [(self._kind, channel) for channel in channels] + [("p", pattern) for pattern in patterns]
        fresh = [name for name in names if name not in self.wanted]
        request = Request(name for name in names if name not in self.confirmed)
        limit = self._timeouts.reply if timeout is None else timeout
        try:
            if self.denied is not None:
                request.error = self.denied
            elif request.missing:
                for name in request.missing:
                    self._requests.setdefault(name, []).append(request)
                self.wanted.update(fresh)
                self._ask(fresh)
                with anyio.move_on_after(limit):
                    await request.over.wait()
            if request.error is not None:
                raise copy(request.error) from request.error
            if request.missing:
                raise LayerUnreachable(self.label, f"not subscribed within {limit:g} s: {self.problem}")
        except BaseException:
            self._give_up(request, fresh)
            raise

    def _give_up(self, request: Request, fresh: Collection[Name]) -> None:
        for name in request.missing:
            waiting = self._requests.get(name, [])
            if request in waiting:
                waiting.remove(request)
            if not waiting:
                self._requests.pop(name, None)
        self._leave([name for name in fresh if name not in self._requests])

    def wants(self, channel: str) -> bool:
        """Say whether a channel is wanted."""
        return (self._kind, channel) in self.wanted

    def release(self, channels: Sequence[str]) -> "Requests":
        """Give up channels that another takes over, and tell that they are lost; return who waits for them."""
        names = [(self._kind, channel) for channel in channels]
        self._lose([name for name in names if name in self.confirmed])
        waiting = {name: self._requests.pop(name) for name in names if name in self._requests}
        self._leave(names)
        return waiting

    def adopt(self, channels: Sequence[str], waiting: "Requests") -> None:
        """Want channels that another has given up; they are told to be restored when they are in force."""
        names = [(self._kind, channel) for channel in channels]
        self.wanted.update(names)
        self._lost.update(names)
        for name, requests in waiting.items():
            self._requests.setdefault(name, []).extend(requests)
        self._ask(names)

    def ask_again(self) -> None:
        """Subscribe once more to what is wanted, not in force, and not being asked for."""
        self._ask([name for name in self.wanted - self.confirmed if not self._asked[name]])

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Want these no more."""
        self._leave([(self._kind, channel) for channel in channels])

    def _leave(self, names: Iterable[Name]) -> None:
        left = [name for name in names if name in self.wanted]
        self.wanted.difference_update(left)
        self.confirmed.difference_update(left)
        self._lost.difference_update(left)
        if left and self._outbox is not None:
            for kind, channels in _by_kind(left):
                self._outbox.put(Pending(packed(VERBS[kind][1], *channels), 0))

    def _ask(self, names: Sequence[Name]) -> None:
        """Write what subscribes; on the next connection, all that is wanted is asked for anyhow."""
        if self._outbox is None:
            return
        for kind, channels in _by_kind(names):
            token = f"trichannels-{next(self._numbers)}".encode()
            data = packed(VERBS[kind][0], *channels) + packed("PING", token)
            batch = _Batch(self, data, token, [(kind, channel) for channel in channels])
            self._asked.update(batch.names)
            self._outbox.put(batch)

    # ---- the connection

    async def run(self) -> None:
        """Connect, subscribe to all that is wanted, take what comes, and begin anew, for ever."""
        pause = self._timeouts.backoff_first
        while True:
            began = self.generation
            try:
                await self._once()
            except LayerRefused as error:
                self.problem = error.answer
                if error.code in DENIED:
                    self._deny(error)
            except LayerUnreachable as error:
                self.problem = error.problem
            if self.generation != began:
                pause = self._timeouts.backoff_first
            await anyio.sleep(random.uniform(0, pause))  # noqa: S311 - full jitter
            pause = min(2 * pause, self._timeouts.backoff_most)

    def _deny(self, error: LayerRefused) -> None:
        self.denied = error
        for name in list(self._requests):
            self._fail(name, error)

    async def _once(self) -> None:
        endpoint = await self._resolve()
        outbox = Outbox(self._bounds.commands, self._bounds.bytes)
        async with open_connection(
            endpoint, timeout=self._timeouts.connect, outbox=outbox, on_push=self._push, settle=self._settle,
            reply_bytes=self._bounds.reply_bytes,
        ) as connection:  # fmt: skip
            self.generation += 1
            self.connection, self._outbox, self.denied = connection, outbox, None
            try:
                self._ask(list(self.wanted))
                await watched(connection, self._timeouts)
            finally:
                self.connection = self._outbox = None
                self.problem = connection.problem or "the connection was closed"
                self._asked.clear()
                self._lose(self.confirmed)

    def drop(self, problem: str) -> None:
        """Give the connection up: its server is not the one any more."""
        if self.connection is not None:
            self.connection.fail(problem)

    # ---- what comes

    def _push(self, push: list[Any]) -> None:
        kind = push[0]
        if kind in (b"message", b"smessage"):
            self._sink.message(push[1].decode(), push[2])
        elif kind == b"pmessage":
            self._sink.message(push[2].decode(), push[3])
        elif kind in (b"subscribe", b"ssubscribe", b"psubscribe"):
            self._confirm((kind[:-9].decode(), push[1].decode()))
        elif kind in (b"unsubscribe", b"sunsubscribe", b"punsubscribe") and push[1] is not None:
            self._dismiss((kind[:-11].decode(), push[1].decode()))

    def _confirm(self, name: Name) -> None:
        self._asked[name] -= 1
        if self._asked[name] > 0 or name not in self.wanted:
            return  # it was left, and is wanted again: what we are told of is the first time
        del self._asked[name]
        self.confirmed.add(name)
        if name in self._lost:
            self._lost.discard(name)
            self._restored.append(name[1])
        for request in self._requests.pop(name, ()):
            request.missing.discard(name)
            if not request.missing:
                request.over.set()

    def _dismiss(self, name: Name) -> None:
        """The server ends a subscription: because we asked it to, or because the slot has moved to another node."""
        if name in self.confirmed:
            self._lose({name})
            self.moved([name[1]])

    def moved(self, channels: Sequence[str]) -> None:
        """The server has dismissed these, unasked. A cluster's owner puts its own in place of this."""
        self.drop(f"it has ended subscriptions that are wanted, such as that to {channels[0]}")

    def _lose(self, names: Iterable[Name]) -> None:
        lost = [name for name in names if name in self.wanted]
        self.confirmed.difference_update(lost)
        self._lost.update(lost)
        if lost:
            self._sink.lost([channel for _, channel in lost])

    async def _settle(self) -> None:
        if self._restored:
            restored, self._restored = self._restored, []
            self._sink.restored(restored)
        await self._sink.settle()

    def batch_over(self, names: Sequence[Name], answers: Sequence[Any]) -> None:
        """All answers to a batch are there: what is not confirmed by now was refused."""
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if not errors:
            return
        error = refused(self.label, errors[0])
        open_ones = [name for name in names if name not in self.confirmed]
        for name in open_ones:
            self._asked.pop(name, None)
        if error.code in ELSEWHERE:
            self.moved([channel for _, channel in open_ones])
            return
        log.error("%s", error)
        for name in open_ones:
            self._fail(name, error)

    def _fail(self, name: Name, error: TrichannelsError) -> None:
        for request in self._requests.pop(name, ()):
            request.error = error
            request.over.set()


class _Batch(Pending):
    """A subscribe command and the PING behind it."""

    __slots__ = ("names", "owner")

    def __init__(self, owner: Subscriber, data: bytes, token: bytes, names: list[Name]) -> None:
        super().__init__(data, 0, until=token)
        self.owner, self.names = owner, names

    def finish(self, error: TrichannelsError | None = None) -> None:
        super().finish(error)
        if error is None:
            self.owner.batch_over(self.names, self.answers)


def _by_kind(names: Iterable[Name]) -> Iterable[tuple[str, list[str]]]:
    """Sort names by kind, in parts that one command can name."""
    sorted_out: dict[str, list[str]] = {}
    for kind, channel in names:
        sorted_out.setdefault(kind, []).append(channel)
    for kind, channels in sorted_out.items():
        for start in range(0, len(channels), BATCH):
            yield kind, channels[start : start + BATCH]
