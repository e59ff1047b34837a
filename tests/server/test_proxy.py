"""What trusted proxies say."""

from typing import Any

import pytest

from trichannels.server.proxy import apply_proxy_headers


def scope(*headers: tuple[bytes, bytes], kind: str = "http") -> dict[str, Any]:
    scheme = {"http": "http", "websocket": "ws"}[kind]
    return {"type": kind, "client": ("10.0.0.1", 5), "scheme": scheme, "headers": [(b"host", b"inside"), *headers]}


def applied(given: dict[str, Any], mode: str | None, hops: int = 1) -> tuple[Any, str, list[bytes]]:
    apply_proxy_headers(given, mode, hops)
    return given["client"], given["scheme"], [value for name, value in given["headers"] if name == b"host"]


UNTOUCHED = ("10.0.0.1", 5), "http", [b"inside"]
LEGACY = (
    (b"X-Forwarded-For", b"6.6.6.6, 1.2.3.4"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"chat.example"),
)


def test_nothing_is_trusted_unless_asked() -> None:
    assert applied(scope(*LEGACY), None) == UNTOUCHED
    assert applied(scope(*LEGACY), "legacy", 0) == UNTOUCHED


def test_legacy_headers() -> None:
    assert applied(scope(*LEGACY), "legacy") == (("1.2.3.4", 0), "https", [b"chat.example"])
    assert applied(scope(*LEGACY), "legacy", 2) == (("6.6.6.6", 0), "http", [b"inside"])
    assert applied(scope(*LEGACY), "legacy", 3) == UNTOUCHED


def test_websockets_get_their_own_schemes() -> None:
    assert applied(scope(*LEGACY, kind="websocket"), "legacy")[1] == "wss"
    plain = scope((b"forwarded", b"proto=http"), kind="websocket")
    assert applied(plain, "modern")[1] == "ws"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"for=1.2.3.4", ("1.2.3.4", 0)),
        (b'for="1.2.3.4:56"', ("1.2.3.4", 56)),
        (b'For="[2001:db8::1]:47"; by=x', ("2001:db8::1", 47)),
        (b"for=2001:db8::1", ("2001:db8::1", 0)),
        (b"for=9.9.9.9, for=_hidden", ("_hidden", 0)),
        (b"proto=https", ("10.0.0.1", 5)),
    ],
)
def test_modern_header(value: bytes, client: tuple[str, int]) -> None:
    assert applied(scope((b"forwarded", value)), "modern")[0] == client


def test_modern_falls_back_to_legacy() -> None:
    assert applied(scope(*LEGACY), "modern") == (("1.2.3.4", 0), "https", [b"chat.example"])
