"""An innocent socket in a process of its own: it echoes without pause, and remembers its longest wait.

It shares the load's core, in front of the load: first in, first out, where the system lets it.
"""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .frames import upgrade
from .load import FRAME, HOST, MESSAGE, PATIENCE, accepted

EVERY = 0.002  # seconds between two echoes


class Probe:
    """A running probe."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def start(self) -> None:
        """From now on its waits count."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        time.sleep(0.05)

    def longest(self) -> float:
        """End it; return the longest wait since ``start()``, in seconds."""
        output, _ = self._process.communicate(timeout=PATIENCE)
        return float(output)


@contextmanager
def probing(port: int) -> Iterator[Probe]:
    """Run a probe for the block."""
    command = [sys.executable, "-m", __name__, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Probe(process)
    finally:
        process.kill()
        process.communicate()


def main(port: int) -> None:
    """Wait for a line, then echo until the end of the input; print the longest wait."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with socket.create_connection((HOST, port), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(upgrade("/echo"))
        accepted(sock)
        os.read(0, 1)
        longest = 0.0
        while not select.select([0], [], [], 0)[0]:
            longest = max(longest, _wait(sock))
            time.sleep(EVERY)
    print(longest)


def _wait(sock: socket.socket) -> float:
    began = time.monotonic()
    sock.sendall(MESSAGE)
    missing = len(FRAME)
    while missing:
        missing -= len(sock.recv(missing))
    return time.monotonic() - began


if __name__ == "__main__":
    main(int(sys.argv[1]))
