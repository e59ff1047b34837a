"""A few faults of each topology; ``make chaos`` runs a thousand. A failure tells how to repeat it."""

import pytest
import trio

from .run import Plan, chaos

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.trio_only]


async def test_standalone() -> None:
    with trio.fail_after(120):
        result = await chaos(Plan(seed=20, faults=15, rest=0.1))
    assert result.good, str(result)
