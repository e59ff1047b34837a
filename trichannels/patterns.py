"""Paths and what they capture: ``path``, ``re_path``, converters. Pure; who answers is in ``routing``.

The syntax is Django's (https://docs.djangoproject.com/en/stable/topics/http/urls/), and a :class:`Route` has the shape
of Django's ``URLPattern``, so that a router takes either. Mistakes raise :class:`InvalidRoute` where the route is
written.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from .converters import Converter, converters
from .events import ASGIApp
from .exceptions import InvalidRoute

Matched: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]
"""What is left of the path, the positional and the keyword captures."""

_CAPTURE = re.compile(r"<(?:(?P<converter>[^<>:]*):)?(?P<name>[^<>]*)>")
_LOOKS_LIKE_REGEX = re.compile(r"\^|.*(\(\?P<|\$\Z)", re.DOTALL)


class Pattern(Protocol):
    """Django's ``RoutePattern`` and ``RegexPattern`` have this shape, and so have ours."""

    def match(self, path: str) -> Matched | None:
        """Match the beginning of ``path`` (without its leading slash), or return None."""


class PathPattern:
    """``ws/<slug:room>/``: text and captures; an endpoint must match to the end of the path."""

    def __init__(self, route: str, *, endpoint: bool) -> None:
        self.route = route
        self.converters: dict[str, Converter] = {}
        self._regex = re.compile(self._compile() + (r"\Z" if endpoint else ""))

    def __repr__(self) -> str:
        return f"path({self.route!r})"

    def _compile(self) -> str:
        parts, end = [], 0
        for capture in _CAPTURE.finditer(self.route):
            parts += [
                re.escape(self.route[end : capture.start()]),
                self._capture(capture["converter"], capture["name"]),
            ]
            end = capture.end()
        return "".join([*parts, re.escape(self.route[end:])])

    def _capture(self, kind: str | None, name: str) -> str:
        known = converters()
        kind = "str" if kind is None else kind
        if kind not in known:
            raise InvalidRoute(
                f"{self!r}: no converter {kind!r}; known: {', '.join(known)}; add yours with register_converter()"
            )
        if not name.isidentifier():
            raise InvalidRoute(f"{self!r}: {name!r} is not a name for a capture; use letters, digits and _")
        if name in self.converters:
            raise InvalidRoute(f"{self!r}: {name!r} is captured twice; give each capture its own name")
        self.converters[name] = known[kind]
        return f"(?P<{name}>{known[kind].regex})"

    def match(self, path: str) -> Matched | None:
        """Match and convert; a converter that raises ``ValueError`` means no match."""
        found = self._regex.match(path)
        if found is None:
            return None
        try:
            kwargs = {name: converter.to_python(found[name]) for name, converter in self.converters.items()}
        except ValueError:
            return None
        return path[found.end() :], (), kwargs


class RegexPattern:
    """A regular expression; with named groups only these are captured, else every group by position.

    As in Django: an expression that ends with ``$`` must match the whole path, any other is searched for,
    so begin it with ``^``.
    """

    def __init__(self, regex: re.Pattern[str], *, endpoint: bool) -> None:
        self._regex = regex
        whole = endpoint and regex.pattern.endswith("$")
        self._find = regex.fullmatch if whole else regex.search

    def __repr__(self) -> str:
        return f"re_path({self._regex.pattern!r})"

    def match(self, path: str) -> Matched | None:
        """Match; groups that took no part are left out of the keywords."""
        found = self._find(path)
        if found is None:
            return None
        named = found.groupdict()
        args = () if named else found.groups()
        return path[found.end() :], args, {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern and the ASGI application behind it; made by :func:`path` and :func:`re_path`."""

    pattern: Pattern
    callback: ASGIApp
    default_args: Mapping[str, Any]
    name: str | None = None


def routes_on(app: object) -> bool:
    """Say whether ``app`` itself routes on what is left of the path (Channels' name for the mark is kept)."""
    return getattr(app, "_path_routing", False) is True


def check_app(app: object, where: str) -> None:
    """Raise :class:`InvalidRoute`, naming ``where``, unless ``app`` can be called as an ASGI 3 application."""
    if inspect.isclass(app) and not hasattr(app, "__await__"):
        cure = f"give {app.__name__}.as_asgi()" if hasattr(app, "as_asgi") else "give an instance"
        raise InvalidRoute(f"{where}: {app.__name__} is a class, not an application; {cure}")
    if not callable(app):
        raise InvalidRoute(f"{where}: {app!r} is not an ASGI application (a callable of scope, receive, send)")
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return
    try:
        signature.bind({}, None, None)
    except TypeError:
        raise InvalidRoute(
            f"{where}: {app!r} is not an ASGI application: it must take (scope, receive, send), not {signature}"
        ) from None


def _check(where: str, app: object, kwargs: object) -> None:
    check_app(app, where)
    if not isinstance(kwargs, Mapping | None):
        raise InvalidRoute(f"{where}: kwargs must be a dict, not {type(kwargs).__name__}")


def path(route: str, app: ASGIApp, kwargs: Mapping[str, Any] | None = None, name: str | None = None) -> Route:
    """Route a path such as ``"ws/<slug:room>/"`` (no leading slash) to ``app``.

    In front of another router it matches a beginning of the path, else the whole. ``kwargs`` are added to the
    captures and win over them. Raises :class:`InvalidRoute` for a route that cannot work.
    """
    where = f"path({route!r})"
    if not isinstance(route, str):
        raise InvalidRoute(f"{where}: a route is a str, not {type(route).__name__}")
    if route.startswith("/"):
        raise InvalidRoute(f"{where}: drop the leading '/': paths are matched without theirs, so this never matches")
    if _LOOKS_LIKE_REGEX.match(route):
        raise InvalidRoute(f"{where}: this looks like a regular expression; use re_path() for it")
    if set("<>") & set(_CAPTURE.sub("", route)):
        raise InvalidRoute(f"{where}: '<' and '>' must come in pairs around a capture, as in '<int:id>'")
    _check(where, app, kwargs)
    return Route(PathPattern(route, endpoint=not routes_on(app)), app, dict(kwargs or {}), name)


def re_path(
    regex: str | re.Pattern[str], app: ASGIApp, kwargs: Mapping[str, Any] | None = None, name: str | None = None
) -> Route:
    """Route paths that a regular expression finds (begin it with ``^``, and without a slash) to ``app``.

    Raises :class:`InvalidRoute` for an expression that does not compile or can never match.
    """
    where = f"re_path({regex!r})"
    try:
        compiled = re.compile(regex)
        text = compiled.pattern + ""
    except (re.error, TypeError) as error:
        raise InvalidRoute(f"{where}: not a regular expression of str: {error}") from None
    if text.startswith(("^/", r"^\/")):
        raise InvalidRoute(f"{where}: drop the leading '/': paths are matched without theirs, so this never matches")
    _check(where, app, kwargs)
    return Route(RegexPattern(compiled, endpoint=not routes_on(app)), app, dict(kwargs or {}), name)
