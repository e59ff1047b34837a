"""Real sockets: clients that are members of a group and come back where they were, and clients that publish."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected
from wsproto.utilities import LocalProtocolError

from trichannels.layers.history import Position
from trichannels.testing.client import open_client

from .field import Field, Serving
from .judge import Closed, Event, Got, Item, Joined, Sent, Told
from .layers import read_position

CONNECTING = 3.0
AWAY = (OSError, trio.TooSlowError, ConnectionRejected, ConnectionClosed, trio.BrokenResourceError, LocalProtocolError)


class Client:
    """Is in a group as long as it runs, with one socket after the other. ``stream`` is what it saw, ``times`` when."""

    def __init__(self, kind: str, group: str, number: int, seed: int, stays: float, away: float = 0.1) -> None:
        self.kind, self.group, self.name = kind, group, f"{kind} {number} of {group}"
        self.stream: list[Item] = []
        self.times: list[float] = []
        self.reached: Position | None = None
        self.newest: dict[str, int] = {}  # by sender
        self.connected = False
        self.late = 0.0  # seconds between the writing of the last event and our reading of it
        self.began = 0.0
        self.began_at: Position | None = None  # when and where it began anew the last time, and was told so
        self._random = random.Random(f"{seed} {self.name}")
        self._stays, self._away = stays, away  # seconds, in the mean and at the most

    async def run(self, field: Field, settled: trio.Event) -> None:
        """Connect, see, and come back. Once ``settled``, it leaves no more by itself."""
        while True:
            serving = self._random.choice(field.servings)
            kills = serving.kills
            leaving = False
            mark = len(self.stream)
            try:
                async with open_client(self._url(serving), timeout=CONNECTING) as socket:
                    if self.kind == "shared":  # what is written past the instance may overtake its greeting
                        self._note(Joined(None))
                    with trio.CancelScope() as stay:
                        if not settled.is_set():
                            long = self._random.choice((1, 1, 5))
                            stay.deadline = trio.current_time() + self._random.expovariate(1 / self._stays / long)
                        while True:
                            self._take(json.loads(await socket.get_message()))
                            if settled.is_set():
                                stay.deadline = float("inf")
                    leaving = True
            except ConnectionClosed as closed:
                code = closed.reason.code if closed.reason is not None else 1006
                self._left(code, leaving or serving.kills != kills, mark)
            except AWAY:
                self._left(1006, leaving or serving.kills != kills, mark)
            else:
                self._left(1000, True, mark)
            with trio.move_on_after(self._random.uniform(0.01, self._away)):
                await settled.wait()

    def _begin(self, position: Position | None) -> None:
        self.began, self.began_at = trio.current_time(), position

    def _url(self, serving: Serving) -> str:
        since = "" if self.reached is None else f"?since={self.reached.offset}.{self.reached.epoch}"
        return f"ws://127.0.0.1:{serving.port}/{self.kind}/{self.group}/{since}"

    def _left(self, code: int, excused: bool, mark: int) -> None:
        self.connected = False
        if any(isinstance(item, Joined) for item in self.stream[mark:]):
            self._note(Closed(code, excused, self.late))

    def _note(self, item: Item) -> None:
        self.stream.append(item)
        self.times.append(trio.current_time())

    def _take(self, frame: dict[str, Any]) -> None:
        if "event" in frame:
            event = Event(*frame["event"])
            got = Got(event, read_position(frame["at"]))
            self.reached = got.position
            self.newest[event.sender] = event.number
            self.late = time.monotonic() - frame["now"]
            self._note(got)
        elif "joined" in frame:
            joined = Joined(read_position(frame["joined"]), frame["recovered"], frame["asked"], frame["count"])
            if not (joined.asked and joined.recovered):
                self.reached = joined.position
                self._begin(joined.position)
            self.connected, self.late = True, 0.0
            self._note(joined)
        else:
            told = Told(frame["told"], read_position(frame["at"]))
            self.reached = told.position or self.reached
            self._begin(told.position)
            self._note(told)


class SocketSender:
    """Publishes through the socket of a server process, one after the other, and notes what it is answered."""

    def __init__(self, name: str, group: str, pause: float, seed: int) -> None:
        self.name, self.group, self._pause = name, group, pause
        self._random = random.Random(f"{seed} {name} {group}")
        self._number = 0
        self._note: Callable[[str, Event, Sent], None]

    async def run(self, field: Field, over: trio.Event, note: Callable[[str, Event, Sent], None]) -> None:
        """Publish until ``over``, and then until something more is taken."""
        self._note = note
        while True:
            serving = self._random.choice(field.servings)
            try:
                async with open_client(f"ws://127.0.0.1:{serving.port}/publish/", timeout=CONNECTING) as socket:
                    while True:
                        ending = over.is_set()
                        if await self._send(socket) and ending:
                            return
                        with trio.move_on_after(self._random.uniform(0, 2 * self._pause)):
                            await over.wait()
            except AWAY:
                await trio.sleep(self._random.uniform(0.01, 0.1))

    async def _send(self, socket: Any) -> bool:
        self._number += 1
        event = Event(self.name, self._number)
        sent = Sent("unknown")
        try:
            await socket.send_message(json.dumps({"group": self.group, "event": [self.name, self._number]}))
            answer = json.loads(await socket.get_message())
            sent = Sent(answer["outcome"], read_position(answer["at"]))
        finally:
            self._note(self.group, event, sent)
        return sent.outcome == "taken"
