"""What the layer asks of Redis, be it one server, a sentinel's master or a cluster. The contract alone."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ...exceptions import InvalidChannelLayerError, TrichannelsError
from .address import Cluster, Sentinels, Target
from .connection import Connection
from .scripts import Script

Arg: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Arg]


class Sink(Protocol):
    """Who is told what comes. All but ``settle`` return at once; they are called by the task that reads."""

    def message(self, channel: str, payload: bytes) -> None:
        """Take a pub/sub message; for a pattern, with the channel that it came on."""

    async def settle(self) -> None:
        """After each part that was read; nothing more is read before it returns."""

    def lost(self, channels: Collection[str]) -> None:
        """These subscriptions are not in force for now."""

    def restored(self, channels: Collection[str]) -> None:
        """They are again, and confirmed; what was published in between is missed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: ``connect`` for a connection with its greeting, ``reply`` for a command, from the call to its answer.

    Every ``ping_interval`` a connection is asked whether it lives; after ``ping`` without an answer it is given up.
    Between two attempts to connect lies a random time, up to ``backoff_first`` and then twice as much each time, at the
    most ``backoff_most``.
    """

    connect: float = 5.0
    reply: float = 5.0
    ping_interval: float = 5.0
    ping: float = 5.0
    backoff_first: float = 0.05
    backoff_most: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InvalidChannelLayerError(f"Timeouts({name}=…) must be a number of seconds above 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many commands, and bytes of them, may be under way at once; who comes then waits for room.

    ``reply_bytes``: a longer answer is not read; the connection is given up.
    """

    commands: int = 10_000
    bytes: int = 64 * 1024 * 1024
    reply_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not value > 0:
                raise InvalidChannelLayerError(f"Bounds({name}=…) must be a number above 0, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatistics:
    """What a server's connections do now, and how often they were made anew."""

    connections: int
    generation: int
    reconnects: int
    in_flight: int
    waiting: int
    subscriptions: int


class RedisServer(ABC):
    """One logical Redis. ``label`` names it in errors; ``publish_command`` is that of its pub/sub.

    Each call raises within its deadline: :class:`LayerUnreachable` if nothing was sent, :class:`OutcomeUnknown` if it
    was and there is no answer, :class:`LayerRefused` for an error as the answer. A call that is cancelled before it was
    sent has done nothing; after that, its answer is waited for, for a second: if it comes, the call returns it.
    """

    label: str
    publish_command: str

    @abstractmethod
    async def execute(self, *command: Arg, key: str = "", timeout: float | None = None) -> Any:
        """Return the answer to one command. ``key`` says to which node of a cluster it goes."""

    def part_of(self, key: str) -> int:
        """Return the part of this Redis that a key is in. What is in one part is on one node, whichever that is."""
        return 0

    def node_of(self, key: str) -> Hashable:
        """Return the node that has a key for now, as far as is known: one that is away is to hold up no other."""
        return self

    @abstractmethod
    async def pipeline(self, commands: Sequence[tuple[str, Command]], *, timeout: float | None = None) -> list[Any]:
        """Return the answers to ``(key, command)`` pairs, and errors in their places: what a call would have raised.

        :class:`LayerUnreachable` is raised only if nothing was sent at all, and :class:`OutcomeUnknown` if no answer
        came to anything.
        """

    async def publish_many(
        self, events: Sequence[tuple[str, bytes]], *, timeout: float | None = None
    ) -> dict[int, TrichannelsError]:
        """Publish ``(channel, payload)`` pairs, in order for each channel; returns the errors, by index.

        Raises as ``pipeline`` does.
        """
        commands = [(channel, (self.publish_command, channel, payload)) for channel, payload in events]
        answers = await self.pipeline(commands, timeout=timeout)
        return {index: answer for index, answer in enumerate(answers) if isinstance(answer, TrichannelsError)}

    @abstractmethod
    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], *, timeout: float | None = None
    ) -> Any:
        """Return what a script returns. Its keys are in one slot."""

    @abstractmethod
    async def subscribe(
        self, channels: Sequence[str], *, patterns: Sequence[str] = (), timeout: float | None = None
    ) -> None:
        """Want these channels from now on; returns when all are confirmed. If it raises, they are not wanted."""

    @abstractmethod
    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Want these channels no more; at once, the wire follows."""

    @abstractmethod
    def dedicated(self, key: str) -> AbstractAsyncContextManager[Connection]:
        """Open a connection of one's own, for commands that block. It is not made anew when it breaks."""

    @abstractmethod
    async def delete_matching(self, pattern: str) -> int:
        """Delete all keys that match a glob pattern, on every node; returns how many."""

    @abstractmethod
    def statistics(self) -> RedisStatistics:
        """Return what the connections do."""


@asynccontextmanager
async def open_server(
    target: Target, sink: Sink, *, timeouts: Timeouts | None = None, bounds: Bounds | None = None
) -> AsyncIterator[RedisServer]:
    """Keep the connections to a target for the block. It begins at once, not with the first connection.

    Raises :class:`InvalidChannelLayerError` for TLS files that cannot be used.
    """
    timeouts, bounds = timeouts or Timeouts(), bounds or Bounds()
    for tls in target.tls:
        tls.context()  # a file that is missing is better known now
    if isinstance(target, Cluster):
        from .cluster import open_cluster

        opening: AbstractAsyncContextManager[RedisServer] = open_cluster(target, sink, timeouts, bounds)
    elif isinstance(target, Sentinels):
        from .sentinel import open_sentinel

        opening = open_sentinel(target, sink, timeouts, bounds)
    else:
        from .standalone import open_standalone

        opening = open_standalone(target, sink, timeouts, bounds)
    async with opening as server:
        yield server
