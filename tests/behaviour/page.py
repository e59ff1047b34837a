"""The page of the documentation: drawn from what a run has seen."""

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .rows import AREAS, Row
from .shown import SHOWN

PAGE = Path(__file__).parent.parent.parent / "docs" / "behaviour.md"
TESTS = "tests/behaviour/test_behaviour.py"
VERDICTS = ("same", "better", "different")

HEAD = """\
# Behaviour

What the documentation of Channels 4.3 and channels_redis 4.3, docstrings included, says that they do, and what
trichannels does. Each row is a program that is run on both: it uses the names that both have,
and returns what it has seen.

This page is written by that run, `python -m tests.behaviour`. **Same** means that both have seen the same. **Better**
and **different** mean that they have not, and that each has seen exactly what was expected of it; which of the two
words it is, and the reason, are ours. The test that a row names holds that to be so, on trio and on asyncio; those
beside it show what else the reason says. Where trichannels itself does not do the same on both, the row says so.

"""


def draw(rows: list[Row], theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return the page."""
    parts = [HEAD, _versions(), "\n", _summary(rows, theirs, ours)]
    for area, heading in AREAS.items():
        here = [row for row in rows if row.area == area]
        parts += [f"\n## {heading}\n\n", "| documented | here | test |\n|---|---|---|\n"]
        parts += [_line(row, theirs[row.name], ours[row.name]) for row in here]
    return "".join([*parts, _shown_alone()])


def without_versions(page: str) -> str:
    """Return a page as it is whatever versions it was written with."""
    return "\n".join(line for line in page.splitlines() if not line.startswith("Run with "))


def verdict(row: Row, theirs: Any, ours: Any) -> str:
    """Return what a run says of a row."""
    return "same" if theirs == ours else row.verdict


def _versions() -> str:
    names = {
        "channels": "Channels",
        "channels_redis": "channels_redis",
        "Django": "Django",
        "trichannels": "trichannels",
    }
    return "Run with " + ", ".join(f"{shown} {version(name)}" for name, shown in names.items()) + ".\n"


def _summary(rows: list[Row], theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    counts = Counter((row.area, verdict(row, theirs[row.name], ours[row.name])) for row in rows)
    lines = ["| | rows | same | better | different |", "|---|---|---|---|---|"]
    for area, heading in AREAS.items():
        numbers = [counts[area, one] for one in VERDICTS]
        link = f"[{heading}](#{heading.lower().replace(' ', '-')})"
        lines.append(f"| {link} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    totals = [sum(counts[area, one] for area in AREAS) for one in VERDICTS]
    lines.append(f"| **all** | **{sum(totals)}** | {' | '.join(f'**{total}**' for total in totals)} |")
    return "\n".join(lines) + "\n"


def _line(row: Row, theirs: Any, ours: Any) -> str:
    found = verdict(row, theirs, ours)
    told = found if found == "same" else f"{found}: {row.how}"
    tests = ", ".join(f"`{test}`" for test in (f"{TESTS}::test_row[{row.name}]", *row.tests))
    return f"| {_cell(row.text)} ([docs]({row.where})) | {_cell(told)} | {tests} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown_alone() -> str:
    lines = [
        "\n## Not run on both\n\n",
        "What takes a server or processes of its own is not run on Channels. These rows name the tests\n"
        "of what it does here.\n\n",
        "| documented | here | test |\n|---|---|---|\n",
    ]
    for one in SHOWN:
        tests = ", ".join(f"`{test}`" for test in one.tests)
        lines.append(f"| {_cell(one.text)} ([docs]({one.where})) | {_cell(one.here)} | {tests} |\n")
    return "".join(lines)
