"""A worker that starts again when a file changes, also after a mistake; and the files that are looked at."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from trichannels.server import reload
from trichannels.server.files import Watch, imported_files, looks, neighbours

from ..processes import APP, ask, running

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

SERVE = ("serve", "site_app:application", "--bind", "127.0.0.1:0", "--reload")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text("from parts import ROOT\n" + APP)
    (tmp_path / "parts.py").write_text("ROOT = 1\n")
    return tmp_path


def test_a_change_starts_again_on_the_same_port(site: Path) -> None:
    with running(*SERVE, cwd=site) as command:
        address = command.address()
        pid = ask(address)["pid"]
        with connect(address.replace("http", "ws"), proxy=None) as client:
            client.recv(30)
            (site / "parts.py").write_text("ROOT = 22\n")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert ask(address)["pid"] != pid  # waits in the listening socket's queue until the new one is there
        command.heard(r"parts.py changed: starting again")
        assert command.address(2) == address
        assert command.end(signal.SIGTERM) == 0
    assert "Traceback" not in command.err


def test_a_mistake_is_shown_and_mended(site: Path) -> None:
    with running(*SERVE, cwd=site) as command:
        address = command.address()
        (site / "parts.py").write_text("ROOT = (\n")
        command.heard(r"SyntaxError: .*")
        command.heard(r"waiting for a file to change: site_app could not be imported \(SyntaxError\)")
        (site / "parts.py").write_text("from more import ROOT\n")
        command.heard(r"waiting for a file to change: site_app could not be imported \(ModuleNotFoundError\)")
        (site / "more.py").write_text("ROOT = 3\n")
        assert command.address(2) == address
        assert ask(address)
        assert command.end(signal.SIGTERM) == 0


def test_an_edit_of_the_same_second_and_size_is_seen(site: Path) -> None:
    parts = site / "parts.py"
    with running(*SERVE, cwd=site, environment={"PYTHONDONTWRITEBYTECODE": ""}) as command:
        address = command.address()
        before = parts.stat()
        parts.write_text("ROOT = (\n")
        os.utime(parts, ns=(before.st_atime_ns, before.st_mtime_ns // 10**9 * 10**9))
        assert (parts.stat().st_size, int(parts.stat().st_mtime)) == (before.st_size, int(before.st_mtime))
        command.heard(r"waiting for a file to change: site_app could not be imported \(SyntaxError\)")
        parts.write_text("ROOT = 1\n")
        assert command.address(2) == address
        assert command.end(signal.SIGTERM) == 0


def test_a_first_start_that_fails_waits_too_and_ends_when_told(site: Path) -> None:
    (site / "parts.py").write_text("1 / 0\n")
    with running(*SERVE, cwd=site) as command:
        command.heard(r"waiting for a file to change: site_app could not be imported \(ZeroDivisionError\)")
        assert command.end(signal.SIGINT) == 0
    assert command.err.count("Traceback") == 1


def test_a_worker_that_dies_waits_for_a_change(site: Path) -> None:
    with running(*SERVE, cwd=site) as command:
        address = command.address()
        os.kill(int(str(ask(address)["pid"])), signal.SIGKILL)
        command.heard(r"waiting for a file to change: the worker ended \(killed by SIGKILL\)")
        (site / "parts.py").write_text("ROOT = 4444\n")
        command.address(2)
        assert ask(address)
        assert command.end(signal.SIGTERM) == 0


def test_a_wrong_command_line_does_not_wait(site: Path) -> None:
    with running("serve", "nope:application", "--bind", "127.0.0.1:0", "--reload", cwd=site) as command:
        assert command.end() == 2
    assert command.err.count("\n") == 1
    assert command.err.startswith("trichannels: there is no module 'nope' in ")


async def test_a_worker_that_does_not_go_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: None
) -> None:
    monkeypatch.setattr(reload, "MARGIN", 0)
    message = json.dumps({"files": {str(tmp_path / "gone.py"): [1, 1]}}).encode() + b"\n"
    code = (
        "import signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); line = socket.socket(fileno=%d); "
        f"line.sendall({message!r}); time.sleep(1000)"
    )
    begun: list[int] = []

    def command(numbers: Sequence[int]) -> list[str]:
        begun.append(numbers[0])
        return [sys.executable, "-c", code % numbers[0]]

    with trio.fail_after(60), socket.create_server(("127.0.0.1", 0)) as listening:
        reloader = reload.Reloader(command, [listening], 1, str(tmp_path))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            while len(begun) < 2:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


# The files.


def write(file: Path) -> None:
    file.write_text("changed, and longer")


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("change", [write, touch, remove])
def test_a_change_is_seen_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.touch()
    watch = Watch()
    watch.add(looks([str(file), str(other)]))
    assert watch.changed() == []
    change(file)
    watch.add(looks([str(file)]))  # told of again: that must not hide the change
    assert watch.changed() == [str(file)]
    assert watch.changed() == []
    other.touch()
    assert watch.changed() == [str(other)]


def test_imported_files_are_those_of_modules_and_of_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "importing_broken.py").write_text("import broken_syntax\n")
    (tmp_path / "broken_syntax.py").write_text("(\n")
    with pytest.raises(SyntaxError) as raised:
        __import__("importing_broken")
    wrapper = RuntimeError()
    wrapper.__cause__ = raised.value
    found = imported_files(wrapper)
    assert {str(tmp_path / "importing_broken.py"), str(tmp_path / "broken_syntax.py"), __file__} <= found
    assert str(tmp_path / "broken_syntax.py") not in imported_files()
    assert str(Path(pytest.__file__).resolve()) in found
    ours = str(Path(sys.modules["trichannels"].__file__ or "").resolve().parent)
    assert not [name for name in found if name.startswith(ours)], (
        "an upgrade of this package is no change of the program"
    )


def test_neighbours_are_the_python_files_beside_ours(tmp_path: Path) -> None:
    names = ("a.py", "b.py", "c.txt", "inner/d.py", "inner/e.py", "other/f.py")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = neighbours([str(tmp_path / "inner/d.py"), os.__file__], str(tmp_path))
    assert found == {str(tmp_path / name) for name in ("a.py", "b.py", "inner/d.py", "inner/e.py")}
