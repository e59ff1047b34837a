"""``trichannels worker`` and ``trichannels dead``: what they understand and refuse, and the line of progress.

What they do to jobs is tried on a real Redis, in ``redis/test_queue.py``.
"""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trichannels.cli import main
from trichannels.consumer import AsyncConsumer
from trichannels.events import Event
from trichannels.exceptions import LayerUnreachable
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.layers.queues import DeadLetter, Job, QueueStatistics, Retry
from trichannels.layers.serializers import MsgpackSerializer
from trichannels.server import queue_command
from trichannels.server.progress import ERASE, Sample, progress, show_progress
from trichannels.server.queue_command import DeadCommand, WorkCommand, described
from trichannels.worker import Rules, WorkerStatistics, run_worker

pytestmark = pytest.mark.trio_only

SITE = """
from trichannels.consumer import AsyncConsumer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.routing import ChannelNameRouter, ProtocolTypeRouter
from trichannels.testing import FaultyLayer

class Tasks(AsyncConsumer):
    async def task_do(self, event):
        pass

class Elsewhere(InMemoryChannelLayer):
    "Would be a layer of another module."

tasks = Tasks.as_asgi()
names = ChannelNameRouter({"tasks": tasks, "mail": tasks})
bare = tasks
memory = ProtocolTypeRouter({"channel": names}, layers={"default": InMemoryChannelLayer()})
faulty = ProtocolTypeRouter({"channel": names}, layers={"default": FaultyLayer(InMemoryChannelLayer())})
layerless = ProtocolTypeRouter({"channel": names})
mapless = ProtocolTypeRouter({}, layers={"default": InMemoryChannelLayer()})
plain = ProtocolTypeRouter({"channel": tasks}, layers={"default": InMemoryChannelLayer()})
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current directory has ``site_app.py``, which is forgotten again."""
    (tmp_path / "site_app.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a layer in memory pass for one that other processes reach."""
    monkeypatch.setattr(queue_command, "is_in_memory", lambda layer: False)


def understood(monkeypatch: pytest.MonkeyPatch, kind: type[Any], *arguments: str) -> Any:
    """Return the command that would have been run."""
    found: list[Any] = []

    def run(self: object) -> int:
        found.append(self)
        return 0

    monkeypatch.setattr(kind, "run", run)
    assert main(arguments) == 0
    return found[0]


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command line that is wrong; return the one line on standard error."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("trichannels: ").removesuffix("\n")


# What is understood


def test_the_options_of_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = understood(monkeypatch, WorkCommand, "worker", "a:b", "one")
    assert plain == WorkCommand(target="a:b", channels=["one"])
    assert plain.rules == Rules()
    line = "worker a:b one two --layer jobs --concurrency 3 --retries 2 --drain-time 1.5 --stats --app-dir src"
    command = understood(monkeypatch, WorkCommand, *line.split(), "--log-level", "error")
    assert command == WorkCommand(
        target="a:b",
        channels=["one", "two"],
        layer="jobs",
        concurrency=3,
        retries=2,
        drain_time=1.5,
        stats=True,
        app_dir="src",
    )
    assert command.rules == Rules(concurrency=3, retry=Retry(retries=2), drain_time=1.5, alias="jobs")


def test_options_may_stand_before_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    command = understood(monkeypatch, WorkCommand, "worker", "--stats", "a:b", "--retries", "2", "one", "two")
    assert (command.target, command.channels) == ("a:b", ["one", "two"])


def test_the_options_of_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    command = understood(monkeypatch, DeadCommand, "dead", "a:b", "one", "--requeue", "1-0", "2-0", "--layer", "jobs")
    assert command == DeadCommand(target="a:b", channel="one", requeue=["1-0", "2-0"], layer="jobs")
    command = understood(monkeypatch, DeadCommand, "dead", "a:b", "one", "--discard", "all")
    assert command == DeadCommand(target="a:b", channel="one", discard=["all"])


# What is wrong


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("worker", "the following arguments are required: MODULE:APP, CHANNEL (see: trichannels worker --help)"),
        ("worker a:b", "the following arguments are required: CHANNEL (see: trichannels worker --help)"),
        ("worker a:b x --worker 2", "--worker is not known here (see: trichannels worker --help)"),
        (
            "worker a:b x --concurency 2",
            "--concurency is not known here: did you mean --concurrency? (see: trichannels worker --help)",
        ),
        ("worker a:b x --concurrency 0", "--concurrency is a whole number above 0, not 0"),
        ("worker a:b x --concurrency x", "--concurrency is a whole number above 0, not 'x'"),
        ("worker a:b x --retries -1", "--retries takes a whole number, 0 or more, not -1"),
        ("worker a:b x --drain-time -1", "--drain-time is a number of seconds, 0 or more, not -1"),
        (
            "worker a:b x --log-level loud",
            "--log-level takes debug, info, warning, error or critical, not 'loud'",
        ),
        (
            "worker a:b x!y",
            "'x!y' cannot be a queue: 'x!y' is a channel of one process, no work queue: leave out the '!'",
        ),
        ("worker nope x", "'nope' is not MODULE:APP: write it as nope:application"),
        ("worker site_app:nope x", "module 'site_app' has no 'nope': name the variable that holds the application"),
        (
            "worker site_app:bare tasks",
            "site_app:bare has no channel layers: name a ProtocolTypeRouter(..., layers={'default': layer})",
        ),
        ("worker site_app:layerless tasks", "site_app:layerless has no layer 'default'; its layers: none"),
        ("worker site_app:memory tasks --layer x", "site_app:memory has no layer 'x'; its layers: 'default'"),
        (
            "worker site_app:memory tasks",
            "layer 'default' of site_app:memory is in memory, and ends at its process: let the server work on it, by "
            "ProtocolTypeRouter(..., workers=[…])",
        ),
        (
            "worker site_app:faulty tasks",
            "layer 'default' of site_app:faulty is in memory, and ends at its process: let the server work on it, by "
            "ProtocolTypeRouter(..., workers=[…])",
        ),
        (
            "dead site_app:memory tasks",
            "layer 'default' of site_app:memory is in memory, and ends at its process: its dead letters cannot be "
            "seen from here",
        ),
        ("dead a:b", "the following arguments are required: CHANNEL (see: trichannels dead --help)"),
        (
            "dead a:b x --requeue 1-1 --discard all",
            "--requeue and --discard cannot be given both: do one after the other",
        ),
        ("dead a:b x --requeue 1-1 all", "--requeue takes either all, or the ids of dead letters, not both"),
        ("dead a:b x --discard all 1-1", "--discard takes either all, or the ids of dead letters, not both"),
        ("dead a:b x --discard", "--discard: expected at least one argument (see: trichannels dead --help)"),
    ],
)
def test_a_mistake_is_one_line(site: None, capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    assert mistake(capsys, *line.split()) == told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "worker site_app:memory task",
            "site_app:memory has no application for channel 'task': did you mean 'tasks'? (it has 'mail', 'tasks')",
        ),
        (
            "worker site_app:memory mail zzz",
            "site_app:memory has no application for channel 'zzz': route it in its ChannelNameRouter "
            "(it has 'mail', 'tasks')",
        ),
        (
            "worker site_app:mapless tasks",
            "site_app:mapless maps nothing to 'channel': "
            "add ProtocolTypeRouter({'channel': ChannelNameRouter({'NAME': consumer})})",
        ),
    ],
)
def test_a_channel_that_nobody_handles_is_one_line(
    site: None, shared: None, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    assert mistake(capsys, *line.split()) == told


def test_what_the_layer_raises_is_one_line(
    site: None, shared: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(self: object) -> None:
        raise LayerUnreachable("redis://nowhere", "connection refused")

    monkeypatch.setattr(InMemoryChannelLayer, "open", unreachable)
    for line in ("worker site_app:plain anything", "dead site_app:plain anything"):
        assert mistake(capsys, *line.split(), code=1) == "redis://nowhere: connection refused"


def test_they_need_no_hypercorn(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(SITE)
    code = "import sys; sys.modules['hypercorn'] = None; from trichannels.cli import main; sys.exit(main())"
    for line in ("worker site_app:memory tasks", "dead site_app:memory tasks"):
        ended = subprocess.run(
            [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, cwd=tmp_path
        )
        assert "is in memory" in ended.stderr
        assert ended.returncode == 2


# Dead letters in words


def test_a_dead_letter_is_told_in_two_lines() -> None:
    decode = MsgpackSerializer().decode
    payload = MsgpackSerializer().encode({"type": "task.do", "text": "x" * 1000})
    job = Job(channel="tasks", id="abc", payload=payload, deliveries=3, enqueued_at=0, decode=decode)
    letter = DeadLetter(id="1-0", job=job, error="ValueError: not\nnow", buried_at=1_800_000_000)
    first, second = described(letter).splitlines()
    assert first.startswith("1-0  2027-01-1")
    assert first.endswith("  job abc, delivered 3 times: ValueError: not now")
    assert second.startswith("    {'type': 'task.do', 'text': 'xxx")
    assert len(second) < 310
    broken = Job(channel="tasks", id="abc", payload=b"\xc1", deliveries=1, enqueued_at=0, decode=decode)
    assert "cannot be read" in described(DeadLetter(id="1-0", job=broken, error="", buried_at=0)).splitlines()[1]


# Progress


def statistics(**numbers: int) -> WorkerStatistics:
    return WorkerStatistics(**{"running": 0, "done": 0, "retried": 0, "buried": 0, "returned": 0} | numbers)


def test_progress_tells_totals_a_rate_and_what_is_left() -> None:
    one = QueueStatistics(waiting=100, running=3, delayed=2, dead=1)
    before = Sample(at=10, done=statistics(done=50), left=None)
    now = Sample(at=12, done=statistics(done=75, running=3, retried=4), left={"one": one, "two": one})
    assert progress(before, now) == "75 done (12.5/s), 3 running, 4 retried; 200 waiting, 4 delayed, 2 dead"
    buried = Sample(at=10, done=statistics(buried=1), left=None)
    assert progress(before, buried) == "0 done (0.0/s), 0 running, 1 buried; the queue does not answer"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Waiting(AsyncConsumer):
    async def task_do(self, event: Event) -> None:
        await trio.sleep(5)


async def shown(stream: io.StringIO, seconds: float) -> list[str]:
    """Return what is written in so many seconds, in which one job is done."""
    async with InMemoryChannelLayer() as layer, trio.open_nursery() as nursery:
        worker = await nursery.start(partial(run_worker, Waiting.as_asgi(), layer, "tasks"))
        await layer.send("tasks", {"type": "task.do"})
        with trio.move_on_after(seconds):
            await show_progress(worker, stream)
        nursery.cancel_scope.cancel()
    return stream.getvalue().split("\n")


async def test_elsewhere_there_is_a_line_every_ten_seconds(autojump_clock: object) -> None:
    assert await shown(io.StringIO(), 25) == [
        "1 done (0.1/s), 0 running; 0 waiting, 0 delayed, 0 dead",
        "1 done (0.0/s), 0 running; 0 waiting, 0 delayed, 0 dead",
        "1 done (0.0/s), 0 running",
        "",
    ]


async def test_on_a_terminal_the_line_is_rewritten_and_logs_stand_above_it(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shown, stream, 3.5)
        await trio.sleep(2.5)
        logging.getLogger("anything").error("something happened")
    assert not handler.filters
    lines = stream.getvalue().split("\n")
    rewritten = "0 done (0.0/s), 1 running; 0 waiting, 0 delayed, 0 dead"
    assert lines[0] == f"{ERASE}{rewritten}{ERASE}{rewritten}{ERASE}something happened"
    assert lines[1] == f"{ERASE}{rewritten}{ERASE}0 done (0.0/s), 1 running"


async def test_a_queue_that_does_not_answer_stops_no_progress(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: object) -> Any:
        raise LayerUnreachable("redis", "no answer")

    monkeypatch.setattr("trichannels.worker.Worker.depth", away)
    assert (await shown(io.StringIO(), 11))[0] == "1 done (0.1/s), 0 running; the queue does not answer"
