"""The pages of docs/upgrading: their links lead somewhere, and what they say of the command is so."""

import re
from pathlib import Path

import pytest

from trichannels.layers.configured import RENAMED
from trichannels.upgrade import names

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "upgrading").glob("*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """Return what a link may name of a page, as GitHub and Sphinx make it of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"`(examples/[\w./]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_pages_that_the_command_names_exist() -> None:
    texts = [*names.NO_COUNTERPART.values(), *names.MANAGER.values(), *names.OTHER_ARGUMENTS.values()]
    for path in {path for text in texts for path in re.findall(r"docs/[\w./-]+\.md", text)}:
        assert (ROOT / path).exists(), path


def test_layers_that_the_pages_name_are_ours() -> None:
    named = {path for page in PAGES for path in re.findall(r'"BACKEND": "([\w.]+)"', page.read_text())}
    assert named <= set(RENAMED.values())
