"""Runs the scenarios on both libraries, ours on both backends, each in a process and with a Redis of its own."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ..redis.servers import RedisProcess
from .rows import Row

ROOT = Path(__file__).parent.parent.parent
LONGEST = 300  # seconds that a run may take on a machine in trouble

Run: TypeAlias = tuple[str, str]
"""A library and a backend."""

THEIRS: Run = ("channels", "asyncio")
OURS: Run = ("trichannels", "trio")
ON_ASYNCIO: Run = ("trichannels", "asyncio")

Seen: TypeAlias = dict[Run, dict[str, Any]]
"""What each run has seen, by the names of the rows; rows on Redis are missing where there is none."""


def observe() -> Seen:
    """Run all scenarios, the three runs side by side."""
    runs = (THEIRS, OURS, ON_ASYNCIO)
    with ExitStack() as stack:
        processes = [_start(run, stack) for run in runs]
        return {run: _answer(process) for run, process in zip(runs, processes, strict=True)}


def _start(run: Run, stack: ExitStack) -> "subprocess.Popen[str]":
    try:
        server = stack.enter_context(RedisProcess())
        redis = {"url": server.url, "path": server.path}
    except pytest.skip.Exception:
        redis = None
    warnings = "ignore" if run == THEIRS else "error"
    command = [sys.executable, "-W", warnings, "-m", f"{__package__}.process", *run, json.dumps(redis)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stack.callback(process.__exit__, None, None, None)
    stack.callback(process.kill)
    return process


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, problems = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, problems
    seen: dict[str, Any] = json.loads(out)
    return seen


def shown(found: Any) -> str:
    """Return what was seen, for a message; the traceback of a scenario that has failed."""
    return str(found["error"]) if isinstance(found, dict) and set(found) == {"error"} else repr(found)


def differences(row: Row, seen: Seen) -> list[str]:
    """Return a line for each run that has not seen what a row says."""
    expected = {THEIRS: row.theirs, OURS: row.ours, ON_ASYNCIO: row.on_asyncio}
    return [
        f"{package} on {backend}: seen {shown(found)}, but expected {wanted!r}"
        for (package, backend), wanted in expected.items()
        if (found := seen[package, backend].get(row.name, "nothing was run")) != wanted
    ]
