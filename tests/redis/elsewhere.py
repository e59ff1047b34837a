"""A Redis layer in a process of its own, as a layer: each call is carried out over there.

Run as a program, it is that process. What goes between them is msgpack, a frame with its length in front.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from trichannels import exceptions
from trichannels.layers.history import History, Position, Recovery
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.serializers import Message

ROOT = Path(__file__).parent.parent.parent
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class ElsewhereLayer(RedisChannelLayer):
    """Looks like a layer, and has the other process do what another process would: send, and change memberships."""

    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        super().__init__(url=url, prefix=prefix, **options)
        self._given = {"url": url, "prefix": prefix, **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = anyio.Lock()

    async def open(self) -> None:
        histories = {pattern: [h.size, h.seconds] for pattern, h in self.histories.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(self._given), json.dumps(histories)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        await anyio.to_thread.run_sync(self._answer)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        await self._do("send", channel, message)

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        answer = await self._do("group_send", group, message, idempotency_key)
        return None if answer is None else Position(*answer)

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        await self._do("group_add", group, channel)
        return Recovery(group, None, True)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._do("group_discard", group, channel)

    async def _do(self, *call: Any) -> Any:
        async with self._turn:
            with anyio.CancelScope(shield=True):
                kind, value = await anyio.to_thread.run_sync(self._blocking, encode(call))
        if kind == "error":
            name, text = value
            error = getattr(exceptions, name).__new__(getattr(exceptions, name))
            error.args = (text,)
            raise error
        return value

    def _blocking(self, call: bytes) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(len(call).to_bytes(4) + call)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        head = self._process.stdout.read(4)
        assert head, "the other process has ended"
        return decode(self._process.stdout.read(int.from_bytes(head)))


async def serve(options: dict[str, Any], histories: dict[str, list[Any]]) -> None:
    """Carry out what comes on standard input."""
    history = {pattern: History(size=size, seconds=seconds) for pattern, (size, seconds) in histories.items()}
    async with RedisChannelLayer(**options, history=history) as layer:
        say(["ready", None])
        while (call := await anyio.to_thread.run_sync(hear)) is not None:
            try:
                answer = await getattr(layer, call[0])(*call[1:])
            except exceptions.TrichannelsError as error:
                say(["error", [type(error).__name__, str(error)]])
            else:
                say(["done", [answer.offset, answer.epoch] if isinstance(answer, Position) else None])


def hear() -> Any:
    head = sys.stdin.buffer.read(4)
    return decode(sys.stdin.buffer.read(int.from_bytes(head))) if head else None


def say(answer: Any) -> None:
    data = encode(answer)
    sys.stdout.buffer.write(len(data).to_bytes(4) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    anyio.run(serve, json.loads(sys.argv[1]), json.loads(sys.argv[2]), backend="trio")
