"""No fenced block of README, CHANGELOG and ``docs/`` is left unchecked, and links between the pages lead somewhere.

A ``python`` block runs. It is a module of its own; the tests it defines (``async def test_…``) are run as well, on trio
if it imports trio. ``WAYS`` says how other languages are checked. A ``text`` block holds command lines, a step of the
tutorial, or a piece of code that is not whole, of which ``tests/docs/fragments.py`` says how it is completed and run.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from .docs.commands import are_commands, check_commands, trichannels_takes
from .docs.fragments import FRAGMENTS
from .docs.pages import FENCED, PAGES, ROOT, Block, anchors, blocks, named
from .test_tutorial import STEP

LINK = re.compile(r"(?<!!)\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
BACKEND = os.environ.get("BACKEND", "trio")
INLINE = re.compile(r"`trichannels ((?:serve|worker|dead|upgrade) [^`…]+)`")


def runs(block: Block) -> None:
    """Run a block of Python, and the tests in it."""
    code = compile("\n" * block.line + block.source, str(block.page), "exec")  # a traceback names the line of the page
    names: dict[str, Any] = {"__name__": block.page.stem}
    exec(code, names)
    for name, value in names.items():
        if name.startswith("test_") and inspect.iscoroutinefunction(value):
            anyio.run(value, backend="trio" if "trio" in names else BACKEND)


def is_a_step(block: Block) -> bool:
    """Say whether ``test_tutorial.py`` does what a block says."""
    steps = STEP.finditer(block.page.read_text()) if block.page.parent.name == "tutorial" else ()
    return any(step.start() <= block.start < step.end() for step in steps)


def is_text(block: Block) -> None:
    """Check command lines. What is neither that, nor a step of the tutorial, is a piece of code with a check."""
    if are_commands(block.source):
        check_commands(block.source)
    else:
        assert is_a_step(block) or block.name in FRAGMENTS, (
            f"{block.where} is checked by nothing: if it can run by itself, make it ```python; "
            f"else say in tests/docs/fragments.py how {block.name} is made whole"
        )


def names_pages(block: Block) -> None:
    entries = re.findall(r"^(?:\w+ <)?([\w/-]+)>?$", block.source, re.MULTILINE)
    assert entries
    assert all((block.page.parent / f"{entry}.md").exists() for entry in entries)


def is_a_directive(block: Block) -> None:
    """Sphinx follows it: ``test_docs_site.py`` looks at what it names."""
    assert block.source.startswith(".. ")


def has_a_check(block: Block) -> None:
    assert block.name in FRAGMENTS, f"{block.where}: say in tests/docs/fragments.py how {block.name} is checked"


WAYS: Mapping[str, Callable[[Block], None]] = {
    "js": has_a_check,
    "python": runs,
    "text": is_text,
    "{eval-rst}": is_a_directive,
    "{toctree}": names_pages,
}
"""By language: how a block is checked, beside what FRAGMENTS has for it."""

PYTHON = [block for block in blocks() if block.language == "python"]
OTHERS = [block for block in blocks() if block.language != "python"]
PIECES = [block for block in blocks() if block.name in FRAGMENTS]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_block_runs(block: Block) -> None:
    runs(block)


@pytest.mark.once
@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.where)
def test_no_block_is_left_unchecked(block: Block) -> None:
    assert block.language in WAYS, (
        f"{block.where}: nobody checks {block.language or 'a block without a language'}; there is {', '.join(WAYS)}"
    )
    WAYS[block.language](block)


@pytest.mark.once
@pytest.mark.parametrize("block", PIECES, ids=lambda block: block.where)
def test_a_piece_does_what_its_page_says(block: Block) -> None:
    FRAGMENTS[block.name](block.source)


@pytest.mark.once
def test_each_check_has_its_block() -> None:
    there = [block.name for block in PIECES]
    assert sorted(there) == sorted(FRAGMENTS), "a check whose block has gone, or two blocks that begin alike"


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_all_code_is_in_fenced_blocks_that_are_found(page: Path) -> None:
    text = page.read_text()
    found = [block for block in blocks() if block.page == page]
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(found)


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_command_lines_within_the_text_are_right(page: Path) -> None:
    for line in INLINE.findall(page.read_text()):
        trichannels_takes(*line.split())


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.once
def test_the_readme_shows_the_example() -> None:
    """The example of the README is the one in ``examples/``, which is tested."""
    example = (ROOT / "examples" / "chat.py").read_text().partition('"""\n')[2].strip()
    assert example in (ROOT / "README.md").read_text()
