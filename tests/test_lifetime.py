"""The promises on lifetime and cancellation: whatever happens at whatever point, nothing of an instance remains.

Each scenario is run once for every point at which it can be interrupted, and is interrupted there: by the server's
cancellation, by the peer's disconnect, or by a message. Then we look at what remains.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

import trichannels
from trichannels import instance
from trichannels.bridge import async_to_sync
from trichannels.consumer import AsyncConsumer
from trichannels.events import TRANSPORT, Event, Scope
from trichannels.exceptions import ConnectionClosed, StopConsumer
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trichannels.inbox import Inbox, Mailbox
from trichannels.layers import switchboard
from trichannels.layers.history import History
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.protocol import Conversation
from trichannels.seam import backend

from .checkpoints import AtStep, awaits_in, every_iteration, every_step

pytestmark = pytest.mark.exhaustive

GRACE, TIMEOUT = 5.0, 5.0


class Room(AsyncWebsocketConsumer):
    """Does what consumers do, and notes what happens to it."""

    groups = ("lobby",)
    disconnect_grace, disconnect_timeout = GRACE, TIMEOUT

    def __init__(self, run: "Run") -> None:
        self.run = run

    async def connect(self) -> None:
        self.run.connects += 1
        await self.join("room")
        await self.accept()
        self.nursery.start_soon(self.tick)
        await self.nursery.start(self.started)

    async def started(self, *, task_status: Any) -> None:
        task_status.started()
        await anyio.sleep_forever()

    async def tick(self) -> None:
        while True:
            await anyio.sleep(1)
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": "tick"})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await getattr(self, f"do_{text_data}")()

    async def do_say(self) -> None:
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": "said"})
        await self.channel_layer.send(self.channel_name, {"type": "websocket.send", "text": "direct"})
        await self.send("echo")

    async def do_nap(self) -> None:
        await anyio.sleep(3)
        await self.leave("room")

    async def do_oversleep(self) -> None:
        await anyio.sleep(100)

    async def do_ask(self) -> None:
        name = await self.channel_layer.new_channel()
        with anyio.move_on_after(1):
            await self.channel_layer.receive(name)

    async def do_close(self) -> None:
        await self.close(4000, "enough")

    async def do_last(self) -> None:
        await self.send("last words", close=True)

    async def do_stop(self) -> None:
        raise StopConsumer

    async def do_fail(self) -> None:
        raise ZeroDivisionError("planned")

    async def do_fail_aside(self) -> None:
        self.nursery.start_soon(self.do_fail)
        await anyio.sleep(1)

    async def do_revoke(self) -> None:
        self.nursery.start_soon(self._instance.close_from_outside, 4401, "logged out")
        await anyio.sleep(1)
        await self.do_oversleep()

    async def do_flood(self) -> None:
        for _ in range(20):
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": "flood"})

    async def chat_message(self, event: Event) -> None:
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        self.run.disconnects.append(code)
        await self.channel_layer.group_send("watchers", {"type": "left"})
        await anyio.sleep(0.5)
        self.run.goodbyes += 1


class Crowd(Room):
    """Three handlers at a time, in order for those of the layer."""

    concurrency = 3

    async def chat_message(self, event: Event) -> None:
        await anyio.sleep(1.5)  # slower than the ticks: they queue up behind each other
        await super().chat_message(event)

    def order_key(self, message: Event) -> str | None:
        return message["type"] if message["type"].startswith("chat") else None


class Present(Room):
    """Says who is there, also when it is too late."""

    async def do_track(self) -> None:
        await self.track("room", "me", {"tab": 1})
        await self.untrack("room", "me")
        await self.track("room", "me")

    async def presence_diff(self, event: Event) -> None:
        await self.send("diff")

    async def disconnect(self, code: int) -> None:
        with pytest.raises(ConnectionClosed):
            await self.track("room", "late")
        await super().disconnect(code)


class Cut(Room):
    """Is disconnected when it is too slow."""

    inbox = Inbox(messages=5, overflow="disconnect")


class Slow(Room):
    """Lets the socket wait."""

    inbox = Inbox(client_messages=2)


class Blocking(WebsocketConsumer):
    """Handlers in threads."""

    groups = ("lobby",)
    inbox = Inbox(messages=1)

    def __init__(self, run: "Run") -> None:
        self.run = run

    def connect(self) -> None:
        self.run.connects += 1
        self.join("room")
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        for _ in range(3):
            async_to_sync(self.channel_layer.group_send)("room", {"type": "chat.message", "text": "said"})

    def chat_message(self, event: Event) -> None:
        self.send(event["text"])

    async def layer_dropped(self, event: Event) -> None:
        await anyio.sleep(0.001)
        await self._instance.send({"type": "websocket.close"})

    def disconnect(self, code: int) -> None:
        self.run.disconnects.append(code)
        async_to_sync(self.channel_layer.group_send)("watchers", {"type": "left"})
        self.run.goodbyes += 1


class Alone(AsyncWebsocketConsumer):
    """Has no layer."""

    def __init__(self, run: "Run") -> None:
        self.run = run

    async def connect(self) -> None:
        self.run.connects += 1
        await self.accept()

    async def disconnect(self, code: int) -> None:
        self.run.disconnects.append(code)
        await anyio.sleep(0.5)
        self.run.goodbyes += 1


class Silent(Room):
    """Never ends its goodbye."""

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)
        await anyio.sleep(100)


class Page(AsyncHttpConsumer):
    """Streams an answer."""

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self.run = run

    async def http_request(self, message: Event) -> None:
        self.run.connects += 1
        await super().http_request(message)

    async def handle(self, body: bytes) -> None:
        await self.join("room")
        await self.send_headers(headers={"Content-Type": "text/plain"})
        for _ in range(3):
            await self.send_body(b"piece", more_body=True)
            await anyio.sleep(1)
        await self.send_body(b"")

    async def disconnect(self) -> None:
        self.run.disconnects.append(0)
        await anyio.sleep(0.5)
        self.run.goodbyes += 1


class Run:
    """One run of a scenario: a peer with a script in front of a consumer, and what to do at the interruption."""

    begun = False

    def __init__(self, consumer: type[AsyncConsumer], script: list[str], how: str, *, server: str = "foreign") -> None:
        self.consumer, self.script, self.how = consumer, script, how
        self.extensions = {} if server == "foreign" else {TRANSPORT: self}
        self.wrapped = server == "wrapped"  # ours, but with something before ``receive``
        self.put: Callable[[Event, int], bool] | None = None
        self.on_gone: Callable[[int, str], None] | None = None
        self.layer = InMemoryChannelLayer()
        self.layered = consumer is not Alone
        self.connects = self.goodbyes = 0
        self.disconnects: list[int] = []
        self.error: BaseException | None = None
        self.protocol = "http" if issubclass(consumer, AsyncHttpConsumer) else "websocket"
        self.conversation = Conversation(self.protocol)
        self.arrived: list[Event] = []
        self.gone = False
        self.interrupted_at: float | None = None
        self.scope: anyio.CancelScope | None = None
        self.nursery: anyio.abc.TaskGroup | None = None
        self.task: asyncio.Task[Any] | None = None
        self.news: anyio.Event | None = None

    def interrupt(self) -> None:
        """Called between two steps: cancel, or let the peer leave."""
        if self.news is None:
            return
        self.interrupted_at = anyio.current_time() if self.how != "cancel" else None
        if self.how == "disconnect":
            self.hang_up()
        elif self.task is not None:
            self.task.cancel()
        elif self.scope is not None:
            self.scope.cancel()

    def hang_up(self) -> None:
        if not self.gone:
            self.gone = True
            self.arrived.append({"type": f"{self.protocol}.disconnect", "code": 4001, "reason": "bye"})
            assert self.news is not None
            self.news.set()
            if self.on_gone is not None:
                self.on_gone(4001, "bye")

    def when_gone(self, callback: Callable[[int, str], None]) -> None:
        self.on_gone = callback
        if self.gone:
            callback(4001, "bye")

    def bound(self, scope: anyio.CancelScope) -> None:
        """This server gives all the time there is."""

    async def receive(self) -> Event:
        while not self.arrived:
            assert self.news is not None
            await self.news.wait()
            self.news = anyio.Event()
        await anyio.lowlevel.checkpoint()
        return self.arrived.pop(0) if len(self.arrived) > 1 or not self.gone else self.arrived[0]

    def feed(self, put: Callable[[Event, int], bool]) -> None:
        """As our server's transport does, if this is one."""
        self.put = put
        self.resume()

    def resume(self) -> None:
        room = True
        while room and self.arrived and self.put is not None and not self.arrived[0]["type"].endswith("disconnect"):
            room = self.put(self.arrived.pop(0), 1)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: object = None) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(function, *args, name=name)

    def begin_turn(self) -> None:
        """This server always lets others run."""

    async def send(self, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        if self.gone:
            raise ConnectionClosed(4001, "bye")
        self.conversation.sent(event)
        if event["type"] == "websocket.close":
            self.hang_up()

    async def go(self) -> None:
        """Live through the scenario."""
        self.news = anyio.Event()
        opening: Event = {"type": "http.request", "body": b"", "more_body": False}
        if self.protocol == "websocket":
            opening = {"type": "websocket.connect"}
        said = [{"type": "websocket.receive", "text": text} for text in self.script if text != "leave"]
        self.arrived = [opening, *said]
        if "leave" in self.script:
            self.hang_up()
        async with self.layer, self.layer.subscribe("watchers") as watchers:
            with anyio.CancelScope() as self.scope:
                async with anyio.create_task_group() as self.nursery:
                    try:
                        await self._call()
                    except Exception as error:  # noqa: BLE001 - the tests look at it
                        self.error = error
            self.ended_at = anyio.current_time()
            self.left = self.layer.statistics()
            self.told = watchers.statistics().layer_messages
        assert self.left.instances == 0

    async def _call(self) -> None:
        layers = {"default": self.layer}
        scope: Scope = {"type": self.protocol, "path": "/", "channel_layers": layers, "extensions": self.extensions}
        receive = partial(Run.receive, self) if self.wrapped else self.receive
        if not self.layered:
            del scope["channel_layers"]
        called = self.consumer.as_asgi(run=self)(scope, receive, self.send)
        if backend() == "trio":
            await called
            return
        self.task = asyncio.ensure_future(called)
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.error = self.task.exception()


def check_nothing_remains(run: Run) -> None:
    """The promises, as far as they can be seen from outside."""
    left = run.left
    # the watcher's own subscription is what remains
    assert (left.instances, left.channels, left.groups, left.memberships) == (0, 1, 1, 1)
    assert left.waiting_messages == run.told
    assert len(run.disconnects) == (1 if run.connects else 0)
    if run.consumer is not Silent:
        assert run.goodbyes == len(run.disconnects), "disconnect() was cut short"
        publishing = run.layered and run.protocol == "websocket"
        assert run.told == (len(run.disconnects) if publishing else 0), "it could not publish"
    if run.interrupted_at is not None:
        assert run.ended_at - run.interrupted_at <= GRACE + TIMEOUT + 0.5


SCENARIOS: dict[str, Callable[[str], Run]] = {
    "chat": partial(Run, Room, ["say", "nap", "say", "leave"]),
    "staying": partial(Run, Room, ["say", "ask", "nap", "say"]),
    "oversleeping": partial(Run, Room, ["oversleep"]),
    "closed": partial(Run, Room, ["say", "close"]),
    "last words": partial(Run, Room, ["last"]),
    "stopped": partial(Run, Room, ["stop"]),
    "revoked": partial(Run, Room, ["say", "revoke", "say"]),
    "revoked and fed": partial(Run, Room, ["say", "revoke", "say"], server="ours"),
    "failed": partial(Run, Room, ["say", "fail"]),
    "failed aside": partial(Run, Room, ["fail_aside"]),
    "crowd": partial(Run, Crowd, ["say", "nap", "say", "nap"]),
    "crowd failed": partial(Run, Crowd, ["nap", "fail", "nap"]),
    "overrun": partial(Run, Cut, ["flood", "nap"]),
    "slow": partial(Run, Slow, ["nap", "say", "ask", "say", "nap", "leave"], server="wrapped"),
    "slow and fed": partial(Run, Slow, ["nap", "say", "ask", "say", "nap"], server="ours"),
    "chat fed": partial(Run, Room, ["say", "nap", "say", "leave"], server="ours"),
    "failed and fed": partial(Run, Room, ["say", "fail"], server="ours"),
    "crowd fed": partial(Run, Crowd, ["say", "nap", "say", "nap"], server="ours"),
    "alone": partial(Run, Alone, []),
    "slow elsewhere": partial(Run, Slow, ["nap", "say", "ask", "say"]),
    "blocking": partial(Run, Blocking, ["say"]),
    "present": partial(Run, Present, ["track", "say"]),
    "silent": partial(Run, Silent, ["say", "leave"]),
    "page": partial(Run, Page, []),
}

FAILING = {"failed", "failed aside", "crowd failed", "failed and fed"}
TRIO_ONLY = {name for name in SCENARIOS if "fed" in name.split()}  # as our server is


@pytest.fixture(autouse=True)
def frequent_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broadcast, and an instance with much to do, let others run now and then; here as often as they can."""
    monkeypatch.setattr(switchboard, "CHUNK", 1)
    monkeypatch.setattr(instance, "BURST", 1)


@pytest.mark.trio_only
@pytest.mark.parametrize("how", ["cancel", "disconnect"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_interrupted_at_every_step(scenario: str, how: str) -> None:
    steps = 0
    for seed in (0, 1, 2):
        for run, _ in interrupted(scenario, how, seed):
            check_nothing_remains(run)
            assert run.error is None or scenario in FAILING, repr(run.error)
            steps += 1
    assert steps > 30


def interrupted(scenario: str, how: str, seed: int) -> Iterator[tuple[Run, AtStep]]:
    """Yield each run of a scenario, interrupted at one step after the other."""
    runs: list[Run] = []

    def make() -> Run:
        runs.append(SCENARIOS[scenario](how))
        return runs[-1]

    clock = None if scenario == "blocking" else partial(MockClock, autojump_threshold=0)
    for instrument in every_step(live, make, seed=seed, clock=clock):
        yield runs[-1], instrument


async def live(run: Run) -> None:
    """Let a run go its way; a peer that would stay for ever leaves after 8 seconds."""
    async with anyio.create_task_group() as group:
        group.start_soon(run.go)
        if "leave" not in run.script and run.consumer is not Blocking:
            await anyio.sleep(8)
            run.hang_up()


async def flush(run: Run) -> None:
    """What no consumer does: forget everything."""
    async with run.layer:
        await run.layer.flush()


async def tell_on_record(run: Run) -> None:
    """Two senders at once, to a group with history that is served in parts."""
    layer = InMemoryChannelLayer(history={"*": History()})
    async with layer, anyio.create_task_group() as group:
        for _ in range(3):
            box = Mailbox()
            await layer.join("group", layer.attach(box))
        for _ in range(2):
            group.start_soon(layer.group_send, "group", {"type": "told"})


@pytest.mark.trio_only
def test_every_await_of_the_lifetime_code_was_interrupted() -> None:
    """The list of awaits comes from the source, so that a new one cannot slip by."""
    package = Path(trichannels.__file__).parent
    files = [package / name for name in ("instance.py", "nursery.py", "consumer.py", "layers/memory.py")]
    wanted = {line for file in files for line in awaits_in(file)}
    for scenario in SCENARIOS:
        for _, instrument in interrupted(scenario, "cancel", 0):
            wanted -= instrument.lines
    for aside in (flush, tell_on_record):
        for instrument in every_step(aside, partial(Run, Room, [], "cancel"), clock=None):
            wanted -= instrument.lines
    source = {file.name: file.read_text().splitlines() for file in files}
    missed = [f"{name}:{line}: {source[name][line - 1].strip()}" for name, line in sorted(wanted)]
    assert not missed, missed


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "blocking" and name not in TRIO_ONLY])
def test_cancelled_by_asyncio_itself_at_every_iteration(scenario: str, times: int) -> None:
    """A native ``task.cancel()`` knows no scopes and no shields; also when a second one follows."""
    runs: list[Run] = []

    def make() -> Run:
        runs.append(SCENARIOS[scenario]("cancel"))
        return runs[-1]

    iterations = 0
    for _ in every_iteration(live, make, times=times):
        check_nothing_remains(runs[-1])
        assert runs[-1].error is None or scenario in FAILING, repr(runs[-1].error)
        iterations += 1
    assert iterations > 10
