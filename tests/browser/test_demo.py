"""The demo in a real Chromium: two tabs chat, see each other come, go and type, and survive a restart of the server.

Playwright's calls block, so these tests are plain functions; the server is the real command in a process of its own.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PATIENCE = 20_000  # ms; CI machines are slow
PHONE: ViewportSize = {"width": 360, "height": 740}
DESK: ViewportSize = {"width": 1100, "height": 760}


class Demo:
    """``trichannels demo`` as a process, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self) -> str:
        bind = self.address.removeprefix("http://") or "127.0.0.1:0"
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("trichannels"), "demo", "--bind", bind], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.address = found[0]
                return self.address
        self.process.stdout.close()
        code, self.process = self.process.wait(), None
        raise AssertionError(f"the demo ended with {code} and printed no address")

    def end(self, sent: signal.Signals) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(sent)
        code = self.process.wait(15)
        self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture
def demo() -> Iterator[Demo]:
    demo = Demo()
    demo.start()
    yield demo
    if demo.process is not None:
        demo.end(signal.SIGKILL)


@contextmanager
def tab(
    browser: Browser, url: str, viewport: ViewportSize = DESK, *, complaints: list[str] | None = None
) -> Iterator[Page]:
    """Open a tab with a storage of its own, as another person's browser would be."""
    context = browser.new_context(viewport=viewport, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    if complaints is not None:
        page.on("console", lambda message: complaints.extend([message.text] * (message.type in ("error", "warning"))))
        page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()


def enter(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Join the room").click()
    state(page, "Connected")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def state(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.get_by_role("status")).to_have_text(text, timeout=PATIENCE)


def heard(page: Page, text: str, times: int = 1) -> None:
    expect(page.get_by_role("log").get_by_text(text, exact=True)).to_have_count(times, timeout=PATIENCE)


def people(page: Page, *names: str) -> None:
    expect(page.locator("#people .who")).to_have_text(list(names), timeout=PATIENCE)


def test_two_tabs_chat(browser: Browser, demo: Demo) -> None:
    complaints: list[str] = []
    room = f"{demo.address}/room/tea"
    with tab(browser, room, complaints=complaints) as ada, tab(browser, room, PHONE, complaints=complaints) as grace:
        enter(ada, "Ada")
        people(ada, "Ada")
        enter(grace, "Grace")
        people(ada, "Ada", "Grace")
        people(grace, "Grace", "Ada")
        heard(ada, "Grace joined")

        say(ada, "hello <i>there</i>")
        heard(ada, "hello <i>there</i>")
        heard(grace, "hello <i>there</i>")

        grace.get_by_label("Message", exact=True).press_sequentially("mo")
        expect(ada.locator("#typing")).to_have_text("Grace is typing…", timeout=PATIENCE)
        say(grace, "moin")
        heard(ada, "moin")
        expect(ada.locator("#typing")).to_have_text("")

        grace.close()
        heard(ada, "Grace left")
        people(ada, "Ada")
    assert complaints == []


def test_both_tabs_recover_when_the_server_is_killed_and_comes_back(browser: Browser, demo: Demo) -> None:
    room = f"{demo.address}/room/tea"
    errors: list[str] = []
    with tab(browser, room) as ada, tab(browser, room) as grace:
        for page, name in ((ada, "Ada"), (grace, "Grace")):
            page.on("pageerror", lambda error: errors.append(str(error)))
            enter(page, name)
        demo.end(signal.SIGKILL)
        for page in (ada, grace):
            state(page, re.compile("Connection lost|Reconnecting"))
            expect(page.get_by_role("button", name="Send")).to_be_disabled()
            expect(page.locator("#log .news.lost")).to_have_count(1)
        demo.start()
        for page in (ada, grace):
            state(page, "Connected")
            expect(page.locator("#log .news.back")).to_have_count(1)
        people(ada, "Ada", "Grace")
        people(grace, "Grace", "Ada")
        say(grace, "back again")
        heard(ada, "back again")
        heard(grace, "back again")
    assert errors == []


def test_a_tidy_shutdown_is_told_and_recovered_from(browser: Browser, demo: Demo) -> None:
    with tab(browser, f"{demo.address}/room/tea") as ada:
        enter(ada, "Ada")
        begun = time.monotonic()
        assert demo.end(signal.SIGINT) == 0
        assert time.monotonic() - begun < 2  # promised: under a second; a busy machine gets another one
        state(ada, re.compile("Connection lost|Reconnecting"))
        demo.start()
        ada.get_by_role("button", name="Try now").or_(ada.locator("body[data-state=live]")).first.wait_for()
        state(ada, "Connected")


def test_a_name_is_remembered_and_can_be_changed(browser: Browser, demo: Demo) -> None:
    with tab(browser, demo.address) as ada:
        assert ada.url == f"{demo.address}/room/lobby"
        enter(ada, "Ada")
        ada.reload()
        state(ada, "Connected")
        people(ada, "Ada")
        ada.get_by_role("button", name="Name & room").click()
        ada.get_by_label("Your name").fill("Countess")
        ada.get_by_label("Room", exact=True).fill("tea-2")
        ada.get_by_role("button", name="Join the room").click()
        ada.wait_for_url("**/room/tea-2")
        state(ada, "Connected")
        people(ada, "Countess")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, demo: Demo, scheme: str) -> None:
    with tab(browser, f"{demo.address}/room/{'long-' * 12}", PHONE) as page:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        enter(page, "W" * 32)
        say(page, "x" * 500)
        heard(page, "x" * 500)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.getElementById('scroll').scrollWidth") <= PHONE["width"]
        box = page.get_by_role("button", name="Send").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= PHONE["height"]


def test_a_refused_request_is_shown_and_costs_nothing(browser: Browser, demo: Demo) -> None:
    with tab(browser, f"{demo.address}/room/tea") as ada:
        enter(ada, "Ada")
        ada.locator("#text").evaluate("field => field.removeAttribute('maxlength')")
        say(ada, "x" * 2001)
        expect(ada.get_by_role("alert")).to_have_text("A message may have 2000 characters; this one has 2001.")
        say(ada, "shorter")
        heard(ada, "shorter")


def test_the_page_has_names_for_everything(browser: Browser, demo: Demo) -> None:
    """Each control has an accessible name: what a screen reader says of it."""
    with tab(browser, f"{demo.address}/room/tea") as page:
        enter(page, "Ada")
        nameless = page.evaluate(
            """[...document.querySelectorAll('button, input, textarea, a')]
                 .filter(e => !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label')))
                 .map(e => e.outerHTML)"""
        )
        assert nameless == []
