"""An end of a connection that takes as much as a test says, and no socket."""

import trio


class FakeEnd:
    """See ``wire.End``. ``taken`` is how many bytes one call may take; with 0 it is stuck."""

    descriptor = -1

    def __init__(self) -> None:
        self.taken = 2**16
        self.left = self.stuck_at_the_end = self.aborted = self.closed = False
        self.sent = bytearray()
        self.finished = False
        self.writes = 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        self.writes += 1
        piece = bytes(data[: self.taken])
        self.sent += piece
        return len(piece)

    async def send_some(self, data: memoryview) -> int:
        while not self.taken:
            await trio.sleep_forever()
        await trio.sleep(0.5)
        return self.send_nowait(data)

    def receive_nowait(self, buffer: memoryview) -> bytes | None:
        return None

    def finish_nowait(self) -> bool:
        return False

    async def receive_some(self, size: int) -> bytes:
        await trio.sleep_forever()

    async def finish(self) -> None:
        if self.stuck_at_the_end:
            await trio.sleep_forever()
        self.finished = True

    def peer_has_left(self) -> bool:
        return self.left

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True
