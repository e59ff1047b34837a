"""A small soak of a Django server; ``make soak-django`` runs it whole."""

import pytest
import trio

from .soak import soak


@pytest.mark.server
@pytest.mark.once
@pytest.mark.trio_only
async def test_blocking_consumers_survive_clients_that_vanish_and_a_database_that_restarts() -> None:
    with trio.fail_after(250):
        tally = await soak(sockets=60, rounds=5, restarts=1)
    assert tally.faults == []
    assert tally.counts["restarts of the database"] == 1
    assert tally.counts["closed with 1012"] == 60
    assert tally.counts["noted"] > 200
