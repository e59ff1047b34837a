"""One connection, from its first byte to its last: TLS, then what its first bytes ask for.

A well-formed WebSocket upgrade (``head.py``) is ours at once; anything else is HTTP (``http.py``), which may become a
WebSocket later. Whatever goes wrong in here stays in here.
"""

import socket
import time
from math import inf
from typing import Any

import trio

from ..events import TRANSPORT
from .contain import LOG, contain, describe
from .ends import SocketEnd, TLSEnd
from .handshake import Upgrade, judge, websocket_scope
from .head import parse_upgrade
from .http import HTTPConnection
from .hypercorn_glue import log_access
from .listening import Listener
from .peer import Peer
from .shared import Shared
from .transport import WebSocketTransport
from .wire import Wire


class Connection:
    """One accepted socket."""

    __slots__ = ("_end", "_http", "_opening", "_secure", "_sock", "_transport", "shared")

    def __init__(self, shared: Shared, sock: socket.socket, listener: Listener) -> None:
        self.shared = shared
        self._end: SocketEnd | TLSEnd = TLSEnd(sock, listener.tls) if listener.tls else SocketEnd(sock)
        self._sock, self._secure = sock, listener.tls is not None
        self._opening: trio.CancelScope | None = None  # around TLS, and around the first bytes
        self._http: HTTPConnection | None = None
        self._transport: WebSocketTransport | None = None

    @property
    def is_websocket(self) -> bool:
        """Whether a WebSocket over HTTP/1.1 is open here."""
        return self._transport is not None

    async def run(self) -> None:
        """Serve the connection; never raises but for a cancellation (or Ctrl-C)."""
        shared, client = self.shared, None
        shared.connections.add(self)
        shared.counters.connections += 1
        try:
            addresses = self._addresses()
            if addresses is not None:
                client = addresses[0]
                await self._run(addresses)
        except BaseException as error:  # noqa: BLE001 - contain() raises what must pass
            contain(error, {"type": "connection", "client": client}, shared.counters)
        finally:
            self._end.close()
            shared.counters.connections -= 1
            shared.connections.discard(self)

    def go_away(self) -> None:
        """The server drains: close what idles, tell WebSockets to come back (1012); a request may finish."""
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.go_away()
        elif self._http is not None:
            self._http.go_away()

    def _addresses(self) -> tuple[Any, Any] | None:
        """Return the client's and our own address, or None if the client has gone before we looked."""
        try:
            return _address(self._sock.getpeername()), _address(self._sock.getsockname())
        except OSError:
            return None

    async def _run(self, addresses: tuple[Any, Any]) -> None:
        alpn = await self._shake_hands()
        if alpn is None:
            return
        settings, counters, flusher = self.shared.settings, self.shared.counters, self.shared.engine.flusher
        async with trio.open_nursery() as nursery:
            wire = Wire(
                self._end, nursery, counters, flusher, limit=settings.write_buffer, timeout=settings.write_timeout
            )
            upgrade = await self._open(wire, nursery, addresses, alpn)
            if upgrade is not None:
                peer = Peer(wire, nursery, self.shared.engine, upgrade.rest)
                try:
                    transport, scope = self._meet(wire, peer, upgrade, addresses)
                    upgrade = None
                    if transport is None:
                        await peer.gone()
                    else:
                        await self._run_application(transport, peer, scope)
                finally:
                    peer.abandon()
                if nursery.child_tasks:  # seldom; cancelling costs something even where there is nothing to cancel
                    nursery.cancel_scope.cancel()

    async def _shake_hands(self) -> str | None:
        """Return the protocol that the client wants to speak, or None if TLS came to nothing."""
        if not isinstance(self._end, TLSEnd):
            return "http/1.1"
        try:
            with trio.CancelScope(deadline=self._patience()) as self._opening:
                return await self._end.handshake() or "http/1.1"
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        return None

    async def _open(self, wire: Wire, nursery: trio.Nursery, addresses: tuple[Any, Any], alpn: str) -> Upgrade | None:
        """Return the request to become a WebSocket, be it the first or a later one; None once HTTP has ended."""
        first, deadline = b"", self._patience()
        if alpn == "http/1.1":
            with trio.CancelScope(deadline=deadline) as self._opening:
                first = await wire.read()
            self._opening = None
            upgrade = parse_upgrade(first, self.shared.config.h11_max_incomplete_size)
            if upgrade is not None:
                return upgrade
        self._http = HTTPConnection(self.shared, wire, nursery, addresses, self._secure, alpn)
        upgrade = await self._http.serve(first, deadline)
        if upgrade is not None:
            self._http = None
        return upgrade

    def _patience(self) -> float:
        """Return when TLS, or the first head, must be there; a server that drains waits for neither."""
        return -inf if self.shared.wall.draining else trio.current_time() + self.shared.settings.handshake_timeout

    def _meet(
        self, wire: Wire, peer: Peer, upgrade: Upgrade, addresses: tuple[Any, Any]
    ) -> tuple[WebSocketTransport | None, dict[str, Any]]:
        """Return the transport and the scope for an application, or no transport if the request was refused."""
        shared, started = self.shared, time.time()
        scope = websocket_scope(upgrade, secure=self._secure, root_path=shared.settings.root_path)
        scope["client"], scope["server"], scope["state"] = *addresses, shared.state.copy()
        shared.prepare(scope)

        def log(status: int) -> None:
            shared.counters.websockets_accepted += status == 101
            log_access(shared.config, scope, status, time.time() - started)

        answer = judge(upgrade, shared.config.server_names, deflate=shared.settings.permessage_deflate)
        if answer.status == 101:
            transport = WebSocketTransport(wire, peer, answer, scope, shared.wall, log)
            scope["extensions"][TRANSPORT] = transport
            return transport, scope
        wire.write_nowait(bytes(answer))
        log(answer.status)
        peer.finish()
        return None, scope

    async def _run_application(self, transport: WebSocketTransport, peer: Peer, scope: dict[str, Any]) -> None:
        shared, failed = self.shared, False
        self._transport = transport
        shared.counters.websockets += 1
        try:
            if shared.wall.draining:
                transport.go_away()
            try:
                await shared.app(scope, transport.receive, transport.send)
            except BaseException as error:  # noqa: BLE001 - contain() raises what must pass
                left = peer.ended is not None
                failed = contain(error, scope, shared.counters, left=left) is not None
            if not failed and peer.ended is None and transport.conversation.state in ("connecting", "denying"):
                shared.counters.failures += 1
                LOG.error("%s: the application returned before it accepted or refused the WebSocket", describe(scope))
            await transport.conclude(failed=failed)
        except trio.Cancelled:
            transport.go_away()  # the peer hears of it if the kernel takes the frame at once
            raise
        finally:
            transport.release()
            shared.counters.websockets -= 1
            self._transport = None


def _address(name: Any) -> tuple[str, int] | None:
    return (name[0], name[1]) if isinstance(name, tuple) else None
