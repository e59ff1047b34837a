"""The page over HTTP: what is served, with which headers, and that page and library agree."""

import re

import pytest

from trichannels.demo.chat import build
from trichannels.demo.pages import FILES
from trichannels.demo.requests import NAME_LIMIT, TEXT_LIMIT
from trichannels.exceptions import CLOSE_CODES
from trichannels.testing.http import HttpCommunicator


async def fetch(method: str, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    async with HttpCommunicator(build(), method, path) as request:
        response = await request.get_response()
    return response["status"], {name.lower(): value for name, value in response["headers"]}, response["body"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/room/lobby", b"text/html; charset=utf-8"),
        ("/chat.css", b"text/css; charset=utf-8"),
        ("/chat.js", b"text/javascript; charset=utf-8"),
        ("/icon.svg", b"image/svg+xml"),
    ],
)
async def test_serves_its_files(path: str, kind: bytes) -> None:
    status, headers, body = await fetch("GET", path)
    assert (status, headers[b"content-type"], headers[b"content-length"]) == (200, kind, b"%d" % len(body))
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert (await fetch("HEAD", path))[2] == b""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 302), ("GET", "/room/a/b", 404), ("GET", "/x", 404), ("POST", "/chat.js", 405)],
)
async def test_answers_all_else(method: str, path: str, status: int) -> None:
    assert (await fetch(method, path))[0] == status


def text_of(name: str) -> str:
    return FILES[name].decode()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name in ("page.html", "chat.css", "chat.js"):
        assert not re.search(r"""(src|href|url|import|from)\W{1,3}(https?:)?//""", text_of(name))
    assert not re.search(r"<[^>]+\s(on\w+|style)=", text_of("page.html"))  # the policy forbids both
    assert "innerHTML" not in text_of("chat.js")


def test_the_page_and_the_table_of_close_codes_agree() -> None:
    match = re.search(r"RECONNECT = \[([\d, ]+)\]", text_of("chat.js"))
    assert match
    assert sorted(map(int, match[1].split(","))) == sorted(c.code for c in CLOSE_CODES.values() if c.reconnect)


def test_the_page_and_the_server_agree_on_limits() -> None:
    page = text_of("page.html")
    assert re.search(rf'id="text"[^>]* maxlength="{TEXT_LIMIT}"', page)
    assert re.search(rf'id="name"[^>]* maxlength="{NAME_LIMIT}"', page)
