"""Lists of apps in other files, which a settings file builds on: read, never imported, and never changed from here."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

OURS, STATICFILES = "trichannels.django", "django.contrib.staticfiles"
THEIRS = ("channels", "channels.apps.ChannelsConfig", "daphne", "daphne.apps.DaphneConfig")
"""Channels 4 may be installed as its server alone."""


def is_apps(name: str) -> bool:
    """Say whether a setting is a list of apps: INSTALLED_APPS, or one of those that it is made of."""
    return name == "APPS" or name.endswith("_APPS")


def module_file(path: Path, module: str) -> Path | None:
    """Return the file of a module that the file at ``path`` imports; None if it is not of the same project."""
    name = module.lstrip(".")
    dots = len(module) - len(name)
    parents = path.absolute().parents
    tops = parents[dots - 1 : dots] if dots else parents
    parts = name.split(".") if name else []
    files = (top.joinpath(*parts) for top in tops)
    return next((found for file in files for found in _files_of(file) if found.is_file()), None)


def _files_of(module: Path) -> Iterator[Path]:
    if module.name:
        yield module.with_name(f"{module.name}.py")
    yield module / "__init__.py"


def has_app(file: Path, name: str, seen: frozenset[Path] = frozenset()) -> bool | None:
    """Say whether a list of apps in a file, or in one that it builds on, names Channels or us; None: who knows."""
    if file in seen:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if any(_names_app(node, name) for node in ast.walk(tree)):
        return True
    found = {_imports_app(file, node, name, seen | {file}) for node in ast.walk(tree)}
    return True if True in found else None if None in found else False


def _names_app(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    names = [getattr(target, "id", getattr(target, "attr", "")) for target in targets]
    if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or node.value is None:
        return False
    if not any(is_apps(one) or one == name for one in names):
        return False
    return any(isinstance(one, ast.Constant) and one.value in (*THEIRS, OURS) for one in ast.walk(node.value))


def _imports_app(file: Path, node: ast.AST, name: str, seen: frozenset[Path]) -> bool | None:
    if not isinstance(node, ast.ImportFrom):
        return False
    if not any(alias.name in ("*", name) or is_apps(alias.name) for alias in node.names):
        return False
    found = module_file(file, "." * node.level + (node.module or ""))
    return has_app(found, name, seen) if found is not None else None
