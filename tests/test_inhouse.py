"""Workers inside a server: they begin after the startup, work with the layers, and drain before these close."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from trichannels import inhouse
from trichannels.consumer import AsyncConsumer
from trichannels.events import ASGIApp, Event, Receive, Scope, Send
from trichannels.exceptions import InvalidRoute
from trichannels.inhouse import Post
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.queues import Retry
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter
from trichannels.worker import Rules, run_worker


def noting(log: list[str], *, seconds: float = 0) -> ASGIApp:
    """Return a consumer that says what it does."""

    class Tasks(AsyncConsumer):
        async def task_do(self, event: Event) -> None:
            log.append(f"{event['number']} begins")
            await anyio.sleep(seconds)
            log.append(f"{event['number']} ends")

    return Tasks.as_asgi()


class Site:
    """A router with workers, and what it does in order."""

    def __init__(self, workers: Any = ("tasks",), *, seconds: float = 0, lifespan: bool = True) -> None:
        self.log: list[str] = []
        self.layer = InMemoryChannelLayer()
        self.tasks = noting(self.log, seconds=seconds)
        mapping: dict[str, ASGIApp] = {"channel": ChannelNameRouter({"tasks": self.tasks, "more": self.tasks})}
        if lifespan:
            mapping["lifespan"] = self.lifespan
        self.application = ProtocolTypeRouter(mapping, layers={"default": self.layer}, workers=workers)
        self.orders: list[Event] = []
        self.said: list[str] = []
        self._news = anyio.Event()

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await self.layer.send("tasks", {"type": "task.do", "number": 0})
        await anyio.sleep(10)
        self.log.append("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.log.append(f"stopping, layer open: {self.layer.opened}")
        await send({"type": "lifespan.shutdown.complete"})

    async def send_task(self, number: int, channel: str = "tasks") -> None:
        await self.layer.send(channel, {"type": "task.do", "number": number})

    async def serve(self, act: Callable[[], Any]) -> None:
        """Do what a server does with a lifespan; between startup and shutdown, ``act()``."""
        started, over = anyio.Event(), anyio.Event()

        async def receive() -> Event:
            if not started.is_set() and not self.orders:
                self.orders.append({"type": "lifespan.startup"})
                return self.orders[0]
            await over.wait()
            return {"type": "lifespan.shutdown"}

        async def send(event: Event) -> None:
            self.said.append(event["type"])
            started.set()

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(self.application, {"type": "lifespan"}, receive, send)
            await started.wait()
            await act()
            over.set()


async def test_a_lifespan_works_between_its_startup_and_its_shutdown(autojump_clock: object) -> None:
    site = Site(seconds=5)

    async def act() -> None:
        await anyio.sleep(1)
        await site.send_task(1)
        await anyio.sleep(1)
        site.log.append("asked to stop")

    await site.serve(act)
    assert site.log == [
        "started",
        "0 begins",
        "1 begins",
        "asked to stop",
        "0 ends",
        "1 ends",
        "stopping, layer open: True",
    ]
    assert site.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("lifespan", [True, False])
async def test_what_takes_longer_than_the_drain_time_is_cancelled(autojump_clock: object, lifespan: bool) -> None:
    site = Site({"tasks": {"drain_time": 3}}, seconds=50, lifespan=lifespan)

    async def act() -> None:
        await site.send_task(1)
        await anyio.sleep(1)

    begin = anyio.current_time()
    await site.serve(act)
    assert "1 begins" in site.log
    assert "1 ends" not in site.log
    assert anyio.current_time() - begin == pytest.approx(14 if lifespan else 4)


async def test_a_startup_that_fails_starts_no_worker(autojump_clock: object) -> None:
    site = Site()

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await site.send_task(1)
        raise ValueError("no database")

    site.application.application_mapping = {**site.application.application_mapping, "lifespan": fail}
    await site.serve(lambda: anyio.sleep(1))
    assert site.log == []
    assert site.said == ["lifespan.startup.failed"]


async def test_a_parent_that_opens_the_layers_has_the_workers_too(autojump_clock: object) -> None:
    site = Site({"tasks": {"concurrency": 1}, "more": {}}, seconds=5)
    async with site.application.opened():
        for number in (1, 2):
            await site.send_task(number)
        await site.send_task(3, "more")
        await anyio.sleep(1)
        assert sorted(site.log) == ["1 begins", "3 begins"]
        async with site.application.opened():  # once, however many blocks there are
            await anyio.sleep(1)
            assert len(site.log) == 2
    assert sorted(site.log) == ["1 begins", "1 ends", "3 begins", "3 ends"]


async def test_the_layers_may_be_opened_without_the_workers(autojump_clock: object) -> None:
    site = Site()
    async with site.application.opened(workers=False):
        await site.send_task(1)
        await anyio.sleep(1)
    assert site.log == []


async def test_a_cancelled_owner_cancels_the_workers(autojump_clock: object) -> None:
    site = Site(seconds=50)
    begin = anyio.current_time()
    with anyio.move_on_after(5):
        async with site.application.opened():
            await site.send_task(1)
            await anyio.sleep_forever()
    assert site.log == ["1 begins"]
    assert anyio.current_time() - begin == pytest.approx(5)


async def test_a_worker_that_fails_is_replaced(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()
    calls: list[float] = []

    async def refuse(*args: object, **options: object) -> None:
        calls.append(anyio.current_time())
        if len(calls) < 3:
            raise ValueError("refused")
        await run_worker(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inhouse, "run_worker", refuse)
    async with site.application.opened():
        await site.send_task(1)
        await anyio.sleep(10)
    assert site.log == ["1 begins", "1 ends"]
    assert [round(later - calls[0]) for later in calls] == [0, 1, 3]
    assert "the worker on 'tasks' failed; another one begins in 1 s" in caplog.text


async def test_a_worker_that_fails_is_not_waited_for_at_the_end(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()

    async def refuse(*args: object, **options: object) -> None:
        raise ValueError("refused")

    monkeypatch.setattr(inhouse, "run_worker", refuse)
    monkeypatch.setattr(inhouse, "REPLACEMENT", (1000, 1000))
    begin = anyio.current_time()
    async with site.application.opened():
        await anyio.sleep(1)
    assert anyio.current_time() - begin == pytest.approx(1)


def test_options_are_those_of_a_worker() -> None:
    retry = Retry(retries=1)
    options = {"concurrency": 3, "retry": retry, "drain_time": 4, "layer": "default"}
    assert Site({"tasks": options}).application._posts == [
        Post(channel="tasks", rules=Rules(concurrency=3, retry=retry, drain_time=4, alias="default"))
    ]
    assert Site(["tasks", "more", "tasks"]).application._posts == [
        Post(channel="tasks", rules=Rules()),
        Post(channel="more", rules=Rules()),
    ]
    assert Site().application._posts
    assert not Site([]).application._posts


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ("tasks", "workers is a list of channel names"),
        (7, "workers is a list of channel names"),
        (["a!b"], "cannot work on"),
        (["unknown"], "no application for the worker on 'unknown'"),
        ({"tasks": 3}, "takes a dict with concurrency, retry, drain_time, layer"),
        ({"tasks": {"speed": 3}}, "takes a dict with concurrency, retry, drain_time, layer"),
        ({"tasks": {"concurrency": 0}}, "concurrency is a whole number above 0"),
        ({"tasks": {"layer": "other"}}, "needs a layer 'other' in layers"),
    ],
)
def test_wrong_options_are_refused_where_the_router_is_made(workers: Any, text: str) -> None:
    with pytest.raises(InvalidRoute, match=text):
        Site(workers)


def test_workers_need_an_application() -> None:
    with pytest.raises(InvalidRoute, match="mapped to 'channel'"):
        ProtocolTypeRouter({}, layers={"default": InMemoryChannelLayer()}, workers=["tasks"])
