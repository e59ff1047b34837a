"""Chromium's own EventSource: it shows the clock, comes back by itself to where it was, is told of gaps, and stops.

The same with a client of ours in its place, which can be looked into, is in ``tests/generic/test_sse.py``.
"""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Event
from urllib.parse import urlsplit

import anyio
import pytest
from playwright.sync_api import Browser, Page

from examples import clock
from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.sse import EventStreamConsumer
from trichannels.layers import History, InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.testing import LiveServer

from ..ports import free_port
from ..proxy import Proxy

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PATIENCE = 20_000  # ms; CI machines are slow
POLLING = 20  # ms
RETRY = 50  # ms
PACE = 0.005  # seconds from one event to the next; the history holds more of them than fit into PATIENCE
CUTS = 6
REFUSALS = (204, 403, 500)

LAYER = InMemoryChannelLayer(history={"long": History(size=10_000), "short": History(size=3)})
ASKED: list[str] = []  # the last event id of each visit to a group
VISITS: Counter[int] = Counter()  # to answers, by status

LISTEN = """address => {
  const source = new EventSource(address), heard = {source, opened: 0, events: []}
  source.onopen = () => { heard.opened += 1 }
  const hear = ({type, data, lastEventId}) => heard.events.push([type, data, lastEventId])
  for (const type of ['message', 'resync', 'state']) source.addEventListener(type, hear)
  return heard
}"""
WATCH_THE_CLOCK = """() => {
  const clock = document.getElementById('clock'), shown = [clock.textContent]
  new MutationObserver(() => shown.push(clock.textContent)).observe(clock, {childList: true})
  return shown
}"""
TICKED = r"shown => /(\d\d:\d\d:\d\d), (?!\1)\d\d:\d\d:\d\d/.test(shown.join(', '))"
CAME_BACK = r"shown => /\d, (--:--:--, )+\d/.test(shown.join(', '))"


class Empty(AsyncHttpConsumer):
    """A page of the streams' origin."""

    async def handle(self, body: bytes) -> None:
        await self.send_response(200, b"<!doctype html>", headers={"content-type": "text/html"})


class Stream(EventStreamConsumer):
    """The events of one group, and of one that everybody is in and that has no history."""

    retry = RETRY

    async def connect(self) -> None:
        ASKED.append(self.last_event_id)
        await self.join(self.scope["url_route"]["kwargs"]["group"])
        await self.join("everybody")

    async def recovery_failed(self, group: str) -> None:
        await self.send_event(f"all of {group}", event="state")


class Answer(EventStreamConsumer):
    """A stream that ends at once; who comes back gets the status of the address, which for 200 is the same again."""

    retry = RETRY

    async def connect(self) -> None:
        status = self.scope["url_route"]["kwargs"]["status"]
        VISITS[status] += 1
        if status == 200 or VISITS[status] == 1:
            await self.accept()
            await self.close()
        elif status == 500:
            raise RuntimeError("for the test")
        else:
            await self.refuse(status)


application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("", Empty.as_asgi()),
                path("groups/<str:group>/", Stream.as_asgi()),
                path("answers/<int:status>/", Answer.as_asgi()),
            ]
        )
    },
    layers={"default": LAYER},
)


class Source:
    """An EventSource in a page; each method waits for what its name says."""

    def __init__(self, page: Page, address: str) -> None:
        self._page, self._heard = page, page.evaluate_handle(LISTEN, address)

    def has_opened(self, times: int) -> None:
        self._wait("([heard, times]) => heard.opened >= times", times)

    def is_closed(self) -> None:
        self._wait("([heard]) => heard.source.readyState === EventSource.CLOSED")

    def has_heard(self, number: int) -> list[tuple[str, str, str]]:
        """Return type, data and last event id of all events that there are then."""
        self._wait("([heard, number]) => heard.events.length >= number", number)
        return self._events()

    def has_heard_all_up_to(self, data: str) -> list[tuple[str, str, str]]:
        self._wait("([heard, last]) => heard.events.some(([, data]) => data === last)", data)
        return self._events()

    def has_data(self, number: int) -> list[str]:
        """The same without ids; the type only where it is one of ours."""
        return [data if kind == "message" else f"{kind}: {data}" for kind, data, _ in self.has_heard(number)]

    def _events(self) -> list[tuple[str, str, str]]:
        return [(kind, data, name) for kind, data, name in self._heard.evaluate("heard => heard.events")]

    def _wait(self, condition: str, value: object = None) -> None:
        self._page.wait_for_function(condition, arg=[self._heard, value], polling=POLLING)


@pytest.fixture(autouse=True)
def nothing_was_asked() -> None:
    ASKED.clear()
    VISITS.clear()


@contextmanager
def tab(browser: Browser, port: int) -> Iterator[Page]:
    problems: list[str] = []
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
    finally:
        page.close()  # or its sources would go on asking
    assert problems == []


def port_of(live: LiveServer) -> int:
    port = urlsplit(live.url).port
    assert port is not None
    return port


def say(live: LiveServer, group: str, *texts: str) -> None:
    for text in texts:
        live.call(LAYER.group_send, group, {"type": "sse.send", "data": text})


async def publish(over: Event) -> str:
    """Send numbers, with so many zeros that most of an event comes behind its id; return the last of them."""
    for number in count():
        data = f"{number:0200}"
        await LAYER.group_send("long", {"type": "sse.send", "data": data})
        if over.is_set():
            break
        await anyio.sleep(PACE)
    return data


@contextmanager
def publishing(live: LiveServer) -> Iterator[Future[str]]:
    """Send numbered events until the block ends; yields what then knows the last one."""
    over = Event()
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(live.call, publish, over)
        try:
            yield last
        finally:
            over.set()


def test_the_clock_ticks_and_ticks_again_after_a_broken_connection(browser: Browser) -> None:
    with (
        LiveServer.in_thread(clock.application) as live,
        Proxy(port_of(live)) as proxy,
        tab(browser, proxy.port) as page,
    ):
        shown = page.evaluate_handle(WATCH_THE_CLOCK)
        page.wait_for_function(TICKED, arg=shown, polling=POLLING)
        proxy.cut()
        page.wait_for_function(CAME_BACK, arg=shown, polling=POLLING)


def test_a_page_that_is_lost_again_and_again_has_each_event_once_and_in_order(browser: Browser) -> None:
    chance = random.Random(1)
    with LiveServer.in_thread(application) as live, Proxy(port_of(live)) as proxy, tab(browser, proxy.port) as page:
        source = Source(page, "/groups/long/")
        source.has_opened(1)
        with publishing(live) as last:
            heard = 0
            for number in range(CUTS):
                heard = len(source.has_heard(heard + 1))
                if number % 2:
                    proxy.cut()
                else:
                    proxy.cut_after(chance.randrange(1, 1000))  # within an event, most likely
                source.has_opened(number + 2)
        events = source.has_heard_all_up_to(last.result())
    assert [int(data) for _, data, _ in events] == list(range(int(last.result()) + 1))
    assert len(ASKED) > CUTS
    assert ASKED[0] == ""
    assert set(ASKED[1:]) <= {name for _, _, name in events} - {""}


def test_a_page_that_is_lost_before_its_first_event_misses_none(browser: Browser) -> None:
    with LiveServer.in_thread(application) as live, Proxy(port_of(live)) as proxy, tab(browser, proxy.port) as page:
        source = Source(page, "/groups/long/")
        source.has_opened(1)
        say(live, "everybody", "hello")  # has no id of its own, and comes behind the first one
        source.has_heard(1)
        proxy.refuse()
        say(live, "long", "0", "1", "2")
        proxy.resume()
        assert source.has_data(4) == ["hello", "0", "1", "2"]


def test_a_page_that_has_missed_too_much_is_told_once(browser: Browser) -> None:
    with LiveServer.in_thread(application) as live, Proxy(port_of(live)) as proxy, tab(browser, proxy.port) as page:
        source = Source(page, "/groups/short/")
        source.has_opened(1)
        say(live, "short", "0")
        source.has_heard(1)
        proxy.refuse()
        say(live, "short", "1", "2", "3", "4")
        proxy.resume()
        told = ["0", "resync: ", "state: all of short"]
        assert source.has_data(3) == told
        say(live, "short", "5")
        source.has_heard(4)
        proxy.cut()
        say(live, "short", "6")
        assert source.has_data(5) == [*told, "5", "6"]


def test_a_page_is_told_when_a_new_server_knows_nothing_of_the_past(browser: Browser) -> None:
    port = free_port()
    with ExitStack() as stack:
        with LiveServer.in_thread(application, bind=f"127.0.0.1:{port}") as live:
            source = Source(stack.enter_context(tab(browser, port)), "/groups/long/")
            source.has_opened(1)
            say(live, "long", "0")
            source.has_heard(1)
        with LiveServer.in_thread(application, bind=f"127.0.0.1:{port}") as live:
            told = ["0", "resync: ", "state: all of long"]
            assert source.has_data(3) == told
            say(live, "long", "1")
            assert source.has_data(4) == [*told, "1"]


def test_any_answer_but_a_stream_is_the_last_that_a_page_hears(browser: Browser) -> None:
    with LiveServer.in_thread(application) as live, tab(browser, port_of(live)) as page:
        for source in [Source(page, f"/answers/{status}/") for status in REFUSALS]:
            source.is_closed()
        other = Source(page, "/answers/200/")
        other.has_opened(5)  # by then the others would have come back, too
    assert [VISITS[status] for status in REFUSALS] == [2, 2, 2]
