"""Before and after, for tests of one file."""

from textwrap import dedent

from trichannels.upgrade.python import upgrade_python
from trichannels.upgrade.report import Upgraded


def python(before: str, name: str = "consumers.py") -> Upgraded:
    """Return Python upgraded; a second time changes nothing, and says the same."""
    first = upgrade_python(name, dedent(before).lstrip("\n").encode())
    assert upgrade_python(name, first.new) == first
    return first


def becomes(before: str, after: str, name: str = "consumers.py") -> None:
    """Assert what a file is after it."""
    assert python(before, name).new.decode() == dedent(after).lstrip("\n")


def stays(source: str, name: str = "consumers.py") -> list[str]:
    """Assert that a file is left as it is; return what is said about it."""
    becomes(source, source, name)
    return left(source, name)


def left(source: str, name: str = "consumers.py") -> list[str]:
    """Return what is left: ``line: what: advice``."""
    return [found.shown("")[1:] for found in python(source, name).left]
