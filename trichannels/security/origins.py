"""What an origin is, and which pattern allows which. Pure; the middleware that asks is in ``security/websocket.py``.

Source: RFC 6454 section 6.2 (the serialised origin) and 7 (the header); hosts by UTS 46, as browsers have them.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import idna

from ..exceptions import InvalidRoute

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
MAX_PORT = 65535

_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
# The code points that the URL standard forbids in a host, and '*' and ',', which only patterns and lists have.
_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|(?!\.)[^\x00-\x20\x7f#/:<>?@\[\\\]^|%*,]+)"
_PORT = r"(?::(?P<port>[0-9]{1,5}))?"
_ORIGIN = re.compile(_SCHEME + _HOST + _PORT)
_RULE = re.compile(f"(?:{_SCHEME})?(?P<wild>\\*?\\.)?(?:{_HOST}|(?P<any>\\*)){_PORT}/?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of where a page comes from: in lower case, the host in ASCII, a default port filled in."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        port = "" if self.port in (None, DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def _ascii_host(host: str) -> str | None:
    """Return the host as browsers send it, or None if it is none."""
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        return host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
    except ValueError:
        return None


def _port(text: str | None, scheme: str | None) -> int | None:
    return int(text) if text else DEFAULT_PORTS.get(scheme or "")


def parse_origin(header: bytes) -> Origin | None:
    """Return the origin that an Origin header names; None for ``null`` and for whatever is not exactly one origin."""
    try:
        found = _ORIGIN.fullmatch(header.decode())
    except UnicodeDecodeError:
        return None
    if found is None or (host := _ascii_host(found["host"])) is None:
        return None
    scheme = found["scheme"].lower()
    port = _port(found["port"], scheme)
    return Origin(scheme, host, port) if (port or 0) <= MAX_PORT else None


Rule = Callable[[Origin | None], bool]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """An origin of which parts may be left open."""

    scheme: str | None
    host: str | None
    port: int | None
    subdomains: bool
    itself: bool

    def __call__(self, origin: Origin | None) -> bool:
        return (
            origin is not None
            and self.scheme in (None, origin.scheme)
            and (self.port == origin.port or (self.scheme is None and self.port is None))
            and self._allows_host(origin.host)
        )

    def _allows_host(self, host: str) -> bool:
        if self.host is None:
            return True
        return (self.itself and host == self.host) or (self.subdomains and host.endswith("." + self.host))


def _anything(_: Origin | None) -> bool:
    return True


def parse_rule(pattern: str | re.Pattern[str]) -> Rule:
    """Return the test that ``pattern`` stands for; raises :class:`InvalidRoute` for what is no pattern.

    ===========================  =====================================================================
    ``https://example.com``      this scheme and host; the port is the scheme's own
    ``https://example.com:8443`` this port
    ``example.com``              any scheme and port
    ``example.com:8443``         any scheme, this port
    ``.example.com``             the domain and all its subdomains; also after a scheme
    ``*.example.com``            its subdomains only
    ``https://*``                any host
    a compiled expression        must match all of ``scheme://host[:port]``, lower case, no default port
    ``*``                        everything, a missing or malformed header too
    ===========================  =====================================================================
    """
    if isinstance(pattern, re.Pattern):
        return _expression(pattern)
    if pattern == "*":
        return _anything
    found = _RULE.fullmatch(pattern) if isinstance(pattern, str) else None
    host = _ascii_host(found["host"]) if found and found["host"] else None
    wrong = found is None or (host is None and not found["any"]) or bool(found["any"] and found["wild"])
    if found is None or wrong or int(found["port"] or 0) > MAX_PORT:
        raise InvalidRoute(
            f"{pattern!r} is not an origin to allow; write 'https://example.com', 'example.com:8443', '.example.com', "
            "'*' or a compiled regular expression"
        )
    scheme = found["scheme"].lower() if found["scheme"] else None
    wild, port = found["wild"], _port(found["port"], scheme)
    return _Pattern(scheme, host, port, subdomains=bool(wild), itself=wild != "*.")


def _expression(pattern: re.Pattern[str]) -> Rule:
    if not isinstance(pattern.pattern, str):
        raise InvalidRoute(f"{pattern!r} is an expression of bytes; origins are matched as str")
    return lambda origin: origin is not None and pattern.fullmatch(str(origin)) is not None


def parse_rules(patterns: Iterable[str | re.Pattern[str]]) -> tuple[Rule, ...]:
    """Return the tests of all patterns."""
    return tuple(parse_rule(pattern) for pattern in patterns)


def parse_hosts(hosts: Iterable[str]) -> tuple[Rule, ...]:
    """Return the tests for Django's ``ALLOWED_HOSTS``; an entry that is no host allows nothing, as in Django."""
    rules = []
    for host in hosts:
        try:
            rules.append(parse_rule(host))
        except InvalidRoute:
            continue
    return tuple(rules)
