"""The line between a supervisor and one worker: a socket pair that carries JSON, one message a line.

Down it goes ``{"drain": seconds}``; up come ``{"started": true}``, ``{"files": {...}}`` and ``{"failed": text,
"code": n}``. Its end tells either side that the other is gone, also after a kill -9.
"""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import trio

Message = dict[str, Any]
PATIENCE = 5.0  # seconds that the other side, if it is alive, may take to make room for a message


class Line:
    """One end. The socket stays its caller's, to close after the last use."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def tell(self, **message: Any) -> None:
        """Send, with or without an event loop: what goes here is small, or is sent while nothing else matters.

        That the other side is gone is no error here; reading tells.
        """
        self._sock.settimeout(PATIENCE)
        try:
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass
        finally:
            self._sock.setblocking(False)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the other side sends, until it is gone. Cancelling loses nothing but a half line."""
        sock, rest = trio.socket.from_stdlib_socket(self._sock), b""
        while data := await _received(sock):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


async def _received(sock: trio.socket.SocketType) -> bytes:
    try:
        return await sock.recv(2**16)
    except ConnectionResetError:
        return b""
