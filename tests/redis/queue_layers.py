"""Work queues on a real server, without the rest of a layer."""

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.queues import JobQueue
from trichannels.layers.redis.names import Native
from trichannels.layers.redis.options import targets_of
from trichannels.layers.redis.queue import RedisQueue
from trichannels.layers.redis.queues import RedisQueues
from trichannels.layers.redis.server import RedisServer, Timeouts, open_server
from trichannels.layers.serializers import Message

from .servers import fresh_prefix


class Deaf:
    """Hears nothing of subscriptions."""

    def message(self, channel: str, payload: bytes) -> None: ...

    async def settle(self) -> None: ...

    def lost(self, channels: Collection[str]) -> None: ...

    def restored(self, channels: Collection[str]) -> None: ...


class QueueLayer(InMemoryChannelLayer):
    """A layer whose named channels are on Redis, and all else in memory."""

    def __init__(
        self,
        *,
        url: str,
        prefix: str | None = None,
        claim: float = 30,
        poll: float = 0.2,
        timeout: float = 5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.url, self.claim, self.poll, self.timeout = url, claim, poll, timeout
        self.prefix = prefix or fresh_prefix()
        self.server: RedisServer
        self.queues: RedisQueues

    async def open(self) -> None:
        await super().open()
        ready = anyio.Event()
        self.start_soon(self._hold, ready)
        await ready.wait()

    async def _hold(self, ready: anyio.Event) -> None:
        (target,) = targets_of(None, self.url)
        timeouts = Timeouts(connect=self.timeout, reply=self.timeout, ping_interval=0.5, ping=1.0, backoff_most=0.2)
        async with open_server(target, Deaf(), timeouts=timeouts) as self.server:
            self.queues = RedisQueues(
                self, Native(self.prefix), self._server_of, self.serializer.decode, self.board.token,
                claim=self.claim, poll=self.poll,
            )  # fmt: skip
            ready.set()
            await anyio.sleep_forever()

    def _server_of(self, channel: str) -> RedisServer:
        return self.server

    async def close(self) -> None:
        self.queues.close()
        await super().close()

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        if "!" in channel:
            await super().send(channel, message, delay=delay)
            return
        from trichannels.layers.base import require_channel_name, require_delay

        self.require_open()
        envelope = self.seal(message)
        await self.queues.put(require_channel_name(channel), envelope.payload, require_delay(delay))

    async def receive(self, channel: str) -> Message:
        if "!" in channel:
            return await super().receive(channel)
        self.require_open()
        return await self.queues.receive(channel)

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[JobQueue]:
        from trichannels.layers.base import require_queue_name

        return self.queues.open(require_queue_name(channel))


@asynccontextmanager
async def opened(layer: QueueLayer, channel: str = "work") -> AsyncIterator[RedisQueue]:
    """Open a queue, as what it is."""
    async with layer.open_queue(channel) as queue:
        assert isinstance(queue, RedisQueue)
        yield queue
