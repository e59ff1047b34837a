"""Which files of a project are ours to look at, and how one is written: whole, or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ..exceptions import ConfigError
from .by_hand import look_at_commands, look_at_requirements, names_requirements, starts_servers
from .pyproject import upgrade_pyproject
from .python import upgrade_python
from .report import Upgraded
from .requirements import upgrade_requirements

SKIPPED = {".git", ".hg", ".tox", ".venv", "__pycache__", "migrations", "node_modules", "site-packages", "venv"}
LISTED = re.compile(r"(^|[-_.])(reqs?|requirements?|deps|dependencies)([-_.].*)?\.(txt|pip)$", re.IGNORECASE)

Way: TypeAlias = Callable[[str, bytes], Upgraded]


def is_python(name: str) -> bool:
    """Say whether a file is Python."""
    return name.endswith((".py", ".pyi"))


def is_requirements(name: str) -> bool:
    """Say whether a file lists requirements, a line each."""
    return bool(LISTED.search(name)) or (name.endswith(".in") and name != "MANIFEST.in")


WAYS: Sequence[tuple[Callable[[str], bool], Way]] = (
    (is_python, upgrade_python),
    (is_requirements, upgrade_requirements),
    (lambda name: name == "pyproject.toml", upgrade_pyproject),
    (names_requirements, look_at_requirements),
    (starts_servers, look_at_commands),
)


def way_of(path: Path) -> Way | None:
    """Return what upgrades a file; None if nothing does."""
    if path.parent.name == "requirements" and path.suffix == ".txt":
        return upgrade_requirements
    return next((way for fits, way in WAYS if fits(path.name)), None)


def files_in(paths: Sequence[str]) -> Iterator[tuple[Path, Way]]:
    """Yield each file that there is a way for, once; raises :class:`ConfigError` for a path that is not there."""
    for path in map(Path, paths):
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file or directory")
    seen: set[Path] = set()
    for path in map(Path, paths):
        for file in _walk(path) if path.is_dir() else [path]:
            way = way_of(file)
            if way is not None and not file.is_symlink() and (real := file.resolve()) not in seen:
                seen.add(real)
                yield file, way


def _walk(top: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(top):
        where = Path(here)
        folders[:] = sorted(folder for folder in folders if not _is_skipped(where / folder))
        yield from (where / file for file in sorted(files) if (where / file).is_file())


def _is_skipped(folder: Path) -> bool:
    return folder.name in SKIPPED or folder.is_symlink() or (folder / "pyvenv.cfg").exists()


def write(path: Path, content: bytes) -> None:
    """Put new content into a file, with its permissions, at one stroke."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shutil.copymode(path, name)
        os.replace(name, path)  # noqa: PTH105 - of two names, as mkstemp gives them
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
