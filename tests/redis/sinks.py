"""A sink that writes down what it is told, and lets tests wait for it."""

from collections.abc import Collection

import anyio


class Told:
    """What came, in order: ``("message", channel, payload)``, ``("lost", channel)``, ``("restored", channel)``."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.messages: dict[str, list[bytes]] = {}
        self._news = anyio.Event()

    def message(self, channel: str, payload: bytes) -> None:
        self.messages.setdefault(channel, []).append(payload)
        self._tell(("message", channel, payload.decode()))

    async def settle(self) -> None:
        pass

    def lost(self, channels: Collection[str]) -> None:
        for channel in channels:
            self._tell(("lost", channel))

    def restored(self, channels: Collection[str]) -> None:
        for channel in channels:
            self._tell(("restored", channel))

    def _tell(self, event: tuple[str, ...]) -> None:
        self.events.append(event)
        self._news.set()
        self._news = anyio.Event()

    def times(self, *event: str) -> int:
        """How often it was told that, so far."""
        return sum(told[: len(event)] == event for told in self.events)

    async def wait_for(self, *event: str, times: int = 1) -> None:
        """Wait until it has been told so, for so many times in all."""
        with anyio.fail_after(30):
            while self.times(*event) < times:
                await self._news.wait()
