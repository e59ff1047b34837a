"""Scripts survive what makes a server forget them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from trichannels.exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown
from trichannels.layers.redis.address import parse_url
from trichannels.layers.redis.scripts import FOLDER, Script
from trichannels.layers.redis.server import RedisServer, Timeouts, open_server

from .servers import RedisProcess, fresh_prefix, shared_server
from .sinks import Told

ECHO = Script("echo", "return {KEYS, ARGV}")
COUNT = Script("count", "return redis.call('INCR', KEYS[1])")
QUICK = Timeouts(connect=2, reply=2, backoff_first=0.01, backoff_most=0.1)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisServer]:
    async with open_server(parse_url(url), Told(), timeouts=QUICK) as server:
        yield server


def test_scripts_are_files_whose_first_lines_say_what_they_do() -> None:
    files = sorted(FOLDER.glob("*.lua"))
    assert files
    for file in files:
        script = Script.from_file(file.stem)
        assert script.text.removeprefix("#!lua\n").startswith("-- "), file
        assert "-- include" not in script.text
        assert (script.text == file.read_text()) is ("-- include" not in file.read_text())
        assert re.fullmatch("[0-9a-f]{40}", script.sha1)
        assert script.text not in repr(script)
    assert Script("a", "return 1") == Script("a", "return 1")
    assert Script("a", "return 1").sha1 == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


@pytest.mark.server
@pytest.mark.parametrize("version", ["7", "8"])
async def test_a_server_that_forgets_its_scripts(version: str) -> None:
    key = fresh_prefix()
    with RedisProcess(version) as redis:
        async with opened(redis.url) as server:
            for turn in range(1, 4):
                assert await server.run(COUNT, [key], []) == turn
                redis.admin("SCRIPT", "FLUSH")
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(server.run, COUNT, [key], [])
            assert await server.execute("GET", key) == b"53", "each has run once"
            redis.admin("CONFIG", "RESETSTAT")
            assert await server.run(COUNT, [key], []) == 54
            assert "cmdstat_eval" not in redis.admin("INFO", "commandstats"), "it is known now"
            redis.restart()
            for _ in range(50):
                try:
                    assert await server.run(COUNT, [key], []) == 1
                    break
                except OutcomeUnknown:
                    await server.execute("DEL", key)


@pytest.mark.server
async def test_a_payload_of_any_bytes() -> None:
    payloads = [
        bytes(range(256)), b"", b"\r\n", b"$5\r\nhello\r\n", b"x" * 1_000_000, "ü€😀".encode(), b"\xff" * 41,
    ]  # fmt: skip
    async with opened(shared_server().url) as server:
        for payload in payloads:
            assert await server.run(ECHO, [], [payload]) == [[], [payload]]
        assert await server.run(ECHO, [], ["ü€😀", 1, 1.5]) == [[], ["ü€😀".encode(), b"1", b"1.5"]]


@pytest.mark.server
async def test_errors_of_scripts_are_refusals() -> None:
    async with opened(shared_server().url) as server:
        with pytest.raises(LayerRefused, match="the reason"):
            await server.run(Script("fail", "return redis.error_reply('MINE the reason')"), [], [])
        with pytest.raises(LayerRefused, match="ompil"):
            await server.run(Script("broken", "this is no Lua"), [], [])
        key = fresh_prefix()
        await server.execute("SET", key, "x")
        with pytest.raises(LayerRefused, match="WRONGTYPE"):
            await server.run(Script("type", "return redis.call('LPUSH', KEYS[1], 1)"), [key], [])
        assert await server.run(ECHO, [], ["x"]) == [[], [b"x"]]


@pytest.mark.server
async def test_a_script_that_takes_too_long() -> None:
    """Its caller is told in time; the others are refused by a busy server, or wait, and are not mixed up."""
    with RedisProcess("7", "--busy-reply-threshold", "50") as redis:
        async with opened(redis.url) as server:
            await server.execute("PING")
            with pytest.raises(OutcomeUnknown, match="no answer within"):
                await server.run(Script("for ever", "while true do end"), [], [], timeout=0.3)
            with pytest.raises(LayerUnreachable):
                await server.execute("ECHO", "a", timeout=0.1)
            redis.admin("SCRIPT", "KILL")
            assert await server.execute("ECHO", "b") == b"b"
