"""A server as a process: started on its core, asked what it has spent, ended. Linux only."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .load import HOST, Stalled

ROOT = Path(__file__).resolve().parent.parent.parent
START = 30.0  # seconds until it listens
END = 10.0
CPUCLOCK_SCHED = 2


def cores() -> tuple[int, int]:
    """Return a core for the load and one for the server; the same one where there is no other."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[-1]


def raise_limits() -> None:
    """Allow as many descriptors as the system lets us; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end_in_order() -> None:
    """Let SIGTERM leave every block, so that no server and no probe stays behind."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Server:
    """A server and the processes it has started, all in one process group."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process, self.port = process, port

    def pids(self) -> list[int]:
        """Return the processes of its group."""
        found = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        return [pid for pid in found if _group(pid) == self._process.pid]

    def cpu(self) -> float:
        """Return the CPU seconds, user and system, that its processes have spent so far.

        The figure of utime + stime in ``/proc/PID/stat``, but in nanoseconds: the CPU clock of another process.
        """
        return sum(time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) for pid in self.pids())

    def pss(self) -> int:
        """Return its memory in bytes, shared pages divided among those who share them."""
        return sum(_pss(pid) for pid in self.pids())

    def wait_until_listening(self) -> None:
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise Stalled(f"the server ended with exit code {self._process.returncode}")
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise Stalled(f"the server does not listen after {START:.0f} s")

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until it spends next to no CPU time, but not for longer than ``seconds``."""
        end, spent = time.monotonic() + seconds, -1.0
        while time.monotonic() < end and self.cpu() - spent > 0.002:
            spent = self.cpu()
            time.sleep(0.1)

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def served(command: Sequence[str], port: int) -> Iterator[Server]:
    """Run a server on its core for the block, this process on the other. What fails is told the server's last words."""
    everywhere = os.sched_getaffinity(0)
    load_core, server_core = cores()
    os.sched_setaffinity(0, {server_core})  # a child inherits it, and all that it starts
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        server = Server(process, port)
        try:
            os.sched_setaffinity(0, {load_core})
            server.wait_until_listening()
            yield server
        except (Stalled, OSError) as error:
            output.seek(0)
            error.add_note(output.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            os.sched_setaffinity(0, everywhere)
            server.kill()
