"""A WebSocket client for live servers: trio-websocket on a stream of our own. Needs trio.

Its ``open_websocket`` leaves the socket open if the server refuses, or closes first (seen in 0.12): a leak that a test
for leaks would blame on the server.
"""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream


@asynccontextmanager
async def open_client(
    url: str,
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: list[tuple[bytes, bytes]] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = 10,
    **limits: Any,
) -> AsyncIterator[WebSocketConnection]:
    """Connect to ``ws://`` or ``wss://``; leaving the block closes the WebSocket, and the socket in any case.

    ``timeout`` bounds the handshake and the closing, each in seconds; ``limits`` are those of trio-websocket. Raises
    its ``ConnectionRejected`` if the server refuses, ``OSError`` if nobody listens, ``trio.TooSlowError`` on a timeout.
    """
    parts = urlsplit(url)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    failure: BaseException | None = None
    async with await _open_stream(str(parts.hostname), parts.port or 80, ssl_context, timeout) as stream:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(timeout):
                        connection = await wrap_client_stream(
                            nursery,
                            stream,
                            parts.netloc,
                            resource,
                            subprotocols=subprotocols,
                            extra_headers=extra_headers,
                            **limits,
                        )
                    try:
                        yield connection
                    finally:
                        with trio.move_on_after(timeout):
                            await connection.aclose()
                except BaseException as error:  # noqa: BLE001 - raised again below
                    failure = error
                nursery.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - raised again below
            # The reader's: it has cancelled the block, and is what the test must see.
            if failure is None or isinstance(failure, trio.Cancelled):
                failure = group.exceptions[0]
    if failure is not None:
        raise failure


async def _open_stream(
    host: str, port: int, ssl_context: ssl.SSLContext | None, timeout: float
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    with trio.fail_after(timeout):
        stream = await trio.open_tcp_stream(host, port)
    if ssl_context is None:
        return stream
    return trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
