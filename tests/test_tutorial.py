"""The tutorial, followed to the letter: files are written, commands run, and what it promises is looked at.

Its first lines make the environment, in an empty folder and a shell in which nothing is installed; only the wheel of
this package comes from here. So what a newcomer would lack is lacking here.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote, split
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from trichannels import __version__

from .foreign import require_index
from .processes import Running, running_program
from .project.programs import STARTED, code_of
from .redis.servers import RedisProcess
from .test_package import build

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorial").glob("[1-4]*.md"))
STEP = re.compile(
    r"<!-- (install|write|append|replace|run|serve) ?(\S*) -->\n```text\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL
)
PROGRAM = re.compile(r"^(?:[A-Z_]+=\S+ )*(\S+)", re.MULTILINE)
OURS = ("COVERAGE", "DATABASE", "DJANGO", "PYTEST", "PYTHON", "REDIS", "VIRTUAL_ENV")
AS_IN_A_TERMINAL = {"DJANGO_COLORS": "nocolor", "PYTHONUNBUFFERED": "1"}
LOGIN = (
    "from django.contrib.auth import get_user_model as u; from django.test import Client; c = Client(); "
    "c.force_login(u().objects.get(username='ada')); print('key', c.cookies['sessionid'].value)"
)
LOGOUT = (
    "from django.contrib.auth import logout, get_user; from django.http import HttpRequest as R; import sys; "
    "from importlib import import_module as i; from django.conf import settings as s; "
    "r = R(); r.session = i(s.SESSION_ENGINE).SessionStore({key!r}); r.user = get_user(r); logout(r)"
)


def steps(page: Path, kind: str) -> list[str]:
    """Return what a page has of one kind of step."""
    return [step[3].strip() for step in STEP.finditer(page.read_text()) if step[1] == kind]


# The page's own command, at a port that is free.
RUNSERVER = f"{steps(PAGES[0], 'serve')[0]} 0 --noreload"


class Terminal:
    """A shell in a folder, as a newcomer has it open: what one command exports, the next one sees.

    Nothing is installed but a Python. pip finds this package among ``wheels``, and all others where it always does.
    """

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self.environment |= {
            "PATH": os.pathsep.join(path_without_environments()),
            "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels.as_uri()}",
            **AS_IN_A_TERMINAL,
        }

    def follow(self, page: Path) -> None:
        """Do what a page says; what is marked ``serve`` is left to those who talk to it."""
        for kind, name, text, other in STEP.findall(page.read_text()):
            if kind == "install":
                self.install(text)
            elif kind == "run":
                self.run(text)
            elif kind != "serve":
                edit(self.folder / name, kind, text, other)

    def install(self, script: str) -> None:
        """Make the environment; all that the pages call later must be in it."""
        try:
            self.run(script)
        except AssertionError as failed:
            require_index(str(failed))
            raise
        environment = self.folder / ".venv"
        called = {name for page in PAGES for kind in ("run", "serve") for name in programs(page, kind)}
        assert called <= {file.name for file in (environment / "bin").iterdir()}
        assert list(environment.rglob(f"trichannels-{__version__}.dist-info")), "pip took another one than ours"

    def run(self, script: str) -> str:
        """Return what commands print; the first one that fails is the last."""
        told = subprocess.run(
            ["sh", "-ec", f"{script}\nprintf '\\0'; env -0"], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        printed, *exported = told.stdout.removesuffix("\0").split("\0")
        self.environment = dict(variable.split("=", 1) for variable in exported)
        return printed

    @contextmanager
    def started(self, command: str) -> Iterator[Running]:
        """Run a server for a block."""
        exactly = ["env", "-i", *(f"{name}={value}" for name, value in self.environment.items())]
        with running_program([*exactly, *split(command)], cwd=self.folder, environment={}) as server:
            yield server
            if server.process.poll() is None:
                server.end(signal.SIGTERM)


def path_without_environments() -> list[str]:
    """Return where programs are found: the suite's own Python first, and none that a virtual environment has."""
    found = [f"{sys.base_prefix}/bin", *os.environ["PATH"].split(os.pathsep)]
    return [folder for folder in found if not (Path(folder).parent / "pyvenv.cfg").exists()]


def programs(page: Path, kind: str) -> set[str]:
    """Return the names that the command lines of a page begin with."""
    return {name for text in steps(page, kind) for name in PROGRAM.findall(text)}


def edit(file: Path, kind: str, text: str, other: str) -> None:
    if kind == "replace":
        assert text.strip() in file.read_text()
        file.write_text(file.read_text().replace(text.strip(), other.strip()))
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if kind == "append" else "") + text)


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, build(tmp_path_factory.mktemp("dist")).wheel.parent)


def socket(url: str, **more: Any) -> Any:
    return connect(f"{url.replace('http', 'ws')}/ws/lobby/", origin=Origin(url), proxy=None, **more)


def test_the_tutorial(terminal: Terminal) -> None:
    first, second, third, fourth = PAGES
    terminal.follow(first)
    with terminal.started(RUNSERVER) as server:
        url = server.heard(STARTED)[1]
        with socket(url) as echo:
            echo.send('{"text": "hello"}')
            assert echo.recv(10) == '{"text": "hello"}'

    terminal.follow(second)
    with terminal.started(RUNSERVER) as server:
        url = server.heard(STARTED)[1]
        with socket(url) as one, socket(url) as other:
            one.send('{"text": "hello"}')
            assert one.recv(10) == other.recv(10) == '{"text": "hello"}'

    terminal.follow(third)
    with terminal.started(RUNSERVER) as server:
        url = server.heard(STARTED)[1]
        with socket(url) as stranger:
            assert code_of(stranger) == 4401
        key = terminal.run(f"python manage.py shell -c {quote(LOGIN)}").split()[-1]
        cookie = {"Cookie": f"sessionid={key}"}
        with socket(url, additional_headers=cookie) as one, socket(url, additional_headers=cookie) as other:
            one.send('{"text": "hello"}')
            assert one.recv(10) == other.recv(10) == '{"author": "ada", "text": "hello"}'

    terminal.follow(fourth)
    with RedisProcess() as redis:
        here = {"redis://localhost:6379": redis.url, ":8000": ":0"}
        serve, status = (re.sub("|".join(here), lambda match: here[match[0]], text) for text in steps(fourth, "serve"))
        with terminal.started(serve) as server:
            url = server.heard(r"listening on (http://127\.0\.0\.1:\d+)", 2)[1]  # each process says so
            with socket(url, additional_headers=cookie) as one:
                assert one.recv(10) == '{"author": "ada", "text": "hello"}', "what was said before"
                assert "2 processes, 1 socket\n" in terminal.run(f"{status} --timeout 6")
                terminal.run(f"REDIS={redis.url} python manage.py shell -c {quote(LOGOUT.format(key=key))}")
                assert code_of(one) == 4401
    with terminal.started(serve.partition(" ")[2]) as server:
        server.heard("needs channel layers that reach every process")
        assert server.end() == 2
