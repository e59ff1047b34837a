"""The pages, and their fenced blocks. How each block is checked is in ``tests/test_docs.py``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(page for page in DOCS.rglob("*.md") if not page.is_relative_to(BUILT)),
]
FENCED = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: Path
    line: int
    start: int
    language: str
    source: str

    @property
    def where(self) -> str:
        """Page and line, for people."""
        return f"{named(self.page)}:{self.line}"

    @property
    def name(self) -> tuple[str, str]:
        """Page and first line, up to a comment: they stay when lines are added above."""
        return named(self.page), re.split(r"\s+#", self.source.partition("\n")[0])[0]


def named(page: Path) -> str:
    """Return a page's path in ``docs/``; README and CHANGELOG have but their name."""
    return str(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT))


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of one page."""
    text = page.read_text()
    for match in FENCED.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match.start(), match[2], dedent(match[3]))


@cache
def blocks() -> tuple[Block, ...]:
    """Return the blocks of all pages."""
    return tuple(block for page in PAGES for block in blocks_of(page))


def block(page: str, beginning: str) -> str:
    """Return the one block of a page that has a line with this beginning."""
    (found,) = (
        one.source
        for one in blocks()
        if named(one.page) == page and re.search(rf"^{re.escape(beginning)}", one.source, re.MULTILINE)
    )
    return found


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return what a link may name of a page, as GitHub and Sphinx make it of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
