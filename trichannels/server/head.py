"""The head of a WebSocket upgrade over HTTP/1.1, as a browser or a proxy writes it. Pure: no I/O.

Whatever is not exactly that is not taken, and goes to h11 with the bytes that were read: there every other request is
served, and what is wrong is refused. So nothing may be taken here that h11 would refuse, or would read otherwise.
"""

import re

from .handshake import Upgrade

MOST_HEADERS = 100

REQUEST = re.compile(rb"GET ([\x21-\x7e]+) HTTP/1\.1\r\n")
# Each match is one whole line: nothing that ends a line may be in a name or in a value. Possessive, lest many spaces
# before a bad byte take a time that grows with their square.
HEADER = re.compile(rb"^([-!#$%&'*+.^_`|~0-9a-zA-Z]++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.MULTILINE)
UPGRADE = re.compile(rb"(?:.*,)?[ \t]*upgrade[ \t]*(?:,.*)?", re.IGNORECASE)

NEEDED = (b"host", b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version")
# Headers of a body, and of what h11 does of its own accord.
FOREIGN = frozenset({b"content-length", b"transfer-encoding", b"trailer", b"expect"})
# The names that nearly every request has are kept once, not once a connection.
COMMON = (
    *("Host", "Connection", "Upgrade", "Origin", "Cookie", "Authorization", "User-Agent", "Pragma", "Cache-Control"),
    *("Accept", "Accept-Encoding", "Accept-Language", "Referer", "DNT", "Sec-GPC", "Priority", "Forwarded", "Via"),
    *("Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
    *("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"),
    *("X-Forwarded-Port", "X-Real-IP", "X-Request-ID"),
)
NAMES = {
    spelling: lower
    for name in COMMON
    for lower in [name.lower().encode()]
    for spelling in (name.encode(), lower, lower.title())
}


def parse_upgrade(data: bytes, most_bytes: int) -> Upgrade | None:
    """Return the upgrade request with which ``data`` begins; None if it begins with anything else.

    Also None: a head that is incomplete, larger than ``most_bytes``, of too many headers, or with one that is repeated.
    """
    end = data.find(b"\r\n\r\n") + 4
    request = REQUEST.match(data)
    if request is None or not 4 <= end <= most_bytes:
        return None
    found = HEADER.findall(data[request.end() : end - 2])
    headers = [(NAMES.get(name) or name.lower(), value.rstrip(b" \t")) for name, value in found]
    said = dict(headers)
    if len(headers) != data.count(b"\n", request.end(), end - 2) or not len(said) == len(headers) <= MOST_HEADERS:
        return None
    if not FOREIGN.isdisjoint(said) or not all(name in said for name in NEEDED):
        return None
    if said[b"upgrade"].lower() != b"websocket" or not UPGRADE.fullmatch(said[b"connection"]):
        return None
    return Upgrade(target=request[1], headers=headers, http_version="1.1", rest=data[end:])
