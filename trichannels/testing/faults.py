"""``FaultyLayer``: a channel layer that is late, forgets, repeats itself or fails, as far as a test asks for it."""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import InvalidChannelLayerError
from ..inbox import Mailbox
from ..layers.base import ChannelLayer, LayerStatistics, require_channel_name, require_group_name
from ..layers.history import Position, Recovery
from ..layers.presence import Presence, PresenceBoard
from ..layers.queues import JobQueue
from ..layers.serializers import Message
from .errors import FaultInjected

Fault: TypeAlias = Literal["drop", "duplicate", "fail"]
Rate: TypeAlias = float | Mapping[str, float]

SENDS = ("send", "group_send")
OPERATIONS = (*SENDS, "receive", "new_channel", "group_add", "group_discard", "track", "presence", "flush")
TIMES: Mapping[Fault | None, int] = {None: 1, "drop": 0, "duplicate": 2}


class FaultyLayer(ChannelLayer):
    """Wrap ``inner`` and let some of its operations go wrong::

        layer = FaultyLayer(InMemoryChannelLayer(), drop=0.1, fail={"group_add": 1}, delay={"group_send": 0.2}, seed=7)

    ``delay``: seconds that an operation takes longer. ``drop``, ``duplicate`` (of ``send`` and ``group_send``) and
    ``fail`` (of any operation): how probable it is, 0 to 1. Each is a number for all operations, or a mapping of
    operations to numbers. ``plan("group_send", "drop", None, "fail")`` says instead what happens to the next three.
    The dice are thrown with ``seed``, for each operation apart: a test repeats itself exactly.

    An operation that fails has done nothing; it raises ``error(operation)``, by default :class:`FaultInjected`. Bad
    names and messages raise as ever. ``injected`` counts ``(operation, fault)``. Opening it opens ``inner``, unless
    that is open already: then it is a second, faulty view of the same layer.
    """

    def __init__(
        self,
        inner: ChannelLayer,
        *,
        delay: Rate = 0,
        drop: Rate = 0,
        duplicate: Rate = 0,
        fail: Rate = 0,
        seed: int = 0,
        error: Callable[[str], Exception] | None = None,
    ) -> None:
        super().__init__(
            capacity=inner.capacity,
            expiry=inner.expiry,
            group_expiry=inner.group_expiry,
            serializer=inner.serializer,
            history=inner.histories,
            presence_linger=inner.presence_linger,
            presence_lease=inner.presence_lease,
        )
        self.inner = inner
        self.error = error or (lambda operation: FaultInjected(f"{operation}: a fault of the test"))
        self.injected: Counter[tuple[str, Fault]] = Counter()
        self._delays = _rates("delay", delay, OPERATIONS, limit=float("inf"))
        self._rates: dict[Fault, dict[str, float]] = {
            "fail": _rates("fail", fail, OPERATIONS),
            "drop": _rates("drop", drop, SENDS),
            "duplicate": _rates("duplicate", duplicate, SENDS),
        }
        self._plans: dict[str, deque[Fault | None]] = {operation: deque() for operation in OPERATIONS}
        self._dice = {operation: random.Random(f"{seed} {operation}") for operation in OPERATIONS}  # noqa: S311
        self._owns_inner = False

    def plan(self, operation: str, *faults: Fault | None) -> None:
        """Say what happens to the next calls of ``operation``, a fault or None for each; then chance rules again."""
        for fault in faults:
            _require_operation(fault or "plan", operation, SENDS if fault in ("drop", "duplicate") else OPERATIONS)
            self._plans[operation].append(fault)

    async def open(self) -> None:
        self._owns_inner = not self.inner.opened
        if self._owns_inner:
            await self.inner.__aenter__()

    async def close(self) -> None:
        if self._owns_inner:
            await self.inner.__aexit__(None, None, None)

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        self.require_open()
        require_channel_name(channel)
        self.inner.seal(message)
        for _ in range(await self._times("send")):
            await self.inner.send(channel, message, delay=delay)

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        self.require_open()
        require_group_name(group)
        self.inner.seal(message, group)
        position = None
        for _ in range(await self._times("group_send")):
            position = await self.inner.group_send(group, message, idempotency_key)
        return position

    async def receive(self, channel: str) -> Message:
        await self._times("receive")
        return await self.inner.receive(channel)

    def open_queue(self, channel: str) -> AbstractAsyncContextManager[JobQueue]:
        return self.inner.open_queue(channel)

    async def new_channel(self, prefix: str = "specific") -> str:
        await self._times("new_channel")
        return await self.inner.new_channel(prefix)

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        await self._times("group_add")
        return await self.inner.join(group, channel, since)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._times("group_discard")
        await self.inner.group_discard(group, channel)

    async def flush(self) -> None:
        await self._times("flush")
        await self.inner.flush()

    def attach(self, mailbox: Mailbox, prefix: str = "specific") -> str:
        return self.inner.attach(mailbox, prefix)

    def detach(self, channel: str) -> None:
        self.inner.detach(channel)

    @property
    def presence_board(self) -> PresenceBoard | None:
        return self.inner.presence_board

    async def enter_presence(self, group: str, channel: str, key: str, meta: Any = None) -> None:
        await self._times("track")
        await self.inner.enter_presence(group, channel, key, meta)

    async def presence(self, group: str) -> Presence:
        await self._times("presence")
        return await self.inner.presence(group)

    async def presence_count(self, group: str) -> int:
        await self._times("presence")
        return await self.inner.presence_count(group)

    def groups_of(self, channel: str) -> tuple[str, ...]:
        return self.inner.groups_of(channel)

    def get_capacity(self, channel: str) -> int:
        return self.inner.get_capacity(channel)

    def statistics(self) -> LayerStatistics:
        """Return the numbers of the layer inside, with the instances that use this one."""
        return replace(self.inner.statistics(), instances=self._instances)

    async def _times(self, operation: str) -> int:
        """Delay or fail as told, and return how often ``operation`` shall be done."""
        self.require_open()
        if self._delays[operation]:
            await anyio.sleep(self._delays[operation])
        fault = self._plans[operation].popleft() if self._plans[operation] else self._chance(operation)
        if fault is not None:
            self.injected[operation, fault] += 1
            await checkpoint()
        if fault == "fail":
            raise self.error(operation)
        return TIMES[fault]

    def _chance(self, operation: str) -> Fault | None:
        # Each fault has its throw, whatever came of the others: one rate does not change another fault's luck.
        throws = {fault: self._dice[operation].random() for fault in self._rates}
        for fault, rates in self._rates.items():
            if throws[fault] < rates.get(operation, 0):
                return fault
        return None


def _rates(name: str, given: Rate, operations: tuple[str, ...], limit: float = 1) -> dict[str, float]:
    rates = dict(given) if isinstance(given, Mapping) else dict.fromkeys(operations, given)
    for operation, rate in rates.items():
        _require_operation(name, operation, operations)
        if not 0 <= rate <= limit:
            raise InvalidChannelLayerError(f"FaultyLayer({name}=…) must be from 0 to {limit}, not {rate!r}")
    return dict.fromkeys(operations, 0.0) | rates


def _require_operation(name: str, operation: str, operations: tuple[str, ...]) -> None:
    if operation not in operations:
        raise InvalidChannelLayerError(
            f"FaultyLayer: {name!r} does not apply to {operation!r}; choose from {', '.join(operations)}"
        )
