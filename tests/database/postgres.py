"""A real PostgreSQL for tests: its own folder, a free port of loopback, gone at the end."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import psycopg

from ..foreign import missing
from ..ports import free_port

START = 30.0  # seconds; only a machine in trouble needs more than two


def find_postgres() -> Path:
    """Return the folder of initdb and postgres; skip the test where there is none, or fail it in CI."""
    return _newest() or missing("PostgreSQL", "apt-get install postgresql")


@cache
def _newest() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresProcess:
    """``with PostgresProcess(port) as server``: its superuser is ``postgres``, without a password."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        # It will not run as root.
        self._user = pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<PostgresProcess on {self.port}>"

    def __enter__(self) -> "PostgresProcess":
        try:
            self._start(find_postgres())
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, programs: Path) -> None:
        data = self.folder / "data"
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        made: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(made, user=self._user, check=True, capture_output=True, cwd=self.folder)
        self._run()

    def _run(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "max_connections": "60",
        }  # fmt: skip
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [find_postgres() / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings],
            user=self._user, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + START
        while True:
            try:
                self.ask("select 1")
            except psycopg.OperationalError:
                assert time.monotonic() < end, "PostgreSQL did not start"
                time.sleep(0.05)
            else:
                return

    def restart(self) -> None:
        """End it as ``pg_ctl -m fast restart`` does, sessions and all, and start it again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        self._run()

    def __exit__(self, *raised: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Ask as the superuser, on a connection of its own, which calls itself ``asker``."""
        place = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres application_name=asker"
        with psycopg.connect(place, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def sessions(self) -> list[str]:
        """Return the states of all sessions but the asker's."""
        query = (
            "select state from pg_stat_activity where backend_type = 'client backend' and application_name <> 'asker'"
        )
        return [str(state) for (state,) in self.ask(query)]
