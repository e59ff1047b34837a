"""What came of a file: its new bytes, and what is left to its author. How both are shown."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Left:
    """Something that no rule could do."""

    line: int
    what: str
    advice: str

    @property
    def imported(self) -> str:
        """The package that the line imports from, if that is what is left; "" otherwise."""
        first, _, rest = self.what.partition(" ")
        return rest.split()[0].partition(".")[0] if first in ("from", "import") and rest else ""

    def shown(self, name: str, line: int | None = None) -> str:
        """Return the line of the report."""
        return f"{name}:{self.line if line is None else line}: {self.what}: {self.advice}"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A file as it should be; ``left`` has the line numbers of that."""

    new: bytes
    left: tuple[Left, ...] = ()


def text_of(content: bytes) -> str:
    """Return bytes as text of which every line end stays; for showing only."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def diff(name: str, old: bytes, new: bytes) -> Iterator[str]:
    """Yield the lines of a unified diff that ``patch`` takes."""
    before, after = (_lines(text_of(content)) for content in (old, new))
    for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def lines_before(old: bytes, new: bytes) -> Sequence[int]:
    """Return for each line of the new text, from 1 on, which one it was; [0] is not used."""
    before, after = (_lines(text_of(content)) for content in (old, new))
    numbers = [0] * (len(after) + 2)
    for _, start, end, new_start, new_end in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        for number in range(new_start, new_end):
            numbers[number + 1] = min(start + number - new_start, max(end - 1, start)) + 1
    return numbers


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [*(f"{line}\n" for line in lines[:-1]), *filter(None, lines[-1:])]


def counted(number: int, noun: str) -> str:
    """Return "1 file" or "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
