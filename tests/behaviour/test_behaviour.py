"""Each row of ``docs/behaviour.md``: what Channels does and what trichannels does is what the row says.

All scenarios are run by three processes side by side, when the first row asks: on Channels, and on trichannels on trio
and on asyncio. ``python -m tests.behaviour`` writes the page.
"""

import re
from functools import cache
from importlib.metadata import distribution

import pytest

from ..redis.servers import find_server
from ..test_docs_site import defined_in
from .observe import OURS, THEIRS, Seen, differences, observe
from .page import PAGE, draw, verdict, without_versions
from .rows import README, Row, all_rows
from .shown import SHOWN, Shown

pytestmark = [pytest.mark.server, pytest.mark.once]


@cache
def seen() -> Seen:
    return observe()


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_row(row: Row) -> None:
    if row.on_redis and row.name not in seen()[THEIRS]:
        find_server()  # which says what is missing
    wrong = differences(row, seen())
    assert not wrong, "\n".join(wrong)
    assert verdict(row, seen()[THEIRS][row.name], seen()[OURS][row.name]) == row.verdict


def test_the_page_is_what_a_run_writes() -> None:
    find_server()  # the page has the rows on Redis
    written, kept = draw(all_rows(), seen()[THEIRS], seen()[OURS]), PAGE.read_text()
    assert without_versions(kept) == without_versions(written), "write it anew: python -m tests.behaviour"


def test_the_tests_that_rows_name_exist() -> None:
    rows: list[Row | Shown] = [*all_rows(), *SHOWN]
    named = [test.split("::") for row in rows for test in row.tests]
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in defined_in(file)] == []


def test_the_sections_of_channels_redis_that_rows_link_to_are_there() -> None:
    text = distribution("channels_redis").read_text("METADATA") or ""
    headings = re.findall(r"^(.+)\n(?:~{3,}|-{3,}|={3,})$", text, re.MULTILINE)
    sections = {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}  # as GitHub
    rows: list[Row | Shown] = [*all_rows(), *SHOWN]
    linked = {row.where.partition("#")[2] for row in rows if row.where.startswith(README)}
    assert sorted(linked - sections) == []
