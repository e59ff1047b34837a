"""``python -m tests.chaos.publisher BACKEND SEED SENDER…``: senders in a process of their own, until a line comes in.

BACKEND is trio, asyncio, or ``sync`` for threads with the blocking twin. A sender is NAME:GROUP:WAY:PAUSE. Each send
becomes a line of JSON on standard output: group, sender, number, outcome, position, whether with a key. At the end each
sends on until something is taken: by that the members have come to the end, too.
"""

import json
import random
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.history import Position
from trichannels.layers.redis.layer import RedisChannelLayer

from .layers import make_layer, make_sync_layer, write_position

BATCH = 8
BURST = 40
ERRORS = (LayerUnreachable, LayerRefused)
OVER = threading.Event()


def outcome_of(error: BaseException) -> str:
    """A refusal is an answer: it was not done."""
    return "unknown" if isinstance(error, OutcomeUnknown) else "not done"


class Sender:
    """Counts what it sends to one group, and writes down what came of it."""

    def __init__(self, spec: str, seed: int) -> None:
        self.name, self.group, self.way, pause = spec.split(":")
        self.pause = float(pause)
        self.random = random.Random(f"{seed} {spec}")
        self.number = 0
        self.bursting = False

    def next(self) -> tuple[int, dict[str, Any]]:
        self.number += 1
        return self.number, {"type": "chaos.event", "event": [self.name, self.number]}

    def note(self, number: int, outcome: str, position: Position | None = None) -> None:
        line = [self.group, self.name, number, outcome, write_position(position), self.way == "keyed"]
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def rest(self) -> float:
        """Seconds until the next send; now and then many go off at once."""
        if not self.number % BURST:
            self.bursting = self.random.random() < 0.2
        return 0.0 if self.bursting else self.random.uniform(0, 2 * self.pause)


class AsyncSender(Sender):
    """Sends through the layer, in one of several ways."""

    layer: RedisChannelLayer

    async def run(self, layer: RedisChannelLayer) -> None:
        self.layer = layer
        send = {"plain": self.plainly, "keyed": self.with_key, "many": self.many, "cancel": self.cancelled}[self.way]
        while not OVER.is_set():
            await send()
            await anyio.sleep(self.rest())
        while not await self.plainly():
            await anyio.sleep(0.05)

    async def plainly(self) -> bool:
        number, message = self.next()
        try:
            position = await self.layer.group_send(self.group, message)
        except ERRORS as error:
            self.note(number, outcome_of(error))
            return False
        self.note(number, "taken", position)
        return True

    async def with_key(self) -> None:
        """Try until it is taken: with a key, it is sent once all the same."""
        number, message = self.next()
        while True:
            try:
                position = await self.layer.group_send(self.group, message, f"{self.name}.{number}")
            except ERRORS:
                await anyio.sleep(0.02)
            else:
                self.note(number, "taken", position)
                return

    async def many(self) -> None:
        batch = [self.next() for _ in range(self.random.randint(1, BATCH))]
        try:
            positions = await self.layer.group_send_many([(self.group, message) for _, message in batch])
        except ERRORS:
            for number, _ in batch:
                self.note(number, "unknown")  # some may have been sent
        else:
            for (number, _), position in zip(batch, positions, strict=True):
                self.note(number, "taken", position)

    async def cancelled(self) -> None:
        """Give the send up at some moment: then it is not done, unless the server did not answer. Nobody can tell."""
        number, message = self.next()
        outcome, position = "unknown", None
        with anyio.move_on_after(self.random.expovariate(1 / 0.002)):
            try:
                position = await self.layer.group_send(self.group, message)
                outcome = "taken"
            except ERRORS as error:
                outcome = outcome_of(error)
        self.note(number, outcome, position)


class SyncSender(Sender):
    """Sends through the blocking twin, on a thread."""

    def run(self) -> None:
        with make_sync_layer() as layer:
            while not OVER.is_set():
                self.once(layer.group_send)
                OVER.wait(self.rest())
            while not self.once(layer.group_send):
                pass

    def once(self, send: Callable[..., Position | None]) -> bool:
        number, message = self.next()
        try:
            position = send(self.group, message)
        except ERRORS as error:
            self.note(number, outcome_of(error))
            OVER.wait(0.02) if not OVER.is_set() else threading.Event().wait(0.02)
            return False
        self.note(number, "taken", position)
        return True


def tell_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def send_all(senders: list[AsyncSender]) -> None:
    async with AsyncExitStack() as stack:
        layer = await _opened(stack)
        group = await stack.enter_async_context(anyio.create_task_group())
        tell_ready()
        for sender in senders:
            group.start_soon(sender.run, layer)


async def _opened(stack: AsyncExitStack) -> RedisChannelLayer:
    """Open a layer; a machine that stands still for a moment makes a deadline pass, and is asked once more."""
    while True:
        with suppress(LayerUnreachable):
            return await stack.enter_async_context(make_layer())


def listen() -> None:
    """The run is over when standard input says anything, or ends."""
    sys.stdin.readline()
    OVER.set()


def main(backend: str, seed: str, *specs: str) -> None:
    threading.Thread(target=listen, daemon=True).start()
    if backend == "sync":
        threads = [threading.Thread(target=SyncSender(spec, int(seed)).run) for spec in specs]
        tell_ready()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        anyio.run(send_all, [AsyncSender(spec, int(seed)) for spec in specs], backend=backend)


if __name__ == "__main__":
    main(*sys.argv[1:])
