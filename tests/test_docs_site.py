"""The site of the docs: its reference leaves nothing public out, and its pages name what is really there.

That the site builds is a step of ``.ci/suite``; here nothing is built, and Sphinx is not needed.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from trichannels.exceptions import CLOSE_CODES

from .test_floors import FLOORS, MODULES, files, floor, imports, resolve

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# The public modules: whatever has a name here is in the reference.
PUBLIC = (
    "auth",
    "bridge",
    "consumer",
    "control",
    "db",
    "django.http",
    "django.management.commands.channels_status",
    "django.management.commands.runserver",
    "django.management.commands.runworker",
    "django.options",
    "events",
    "exceptions",
    "generic.http",
    "generic.multiplexer",
    "generic.sse",
    "generic.websocket",
    "inbox",
    "layers",
    "layers.base",
    "layers.broadcast",
    "layers.broadcast_frames",
    "layers.history",
    "layers.presence",
    "layers.queues",
    "layers.redis",
    "layers.serializers",
    "middleware",
    "routing",
    "security.websocket",
    "server",
    "sessions",
    "testing",
    "worker",
)
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(\w+):: (\S+)\n((?: {3}:.*\n)*)", re.MULTILINE)
TEST = re.compile(r"`((?:tests|trichannels/testing/contract)/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def public_names(module: str) -> list[str]:
    """Return what ``__all__`` names, or the classes and functions without an underscore that are defined there."""
    body = ast.parse(files()[module].read_text()).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return sorted({node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")})


@cache
def documented() -> dict[str, set[str]]:
    """Return what the reference has of each module: its names, or ``*`` with a minus before each that is left out."""
    found: dict[str, set[str]] = {}
    for page in sorted((DOCS / "reference").glob("*.md")):
        for kind, target, options in DIRECTIVE.findall(page.read_text()):
            if kind == "module" and ":no-members:" not in options:
                excluded = re.search(r":exclude-members: (.*)", options)
                names = excluded[1].split(", ") if excluded else []
                found.setdefault(target, set()).update({"*", *(f"-{name}" for name in names)})
            elif kind != "module":
                module, _, name = target.rpartition(".")
                found.setdefault(module, set()).add(name)
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_leaves_nothing_public_out(module: str) -> None:
    there = documented().get(f"trichannels.{module}", set())
    elsewhere = set().union(*documented().values())  # a name that is left out has a directive where users import it
    missing = [
        name
        for name in public_names(module)
        if name not in there and ("*" not in there or (f"-{name}" in there and name not in elsewhere))
    ]
    assert public_names(module)
    assert not missing, f"add these of trichannels.{module} to docs/reference/: {missing}"


def test_every_page_is_in_the_table_of_contents() -> None:
    """Sphinx says so too, but only who builds the site would hear it."""
    entries = set(re.findall(r"^(?:\w+ <)?([\w/-]+)>?$", (DOCS / "index.md").read_text(), re.MULTILINE))
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages <= entries
    assert all((DOCS / f"{entry}.md").exists() for entry in entries)


@cache
def defined_in(file: str) -> set[str]:
    """Return the functions and classes of a file; a method counts by its name."""
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_promise_names_tests_that_exist() -> None:
    rows = [line for line in (DOCS / "promises.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promised ")]
    assert promises
    assert [row for row in promises if not TEST.search(row)] == []
    named = [(file, name) for row in promises for file, name in TEST.findall(row)]
    assert [f"{file}::{name}" for file, name in named if name not in defined_in(file)] == []


def texts(node: ast.AST) -> Iterator[str]:
    """Yield the strings below a node, with … for what is filled in."""
    for child in ast.walk(node):
        if isinstance(child, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in child.values)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


@cache
def source_texts() -> tuple[str, ...]:
    files = sorted((ROOT / "trichannels").rglob("*.py"))
    return tuple(text for file in files for text in texts(ast.parse(file.read_text())))


def messages() -> list[str]:
    return ROW.findall((DOCS / "troubleshooting.md").read_text().partition("## Close codes")[0])


@pytest.mark.parametrize("message", messages())
def test_a_quoted_message_is_one_of_the_source(message: str) -> None:
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    assert any(pattern.search(text) for text in source_texts())


OTHERS = ("asyncio.events", "django.apps.registry", "django.conf", "django.utils.asyncio", "trio._core._run")


@cache
def texts_of_others() -> tuple[str, ...]:
    paths = [Path(str(spec.origin)) for name in OTHERS if (spec := find_spec(name))]
    return tuple(text for path in paths for text in texts(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    "message", ROW.findall((DOCS / "troubleshooting.md").read_text().partition("## From Python")[2])
)
def test_a_quoted_message_of_others_is_one_of_theirs(message: str) -> None:
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    assert any(pattern.search(text) for text in texts_of_others())


def test_the_table_of_close_codes_is_the_real_one() -> None:
    rows = [f"| {it.code} | {it.meaning} | {'yes' if it.reconnect else 'no'} |" for it in CLOSE_CODES.values()]
    assert "\n".join(rows) in (DOCS / "troubleshooting.md").read_text()


def drawn_floors() -> str:
    """Return the table of the floors, from what the modules really import. The highest floor stands on top."""
    lines = ["| floor | stands on | what lives there | libraries |", "|---|---|---|---|"]
    for number, rooms in sorted(FLOORS.items(), reverse=True):
        here = [module for module in MODULES if floor(module) == number]
        found = [each for module in here for each in imports(module)]
        targets = {resolve(each.module) for each in found} - {None, ""}
        below = sorted({there for target in targets if (there := floor(str(target)))} - {number})
        known = {"anyio", "cryptography", "django", "hiredis", "hypercorn", "libcst", "msgspec", "redis", "trio"}
        libraries = sorted({each.module.partition(".")[0] for each in found} & known)
        names = ", ".join(f"`{room}`" for room in rooms if any(m == room or m.startswith(f"{room}.") for m in here))
        lines.append(f"| {number} | {', '.join(map(str, below))} | {names} | {', '.join(libraries)} |")
    return "\n".join(lines)


def test_the_floors_are_drawn_as_they_are() -> None:
    page = (DOCS / "contributing.md").read_text()
    shown = page.partition("<!-- floors -->\n\n")[2].partition("\n\n<!-- end of floors -->")[0]
    assert shown == drawn_floors(), f"put this between the marks in docs/contributing.md:\n\n{drawn_floors()}"
