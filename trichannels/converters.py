"""What ``<int:id>`` in a path stands for: a regular expression, and the way to a Python value and back. Pure.

The names and expressions are Django's (https://docs.djangoproject.com/en/stable/topics/http/urls/#path-converters).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from .exceptions import InvalidRoute


class Converter(Protocol):
    """A kind of capture. Django's converters have this shape."""

    regex: str

    def to_python(self, value: str) -> Any:
        """Convert what matched; raise ``ValueError`` to say that it does not match after all."""

    def to_url(self, value: Any) -> str:
        """Convert back."""


@dataclass(frozen=True, slots=True)
class _Plain:
    regex: str
    to_python: Callable[[str], Any] = str
    to_url: Callable[[Any], str] = str


_HEX = "[0-9a-f]"
_CONVERTERS: dict[str, Any] = {
    "int": _Plain("[0-9]+", int),
    "path": _Plain(".+"),
    "slug": _Plain("[-a-zA-Z0-9_]+"),
    "str": _Plain("[^/]+"),
    "uuid": _Plain(f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}", UUID),
}


def converters() -> Mapping[str, Converter]:
    """Return the known converters by the name that a path uses for them."""
    return _CONVERTERS


def register_converter(converter: Any, name: str) -> None:
    """Make ``<name:capture>`` known to every :func:`~trichannels.patterns.path` that is made from now on.

    ``converter`` is a class (called without arguments) or an instance with ``regex``, ``to_python``, ``to_url``.
    Raises :class:`InvalidRoute` if it lacks one, if its expression is wrong, or if the name is taken.
    """
    made = converter() if isinstance(converter, type) else converter
    where = f"register_converter({converter!r}, {name!r})"
    lacking = [part for part in ("regex", "to_python", "to_url") if not hasattr(made, part)]
    if lacking:
        raise InvalidRoute(f"{where}: the converter has no {' and no '.join(lacking)}")
    if not name or set("<>:") & set(name) or name in _CONVERTERS:
        raise InvalidRoute(f"{where}: the name is taken, empty, or has one of '<>:' in it; choose another")
    try:
        groups = re.compile(made.regex).groupindex
    except (re.error, TypeError) as error:
        raise InvalidRoute(f"{where}: {made.regex!r} is not a regular expression: {error}") from None
    if groups:
        raise InvalidRoute(f"{where}: its expression must not name groups, and names {', '.join(groups)}")
    _CONVERTERS[name] = made
