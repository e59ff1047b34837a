"""Which origin a pattern allows. The mistake that matters is to let in one that was not meant."""

import re
import string
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trichannels.exceptions import InvalidRoute
from trichannels.security.origins import Origin, parse_hosts, parse_origin, parse_rule

pytestmark = pytest.mark.once
LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
SCHEME = st.sampled_from(["http", "https", "ws", "wss", "tauri", "chrome-extension"])
PORT = st.none() | st.integers(1, 65535)


def allows(pattern: Any, origin: str | bytes) -> bool:
    header = origin.encode() if isinstance(origin, str) else origin
    return parse_rule(pattern)(parse_origin(header))


def swapped(text: str, mask: int) -> str:
    """Swap the case of some letters."""
    return "".join(c.upper() if mask >> n & 1 else c for n, c in enumerate(text))


@pytest.mark.parametrize(
    ("header", "origin"),
    [
        (b"http://example.com", Origin("http", "example.com", 80)),
        (b"HTTPS://Example.COM", Origin("https", "example.com", 443)),
        (b"https://example.com:8443", Origin("https", "example.com", 8443)),
        (b"tauri://localhost", Origin("tauri", "localhost", None)),
        (b"http://127.0.0.1:0080", Origin("http", "127.0.0.1", 80)),
        (b"http://[0:0::1]:81", Origin("http", "[::1]", 81)),
        ("http://bücher.example".encode(), Origin("http", "xn--bcher-kva.example", 80)),
        ("http://BÜCHER.example".encode(), Origin("http", "xn--bcher-kva.example", 80)),
        (b"http://xn--bcher-kva.example", Origin("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_an_origin(header: bytes, origin: Origin) -> None:
    assert parse_origin(header) == origin


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"example.com",
        b"//example.com",
        b"http://",
        b"http:/example.com",
        b"://example.com",
        b"http://example.com/",
        b"http://example.com/path",
        b"http://example.com?query",
        b"http://example.com#part",
        b"http://user@example.com",
        b"http://example.com@evil.com",
        b"http://example.com\\@evil.com",
        b"http://example.com\\.evil.com",
        b"http://exam ple.com",
        b" http://example.com",
        b"http://example.com\n",
        b"http://example.com http://other.com",
        b"http://example.com, http://other.com",
        b"http://example.com:",
        b"http://example.com:port",
        b"http://example.com:65536",
        b"http://example.com:123456",
        b"http://example.com:-1",
        "http://example.com:８０".encode(),
        b"http://[::1",
        b"http://[::g]",
        b"http://[]",
        b"http://::1",
        b"http://*",
        b"http://*.example.com",
        b"http://ex%61mple.com",
        b"\xff\xfe",
        b"http://ex\xe4mple.com",
        "http://a\N{COMBINING ACUTE ACCENT}\N{ZERO WIDTH JOINER}.com".encode(),
        "ſcheme://example.com".encode(),
    ],
)
def test_a_malformed_header_is_no_origin(header: bytes) -> None:
    assert parse_origin(header) is None


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        (
            "https://example.com",
            ["https://example.com", "https://EXAMPLE.com", "https://example.com:443"],
            ["http://example.com", "https://example.com:8443", "https://a.example.com", "https://example.com.evil.com"],
        ),
        ("https://example.com/", ["https://example.com"], ["http://example.com"]),
        ("HTTP://Example.Com:80", ["http://example.com"], ["http://example.com:81", "https://example.com:80"]),
        ("https://example.com:80", ["https://example.com:80"], ["https://example.com"]),
        (
            "example.com",
            ["http://example.com", "https://example.com:8443", "tauri://example.com"],
            ["http://a.example.com", "http://example.co", "http://notexample.com", "http://example.com."],
        ),
        ("example.com:8443", ["http://example.com:8443", "wss://example.com:8443"], ["https://example.com"]),
        ("example.com:443", ["https://example.com"], ["http://example.com"]),
        (
            ".example.com",
            ["http://example.com", "http://a.example.com", "https://b.a.example.com:1"],
            ["http://notexample.com", "http://example.com.evil.com", "http://.evil.com"],
        ),
        ("*.example.com", ["http://a.example.com", "http://b.a.example.com"], ["http://example.com", "http://xexample.com"]),
        ("https://.example.com", ["https://a.example.com"], ["http://a.example.com", "https://a.example.com:1"]),
        ("https://*.example.com:1", ["https://a.example.com:1"], ["https://a.example.com", "https://example.com:1"]),
        ("https://*", ["https://example.com", "https://[::1]"], ["http://example.com", "https://example.com:1"]),
        ("*:8000", ["http://localhost:8000", "https://a.b:8000"], ["http://localhost"]),
        ("[::1]", ["http://[::1]", "http://[0:0::1]:8000"], ["http://[::2]"]),
        ("http://[::1]:8000", ["http://[0::1]:8000"], ["http://[::1]"]),
        ("bücher.example", ["http://xn--bcher-kva.example", "http://BÜCHER.example"], ["http://bucher.example"]),
        ("*.bücher.example", ["http://a.xn--bcher-kva.example"], ["http://xn--bcher-kva.example"]),
        # UTS 46 as browsers apply it: the sharp s is a letter of its own, another domain than "strasse".
        ("straße.example", ["http://xn--strae-oqa.example"], ["http://strasse.example"]),
        ("tauri://localhost", ["tauri://localhost"], ["tauri://localhost:80", "http://localhost"]),
        (
            re.compile(r"https://[a-z]+\.example\.com(:8443)?"),
            ["https://a.example.com", "https://A.Example.com", "https://a.example.com:443", "https://a.example.com:8443"],
            ["http://a.example.com", "https://a.example.com:8444", "https://a.example.com.evil.com", "x"],
        ),
    ],
)  # fmt: skip
def test_a_pattern(pattern: Any, allowed: list[str], refused: list[str]) -> None:
    assert [origin for origin in allowed if not allows(pattern, origin)] == []
    assert [origin for origin in refused if allows(pattern, origin)] == []


@pytest.mark.parametrize("pattern", ["example.com", ".example.com", "https://*", "*:80", re.compile(".*")])
@pytest.mark.parametrize("header", [b"null", b"", b"http://a b"])
def test_only_the_star_allows_what_is_no_origin(pattern: Any, header: bytes) -> None:
    assert not allows(pattern, header)
    assert allows("*", header)


@pytest.mark.parametrize(
    "pattern",
    [
        "", ".", "*.", "**", "a*b.com", "*.*", "http://", "https://example.com/path", "http://user@example.com",
        "a b", "example.com:port", "example.com:65536", "10.0.0.0/8", "[::g]", "null,", None, 7, b"example.com",
        re.compile(b"x"), "a\N{ZERO WIDTH JOINER}é.com",
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_work_is_named(pattern: Any) -> None:
    with pytest.raises(InvalidRoute, match=re.escape(repr(pattern))):
        parse_rule(pattern)


@given(SCHEME, HOST, PORT, st.integers(0))
def test_an_origin_allows_itself_whatever_its_case(scheme: str, host: str, port: int | None, mask: int) -> None:
    origin = f"{scheme}://{host}" + (f":{port}" if port else "")
    assert allows(origin, origin)
    assert allows(swapped(origin, mask), origin)
    assert allows(origin, swapped(origin, mask))
    assert str(parse_origin(str(parse_origin(origin.encode())).encode())) == str(parse_origin(origin.encode()))


@given(SCHEME, HOST, HOST, PORT, PORT)
def test_another_host_or_port_is_refused(
    scheme: str, host: str, other: str, port: int | None, wrong: int | None
) -> None:
    mine, theirs = f"{scheme}://{host}" + (f":{port}" if port else ""), f"{scheme}://{other}"
    theirs += f":{wrong}" if wrong else ""
    assume(parse_origin(mine.encode()) != parse_origin(theirs.encode()))
    assert not allows(mine, theirs)


@given(HOST, HOST)
def test_a_domain_with_a_period_means_it_and_below(domain: str, other: str) -> None:
    assert allows(f".{domain}", f"http://{domain}")
    assert allows(f".{domain}", f"http://{other}.{domain}")
    assert allows(f"*.{domain}", f"http://{other}.{domain}")
    assert not allows(f"*.{domain}", f"http://{domain}")
    assert allows(f".{domain}", f"http://{other}") == (other == domain or other.endswith(f".{domain}"))
    assert not allows(f".{domain}", f"http://{other}x{domain}") or f"{other}x{domain}".endswith(f".{domain}")


@given(st.binary())
def test_whatever_comes_is_an_origin_or_none(header: bytes) -> None:
    origin = parse_origin(header)
    assert origin is None or parse_origin(str(origin).encode()) == origin


def test_hosts_of_django_that_are_none_allow_nothing() -> None:
    example = parse_origin(b"http://example.com")
    assert [rule(example) for rule in parse_hosts(["", "10.0.0.0/8", "example.com", "other.com"])] == [True, False]
