"""Programs that tests run: the commands of the project of the tests, and of the example project."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from ..processes import Running, kill_session

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "django_chat"
STARTED = r"development server at (http://127\.0\.0\.1:\d+)/"


class Program(Running):
    """A program of a project; ends with its block."""

    def __init__(self, *arguments: str, folder: Path = ROOT, **environment: str) -> None:
        super().__init__(
            subprocess.Popen(
                [sys.executable, "-u", *arguments], cwd=folder, env=surroundings(**environment),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )
        )  # fmt: skip
        self._found: Counter[str] = Counter()

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Return its next match for a pattern."""
        self._found[pattern] += 1
        return self.heard(pattern, self._found[pattern])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with self.process:
            if self.process.poll() is None:
                self.tell(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(30)
            kill_session(self.process.pid)
            self.close()


def code_of(socket: ClientConnection) -> int:
    """Return the code with which a server closes a socket; what it sends before does not matter."""
    try:
        while True:
            socket.recv(30)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else 1006


def surroundings(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_COLORS": "nocolor", **more}


def copy_of_the_example(folder: Path, **environment: str) -> Path:
    """Return the example project in a folder of its own, with a seeded database."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3*"))
    for command in ("migrate", "seed"):
        subprocess.run(
            [sys.executable, "manage.py", command, "-v0"], cwd=folder, env=surroundings(**environment), check=True,
            timeout=120, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return folder
