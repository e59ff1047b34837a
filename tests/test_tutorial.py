"""The tutorial, followed to the letter: files are written, commands run, and what it promises is looked at."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from .project.programs import STARTED, Program, code_of, surroundings
from .redis.servers import RedisProcess

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorial").glob("[1-4]*.md"))
STEP = re.compile(r"<!-- (write|append|replace|run) ?(\S*) -->\n```text\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
LOGIN = (
    "from django.contrib.auth import get_user_model as u; from django.test import Client; c = Client(); "
    "c.force_login(u().objects.get(username='ada')); print('key', c.cookies['sessionid'].value)"
)
LOGOUT = (
    "from django.contrib.auth import logout, get_user; from django.http import HttpRequest as R; import sys; "
    "from importlib import import_module as i; from django.conf import settings as s; "
    "r = R(); r.session = i(s.SESSION_ENGINE).SessionStore({key!r}); r.user = get_user(r); logout(r)"
)


def follow(page: Path, folder: Path) -> None:
    """Do what a page says."""
    for kind, name, text, other in STEP.findall(page.read_text()):
        file = folder / name
        if kind == "run":
            for line in text.splitlines():
                run(folder, *shlex.split(line))
        elif kind == "replace":
            assert text.strip() in file.read_text()
            file.write_text(file.read_text().replace(text.strip(), other.strip()))
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text((file.read_text() if kind == "append" else "") + text)


def run(folder: Path, program: str, *arguments: str, **environment: str) -> str:
    start = [sys.executable] if program == "python" else [sys.executable, "-m", "django"]
    told = subprocess.run(
        [*start, *arguments], cwd=folder, env=surroundings(**environment), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def socket(url: str, **more: Any) -> Any:
    return connect(f"{url.replace('http', 'ws')}/ws/lobby/", origin=Origin(url), **more)


def test_the_tutorial(tmp_path: Path) -> None:
    first, second, third, fourth = PAGES
    follow(first, tmp_path)
    with Program("manage.py", "runserver", "0", "--noreload", folder=tmp_path) as server:
        url = server.wait_for(STARTED)[1]
        with socket(url) as echo:
            echo.send('{"text": "hello"}')
            assert echo.recv(10) == '{"text": "hello"}'

    follow(second, tmp_path)
    with Program("manage.py", "runserver", "0", "--noreload", folder=tmp_path) as server:
        url = server.wait_for(STARTED)[1]
        with socket(url) as one, socket(url) as other:
            one.send('{"text": "hello"}')
            assert one.recv(10) == other.recv(10) == '{"text": "hello"}'

    follow(third, tmp_path)
    with Program("manage.py", "runserver", "0", "--noreload", folder=tmp_path) as server:
        url = server.wait_for(STARTED)[1]
        with socket(url) as stranger:
            assert code_of(stranger) == 4401
        key = run(tmp_path, "python", "manage.py", "shell", "-c", LOGIN).split()[-1]
        cookie = {"Cookie": f"sessionid={key}"}
        with socket(url, additional_headers=cookie) as one, socket(url, additional_headers=cookie) as other:
            one.send('{"text": "hello"}')
            assert one.recv(10) == other.recv(10) == '{"author": "ada", "text": "hello"}'

    follow(fourth, tmp_path)
    with RedisProcess() as redis:
        environment = {"REDIS": f"redis://127.0.0.1:{redis.port}"}
        arguments = ("-m", "trichannels", "serve", "mysite.asgi:application", "--workers", "2", "--bind", "127.0.0.1:0")
        with Program(*arguments, folder=tmp_path, **environment) as server:
            for _ in range(2):  # each process says so
                url = server.wait_for(r"listening on (http://127\.0\.0\.1:\d+)")[1]
            with socket(url, additional_headers=cookie) as one:
                assert one.recv(10) == '{"author": "ada", "text": "hello"}', "what was said before"
                told = run(tmp_path, "python", "manage.py", "channels_status", "--timeout", "3", **environment)
                assert "2 processes, 1 socket\n" in told
                run(tmp_path, "python", "manage.py", "shell", "-c", LOGOUT.format(key=key), **environment)
                assert code_of(one) == 4401
    with Program(*arguments, folder=tmp_path) as server:
        server.wait_for("needs channel layers that reach every process")
        assert server.end() == 2
