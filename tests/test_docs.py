"""Every ``python`` block of the README and of ``docs/`` runs; what cannot run there is marked ``text``.

A block is a module of its own. The tests it defines (``async def test_…``) are run as well, on trio if it imports trio.
Links between the pages lead somewhere.
"""

import inspect
import os
import re
from pathlib import Path

import anyio
import pytest
from _pytest.mark import ParameterSet

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#([^)]*))?\)")
BACKEND = os.environ.get("BACKEND", "trio")


def blocks() -> list[ParameterSet]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(page, line, match[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize(("page", "line", "source"), blocks())
def test_block_runs(page: Path, line: int, source: str) -> None:
    code = compile("\n" * line + source, str(page), "exec")  # a traceback names the line of the page
    names: dict[str, object] = {"__name__": page.stem}
    exec(code, names)
    for name, value in names.items():
        if name.startswith("test_") and inspect.iscoroutinefunction(value):
            anyio.run(value, backend="trio" if "trio" in names else BACKEND)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [target for target, _ in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not dead


def test_the_readme_shows_the_example() -> None:
    """The example of the README is the one in ``examples/``, which is tested."""
    example = (ROOT / "examples" / "chat.py").read_text().partition('"""\n')[2].strip()
    assert example in (ROOT / "README.md").read_text()
