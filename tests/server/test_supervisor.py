"""Workers that are replaced when they die, keep serving beside each other, and end together with their parent."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from trichannels.exceptions import ConfigError, StartupFailed
from trichannels.server import parent, supervisor
from trichannels.server.supervisor import Supervisor

from ..processes import APP, Running, running

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


@contextmanager
def two_workers(site: Path, *options: str) -> Iterator[tuple[Running, str]]:
    """Run two workers; yields the supervisor and the address, once both take connections."""
    arguments = ("serve", "site_app:application", "--bind", "127.0.0.1:0", "--workers", "2", *options)
    with running(*arguments, cwd=site) as command:
        yield command, command.address(2)


def websocket(address: str) -> ClientConnection:
    return connect(address.replace("http", "ws"), proxy=None, open_timeout=30)


def worker_of(socket: ClientConnection) -> int:
    """Return the process id that the application says first."""
    return int(socket.recv(30))


@contextmanager
def a_socket_on_each(address: str) -> Iterator[tuple[ClientConnection, int, ClientConnection, int]]:
    """Open two sockets that different workers serve: the first is held still while the second is opened."""
    with websocket(address) as first, ExitStack() as opened:
        mine = worker_of(first)
        os.kill(mine, signal.SIGSTOP)
        try:
            second = opened.enter_context(websocket(address))
            other = worker_of(second)
        finally:
            os.kill(mine, signal.SIGCONT)
        assert other != mine
        yield first, mine, second, other


def close_code(socket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(30)
    return closed.value.rcvd.code if closed.value.rcvd else 1006


def lives(pid: int) -> bool:
    """Say whether a process is there, and not only as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(parent: int) -> list[int]:
    """Return the living children of a process, whichever of its threads started them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, number = file.read_text().rpartition(")")[2].split()[:2]
            if int(number) == parent and state not in "ZX":
                found.append(int(file.parent.name))
    return found


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again; for what another process does there is nothing to wait on."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_worker_is_replaced_while_another_keeps_its_sockets(site: Path) -> None:
    with two_workers(site) as (command, address):
        descriptors = len(list(Path(f"/proc/{command.pid}/fd").iterdir()))
        with a_socket_on_each(address) as (kept, pid, lost, killed):
            os.kill(killed, signal.SIGKILL)
            assert close_code(lost) == 1006
            command.heard(rf"worker {killed} is gone \(killed by SIGKILL\)")
            command.address(3)
            assert not Path(f"/proc/{killed}").exists()
            kept.send("there?")
            assert kept.recv(30) == "still here"
            with a_socket_on_each(address) as (_, one, _, two):
                assert {one, two} > {pid}
                assert killed not in {one, two}
        assert len(list(Path(f"/proc/{command.pid}/fd").iterdir())) == descriptors
        assert command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers(site: Path, number: signal.Signals) -> None:
    with two_workers(site) as (command, address), a_socket_on_each(address) as (first, one, second, two):
        command.tell(number)
        assert close_code(first) == close_code(second) == 1012
        assert command.end() == 0
        assert not lives(one)
        assert not lives(two)
    assert (site / "shutdown").exists()
    assert "Traceback" not in command.err


def test_ctrl_c_at_a_terminal_reaches_everybody_and_counts_once(site: Path) -> None:
    with two_workers(site) as (command, address), a_socket_on_each(address) as (first, _, second, _):
        os.killpg(command.pid, signal.SIGINT)
        assert close_code(first) == close_code(second) == 1012
        assert command.end() == 0
    assert "Traceback" not in command.err


def test_workers_drain_when_their_parent_is_killed(site: Path) -> None:
    with two_workers(site) as (command, address), a_socket_on_each(address) as (first, one, second, two):
        command.tell(signal.SIGKILL)
        assert close_code(first) == close_code(second) == 1012
        until(lambda: not lives(one) and not lives(two))
    assert (site / "shutdown").exists()


def test_a_worker_that_ends_by_itself_is_replaced_too(site: Path) -> None:
    with two_workers(site) as (command, address), websocket(address) as socket:
        os.kill(worker_of(socket), signal.SIGTERM)
        assert close_code(socket) == 1012
        command.heard(r"is gone \(exit code 0\)")
        command.address(3)
        assert len(children_of(command.pid)) == 2
        assert command.end(signal.SIGTERM) == 0


def test_an_application_that_cannot_be_imported_is_shown_once(site: Path) -> None:
    (site / "broken.py").write_text("1 / 0\n")
    arguments = ("serve", "broken:application", "--bind", "127.0.0.1:0", "--workers", "3")
    with running(*arguments, cwd=site) as command:
        assert command.end() == 1
    assert command.err.count("Traceback") == 1
    line = "trichannels: broken could not be imported (ZeroDivisionError): mend what the traceback shows"
    assert command.err.splitlines()[-1] == line


def test_a_mistake_is_one_line(site: Path) -> None:
    arguments = ("serve", "site_app:nothing", "--bind", "127.0.0.1:0", "--workers", "3")
    with running(*arguments, cwd=site) as command:
        assert command.end() == 2
    line = "trichannels: module 'site_app' has no 'nothing': name the variable that holds the application\n"
    assert command.err == line


def test_programs_that_a_worker_starts_do_not_inherit_its_sockets(site: Path) -> None:
    (site / "site_app.py").write_text(
        APP + "\nimport subprocess\n"
        "inherited = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, capture_output=True, text=True)\n"
        "pathlib.Path('inherited').write_text(inherited.stdout)\n"
    )
    with two_workers(site) as (command, _):
        assert command.end(signal.SIGTERM) == 0
    assert "socket:" not in (site / "inherited").read_text()


# Workers of another kind: what the supervisor does with those that misbehave. The line is the first descriptor.

DIES = "raise SystemExit(3)"
SERVES = "import socket; line = socket.socket(fileno={0}); line.sendall(b'{{\"started\": true}}\\n'); "
SAYS = 'import socket; socket.socket(fileno={0}).sendall(b\'{{"failed": "%s", "code": %d}}\\n\'); raise SystemExit(%d)'
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVES + "time.sleep(1000)"
SERVES_AND_DIES = SERVES + "raise SystemExit(4)"
OBEYS_AND_FAILS = SERVES + "line.recv(100); raise SystemExit(5)"


def a_python(code: str) -> Callable[[Sequence[int]], list[str]]:
    return lambda descriptors: [sys.executable, "-c", code.format(*descriptors)]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the supervisor start again without a pause; gives the failures that it counted."""
    counted: list[int] = []

    def no_pause(failures: int, first: float, most: float) -> float:
        counted.append(failures)
        return 0

    monkeypatch.setattr(supervisor, "pause_after", no_pause)
    monkeypatch.setattr(parent, "MARGIN", 0.3)
    return counted


@contextmanager
def a_socket() -> Iterator[list[socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield [listening]


@pytest.mark.parametrize("code", [DIES, SERVES_AND_DIES])
async def test_it_gives_up_on_a_worker_that_dies_again_and_again(
    code: str, at_once: list[int], caplog: pytest.LogCaptureFixture, descriptors: None
) -> None:
    with trio.fail_after(60), a_socket() as sockets, pytest.raises(StartupFailed, match="5 workers in a row died"):
        await Supervisor(a_python(code), sockets, 1, 1).run()
    assert at_once == [1, 2, 3, 4]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 4


@pytest.mark.parametrize(("code", "error"), [(1, StartupFailed), (2, ConfigError)])
async def test_what_the_first_worker_says_is_raised(code: int, error: type[Exception], descriptors: None) -> None:
    worker = a_python(SAYS % ("no luck", code, code))
    with trio.fail_after(60), a_socket() as sockets, pytest.raises(error, match="no luck"):
        await Supervisor(worker, sockets, 1, 3).run()


async def stopped(supervisor: Supervisor, *seconds: float) -> None:
    """Run it, and stop it when its worker serves, once for each number."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        while not any(child.started.is_set() for child in supervisor._children):
            await trio.sleep(0.01)
        for number in seconds:
            supervisor.stop(number)


async def test_a_worker_that_does_not_end_is_killed_and_the_exit_code_says_so(
    at_once: list[int], descriptors: None
) -> None:
    with trio.fail_after(60), a_socket() as sockets, pytest.raises(ExceptionGroup) as raised:
        await stopped(Supervisor(a_python(STUBBORN), sockets, 1, 1), 100, 0)
    assert raised.group_contains(StartupFailed, match="was killed")


async def test_a_worker_that_ends_badly_makes_the_exit_code_bad(at_once: list[int], descriptors: None) -> None:
    with trio.fail_after(60), a_socket() as sockets, pytest.raises(ExceptionGroup) as raised:
        await stopped(Supervisor(a_python(OBEYS_AND_FAILS), sockets, 1, 1), 20)
    assert raised.group_contains(StartupFailed, match="exit code 5")


async def test_cancelled_it_leaves_no_process(descriptors: None) -> None:
    pids: list[int] = []
    with trio.fail_after(60), a_socket() as sockets:
        supervisor = Supervisor(a_python(STUBBORN), sockets, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            while sum(child.started.is_set() for child in supervisor._children) < 2:
                await trio.sleep(0.01)
            pids += [child.pid for child in supervisor._children]
            nursery.cancel_scope.cancel()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_stopped_before_a_worker_serves_it_ends_clean(descriptors: None) -> None:
    with trio.fail_after(60), a_socket() as sockets:
        supervisor = Supervisor(a_python("import time; time.sleep(1000)"), sockets, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            while not supervisor._children:
                await trio.sleep(0.01)
            supervisor.stop(30)


async def test_stopped_while_a_worker_is_being_made_it_ends_clean(descriptors: None) -> None:
    with trio.fail_after(60), a_socket() as sockets:
        supervisor = Supervisor(a_python("import time; time.sleep(1000)"), sockets, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.testing.wait_all_tasks_blocked()  # the process is made in a thread
            supervisor.stop(30)
