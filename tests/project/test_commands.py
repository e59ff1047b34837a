"""``runserver``, ``runworker`` and ``channels_status``, as programs; and the tests of the example project."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from trichannels.layers import get_channel_layer
from trichannels.status import ProcessStatus
from trichannels.testing import LiveServer

from ..database.postgres import PostgresProcess
from ..ports import free_port
from ..redis.servers import RedisProcess
from .asgi import application
from .programs import ROOT, STARTED, Program, code_of, surroundings
from .test_settings import MEMORY, on_redis

pytestmark = [pytest.mark.server, pytest.mark.trio_only]  # the server runs on trio


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as server:
        yield server


@pytest.fixture
def chat(seeded: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(seeded, tmp_path / "django_chat"))


def socket_url(url: str) -> str:
    return url.replace("http", "ws") + "/ws/rooms/lobby/"


# ---- runserver


def test_runserver_serves_pages_static_files_and_sockets_and_tells_of_them(chat: Path) -> None:
    with Program("manage.py", "runserver", "0", "--noreload", folder=chat) as program:
        url = program.wait_for(STARTED)[1]
        assert get(f"{url}/accounts/login/")[0] == 200
        program.wait_for(r"HTTP GET /accounts/login/ 200 \d+ B \d+ ms \[127\.0\.0\.1:\d+\]")
        assert "WebSocket" in get(f"{url}/static/chat/room.js")[1]
        assert get(f"{url}/static/admin/css/base.css")[0] == 200
        assert get(f"{url}/static/nothing.js")[0] == 404
        program.wait_for("HTTP GET /static/nothing.js 404")
        with connect(socket_url(url), origin=Origin(url)) as socket:
            assert code_of(socket) == 4401
        program.wait_for("WebSocket CONNECT /ws/rooms/lobby/")
        program.wait_for("WebSocket DISCONNECT /ws/rooms/lobby/ 4401")
        with pytest.raises(InvalidStatus):
            connect(socket_url(url), origin=Origin("http://elsewhere.example"))
        program.wait_for("WebSocket REJECT /ws/rooms/lobby/ 403")
        assert program.end(signal.SIGTERM) == 0


@pytest.mark.once
def test_runserver_begins_anew_when_a_file_changes_and_says_goodbye(chat: Path) -> None:
    port = free_port()
    with Program("manage.py", "runserver", str(port), folder=chat) as program:
        url = program.wait_for(STARTED)[1]
        page = chat / "chat" / "templates" / "registration" / "login.html"
        code = chat / "chatsite" / "urls.py"
        with _open_socket(chat, url) as socket:
            page.write_text(page.read_text().replace("As alice", "Best as alice"))
            code.write_text(code.read_text() + "\nCHANGED = True\n")
            program.wait_for("changed, reloading")
            assert code_of(socket) == 1012, "the server restarts: come back"
        program.wait_for(STARTED)
        assert "Best as alice" in get(f"{url}/accounts/login/")[1]
        program.end(signal.SIGTERM)


@contextmanager
def _open_socket(chat: Path, url: str) -> Iterator[Any]:
    """A socket of a user who is logged in."""
    make = (
        "from django.contrib.auth import get_user_model as u; from django.test import Client; c = Client(); "
        "c.force_login(u().objects.get(username='alice')); print('key', c.cookies['sessionid'].value)"
    )
    told = subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", make], cwd=chat, env=surroundings(), check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    cookie = {"Cookie": f"sessionid={told.split()[-1]}"}
    with connect(socket_url(url), origin=Origin(url), additional_headers=cookie) as socket:
        assert json.loads(socket.recv(5)) == {"here": ["alice"]}
        yield socket


@pytest.mark.once
@pytest.mark.parametrize("reload", [[], ["--noreload"]])
def test_a_port_that_is_taken_is_one_line_and_code_2(chat: Path, reload: list[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Program("manage.py", "runserver", str(port), *reload, folder=chat) as program:
            program.wait_for(rf"127\.0\.0\.1:{port}: another program listens there")
            assert program.end() == 2


@pytest.mark.once
def test_without_an_application_of_its_own_http_is_served(chat: Path) -> None:
    settings = chat / "chatsite" / "settings.py"
    settings.write_text(settings.read_text().replace("ASGI_APPLICATION", "NOT_THE_APPLICATION"))
    with Program("manage.py", "runserver", "0", "--noreload", "--nostatic", folder=chat) as program:
        url = program.wait_for(STARTED)[1]
        assert get(f"{url}/accounts/login/")[0] == 200
        assert get(f"{url}/static/chat/room.js")[0] == 404


@pytest.mark.once
def test_a_wrong_application_is_one_line_and_code_2(chat: Path) -> None:
    settings = chat / "chatsite" / "settings.py"
    settings.write_text(settings.read_text().replace("chatsite.asgi.application", "chatsite.agsi.application"))
    with Program("manage.py", "runserver", "0", "--noreload", folder=chat) as program:
        program.wait_for(r"CommandError: ASGI_APPLICATION is 'chatsite\.agsi\.application', but there is no module")
        assert program.end() == 2


# ---- runworker


def test_runworker_works_on_jobs_and_drains(redis: RedisProcess) -> None:
    with override_settings(CHANNEL_LAYERS=on_redis(redis)), LiveServer.in_thread(application) as live:
        arguments = ("-m", "tests.project.manage", "runworker", "jobs")
        with connect(live.ws_url) as socket, Program(*arguments, REDIS=str(redis.port)) as program:
            layer: Any = get_channel_layer()
            layer.send("jobs", {"type": "job", "n": 7})
            assert socket.recv(30) == "7"
            assert program.end(signal.SIGTERM) == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["jbos"], "did you mean 'jobs'?"),
        (["no!queue"], "cannot be a queue"),
        (["jobs", "--concurrency", "0"], "--concurrency"),
        (["jobs", "--layer", "other"], "has no layer 'other'"),
    ],
)
def test_what_a_worker_cannot_do_is_one_line_and_code_2(
    redis: RedisProcess, arguments: list[str], problem: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.project.manage", "runworker", *arguments], cwd=ROOT, capture_output=True,
        env=surroundings(REDIS=str(redis.port)), text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 2
    assert problem in told.stderr
    assert len(told.stderr.splitlines()) == 1


# ---- channels_status


def status(*arguments: str) -> str:
    told = StringIO()
    call_command("channels_status", *arguments, stdout=told)
    return told.getvalue()


def test_channels_status_lists_processes_sockets_groups_and_queues(redis: RedisProcess) -> None:
    with (
        override_settings(CHANNEL_LAYERS=on_redis(redis), ASGI_APPLICATION="tests.project.asgi.application"),
        LiveServer.in_thread(application) as one,
        LiveServer.in_thread(application) as other,
        connect(one.ws_url),
        connect(one.ws_url),
        connect(other.ws_url),
    ):
        layer: Any = get_channel_layer()
        for n in range(2):
            layer.send("others", {"type": "job", "n": n})
        text = status("--timeout", "4")
        assert "2 processes, 3 sockets" in text
        assert re.search(rf"{os.getpid()}: for \d+ \w+, 2 sockets, 2 groups", text)
        assert "room: 3 members in 2 processes" in text
        assert "others: 2 waiting, 0 running, 0 delayed, 0 dead" in text
        found = json.loads(status("--timeout", "4", "--json", "--queue", "third"))
        assert sorted(process["sockets"] for process in found["processes"]) == [1, 2]
        assert found["queues"].keys() == {"jobs", "others", "third"}


def test_channels_status_says_what_it_cannot_tell() -> None:
    for layers, problem in (
        ({}, "CHANNEL_LAYERS has no 'default'"),
        ({"default": {"BACKEND": MEMORY}}, "is in memory"),
        ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, "is of Channels"),
    ):
        with override_settings(CHANNEL_LAYERS=layers), pytest.raises(CommandError, match=problem) as caught:
            status()
        assert caught.value.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--timeout", "nan"], "--timeout takes seconds"),
        (["--timeout", "-1"], "--timeout takes seconds"),
        (["--queue", "a!b"], "--queue: "),
    ],
)
def test_wrong_options_of_channels_status_have_code_2(redis: RedisProcess, arguments: list[str], problem: str) -> None:
    with override_settings(CHANNEL_LAYERS=on_redis(redis)), pytest.raises(CommandError, match=problem) as caught:
        status(*arguments)
    assert caught.value.returncode == 2


def test_an_answer_that_cannot_be_read_hides_no_other(redis: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    as_event = ProcessStatus.as_event
    told: list[int] = []

    def of_another_version(self: ProcessStatus) -> dict[str, Any]:
        told.append(1)
        return {"something": "else"} if len(told) == 1 else as_event(self)

    monkeypatch.setattr(ProcessStatus, "as_event", of_another_version)
    with (
        override_settings(CHANNEL_LAYERS=on_redis(redis)),
        LiveServer.in_thread(application),
        LiveServer.in_thread(application),
    ):
        assert "1 process, 0 sockets" in status("--timeout", "4")


# ---- the example's own tests


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.once)])
def test_the_tests_of_the_example(database: str, chat: Path, request: pytest.FixtureRequest) -> None:
    environment = {}
    if database == "postgresql":
        server: PostgresProcess = request.getfixturevalue("postgres")
        environment["DATABASE"] = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    told = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test"], cwd=chat, env=surroundings(**environment),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert re.search(r"Ran \d+ tests", told.stderr)


PYTEST = """
import pytest
from chatsite.asgi import application
from chat.models import Room
from django.contrib.auth import get_user_model
from trichannels.db import database_sync_to_async
from trichannels.testing import LiveServer, on_test_thread, shared_connections
from trichannels.testing.websocket import WebsocketCommunicator
import anyio


@database_sync_to_async
def count():
    return Room.objects.count()


@pytest.mark.django_db
@on_test_thread
async def test_on_the_thread_of_the_test():
    await database_sync_to_async(Room.objects.create)(slug="a", title="A")
    assert await count() == 1


@pytest.fixture
def room(db):
    return Room.objects.create(slug="b", title="B")


@pytest.mark.anyio
async def test_with_its_connections(room):
    with shared_connections():
        assert await count() == 1
        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(make, n)
        assert await count() == 21


async def make(n):
    await database_sync_to_async(Room.objects.create)(slug=f"room-{n}", title="x")


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request):
    return request.param


@pytest.mark.django_db
def test_all_was_rolled_back():
    assert Room.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_live_server(client):
    user = get_user_model().objects.create_user("alice")
    Room.objects.create(slug="lobby", title="Lobby")
    with LiveServer.in_thread(application) as live:
        import urllib.request
        with urllib.request.urlopen(live.url + "/accounts/login/") as response:
            assert response.status == 200
"""


@pytest.mark.once
def test_pytest_django(chat: Path) -> None:
    pytest.importorskip("pytest_django")
    (chat / "test_rooms.py").write_text(PYTEST)
    (chat / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = chatsite.settings\nfilterwarnings = error\n")
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:trio", "test_rooms.py"],
        cwd=chat, env=surroundings(SQLITE=str(chat / "test.sqlite3")), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert "5 passed" in told.stdout
