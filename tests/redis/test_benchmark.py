"""The benchmark of the client runs. What it measures here means nothing and is not looked at."""

import pytest

from benchmarks import redis_client
from benchmarks.redis_client import COLUMNS, FLOOD, ours, raw, table, theirs

from ..conftest import BACKEND
from .servers import shared_server


@pytest.mark.server
async def test_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "COMMANDS", 100)
    monkeypatch.setattr(redis_client, "MESSAGES", 50)
    monkeypatch.setattr(redis_client, "FLOOD", (*FLOOD[:-1], 50))
    url = shared_server().url
    found = {"ours": await ours(url, 1), "raw": await raw(url, 1)}
    if BACKEND == "asyncio":
        found["theirs"] = await theirs(url, 1)
    assert all(len(row) == len(COLUMNS) and min(row) > 0 for row in found.values())
    assert len(table(found).splitlines()) == 1 + len(found)
