"""The pictures of the tutorial: it is followed as a newcomer would, and looked at in Chromium after each part.

``python -m tests.browser.tutorial`` writes them to ``docs/tutorial/``. What they are to show is checked before.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page

from ..project.programs import STARTED
from ..test_package import build
from ..test_tutorial import PAGES, RUNSERVER, Terminal
from .conftest import chromium, find_chromium

HERE = PAGES[0].parent
SIZE = {"width": 480, "height": 190}


@contextmanager
def served(terminal: Terminal) -> Iterator[str]:
    with terminal.started(RUNSERVER) as server:
        yield server.heard(STARTED)[1]


@contextmanager
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
    yield context
    context.close()


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.keyboard.press("Enter")


def hears(page: Page, text: str) -> None:
    page.wait_for_selector(f"#said li:text-is('{text}')")


def log_in(visitor: BrowserContext, url: str) -> Page:
    page = visitor.new_page()
    page.goto(f"{url}/admin/")
    page.fill("#id_username", "ada")
    page.fill("#id_password", "a-good-one")
    page.click("[type=submit]")
    page.wait_for_selector("#logout-form")
    return page


def take(page: Page, part: int) -> None:
    page.screenshot(path=HERE / f"{part}.png")


def main() -> None:
    program = find_chromium()
    if program is None:
        raise SystemExit("no chromium on PATH; install it with: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as dist, chromium(program) as browser:
        terminal = Terminal(Path(folder), build(Path(dist)).wheel.parent)
        terminal.follow(PAGES[0])
        with served(terminal) as url, visitor(browser) as one:
            page = one.new_page()
            page.goto(f"{url}/rooms/lobby/")
            say(page, "Is anybody here?")
            hears(page, "Is anybody here?")
            take(page, 1)

        terminal.follow(PAGES[1])
        with served(terminal) as url, visitor(browser) as one, visitor(browser) as other:
            page, second = one.new_page(), other.new_page()
            page.goto(f"{url}/rooms/lobby/")
            second.goto(f"{url}/rooms/lobby/")
            say(page, "Is anybody here?")
            hears(second, "Is anybody here?")
            say(second, "Yes, in the other tab")
            for each in (page, second):
                hears(each, "Yes, in the other tab")
            take(second, 2)

        terminal.follow(PAGES[2])
        with served(terminal) as url, visitor(browser) as one:
            admin = log_in(one, url)
            page = one.new_page()
            page.goto(f"{url}/rooms/lobby/")
            say(page, "Now my name is before it")
            hears(page, "ada: Now my name is before it")
            admin.click("#logout-form button")
            hears(page, "closed: 4401 logged out")
            take(page, 3)


if __name__ == "__main__":
    main()
