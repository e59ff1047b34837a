"""The Autobahn fuzzing client's suite, as far as it is quick: no case fails, and the docs tell what happens."""

import json
import re
from pathlib import Path

import pytest

from ..autobahn.client import READY, ROOT, Results, is_quick, run_suite
from ..autobahn.report import condensed, failures, page
from ..foreign import have

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

KEPT = json.loads((ROOT / "docs" / "autobahn" / "cases.json").read_text())
FACTS = ("behavior", "behaviorClose", "remoteCloseCode")

if have(
    READY.exists(), "the Autobahn suite: its client is not in .venv-2.7, where `make test` puts it if there is a 2.7"
):

    def test_no_case_fails(tmp_path: Path) -> None:
        results = run_suite(tmp_path)
        assert failures(results) == []
        assert set(results) == {case for case in KEPT if is_quick(case)}, "none is left out"


def test_the_kept_report_is_of_a_whole_run_without_a_failed_case() -> None:
    results: Results = {case: dict(zip(FACTS, facts, strict=True)) for case, facts in KEPT.items()}
    assert len(results) == 517
    assert failures(results) == []
    kept = (ROOT / "docs" / "autobahn" / "index.md").read_text()
    day = re.search(r"Run on (20\d\d-\d\d-\d\d) with", kept)
    assert day is not None
    assert kept == page(results, day[1])
    assert condensed(results) == KEPT


@pytest.mark.parametrize(
    ("case", "behaviour", "closing", "passes"),
    [
        ("1.1.1", "OK", "OK", True),
        ("6.4.1", "NON-STRICT", "OK", True),
        ("7.13.1", "INFORMATIONAL", "INFORMATIONAL", True),
        ("12.1.1", "UNIMPLEMENTED", "OK", False),
        ("1.1.1", "UNIMPLEMENTED", "OK", False),
        ("7.1.5", "FAILED", "OK", False),
        ("7.1.5", "OK", "WRONG CODE", False),
        ("7.1.5", "OK", "FAILED BY CLIENT", False),
        ("7.1.5", "OK", "UNCLEAN", False),
    ],
)
def test_results_are_judged(case: str, behaviour: str, closing: str, passes: bool) -> None:
    results: Results = {case: {"behavior": behaviour, "behaviorClose": closing, "remoteCloseCode": None}}
    assert bool(failures(results)) != passes


def test_the_page_counts_what_failed() -> None:
    assert re.search(r"\*\*1 failed\*\*", page({"1.1.1": {"behavior": "FAILED", "behaviorClose": "OK"}}, "2026-11-25"))
