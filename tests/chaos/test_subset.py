"""A few faults of each kind; ``make chaos`` makes a thousand. A failure tells how to repeat it."""

import pytest
import trio

from .jobs import chaos_jobs
from .run import Plan, chaos

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.trio_only]

# Seeds whose schedules have the faults that matter most.
PLANS = [
    Plan(seed=16986, faults=9, rest=0.1),
    Plan(seed=49, faults=3, rest=0.1, topology="sentinel", groups=("history", "plain"), version="8"),
    Plan(seed=14, faults=3, rest=0.1, topology="cluster", groups=("history", "plain"), version="8"),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.topology)
async def test_groups_and_presence(plan: Plan) -> None:
    with trio.fail_after(300):
        result = await chaos(plan)
    assert result.good, str(result)
    assert sum(findings.counts["recovered silently"] for findings in result.findings.values())
    assert sum(findings.counts["resync told"] for findings in result.findings.values())


async def test_jobs() -> None:
    with trio.fail_after(300):
        result = await chaos_jobs(seed=23, faults=6, rest=0.1, least=200)
    assert result.good, str(result)
