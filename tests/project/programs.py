"""Programs that tests run: the commands of the project of the tests, and of the example project."""

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "django_chat"
STARTED = r"development server at (http://127\.0\.0\.1:\d+)/"


class Program:
    """A program that runs, and what it has written so far; ends with its block."""

    def __init__(self, *arguments: str, folder: Path = ROOT, **environment: str) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=folder, env=surroundings(**environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Return the match of the next line that has it."""
        while True:
            line = self._lines.get(timeout=60)
            assert line is not None, "it ended: " + "\n".join(self.said)
            self.said.append(line)
            if found := re.search(pattern, line):
                return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


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
