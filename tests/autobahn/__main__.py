"""Run the whole suite and write ``docs/autobahn/``; exits with 1 if a case failed."""

import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from . import report
from .client import ROOT, run_suite


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        results = run_suite(Path(folder), cases=["*"], patience=1800)
    docs = ROOT / "docs" / "autobahn"
    docs.mkdir(exist_ok=True)
    (docs / "index.md").write_text(report.page(results, date.today().isoformat()))
    lines = [f"{json.dumps(case)}: {json.dumps(facts)}" for case, facts in report.condensed(results).items()]
    (docs / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write("\n".join([*report.failures(results), f"{len(results)} cases\n"]))
    return bool(report.failures(results))


sys.exit(main())
