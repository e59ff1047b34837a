"""What is to be done later, inside this process: one heap, and one task of the layer while there is something in it.

For messages that are sent with a delay to channels of this process, and for the jobs of queues in memory. What lies
here ends with the layer.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

import anyio

from ..exceptions import ChannelFull
from ..inbox import Envelope

WEIGHT = 256  # bytes that a message which waits for its time takes beside its payload


class Layer(Protocol):
    """What is asked of the layer."""

    buffer_bytes: int
    expiry: float

    def get_capacity(self, channel: str) -> int:
        """Return how many messages may wait for ``channel``."""

    def start_soon(self, func: Callable[..., Any], *args: Any) -> object:
        """Run a task until the layer closes."""


class Postponed:
    """Messages and calls, each with the loop's time at which it is due; those of one moment in the order they came.

    Of messages, a channel's capacity and the layer's ``buffer_bytes`` bound how many may wait here.
    """

    __slots__ = ("_counts", "_heap", "_layer", "_numbers", "_running", "_sooner", "bytes")

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._counts: Counter[str] = Counter()
        self._sooner: anyio.Event | None = None
        self._running = False
        self.bytes = 0

    def __repr__(self) -> str:
        return f"<Postponed {len(self)}>"

    def __len__(self) -> int:
        return len(self._heap)

    def send(self, post: Callable[[str, Envelope], None], channel: str, envelope: Envelope, delay: float) -> None:
        """Call ``post(channel, envelope)`` in ``delay`` seconds; raises :class:`ChannelFull` at a bound.

        The message expires as if it were sent then.
        """
        capacity, weight = self._layer.get_capacity(channel), envelope.size + WEIGHT
        if self._counts[channel] >= capacity or self.bytes + weight > self._layer.buffer_bytes:
            raise ChannelFull(channel, capacity)
        due = anyio.current_time() + delay
        envelope.until = due + self._layer.expiry
        self._counts[channel] += 1
        self.bytes += weight

        def deliver() -> None:
            self._counts[channel] -= 1
            if not self._counts[channel]:
                del self._counts[channel]
            self.bytes -= weight
            post(channel, envelope)

        self.call_at(due, deliver)

    def call_at(self, due: float, call: Callable[[], object]) -> None:
        """Call ``call()`` at a time of the loop's clock. It must not wait; bounding the calls is the caller's."""
        heapq.heappush(self._heap, (due, next(self._numbers), call))
        if not self._running:
            self._running = True
            self._layer.start_soon(self._run)
        elif self._heap[0][0] == due and self._sooner is not None:
            self._sooner.set()

    def forget(self) -> None:
        """Let nothing of it happen."""
        self._heap.clear()
        self._counts.clear()
        self.bytes = 0
        if self._sooner is not None:
            self._sooner.set()

    async def _run(self) -> None:
        """Sleep until the first is due, and call it; returns when nothing is left."""
        try:
            while self._heap:
                self._sooner = anyio.Event()
                with anyio.CancelScope(deadline=self._heap[0][0]):
                    await self._sooner.wait()
                self._call_due()
        finally:
            self._running = False

    def _call_due(self) -> None:
        now = anyio.current_time()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
