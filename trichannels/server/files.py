"""Which files a program is made of, and whether one has changed. No process and no loop lives here."""

import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

Look = list[int] | None
"""What a file looked like: its time of change in nanoseconds and its size; None if it isn't there."""

Looks = Mapping[str, Look]


OURS = Path(__file__).resolve().parent.parent
"""This package: a tool of the program, not a part of it, that an upgrade may change while it runs."""


def imported_files(error: BaseException | None = None) -> set[str]:
    """Return the Python files imported so far, ours left out, and those that ``error`` and its causes came from."""
    found = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    while error is not None:
        found |= {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        found.add(getattr(error, "filename", None))  # a SyntaxError's file has no frame
        error = error.__cause__ or error.__context__
    files = {Path(name).resolve() for name in found if isinstance(name, str) and name.endswith(".py")}
    return {str(file) for file in files if not file.is_relative_to(OURS)}


def neighbours(files: Iterable[str], root: str) -> set[str]:
    """Return all Python files beside those of ``files`` that are within ``root``, and those in ``root`` itself."""
    within = {Path(name).parent for name in files if Path(name).is_relative_to(root)}
    return {str(file) for directory in {Path(root), *within} for file in directory.glob("*.py")}


def look(name: str) -> Look:
    """Return what a file looks like now."""
    try:
        facts = Path(name).stat()
    except OSError:
        return None
    return [facts.st_mtime_ns, facts.st_size]


def looks(names: Iterable[str]) -> Looks:
    """Return what each file looks like now."""
    return {name: look(name) for name in names}


class Watch:
    """Files and how they looked; finds those that changed, went or came."""

    def __init__(self) -> None:
        self._seen: dict[str, Look] = {}

    @property
    def files(self) -> set[str]:
        return set(self._seen)

    def add(self, files: Looks) -> None:
        """Watch these too; for those that are watched already, the look that we had of them still counts."""
        self._seen = {**files, **self._seen}

    def changed(self) -> list[str]:
        """Return the files that differ from their last look, which this is."""
        found = [name for name, before in self._seen.items() if look(name) != before]
        self._seen.update((name, look(name)) for name in found)
        return found
