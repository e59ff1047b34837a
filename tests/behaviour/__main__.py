"""``python -m tests.behaviour``: runs all scenarios, and writes ``docs/behaviour.md``; or says what is wrong."""

import sys

from .observe import OURS, THEIRS, differences, observe
from .page import PAGE, draw
from .rows import all_rows


def main() -> int:
    """Return the exit code: 1 if a row is not what it says, and then nothing is written."""
    rows, seen = all_rows(), observe()
    wrong = [f"{row.name}\n  {line}" for row in rows for line in differences(row, seen)]
    print("\n".join(wrong) or f"{len(rows)} rows are as they say", file=sys.stderr)  # noqa: T201
    if not wrong:
        PAGE.write_text(draw(rows, seen[THEIRS], seen[OURS]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
