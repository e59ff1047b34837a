"""The house keeps its floors: who may import whom, and who may name which library.

A rule of architecture that no test guards is gone after three pull requests.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent / "trichannels"

# What stands on which floor: a module, or a package with all that is in it. The longest name that fits counts.
FLOORS = {
    1: ("backoff", "exceptions", "seam"),
    2: (
        "bridge",
        "events",
        "inbox",
        "nursery",
        "layers.base",
        "layers.background",
        "layers.group_log",
        "layers.serializers",
        "layers.history",
        "layers.recovery",
        "layers.presence",
        "layers.queues",
        "layers.postponed",
    ),
    3: (
        "protocol",
        "routing",
        "converters",
        "patterns",
        "denial",
        "lifespan",
        "worker",
        "inhouse",
        "middleware",
        "security",
        "auth",
        "control",
        "db",
        "environ",
        "revocation",
        "sessions",
        "status",
        "validity",
        "layers.anywhere",
        "layers.configured",
        "layers.host",
        "layers.registry",
    ),
    4: (
        "instance",
        "layers.memory",
        "layers.memory_presence",
        "layers.memory_queue",
        "layers.boarded",
        "layers.broadcast",
        "layers.broadcast_frames",
        "layers.broadcast_wire",
        "layers.switchboard",
        "layers.redis",
    ),
    5: ("layers",),
    6: ("consumer", "server"),
    7: ("django", "generic"),
    8: ("cli", "__main__", "demo", "testing", "upgrade"),
}

# Which files may name a library, at the top or inside a function.
MAY_NAME = {
    "asyncio": ("seam", "bridge", "server"),
    "trio": ("seam", "bridge", "server", "testing"),
    "trio_websocket": ("testing",),
    "hypercorn": ("server",),
    "websockets": ("server",),
    "pytest": ("testing",),
    "django": (
        "auth",
        "sessions",
        "revocation",
        "validity",
        "db",
        "django",
        "layers",
        "routing",
        "security.websocket",
        "testing",
    ),
    "hiredis": ("layers.redis",),
    "redis": ("layers.redis",),
    "libcst": ("upgrade",),
}


@dataclass(frozen=True)
class Import:
    """One name that a module imports; ``lazy`` inside a function."""

    module: str
    line: int
    lazy: bool


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def module_name(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports that can happen; those for the type checker alone don't."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        elif is_type_checking(child):
            for branch in getattr(child, "orelse", []):
                yield from walk(branch, lazy)
        else:
            yield from walk(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def targets(file: Path, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the absolute names that one import statement asks for."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = ["trichannels", *file.relative_to(ROOT).parent.parts]
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
    for alias in node.names:
        yield f"{base}.{alias.name}"


@cache
def files() -> dict[str, Path]:
    return {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


@cache
def imports(module: str) -> tuple[Import, ...]:
    file = files()[module]
    tree = ast.parse(file.read_text())
    return tuple(Import(name, node.lineno, lazy) for node, lazy in walk(tree) for name in targets(file, node))


def resolve(name: str) -> str | None:
    """Return our module that ``trichannels.x.y.Name`` comes from, or None if it isn't ours."""
    if not within(name, "trichannels"):
        return None
    inner = name.removeprefix("trichannels").removeprefix(".")
    while inner and inner not in files():
        inner = inner.rpartition(".")[0]
    return inner


def floor(module: str) -> int | None:
    fitting = [(len(room), number) for number, rooms in FLOORS.items() for room in rooms if within(module, room)]
    return max(fitting)[1] if fitting else None


MODULES = sorted(set(files()) - {""})


@pytest.mark.parametrize("module", MODULES)
def test_has_a_floor(module: str) -> None:
    assert floor(module), f"{module} stands on no floor: give it one, here and in trichannels/__init__.py"


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_below_or_beside(module: str) -> None:
    here = floor(module)
    for found in imports(module):
        target = resolve(found.module)
        if target:
            there = floor(target)
            assert here is not None
            assert there is not None
            assert there <= here, f"{module}:{found.line} (floor {here}) imports {target} from floor {there} above"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_face(module: str) -> None:
    for found in imports(module):
        assert resolve(found.module) != "", (
            f"{module}:{found.line} imports the package itself: import the defining file"
        )


@pytest.mark.parametrize("module", MODULES)
def test_names_only_the_libraries_it_may(module: str) -> None:
    for found in imports(module):
        library = found.module.partition(".")[0]
        rooms = MAY_NAME.get(library)
        allowed = rooms is None or any(within(module, room) for room in rooms)
        assert allowed, f"{module}:{found.line} names {library}, which only {', '.join(rooms or ())} may"


def test_django_is_imported_lazily_outside_its_own_rooms() -> None:
    rooms = ("layers", "security.websocket", "testing", "routing")
    cases = "testing.cases"  # of Django, which nobody imports who does not test a project
    lazily = [m for m in MODULES if m != cases and any(within(m, room) for room in rooms)]
    eager = [
        (m, found.line) for m in lazily for found in imports(m) if within(found.module, "django") and not found.lazy
    ]
    assert not eager


def test_no_circles() -> None:
    graph = {
        module: {t for found in imports(module) if not found.lazy and (t := resolve(found.module)) and t != module}
        for module in MODULES
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_floor_that_is_named_is_built_or_planned() -> None:
    """A room that was renamed must not leave its old name behind in the table."""
    planned = {
        "metrics",
        "cli",
        "worker",
        "layers.history",
        "layers.recovery",
        "layers.presence",
        "layers.queues",
        "layers.redis",
    }
    rooms = {room for floor_rooms in FLOORS.values() for room in floor_rooms}
    missing = {room for room in rooms if not any(within(module, room) for module in MODULES)}
    assert missing <= planned
