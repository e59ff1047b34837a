"""A guest book in SQLite, without Django: blocking database code on a bridge, each of its threads with a connection.

Try it: trichannels serve examples.guestbook:application, then connect to ws://127.0.0.1:8000/guestbook/ and send
{"name": "Ada"}: everybody who is connected gets the entry, and newcomers get the last ten.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trichannels.bridge import Bridge, Hooks
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

DATABASE = os.environ.get("GUESTBOOK", "guestbook.sqlite3")
MINE = threading.local()


class Sqlite(Hooks):
    """A connection for each thread of the bridge, opened with the first call, closed with the thread."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def before(self) -> None:
        if self._connection is None:
            # Each statement is a transaction, unless transaction() begins one. Only interrupt() comes from elsewhere.
            self._connection = sqlite3.connect(DATABASE, timeout=5, isolation_level=None, check_same_thread=False)
            self._connection.execute("create table if not exists entries (name text not null)")
        MINE.connection = self._connection

    @contextmanager
    def transaction(self, using: str | None) -> Iterator[None]:
        assert self._connection is not None
        self._connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        else:
            self._connection.execute("commit")

    def interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def last_entries(count: int) -> list[str]:
    """Return the newest names, the oldest of them first."""
    rows = MINE.connection.execute("select name from entries order by rowid desc limit ?", (count,)).fetchall()
    return [name for (name,) in reversed(rows)]


def write(name: str) -> None:
    MINE.connection.execute("insert into entries values (?)", (name,))


bridge = Bridge(limit=4, name="guest book", hooks=Sqlite)


class GuestBook(AsyncJsonWebsocketConsumer):
    groups = ("guestbook",)

    async def connect(self) -> None:
        await self.accept()
        await self.send_json({"entries": await bridge.run(last_entries, 10)})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        name = str(content.get("name", ""))[:100] if isinstance(content, dict) else ""
        if not name:
            await self.send_json({"error": 'send {"name": "…"}'})
            return
        await bridge.run(write, name)
        await self.channel_layer.group_send("guestbook", {"type": "entry.written", "name": name})

    async def entry_written(self, event: dict[str, Any]) -> None:
        await self.send_json({"entry": event["name"]})


application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("guestbook/", GuestBook.as_asgi())])},
    layers={"default": InMemoryChannelLayer()},
)
