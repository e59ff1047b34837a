"""``trichannels`` on the command line: what it says, what it returns, and how it ends.

Mistakes are mostly tried in this process, which is quick; whatever has signals and sockets is a process of its own.
"""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from trichannels.cli import DEAD, OPTIONS, QUEUE, WORKER, main
from trichannels.server.command import ServeCommand
from trichannels.server.config import ServerConfig

from .processes import APP, ask, running

pytestmark = [pytest.mark.server, pytest.mark.trio_only]

FREE = ("--bind", "127.0.0.1:0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory, the current one, whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A directory with ``APP`` as ``site_app.py``."""
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that is wrong; return the one line on standard error."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("trichannels: ")
    return err.removeprefix("trichannels: ").removesuffix("\n")


# What is understood.


def test_every_option_of_the_server_is_one_of_the_command_and_the_other_way_round() -> None:
    flags = {flag.removeprefix("--").replace("-", "_") for options in OPTIONS.values() for flag in options}
    names = {field.name for field in fields(ServerConfig)}
    assert flags - names == {"app_dir", "no_gc_tuning", "config"}
    assert names - flags == {"hypercorn"}


def understood(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServeCommand:
    """Return what would have been run."""
    found: list[ServeCommand] = []

    def run(self: ServeCommand) -> int:
        found.append(self)
        return 0

    monkeypatch.setattr(ServeCommand, "run", run)
    assert main(arguments) == 0
    return found[0]


def test_options_reach_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.touch()
    command = understood(
        monkeypatch,
        *("serve", "chat:application", "--bind", "127.0.0.1:1", "--bind", "unix:/tmp/x"),
        *("--certfile", str(pem), "--keyfile", str(pem), "--root-path", "/chat", "--proxy-headers", "modern"),
        *("--trusted-hops", "2", "--workers", "3", "--access-log", "-", "--error-log", "errors.log"),
        *("--ping-interval", "7", "--pong-timeout", "8.5", "--max-message-size", "9", "--write-timeout", "10"),
        *("--drain-time", "11", "--permessage-deflate", "--app-dir", "src", "--no-gc-tuning"),
    )
    assert (command.target, command.app_dir, command.gc_tuning) == ("chat:application", "src", False)
    assert command.config == ServerConfig(
        bind=("127.0.0.1:1", "unix:/tmp/x"),
        certfile=str(pem),
        keyfile=str(pem),
        root_path="/chat",
        proxy_headers="modern",
        trusted_hops=2,
        workers=3,
        access_log="-",
        error_log="errors.log",
        ping_interval=7,
        pong_timeout=8.5,
        max_message_size=9,
        permessage_deflate=True,
        write_timeout=10,
        drain_time=11,
    )


def test_without_options_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    command = understood(monkeypatch, "serve", "chat:application")
    assert command.config == ServerConfig()
    assert command.gc_tuning


def test_the_command_line_wins_over_a_configuration_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text('bind = "127.0.0.1:1"\ngraceful_timeout = 4\nkeep_alive_max_requests = 5\n')
    command = understood(monkeypatch, "serve", "chat:application", "--config", str(file), "--bind", "127.0.0.1:2")
    assert command.config.binds == ("127.0.0.1:2",)
    assert command.config.drain_time == 4
    assert command.config.hypercorn == {"keep_alive_max_requests": 5}


def test_a_worker_gets_the_command_line_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    command = understood(monkeypatch, "serve", "chat:application", "--workers", "2")
    line = list(command.worker_command([7, 8]))
    assert line[0] == sys.executable
    assert line[line.index("-m") :] == [
        *("-m", "trichannels", "serve", "--inherited=7,8", "chat:application", "--workers", "2")
    ]


def test_demo_serves_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    command = understood(monkeypatch, "demo")
    assert command.target == "trichannels.demo.chat:application"
    assert command.config.binds == ("127.0.0.1:8000",)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code in (None, 0)
    assert re.fullmatch(r"trichannels \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_help_names_the_commands_and_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["--help"], ["serve", "worker", "dead", "demo", "--version"]),
        (["serve", "--help"], ["MODULE:APP", *(flag for options in OPTIONS.values() for flag in options)]),
        (["worker", "--help"], ["MODULE:APP", "CHANNEL", *WORKER, *QUEUE]),
        (["dead", "--help"], ["MODULE:APP", "CHANNEL", *DEAD, *QUEUE]),
        (["demo", "--help"], ["--bind"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code in (None, 0)
        text = capsys.readouterr().out
        assert [name for name in expected if name not in text] == []
        assert "--inherited" not in text


# What is wrong.


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: COMMAND (see: trichannels --help)"),
        (["serve"], "the following arguments are required: MODULE:APP (see: trichannels serve --help)"),
        (
            ["serve", "a:b", "--bnd", "x"],
            "--bnd is not known here: did you mean --bind? (see: trichannels serve --help)",
        ),
        (["serve", "a:b", "--zzz=1"], "--zzz=1 is not known here (see: trichannels serve --help)"),
        (["serve", "a:b", "c:d"], "c:d is not known here (see: trichannels serve --help)"),
        (["demo", "--workers", "2"], "--workers is not known here (see: trichannels demo --help)"),
        (["serve", "a:b", "--bind"], "--bind: expected one argument (see: trichannels serve --help)"),
        (["serve", "a:b", "--bind", "8000"], "--bind takes host:port, unix:/path or fd://N, not '8000'"),
        (["serve", "a:b", "--ping-interval", "x"], "--ping-interval takes a number of seconds above 0, not 'x'"),
        (["serve", "a:b", "--pong-timeout=-1"], "--pong-timeout takes a number of seconds above 0, not -1"),
        (["serve", "a:b", "--drain-time", "nan"], "--drain-time takes a number of seconds, 0 or more, not nan"),
        (["serve", "a:b", "--max-message-size", "1.5"], "--max-message-size takes a whole number above 0, not 1.5"),
        (["serve", "a:b", "--workers", "0"], "--workers takes a whole number above 0, not 0"),
        (["serve", "a:b", "--proxy-headers", "x"], '--proxy-headers takes "legacy" or "modern", not \'x\''),
        (["serve", "a:b", "--root-path", "x"], "--root-path takes a path that begins with \"/\", not 'x'"),
        (
            ["serve", "a:b", "--log-level", "loud"],
            "--log-level takes debug, info, warning, error or critical, not 'loud'",
        ),
        (
            ["serve", "a:b", "--reload", "--workers", "2"],
            "--reload is for one worker: leave out --workers, or --reload",
        ),
        (
            ["serve", "a:b", "--config", "no.toml"],
            "--config no.toml: No such file or directory; give a file that this user may read",
        ),
        (
            ["serve", "a:b", "--certfile", "no.pem", "--keyfile", "no.pem"],
            "--certfile no.pem: No such file or directory; give a file that this user may read",
        ),
        (["serve", "a:b", "--certfile", "no.pem"], "--certfile needs --keyfile as well: TLS takes both"),
        (["serve", "chat"], "'chat' is not MODULE:APP: write it as chat:application"),
        (["serve", "chat:"], "'chat:' is not MODULE:APP: write it as chat:application"),
        (["serve", "src/chat.py"], "'src/chat.py' is not MODULE:APP: write it as src.chat:application"),
        (["serve", "ch-at:app"], "'ch-at:app' is not MODULE:APP: write it as chat:app"),
    ],
)
def test_a_mistake_is_one_line(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert mistake(capsys, *arguments) == line


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("nope:application", "there is no module 'nope' in {here} or on Python's path: {cure}"),
        ("site_app.nope:application", "there is no module 'site_app.nope' in {here} or on Python's path: {cure}"),
        ("site_app:aplication", "module 'site_app' has no 'aplication': did you mean 'application'?"),
        ("site_app:zzz", "module 'site_app' has no 'zzz': name the variable that holds the application"),
        ("site_app:application.zzz", "site_app:application has no 'zzz': name the variable that holds the application"),
        (
            "site_app:__name__",
            "site_app:__name__ is of type str, not an application: name a callable that takes scope, receive and send",
        ),
        ("site_app.py:application", "'site_app.py:application' is not MODULE:APP: write it as site_app:application"),
    ],
)
def test_an_application_that_is_not_there_is_one_line(
    here: Path, chat: Path, capsys: pytest.CaptureFixture[str], target: str, line: str
) -> None:
    cure = "check its name, or say with --app-dir where it is"
    assert mistake(capsys, "serve", target, *FREE) == line.format(here=here, cure=cure)


def test_a_configuration_file_that_is_no_toml(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.toml").write_text("bind = \n")
    assert mistake(capsys, "serve", "a:b", "--config", "bad.toml").startswith("--config bad.toml: not valid TOML: ")


def test_a_port_in_use(here: Path, chat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        cure = "another program listens there: stop it, or choose another port (0 takes a free one)"
        for arguments in (["demo"], ["serve", "site_app:application"], ["serve", "site_app:application", "--reload"]):
            assert mistake(capsys, *arguments, "--bind", bind) == f"--bind {bind}: {cure}"


def test_a_certificate_that_is_none(here: Path, chat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "some.pem").write_text("no certificate\n")
    line = mistake(capsys, "serve", "site_app:application", *FREE, "--certfile", "some.pem", "--keyfile", "some.pem")
    assert line.startswith("--certfile some.pem, --keyfile some.pem: not a certificate and its key in PEM form")


def test_several_workers_with_a_layer_in_memory(tmp_path: Path) -> None:
    with running("serve", "trichannels.demo.chat:application", *FREE, "--workers", "2", cwd=tmp_path) as command:
        assert command.end() == 2
    assert command.err == (
        "trichannels: --workers 2 needs channel layers that reach every process, but layer 'default' is an "
        "InMemoryChannelLayer, which ends at its own: use --workers 1, or a layer that is shared\n"
    )


def test_a_mistake_in_a_process(tmp_path: Path) -> None:
    with running("serve", "nope:application", *FREE, cwd=tmp_path) as command:
        assert command.end() == 2
    cure = "check its name, or say with --app-dir where it is"
    assert command.err == f"trichannels: there is no module 'nope' in {tmp_path} or on Python's path: {cure}\n"
    assert command.out == ""


def test_the_extra_is_missing(tmp_path: Path) -> None:
    code = "import sys; sys.modules['hypercorn'] = None; from trichannels.cli import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code, "demo"], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "trichannels: serving needs hypercorn: pip install 'trichannels[serve]'\n"


# The application's own faults: its traceback, then one line, and exit code 1.


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import no_such_library", "ModuleNotFoundError"),
        ("from site_app_parts import no_such_part", "ModuleNotFoundError"),
        ("application = (", "SyntaxError"),
        ("import sys; sys.exit('not today')", "SystemExit"),
    ],
)
def test_a_module_that_fails_is_shown_with_its_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], source: str, error: str
) -> None:
    (here / "broken.py").write_text(f"\n{source}\n")
    assert main(["serve", "broken:application", *FREE]) == 1
    *shown, line = capsys.readouterr().err.splitlines()
    assert line == f"trichannels: broken could not be imported ({error}): mend what the traceback shows"
    assert 'broken.py", line 2' in "\n".join(shown)
    assert "importlib" not in "\n".join(shown)
    assert "trichannels/" not in "\n".join(shown)


@pytest.mark.once
def test_a_lifespan_that_fails(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(
        "from trichannels.routing import ProtocolTypeRouter\n"
        "async def lifespan(scope, receive, send):\n"
        "    raise ValueError('no database')\n"
        "application = ProtocolTypeRouter({'lifespan': lifespan})\n"
    )
    with running("serve", "site_app:application", *FREE, cwd=tmp_path) as command:
        assert command.end() == 1
    lines = command.err.splitlines()
    assert lines[-1] == "trichannels: the application refused to start: ValueError: no database"
    assert "in lifespan" in command.err


# How it ends.


def accepts(host: str, port: int) -> bool:
    """Say whether somebody listens there."""
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # it closed just then: who asks again is refused
        pass
    return True


@pytest.mark.once
def test_the_demo_is_served_and_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    took = []
    for _ in range(3):  # the promise is under a second; the best of three, because other programs run here too
        with running("demo", *FREE, cwd=tmp_path) as demo:
            address = demo.address()
            assert "Your name" in httpx.get(f"{address}/room/lobby", trust_env=False).text
            with connect(f"{address.replace('http', 'ws')}/ws/lobby", proxy=None) as socket:
                start = time.monotonic()
                assert demo.end(signal.SIGINT) == 0
                took.append(time.monotonic() - start)
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert demo.out == f"The chat is on {address} - open it in two tabs; Ctrl-C ends it\n"
        assert demo.err == ""
    assert min(took) < 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_it(chat: Path, number: signal.Signals) -> None:
    with running("serve", "site_app:application", *FREE, cwd=chat) as server:
        with connect(server.address().replace("http", "ws"), proxy=None) as socket:
            socket.recv(20)
            server.tell(number)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(20)
        assert server.end() == 0
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert (chat / "shutdown").exists()
    assert "Traceback" not in server.err


def test_a_client_that_stops_reading_does_not_hold_it(chat: Path) -> None:
    with running("serve", "site_app:application", *FREE, "--drain-time", "1", cwd=chat) as server:
        address = server.address()
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"GET /flood HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert client.recv(12) == b"HTTP/1.1 101"
            start = time.monotonic()
            assert server.end(signal.SIGTERM) == 0
            assert time.monotonic() - start < 10
    assert (chat / "shutdown").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_drain_refuses_newcomers_and_ctrl_c_shortens_it(tmp_path: Path, workers: str) -> None:
    (tmp_path / "site_app.py").write_text(
        "import trio\n"
        "async def application(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': b'wait', 'more_body': True})\n"
        "        await trio.sleep_forever()\n"
        "    raise ValueError\n"
    )
    options = ("--drain-time", "300", "--workers", workers)
    with (
        running("serve", "site_app:application", *FREE, *options, cwd=tmp_path) as server,
        httpx.stream("GET", server.address(int(workers)), trust_env=False) as response,
    ):
        assert response.status_code == 200
        server.tell(signal.SIGTERM)
        host, _, port = server.address().removeprefix("http://").partition(":")
        deadline = time.monotonic() + 30
        while accepts(host, int(port)):
            assert time.monotonic() < deadline
        assert server.process.poll() is None
        assert server.end(signal.SIGINT) == 0
    assert "Traceback" not in server.err


@pytest.mark.once
def test_the_third_ctrl_c_ends_even_a_busy_process(chat: Path) -> None:
    with running("serve", "site_app:application", *FREE, cwd=chat) as server:
        host, _, port = server.address().removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
            deadline = time.monotonic() + 20
            while not (chat / "busy").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            ended = False
            while not ended:  # signals of one kind that come together count once
                server.tell(signal.SIGINT)
                try:
                    server.process.wait(0.2)
                    ended = True
                except subprocess.TimeoutExpired:
                    assert time.monotonic() < deadline
        assert server.end() == -signal.SIGINT
    assert "Traceback" not in server.err


STUCK = """
import pathlib, time, trio
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    pathlib.Path("stuck").touch()
    if scope["path"] == "/shielded":
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    while scope["path"] == "/deaf":
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            time.sleep(0.01)
    while True:
        pass
"""


@pytest.mark.once
@pytest.mark.parametrize("path", ["/shielded", "/deaf", "/busy"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_application_that_does_not_end_is_ended_by_force(tmp_path: Path, path: str, number: signal.Signals) -> None:
    (tmp_path / "site_app.py").write_text(STUCK)
    arguments = ("serve", "site_app:application", *FREE, "--drain-time", "0.3")
    sooner = "from trichannels.server import watchdog; watchdog.MARGIN = 0.5"
    with running(*arguments, cwd=tmp_path, before=sooner) as server:
        host, _, port = server.address().removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            deadline = time.monotonic() + 20
            while not (tmp_path / "stuck").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert server.end(number) == 1
    assert server.err.count("ended by force") == 1
    assert "Traceback" not in server.err


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_hangs(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "site_app.py").write_text(
        "import trio\n"
        "async def application(scope, receive, send):\n"
        "    print('starting', flush=True)\n"
        "    await trio.sleep_forever()\n"
    )
    with running("serve", "site_app:application", *FREE, cwd=tmp_path) as server:
        server.heard("starting")
        assert server.end(number) == 0
    assert server.err == ""


def test_ctrl_c_during_the_import_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text("import time; print('importing', flush=True); time.sleep(1000)\n")
    with running("serve", "site_app:application", *FREE, cwd=tmp_path) as server:
        server.heard("importing")
        assert server.end(signal.SIGINT) == 0
    assert server.err == ""


# What else the command sets up.


@pytest.mark.once
@pytest.mark.parametrize(("options", "tuned"), [([], True), (["--no-gc-tuning"], False)])
def test_the_garbage_collector_is_tuned_unless_told_not_to(chat: Path, options: list[str], tuned: bool) -> None:
    with running("serve", "site_app:application", *FREE, *options, cwd=chat) as server:
        frozen: Any = ask(server.address())["frozen"]
        assert (frozen > 5_000) is tuned  # Python 3.12 has some hundreds frozen from the start
        assert server.end(signal.SIGTERM) == 0


@pytest.mark.once
def test_app_dir_and_root_path(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    options = ("--app-dir", str(chat), "--root-path", "/site")
    with running("serve", "site_app:application", *FREE, *options, cwd=elsewhere) as server:
        assert ask(server.address(), "/site/")["root_path"] == "/site"
        assert server.end(signal.SIGTERM) == 0


def test_a_unix_socket_and_an_inherited_one(chat: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        binds = ("--bind", f"unix:{chat}/site.sock", "--bind", f"fd://{number}")
        with running("serve", "site_app:application", *binds, cwd=chat, pass_fds=(number,)) as server:
            server.heard(f"listening on unix:{chat}/site.sock")
            assert ask(server.address())["pid"] == server.pid
            with httpx.Client(transport=httpx.HTTPTransport(uds=f"{chat}/site.sock")) as client:
                assert client.get("http://site/").json()["pid"] == server.pid
            assert server.end(signal.SIGTERM) == 0
    assert not (chat / "site.sock").exists()


@pytest.mark.once
def test_log_level(chat: Path) -> None:
    with running("serve", "site_app:application", *FREE, "--log-level", "debug", cwd=chat) as server:
        server.address()
        assert server.end(signal.SIGTERM) == 0
    assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] ", server.err)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        bind = ("--bind", f"fd://{number}")
        with running(
            "serve", "site_app:application", *bind, "--log-level", "error", cwd=chat, pass_fds=(number,)
        ) as server:
            ask(f"http://127.0.0.1:{listening.getsockname()[1]}")
            assert server.end(signal.SIGTERM) == 0
    assert server.err == ""


@pytest.mark.once
def test_the_log_level_holds_for_a_file_too_and_may_come_from_the_configuration(chat: Path) -> None:
    (chat / "hypercorn.toml").write_text('errorlog = "errors.log"\nloglevel = "error"\n')
    options = ("--config", "hypercorn.toml")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        bind = ("--bind", f"fd://{number}")
        with running("serve", "site_app:application", *bind, *options, cwd=chat, pass_fds=(number,)) as server:
            ask(f"http://127.0.0.1:{listening.getsockname()[1]}")
            assert server.end(signal.SIGTERM) == 0
    assert server.err == ""
    assert (chat / "errors.log").read_text() == ""


def test_a_configuration_that_would_be_ignored_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "hypercorn.toml").write_text('quic_bind = "127.0.0.1:4433"\n')
    line = "quic_bind has no effect here: take it out of the configuration; HTTP/3 is not served: put a proxy in front"
    assert mistake(capsys, "serve", "a:b", "--config", "hypercorn.toml") == line
