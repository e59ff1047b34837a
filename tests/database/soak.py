"""Soak a Django server: sockets whose blocking handlers write to PostgreSQL, while clients vanish and it restarts.

    python -m tests.database.soak --sockets 2000 --rounds 10 --restarts 3

Looked at: that the server closes no socket by itself before SIGTERM; that what it said it has noted is in the database,
once; that sessions are no more than lanes, and none is idle in a transaction; that in the end every socket gets 1012,
the program exits with 0, and writes nothing that it should not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

from .postgres import PostgresProcess
from .soaked import LANES

ROOT = Path(__file__).parents[2]
DIALS = 50  # handshakes at once
PATIENCE = 90.0  # seconds for an answer, on a busy machine, in the middle of a restart
ANSWERED_ALL = 1012


@dataclass
class Tally:
    """What has happened, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    noted: set[tuple[int, int]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


class Client:
    """One browser: sends, waits for the answer, and vanishes now and then."""

    def __init__(self, number: int, url: str, tally: Tally, dials: trio.Semaphore, seed: int) -> None:
        self._number, self._url, self._tally, self._dials = number, url, tally, dials
        self._random = random.Random(seed * 1_000_003 + number)
        self._n = 0
        self.ending = False

    async def live(self, rounds: int, done: Callable[[], object]) -> None:
        """Send so many messages, over as many sockets as it takes; then stay until the server ends."""
        async with trio.open_nursery() as nursery:
            socket = await self._open(nursery)
            for _ in range(rounds):
                if self._random.random() < 0.15:
                    await self._vanish(socket)
                    socket = await self._open(nursery)
                await self._exchange(socket)
            done()
            await self._stay(socket)
            await trio.aclose_forcefully(socket._stream)
            nursery.cancel_scope.cancel()

    async def _open(self, nursery: trio.Nursery) -> WebSocketConnection:
        async with self._dials:
            self._tally.counts["sockets"] += 1
            return await connect_websocket_url(nursery, self._url)

    async def _exchange(self, socket: WebSocketConnection) -> None:
        self._n += 1
        try:
            with trio.fail_after(PATIENCE):
                await socket.send_message(json.dumps({"client": self._number, "n": self._n}))
                answer: Any = json.loads(await socket.get_message())
        except ConnectionClosed as closed:
            self._tally.faults.append(f"client {self._number} was closed: {closed.reason}")
            raise
        except trio.TooSlowError:
            self._tally.faults.append(f"client {self._number} got no answer in {PATIENCE:g} s")
            raise
        if answer["n"] != self._n:
            self._tally.faults.append(f"client {self._number} got an answer to {answer['n']}, not {self._n}")
        elif answer["noted"]:
            self._tally.noted.add((self._number, self._n))
        else:
            self._tally.counts[f"refused by the database: {answer['error']}"] += 1

    async def _vanish(self, socket: WebSocketConnection) -> None:
        """Leave: with a close frame, without a word, or in the middle of something."""
        way = self._random.choice(["close", "abort", "send and abort"])
        self._tally.counts[f"vanished: {way}"] += 1
        if way == "close":
            await socket.aclose()
        if way == "send and abort":
            self._n += 1
            await socket.send_message(json.dumps({"client": self._number, "n": self._n}))
        await trio.aclose_forcefully(socket._stream)

    async def _stay(self, socket: WebSocketConnection) -> None:
        try:
            await socket.get_message()
        except ConnectionClosed as closed:
            code = closed.reason.code if closed.reason is not None else None
            self._tally.counts[f"closed with {code}"] += 1
            if code != ANSWERED_ALL:
                self._tally.faults.append(f"client {self._number} was closed with {code}")


async def soak(sockets: int, rounds: int, restarts: int, seed: int = 1) -> Tally:
    """Do it; returns what was found."""
    tally = Tally()
    with PostgresProcess() as database:
        database.ask("create table noted (client int, n int)")
        errors = database.folder / "errors"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-X", "dev", "-m", "tests.database.soaked", str(database.port)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        try:
            assert process.stdout is not None
            url = (await trio.to_thread.run_sync(process.stdout.readline)).decode().strip().replace("http", "ws") + "/"
            await _run(url, process, database, tally, (sockets, rounds, restarts, seed))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        _judge(database, tally, errors.read_text(), process.returncode)
    return tally


async def _run(
    url: str, process: "subprocess.Popen[bytes]", database: PostgresProcess, tally: Tally, plan: tuple[int, ...]
) -> None:
    sockets, rounds, restarts, seed = plan
    dials, left, all_done = trio.Semaphore(DIALS), [sockets], trio.Event()

    def done() -> None:
        left[0] -= 1
        if not left[0]:
            all_done.set()

    async with trio.open_nursery() as nursery:
        for number in range(sockets):
            nursery.start_soon(Client(number, url, tally, dials, seed).live, rounds, done)
        async with trio.open_nursery() as beside:
            beside.start_soon(_watch, database, tally)
            for number in range(restarts):
                wanted = sockets * rounds * (number + 1) // (restarts + 1)
                while len(tally.noted) + sum(tally.counts.values()) < wanted and not all_done.is_set():
                    await trio.sleep(0.05)
                await trio.to_thread.run_sync(database.restart)
                tally.counts["restarts of the database"] += 1
            await all_done.wait()
            beside.cancel_scope.cancel()
        process.send_signal(signal.SIGTERM)
    with trio.move_on_after(40):
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def _watch(database: PostgresProcess, tally: Tally) -> None:
    """Count sessions, every now and then; transactions are short, so that the same one is never seen idle twice."""
    idle: set[object] = set()
    query = "select pid, state, xact_start from pg_stat_activity where application_name = 'soaked'"
    while True:
        await trio.sleep(0.5)
        try:
            rows = await trio.to_thread.run_sync(database.ask, query)
        except Exception:  # noqa: BLE001 - it restarts
            continue
        tally.counts["most sessions"] = max(tally.counts["most sessions"], len(rows))
        now: set[object] = {(pid, began) for pid, state, began in rows if state == "idle in transaction"}
        tally.faults += [f"{session} stays idle in a transaction" for session in now & idle]
        idle = now


def _judge(database: PostgresProcess, tally: Tally, errors: str, code: int | None) -> None:
    rows = Counter(database.ask("select client, n from noted"))
    kept: set[Any] = set(rows)
    if missing := tally.noted - kept:
        tally.faults.append(f"{len(missing)} that were said to be noted are not there, such as {min(missing)}")
    if twice := [row for row, count in rows.items() if count > 1]:
        tally.faults.append(f"{len(twice)} are there twice")
    tally.counts["noted"] = len(tally.noted)
    if tally.counts["most sessions"] > LANES:
        tally.faults.append(f"there were {tally.counts['most sessions']} sessions for {LANES} lanes")
    if sessions := database.sessions():
        tally.faults.append(f"sessions left: {sessions}")
    if code != 0:
        tally.faults.append(f"the server ended with {code}")
    if errors.strip():
        tally.faults.append(f"the server wrote: {errors[-3000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sockets", 2000), ("rounds", 10), ("restarts", 3), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    tally = trio.run(soak, options.sockets, options.rounds, options.restarts, options.seed)
    for name, count in sorted(tally.counts.items()):
        print(f"{count:8}  {name}")  # noqa: T201
    for fault in tally.faults:
        print(f"FAULT: {fault}")  # noqa: T201
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
