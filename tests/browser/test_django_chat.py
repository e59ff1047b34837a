"""The Django chat in a real Chromium: users log in, chat, log out in another tab, and survive the end of a server.

Two servers share Redis, and a database: PostgreSQL, and SQLite for what one server can do alone.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ..database.postgres import PostgresProcess
from ..project.programs import STARTED, Program, copy_of_the_example
from ..redis.servers import RedisProcess

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PATIENCE = 20_000  # ms; CI machines are slow
COUNT_CLOSES = """
    const Real = WebSocket;
    window.closes = [];
    window.WebSocket = class extends Real {
        constructor(...args) { super(...args); this.addEventListener("close", ({code}) => window.closes.push(code)); }
    };
"""


class Site:
    """Servers of the chat, and browsers that are logged in there."""

    def __init__(self, browser: Browser, stack: ExitStack, folder: Path, **environment: str) -> None:
        self._browser, self._stack, self._folder, self._environment = browser, stack, folder, environment
        self.problems: list[str] = []

    def server(self) -> tuple[Program, str]:
        program = Program("manage.py", "runserver", "0", "--noreload", folder=self._folder, **self._environment)
        self._stack.enter_context(program)
        return program, program.wait_for(STARTED)[1]

    def log_in(self, url: str, name: str) -> Page:
        """Return a page of the lobby, in a browser of its own."""
        context = self._browser.new_context()
        self._stack.callback(context.close)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.add_init_script(COUNT_CLOSES)
        page.on("pageerror", lambda error: self.problems.append(f"{name}: {error}"))
        page.goto(f"{url}/")
        page.fill("#id_username", name)
        page.fill("#id_password", f"{name}-demo")
        page.click("main button")
        page.click("text=Lobby")
        expect(page.locator("#state")).to_have_text("connected", timeout=PATIENCE)
        return page


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def hears(page: Page, text: str) -> None:
    expect(page.locator("#messages li", has_text=text)).to_have_count(1, timeout=PATIENCE)


def picture(page: Page, name: str) -> None:
    """Keep a picture, for who wants to look at it."""
    if folder := os.environ.get("PICTURES"):
        Path(folder, f"{name}.png").write_bytes(page.screenshot())


def test_two_users_chat_and_a_logout_in_another_tab_closes_the_socket(
    browser: Browser, stack: ExitStack, tmp_path: Path
) -> None:
    site = Site(browser, stack, copy_of_the_example(tmp_path / "chat"))
    _, url = site.server()
    alice, bob = site.log_in(url, "alice"), site.log_in(url, "bob")
    hears(alice, "Is anybody here?")
    expect(alice.locator("#here")).to_have_text("here: alice, bob", timeout=PATIENCE)
    say(alice, "hello bob")
    hears(bob, "hello bob")
    say(bob, "hello alice")
    hears(alice, "hello alice")
    picture(alice, "chat")

    third = bob.context.new_page()
    third.goto(f"{url}/")
    third.click("#logout")
    expect(bob.locator("#state")).to_have_text("closed: logged out", timeout=PATIENCE)
    assert bob.evaluate("window.closes") == [4401]
    picture(bob, "logged-out")
    expect(alice.locator("#here")).to_have_text("here: alice", timeout=PATIENCE)
    say(alice, "still here")
    hears(alice, "still here")
    assert alice.evaluate("window.closes") == []
    assert site.problems == []


def test_the_admin_deletes_a_message_and_it_is_gone_from_the_page(
    browser: Browser, stack: ExitStack, tmp_path: Path
) -> None:
    site = Site(browser, stack, copy_of_the_example(tmp_path / "chat"))
    _, url = site.server()
    alice = site.log_in(url, "alice")
    say(alice, "to be deleted")
    hears(alice, "to be deleted")
    admin = alice.context.new_page()
    admin.goto(f"{url}/admin/chat/message/")
    picture(admin, "admin")
    admin.click("#result_list tbody tr:first-child th a, #result_list tbody tr:first-child td a")
    number = admin.url.rstrip("/").split("/")[-2]
    expect(alice.locator(f"#message-{number}")).to_have_count(1)
    admin.click("a.deletelink")
    admin.click("input[type=submit]")
    expect(alice.locator(f"#message-{number}")).to_have_count(0, timeout=PATIENCE)
    assert site.problems == []


def test_the_end_of_one_server_is_not_noticed_at_the_other(browser: Browser, stack: ExitStack, tmp_path: Path) -> None:
    redis, postgres = stack.enter_context(RedisProcess()), stack.enter_context(PostgresProcess())
    environment = {
        "REDIS": f"redis://127.0.0.1:{redis.port}",
        "DATABASE": f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres",
    }
    site = Site(browser, stack, copy_of_the_example(tmp_path / "chat", **environment), **environment)
    (_, one), (doomed, other) = site.server(), site.server()
    alice, bob = site.log_in(one, "alice"), site.log_in(one, "bob")
    far_away = site.log_in(other, "bob")
    say(far_away, "from the other server")
    for page in (alice, bob, far_away):
        hears(page, "from the other server")
    say(alice, "back to it")
    hears(far_away, "back to it")

    doomed.process.send_signal(signal.SIGKILL)
    expect(far_away.locator("#state")).to_have_text("lost, trying again", timeout=PATIENCE)
    for number in range(5):
        say(alice, f"after the end {number}")
        hears(bob, f"after the end {number}")
    for page in (alice, bob):
        assert page.evaluate("window.closes") == []
        expect(page.locator("#state")).to_have_text("connected")
    picture(alice, "after-the-end")
    assert site.problems == []
