"""The dashboard in a real Chromium: three streams of one socket, of which one fails while the others go on."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from examples import dashboard
from trichannels.testing import LiveServer

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PATIENCE = 20_000  # ms; CI machines are slow


def test_one_stream_fails_and_the_others_go_on(browser: Browser) -> None:
    problems: list[str] = []
    with LiveServer.in_thread(dashboard.application) as live:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(live.url)
        price, clock = page.locator("#prices output"), page.locator("#clock output")
        expect(price).not_to_be_empty(timeout=PATIENCE)
        expect(clock).to_have_text("1", timeout=PATIENCE)
        page.fill("#notes input", "first")
        page.press("#notes input", "Enter")
        expect(page.locator("#notes output")).to_have_text("first", timeout=PATIENCE)

        page.click("#fail")
        expect(page.locator("#clock .state")).to_have_text("closed: 1011 failed", timeout=PATIENCE)
        if folder := os.environ.get("PICTURES"):
            Path(folder, "dashboard.png").write_bytes(page.screenshot())
        before = price.inner_text()
        expect(price).not_to_have_text(before, timeout=PATIENCE)
        page.fill("#notes input", "second")
        page.press("#notes input", "Enter")
        expect(page.locator("#notes output")).to_have_text("first\nsecond", timeout=PATIENCE)

        page.click("#again")
        expect(page.locator("#clock .state")).to_have_text("open again", timeout=PATIENCE)
        expect(clock).to_have_text("1", timeout=PATIENCE)
        page.close()
    assert problems == []
