"""A PostgreSQL of our own, on the load's core, and how many sessions a server holds there. Linux only."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.across.processes import LOAD_CORE, pinned
from benchmarks.comparing.load import Stalled
from benchmarks.comparing.process import START, Server, free_port
from benchmarks.peers.django_project import TEXT

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "300",  # a server that opens one for each request holds some that nobody has closed yet
}
TABLE = "create table page (id int primary key, text text)"


class Postgres(Server):
    """A running PostgreSQL, with the table that the project reads."""

    def ask(self, query: str, *values: object) -> Any:
        """Return the first column of the first row."""
        place = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        with psycopg.connect(place, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def sessions(self, program: str) -> int:
        """Return how many sessions call themselves by that name."""
        return int(self.ask("select count(*) from pg_stat_activity where application_name = %s", program))

    def wait_until_answering(self) -> None:
        end = time.monotonic() + START
        while True:
            try:
                self.ask("select 1")
            except psycopg.OperationalError as error:
                if time.monotonic() > end:
                    raise Stalled("PostgreSQL did not start") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self._process.send_signal(signal.SIGQUIT)  # at once, and with all that it has started
        self._process.wait(START)


def programs() -> Path:
    """Return the folder of initdb and postgres."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if on_path is None and not found:
        raise SystemExit("there is no PostgreSQL: apt-get install postgresql")
    return Path(on_path).resolve().parent if on_path else found[-1].parent


@contextmanager
def open_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL that keeps nothing, for the block."""
    port, user = free_port(), pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None  # it refuses to be root
    with tempfile.TemporaryDirectory() as folder, pinned(LOAD_CORE):
        if user is not None:
            shutil.chown(folder, user)
        data = Path(folder) / "data"
        subprocess.run(
            [programs() / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        settings = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [programs() / "postgres", "-D", data, "-p", str(port), *settings],
            user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        postgres = Postgres(process, port)
        try:
            postgres.wait_until_answering()
            postgres.ask(TABLE)
            postgres.ask("insert into page values (1, %s)", TEXT)
            yield postgres
        finally:
            postgres.stop()
