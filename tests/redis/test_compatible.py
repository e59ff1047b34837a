"""One fleet, half of it on ``channels_redis.pubsub``: what one process sends the others receive, both ways."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from trichannels.exceptions import InvalidChannelLayerError
from trichannels.layers.history import History
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.testing.contract.base import mailbox

from .servers import fresh_prefix, shared_server

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent
MESSAGE = {"type": "chat.message", "text": "ä", "numbers": [1, 2.5, None, True], "deep": {"a": ["b"]}}


class Theirs:
    """The other process; each call blocks, and so is made in a thread."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.channel: str = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process with channels_redis has ended"
        return json.loads(line)

    async def do(self, *call: Any) -> Any:
        def blocking() -> Any:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            return self._answer()

        with anyio.fail_after(20):
            return await anyio.to_thread.run_sync(blocking)


@contextmanager
def theirs(**options: Any) -> Iterator[Theirs]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.redis.theirs", json.dumps(options)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Theirs(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric_encryption_keys": ["first", "second"]},
        {"serializer_format": "json"},
        {"shards": 2},
    ],
    ids=["plain", "encrypted", "json", "two servers"],
)
async def test_both_directions(options: dict[str, Any]) -> None:
    options = dict(options)
    versions = ["7", "8"][: options.pop("shards", 1)]
    options |= {"hosts": [shared_server(version).url for version in versions], "prefix": fresh_prefix()}
    with theirs(**options) as other:
        async with RedisChannelLayer(wire="channels_redis.pubsub", **options) as layer:
            # theirs to ours, by group and by channel name
            box, loose = mailbox(), await layer.new_channel()
            channel = layer.attach(box)
            for group in ("one", "two", "three"):
                await layer.group_add(group, channel)
                await other.do("group_send", group, MESSAGE)
                assert await _next(box) == MESSAGE
            await other.do("send", channel, MESSAGE)
            assert await _next(box) == MESSAGE
            await other.do("send", loose, MESSAGE)
            with anyio.fail_after(10):
                assert await layer.receive(loose) == MESSAGE
            # ours to theirs
            for group in ("one", "two", "three"):
                await other.do("join", group)
                await layer.group_send(group, MESSAGE)
                assert await other.do("receive") == MESSAGE
                assert await _next(box) == MESSAGE
            await layer.send(other.channel, MESSAGE)
            assert await other.do("receive") == MESSAGE
            await layer.group_discard("one", channel)
            await other.do("group_send", "one", MESSAGE)
            await other.do("group_send", "two", {"type": "last"})
            assert await _next(box) == {"type": "last"}


async def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="'history' and wire="):
        RedisChannelLayer(wire="channels_redis.pubsub", history={"*": History()})
    options: dict[str, Any] = {"url": shared_server().url, "prefix": fresh_prefix(), "wire": "channels_redis.pubsub"}
    async with RedisChannelLayer(**options) as layer, RedisChannelLayer(**options) as peer:
        with pytest.raises(InvalidChannelLayerError, match="only those of this process"):
            await peer.group_add("group", layer.attach(mailbox()))


async def _next(box: Any) -> Any:
    with anyio.fail_after(10):
        return (await box.get()).open()
