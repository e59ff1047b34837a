"""How tests run: on trio by pytest-trio, or with ``BACKEND=asyncio`` on asyncio by the little runner below.

``autojump_clock`` is a virtual clock on both. A test marked ``trio_only`` is left out on asyncio.
"""

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from trichannels.layers import host

from .foreign import LEFT_OUT

BACKEND = os.environ.get("BACKEND", "trio")

if BACKEND == "trio":
    from pytest_trio.enable_trio_mode import *  # noqa: F403

# nohup ignores SIGHUP, a shell's background job SIGINT, and so would every server that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time leaps to the next timer as soon as nothing else can run."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.each_iteration: Callable[[], None] | None = None
        select = self._selector.select  # type: ignore[attr-defined]

        def leap(timeout: float | None = None) -> Any:
            if self.each_iteration is not None:
                self.each_iteration()
                timeout = 0 if self._ready else timeout  # type: ignore[attr-defined]
            if timeout is None:
                events = select(10)
                if not events:
                    raise RuntimeError("every task waits for something that nobody will do")
                return events
            self._now += max(timeout, 0)
            return select(0)

        self._selector.select = leap  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


async def _leak_checked(test: Coroutine[Any, Any, None]) -> None:
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


if BACKEND == "asyncio":

    @pytest.fixture
    def autojump_clock() -> object:
        return VirtualClockLoop

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
        if not inspect.iscoroutinefunction(inspect.unwrap(pyfuncitem.obj)):
            return None
        names = inspect.signature(pyfuncitem.obj).parameters
        arguments = {name: pyfuncitem.funcargs[name] for name in names}
        virtual = "autojump_clock" in pyfuncitem.fixturenames
        factory: Callable[[], asyncio.AbstractEventLoop] | None = VirtualClockLoop if virtual else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_leak_checked(pyfuncitem.obj(**arguments)))
        return True


if BACKEND == "asyncio":  # on trio, the name is pytest-trio's own hook

    def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.get_closest_marker("trio_only")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _threads() -> set[threading.Thread]:
    """Threads that belong to somebody: both backends keep idle worker threads for the next call."""
    return {t for t in threading.enumerate() if not t.name.startswith(("Trio thread", "AnyIO worker thread"))}


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    before = _threads()
    yield
    # Those of others, such as asgiref's, end by themselves, and nobody waits for them; a backend's worker, which bears
    # the name of its call until just after that is over, has its own again.
    deadline = time.monotonic() + 2
    while (left := _threads() - before) and time.monotonic() < deadline:
        next(iter(left)).join(0.01)
    assert not left, f"threads left behind: {left}"


@pytest.fixture(autouse=True)
def no_companions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Django project, which is set up for the whole run, adds something to all layers: for its own tests alone."""
    if "project" not in request.path.parts:
        monkeypatch.setattr(host, "COMPANIONS", [])


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Fail the test if it leaves file descriptors open."""
    gc.collect()
    gc.freeze()  # what is there now stays: each look at all of it would take a tenth of a second
    before = set(Path("/proc/self/fd").iterdir())
    yield
    gc.collect()
    left = set(Path("/proc/self/fd").iterdir()) - before
    assert not left, f"file descriptors left open: {left}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in LEFT_OUT:
        terminalreporter.write_line(f"left out: {line}")
