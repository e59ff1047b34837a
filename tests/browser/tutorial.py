"""The pictures of the tutorial: it is followed to the letter, and looked at in Chromium after each part.

``python -m tests.browser.tutorial`` writes them to ``docs/tutorial/``. What they are to show is checked before.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page

from ..project.programs import STARTED, Program
from ..test_tutorial import PAGES, follow
from .conftest import chromium, find_chromium

HERE = PAGES[0].parent
SIZE = {"width": 480, "height": 190}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with Program("manage.py", "runserver", "0", "--noreload", folder=folder) as server:
        yield server.wait_for(STARTED)[1]


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
    with tempfile.TemporaryDirectory() as name, chromium(program) as browser:
        folder = Path(name)
        follow(PAGES[0], folder)
        with served(folder) as url, visitor(browser) as one:
            page = one.new_page()
            page.goto(f"{url}/rooms/lobby/")
            say(page, "Is anybody here?")
            hears(page, "Is anybody here?")
            take(page, 1)

        follow(PAGES[1], folder)
        with served(folder) as url, visitor(browser) as one, visitor(browser) as other:
            page, second = one.new_page(), other.new_page()
            page.goto(f"{url}/rooms/lobby/")
            second.goto(f"{url}/rooms/lobby/")
            say(page, "Is anybody here?")
            hears(second, "Is anybody here?")
            say(second, "Yes, in the other tab")
            for each in (page, second):
                hears(each, "Yes, in the other tab")
            take(second, 2)

        follow(PAGES[2], folder)
        with served(folder) as url, visitor(browser) as one:
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
