"""The named channels of a Redis layer: sending to them, working on them, and receiving from them without a worker."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol

import anyio
from anyio import CancelScope

from ...backoff import Backoff
from ...exceptions import ChannelFull, LayerRefused, LayerUnreachable, UnreadableMessage
from ..queues import Job, JobQueue
from ..serializers import Message
from .names import Native
from .queue import BACKOFF, CLAIM, POLL, PUT, RedisQueue, open_redis_queue, put_arguments, put_keys
from .server import RedisServer

log = logging.getLogger("trichannels.layers.redis")

ACKNOWLEDGE_TIME = 1.0  # seconds for which a receiver may be held up to acknowledge what it has got


class Layer(Protocol):
    """What is asked of the layer."""

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``."""

    def start_soon(self, func: Callable[..., Any], *args: Any) -> object:
        """Run a task until the layer closes."""


class Received:
    """A queue that somebody receives from without a worker, and how many do now."""

    def __init__(self, queue: RedisQueue) -> None:
        self.queue, self.readers = queue, 0


class RedisQueues:
    """All work queues of an open layer. ``token`` names the process; ``server_of`` says where a channel lives."""

    def __init__(
        self,
        layer: Layer,
        names: Native,
        server_of: Callable[[str], RedisServer],
        decode: Callable[[bytes], Message],
        token: str,
        *,
        claim: float = CLAIM,
        poll: float = POLL,
    ) -> None:
        self._layer, self._names, self._server_of, self._decode = layer, names, server_of, decode
        self._token, self._claim, self._poll = token, claim, poll
        self._received: dict[str, Received] = {}  # without a worker
        self._numbers = count()
        self._worked: set[RedisQueue] = set()

    def __repr__(self) -> str:
        return f"<RedisQueues, {len(self._received)} received from>"

    async def put(self, channel: str, payload: bytes, delay: float = 0) -> None:
        """Send to a channel, in ``delay`` seconds; raises :class:`ChannelFull`, and what a script raises."""
        capacity = self._layer.get_capacity(channel)
        arguments = put_arguments(payload, delay, capacity)
        if not await self._server_of(channel).run(PUT, put_keys(self._names, channel), arguments):
            raise ChannelFull(channel, capacity)

    @asynccontextmanager
    async def open(self, channel: str) -> AsyncIterator[JobQueue]:
        """Work on a channel for a block."""
        queue = self._queue(channel, None)
        self._worked.add(queue)
        try:
            async with open_redis_queue(queue):
                yield queue
        finally:
            self._worked.discard(queue)

    def close(self) -> None:
        """The layer closes: whoever waits for messages or jobs gets :class:`LayerClosed`."""
        for queue in (*self._worked, *(received.queue for received in self._received.values())):
            queue.close(type(self._layer).__name__)

    def _queue(self, channel: str, consumer: str | None) -> RedisQueue:
        return RedisQueue(
            self._server_of(channel),
            self._names,
            channel,
            decode=self._decode,
            consumer=consumer,
            claim=self._claim,
            poll=self._poll,
        )

    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel that has no worker. Cancelled, it has taken nothing.

        It waits while the server is away. A message that was handed out may come again if its acknowledgement is lost.
        One that cannot be read becomes a dead letter.
        """
        received = self._received.get(channel)
        if received is None:
            consumer = f"receive.{self._token}.{next(self._numbers)}"  # the one before may not have left yet
            received = self._received[channel] = Received(self._queue(channel, consumer))
            self._layer.start_soon(self._listen, received)
        received.readers += 1
        try:
            return await self._next(received.queue)
        finally:
            received.readers -= 1

    async def _next(self, queue: RedisQueue) -> Message:
        while True:
            job = await self._fetched(queue)
            try:
                message = job.open()
            except UnreadableMessage as error:
                log.error("a message of %r is a dead letter now: %s", queue.channel, error)
                self._layer.start_soon(_persist, partial(queue.bury, job, str(error)))
                continue
            await self._acknowledge(queue, job)
            return message

    async def _listen(self, received: "Received") -> None:
        """Hear of what comes, until nobody has wanted to know for long."""
        queue = received.queue
        try:
            while True:
                await queue.bell.run(until_idle=True)
                if not received.readers:
                    break
        finally:
            del self._received[queue.channel]
        await queue.leave()

    async def _fetched(self, queue: RedisQueue) -> Job:
        try:
            return (await queue.fetch(1))[0]
        except BaseException:
            # Perhaps it was handed to us, and we shall never know; others need not wait until we are taken for dead.
            self._layer.start_soon(_persist, queue.release)
            raise

    async def _acknowledge(self, queue: RedisQueue, job: Job) -> None:
        """From here on the message counts as received, whether or not Redis can be told at once."""
        try:
            with CancelScope(shield=True, deadline=anyio.current_time() + ACKNOWLEDGE_TIME) as wall:
                await queue.done(job)
            if not wall.cancelled_caught:
                return
        except (LayerUnreachable, LayerRefused) as error:
            log.warning("a message of %r was received, and is acknowledged later: %s", queue.channel, error)
        except BaseException:  # asyncio's own cancel() knows no shield: nobody gets the message
            self._layer.start_soon(_persist, partial(queue.restore, job))
            raise
        self._layer.start_soon(_persist, partial(queue.done, job))


async def _persist(call: Callable[[], Any]) -> None:
    """Carry out a call, as often as it takes; until the layer closes."""
    backoff = Backoff(*BACKOFF)
    while True:
        try:
            await call()
            return
        except (LayerUnreachable, LayerRefused) as error:
            pause = backoff.next()
            log.debug("trying again in %g s: %s", pause, error)
        await anyio.sleep(pause)
