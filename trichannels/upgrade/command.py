"""The command: reads all files, says what is to be done, and does it unless told not to."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import Way, files_in, write
from .names import BUILT_ON_CHANNELS
from .report import Left, Upgraded, counted, diff, lines_before


@dataclass(frozen=True, slots=True)
class File:
    """A file, and what came of it."""

    path: Path
    old: bytes
    upgraded: Upgraded

    @property
    def is_changed(self) -> bool:
        return self.upgraded.new != self.old

    def left(self, own: Collection[str], *, written: bool) -> Iterator[str]:
        """Yield what is left, with the lines of the file as it is now on disk; not that a package imports itself."""
        before = None if written or not self.is_changed else lines_before(self.old, self.upgraded.new)
        for left in self.upgraded.left:
            if left.imported in own:
                continue
            yield left.shown(shown(self.path), None if before is None else before[left.line])


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeCommand:
    """``trichannels upgrade``."""

    paths: Sequence[str]
    check: bool = False
    diff: bool = False

    def run(self) -> int:
        """Return the exit code; raises :class:`~trichannels.exceptions.ConfigError` for a path that is not there."""
        files = [_read(path, way) for path, way in files_in(self.paths)]
        changed = [file for file in files if file.is_changed]
        dry = self.check or self.diff
        refused = {} if dry else {file.path: error for file in changed if (error := _written(file))}
        if self.diff:
            for file in changed:
                sys.stdout.writelines(diff(shown(file.path), file.old, file.upgraded.new))
        own = BUILT_ON_CHANNELS.intersection(part for file in files for part in file.path.parts)
        left = [line for file in files for line in file.left(own, written=not dry and file.path not in refused)]
        left += [
            Left(1, f"cannot be written ({error})", "see to it, and run this again").shown(shown(path))
            for path, error in refused.items()
        ]
        self._say(left, len(changed) - len(refused), dry)
        return 1 if refused or (self.check and changed) else 0

    def _say(self, left: Sequence[str], changed: int, dry: bool) -> None:
        out = sys.stderr if self.diff else sys.stdout  # what --diff prints is a patch, and nothing else
        for line in left:
            print(line, file=out)
        things = f"{counted(len(left), 'thing')} {'is' if len(left) == 1 else 'are'} left to you"
        print(f"{counted(changed, 'file')} {'would change' if dry else 'changed'}, {things}", file=out)


def _read(path: Path, way: Way) -> File:
    try:
        old = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        return File(path, b"", Upgraded(b"", (Left(1, f"cannot be read ({reason})", "see to it, and run this again"),)))
    return File(path, old, way(str(path), old))


def _written(file: File) -> str | None:
    """Write a file; return why that was refused, or None."""
    try:
        write(file.path, file.upgraded.new)
    except OSError as error:
        return error.strerror or str(error)
    return None


def shown(path: Path) -> str:
    """Return a path as text that can be printed, whatever bytes it has."""
    return str(path).encode(errors="replace").decode()
