"""A random life of several sockets, held against a reference model that knows no tasks."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from trio.testing import MockClock

from trichannels.events import Event, Scope
from trichannels.exceptions import ConnectionClosed
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers.memory import InMemoryChannelLayer

GRACE = 5.0
GROUPS = ("red", "green")


# ---- the model


@dataclass
class ModelSocket:
    """What a socket should look like: ``waiting`` holds ("client", order) and ("layer", text), in order of arrival."""

    waiting: list[tuple[str, Any]] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    heard: list[str] = field(default_factory=list)
    busy_until: float | None = None
    grace_until: float | None = None
    over: bool = False
    failed: bool = False


class Model:
    """All sockets, simulated one event after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sockets: dict[int, ModelSocket] = {}

    def say(self, number: int, order: tuple[Any, ...]) -> None:
        socket = self.sockets[number]
        if not socket.over and socket.grace_until is None:
            socket.waiting.append(("client", order))
            self.work()

    def disconnect(self, number: int) -> None:
        socket = self.sockets[number]
        if not socket.over and socket.grace_until is None:
            socket.groups.clear()
            socket.waiting = [item for item in socket.waiting if item[0] == "client"]
            socket.grace_until = self.now + GRACE
            self.work()

    def end(self, number: int, *, failed: bool = False) -> None:
        socket = self.sockets[number]
        socket.over, socket.failed = True, socket.failed or failed
        socket.groups.clear()
        socket.waiting.clear()
        socket.busy_until = None

    def work(self) -> None:
        """Let every idle socket handle what waits for it, until nobody can."""
        busy = True
        while busy:
            busy = False
            for number, socket in self.sockets.items():
                if socket.over or socket.busy_until is not None:
                    continue
                if socket.waiting:
                    busy = True
                    self.handle(number, *socket.waiting.pop(0))
                elif socket.grace_until is not None:
                    self.end(number)

    def handle(self, number: int, side: str, what: Any) -> None:
        socket = self.sockets[number]
        if side == "layer":
            socket.heard.append(what)
            return
        verb, *rest = what
        ending = socket.grace_until is not None
        if verb == "join" and not ending:
            socket.groups.add(rest[0])
        elif verb == "leave":
            socket.groups.discard(rest[0])
        elif verb == "tell":
            for member in self.sockets.values():
                if rest[0] in member.groups:
                    member.waiting.append(("layer", rest[1]))
        elif verb == "nap":
            socket.busy_until = self.now + rest[0]
        elif verb == "fail":
            self.end(number, failed=True)
        elif verb == "close" and not ending:
            self.end(number)

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            times = [
                (time, number, kind)
                for number, socket in self.sockets.items()
                if not socket.over
                for time, kind in ((socket.busy_until, "rested"), (socket.grace_until, "grace is over"))
                if time is not None and time <= until
            ]
            if not times:
                break
            self.now, number, kind = min(times)
            if kind == "rested":
                self.sockets[number].busy_until = None
                self.work()
            else:
                self.end(number)
        self.now = until


# ---- the real thing


class Talker(AsyncJsonWebsocketConsumer):
    """Does as its client says."""

    disconnect_grace = GRACE

    def __init__(self, driver: "Driver", number: int) -> None:
        self.driver, self.number = driver, number

    async def connect(self) -> None:
        await self.accept()
        self.nursery.start_soon(anyio.sleep_forever)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        verb, *rest = content
        if verb == "join":
            await self.join(rest[0])
        elif verb == "leave":
            await self.leave(rest[0])
        elif verb == "tell":
            await self.channel_layer.group_send(rest[0], {"type": "told", "text": rest[1]})
        elif verb == "nap":
            await anyio.sleep(rest[0])
        elif verb == "fail":
            raise ZeroDivisionError
        elif verb == "close":
            await self.close()

    async def told(self, event: Event) -> None:
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        self.driver.disconnects[self.number] += 1


class Driver:
    """The sockets as a server would run them."""

    def __init__(self, nursery: trio.Nursery, layer: InMemoryChannelLayer) -> None:
        self.nursery, self.layer = nursery, layer
        self.talkers: dict[int, Talker] = {}
        self.heard: dict[int, list[str]] = {}
        self.disconnects: dict[int, int] = {}
        self.failed: set[int] = set()
        self.scopes: dict[int, trio.CancelScope] = {}
        self.feeds: dict[int, Callable[[Event], None]] = {}
        self.gone: set[int] = set()

    def connect(self, number: int) -> None:
        feed, arriving = trio.open_memory_channel[Event](1000)
        self.feeds[number] = feed.send_nowait
        self.heard[number], self.disconnects[number] = [], 0
        self.feeds[number]({"type": "websocket.connect"})
        self.nursery.start_soon(self.run, number, arriving)

    async def run(self, number: int, feed: trio.MemoryReceiveChannel[Event]) -> None:
        async def send(event: Event) -> None:
            await trio.lowlevel.checkpoint()
            if number in self.gone:
                raise ConnectionClosed
            if event["type"] == "websocket.send":
                self.heard[number].append(event["text"])
            elif event["type"] == "websocket.close":
                self.disconnect(number)

        scope: Scope = {"type": "websocket", "path": "/", "channel_layers": {"default": self.layer}}
        self.talkers[number] = talker = Talker(self, number)
        with trio.CancelScope() as self.scopes[number]:
            try:
                await talker(scope, feed.receive, send)
            except ZeroDivisionError:
                self.failed.add(number)

    def disconnect(self, number: int) -> None:
        if number not in self.gone:
            self.gone.add(number)
            self.feeds[number]({"type": "websocket.disconnect", "code": 1001})


# ---- one against the other

Step = Callable[[Model, Driver], None]


class Lives(RuleBasedStateMachine):
    """Collects steps, and in the end takes them with both, comparing after each."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, Step | float]] = []
        self.count = self.naps = 0

    @rule()
    def connect(self) -> None:
        number, self.count = self.count, self.count + 1

        def step(model: Model, driver: Driver) -> None:
            model.sockets[number] = ModelSocket()
            driver.connect(number)

        self.steps.append((f"{number} connects", step))

    def order(self, number: int, *order: Any) -> None:
        def step(model: Model, driver: Driver) -> None:
            model.say(number, order)
            if number not in driver.gone:
                driver.feeds[number]({"type": "websocket.receive", "text": json.dumps(order)})

        self.steps.append((f"{number} says {order}", step))

    @precondition(lambda self: self.count)
    @rule(
        data=st.data(), verb=st.sampled_from(["join", "leave", "tell", "join", "tell"]), group=st.sampled_from(GROUPS)
    )
    def talk(self, data: st.DataObject, verb: str, group: str) -> None:
        number = data.draw(st.integers(0, self.count - 1))
        self.order(number, verb, group, f"{number}: {len(self.steps)}")

    @precondition(lambda self: self.count)
    @rule(data=st.data(), seconds=st.integers(1, 9))
    def nap(self, data: st.DataObject, seconds: int) -> None:
        self.naps += 1  # no two naps end at the same time: who is first would be anybody's guess
        self.order(data.draw(st.integers(0, self.count - 1)), "nap", seconds + self.naps / 1024)

    @precondition(lambda self: self.count)
    @rule(data=st.data(), verb=st.sampled_from(["fail", "close"]))
    def end(self, data: st.DataObject, verb: str) -> None:
        self.order(data.draw(st.integers(0, self.count - 1)), verb)

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.count - 1))

        def step(model: Model, driver: Driver) -> None:
            model.disconnect(number)
            driver.disconnect(number)

        self.steps.append((f"{number} disconnects", step))

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.count - 1))

        def step(model: Model, driver: Driver) -> None:
            if not model.sockets[number].over:
                model.end(number)
            driver.scopes[number].cancel()

        self.steps.append((f"{number} is cancelled", step))

    @rule(seconds=st.integers(1, 6))
    def pass_time(self, seconds: int) -> None:
        self.steps.append((f"{seconds} s pass", seconds + 1 / 4096))

    def teardown(self) -> None:
        trio.run(self.live, clock=MockClock(autojump_threshold=0))

    async def live(self) -> None:
        async with InMemoryChannelLayer() as layer, trio.open_nursery() as nursery:
            model, driver = Model(), Driver(nursery, layer)
            for name, step in self.steps:
                if callable(step):
                    step(model, driver)
                else:
                    model.pass_time(step)
                    await trio.sleep(step)
                await trio.testing.wait_all_tasks_blocked()
                compare(name, model, driver)
            nursery.cancel_scope.cancel()
        assert layer.statistics().memberships == 0


def compare(name: str, model: Model, driver: Driver) -> None:
    living = 0
    for number, socket in model.sockets.items():
        talker = driver.talkers[number]
        where = f"socket {number} after {name!r}"
        assert driver.heard[number] == socket.heard, where
        assert driver.disconnects[number] == int(socket.over), where
        assert (number in driver.failed) == socket.failed, where
        assert set(driver.layer.groups_of(talker.channel_name)) == socket.groups, where
        assert talker.statistics().tasks == int(not socket.over), where
        living += not socket.over
    assert driver.layer.statistics().instances == living, name


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@pytest.mark.trio_only
class TestLives(Lives.TestCase):  # type: ignore[misc, valid-type]
    """Run it."""
