"""Opening the sockets that a server listens on, and taking connections from them; what these do is elsewhere."""

import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ..exceptions import ConfigError
from .config import ServerConfig, parse_bind

LOG = logging.getLogger("trichannels.server")
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
OURS = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}  # the listener is none; else the peer's trouble
PAUSE = 0.1  # seconds to wait when the process has no descriptor left for another connection
BATCH = 64  # connections taken from a listener before other tasks run
CURES = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another port (0 takes a free one)",
    errno.EACCES: "this user may not listen there: choose a port above 1023, or a directory it may write to",
    errno.EADDRNOTAVAIL: "this machine has no such address: try 127.0.0.1 or 0.0.0.0",
    errno.EBADF: "no such descriptor is open: pass the number of a listening socket that this process inherited",
    errno.ENOTSOCK: "that descriptor is not a socket: pass the number of a listening socket",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket, with its TLS context if it has one."""

    sock: socket.socket
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        """``http://127.0.0.1:8000`` with the real port, or ``unix:/path``."""
        name = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return f"unix:{name}"
        host = f"[{name[0]}]" if self.sock.family == socket.AF_INET6 else name[0]
        return f"{'https' if self.tls else 'http'}://{host}:{name[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who may connect to a unix socket: its file's mode and owner, as hypercorn's settings of these names say."""

    umask: int | None = None
    user: int | None = None
    group: int | None = None

    @contextmanager
    def applied(self, path: str) -> Iterator[None]:
        """Make the file inside this block."""
        before = None if self.umask is None else os.umask(self.umask)
        try:
            yield
        finally:
            if before is not None:
                os.umask(before)
        if self.user is not None or self.group is not None:
            os.chown(path, -1 if self.user is None else self.user, -1 if self.group is None else self.group)


NO_RIGHTS = Rights()


def rights_of(settings: ServerConfig) -> Rights:
    """Return what hypercorn's settings say of unix sockets; raises :class:`ConfigError` if one is no number."""
    found = {name: settings.hypercorn.get(name) for name in ("umask", "user", "group")}
    for name, value in found.items():
        if value is not None and type(value) is not int:
            raise ConfigError(f"{name} takes a whole number, not {value!r}")
    return Rights(**found)


@contextmanager
def open_sockets(binds: Sequence[str], backlog: int, rights: Rights = NO_RIGHTS) -> Iterator[list[socket.socket]]:
    """Listen on each address; leaving the block closes all and removes the files of unix sockets.

    Raises :class:`ConfigError` with the address and the cure. A worker's parent may use this block, and give the
    sockets to ``serve(sockets=...)``, or their numbers as ``fd://N``.
    """
    with ExitStack() as opened:
        sockets = []
        for bind in binds:
            kind, where = parse_bind(bind)
            try:
                sock = opened.enter_context(OPENERS[kind](where, rights))
                sock.setblocking(False)
                sock.listen(backlog)
            except (OSError, OverflowError) as error:
                number = error.errno if isinstance(error, OSError) else None
                cure = CURES.get(number or 0, getattr(error, "strerror", None) or str(error))
                raise ConfigError(f"--bind {bind}: {cure}") from error
            if kind == "unix":
                opened.callback(_unlink_own, str(where), Path(str(where)).stat().st_ino)
            sockets.append(sock)
        yield sockets


def _open_tcp(where: tuple[str, int], rights: Rights) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_unix(path: str, rights: Rights) -> socket.socket:
    # A socket file that a killed server left behind is in the way; a living server's is taken over, as hypercorn does.
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
            Path(path).unlink()
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with rights.applied(path):
            sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_descriptor(number: int, rights: Rights) -> socket.socket:
    # A copy: the block closes what it opened, and the caller keeps its own.
    return socket.socket(fileno=os.dup(number))


OPENERS: dict[str, Callable[..., socket.socket]] = {"tcp": _open_tcp, "unix": _open_unix, "fd": _open_descriptor}


def _unlink_own(path: str, inode: int) -> None:
    """Remove the socket's file, unless a successor has put its own there."""
    try:
        if Path(path).stat().st_ino == inode:
            Path(path).unlink()
    except FileNotFoundError:
        pass


async def take_connections(listener: Listener, take: Callable[[socket.socket, Listener], None]) -> None:
    """Hand every new connection to ``take``, non-blocking, until cancelled; the listener itself stays open."""
    starved = False
    while True:
        await trio.lowlevel.wait_readable(listener.sock)
        try:
            for _ in range(BATCH):
                take(_tuned(listener.sock.accept()[0]), listener)
                starved = False
        except OSError as error:
            if error.errno in OURS:
                raise
            if error.errno in OUT_OF_RESOURCES:
                if not starved:
                    LOG.warning("cannot take connections for now: %s", error.strerror)
                starved = True
                await trio.sleep(PAUSE)


def _tuned(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:  # the peer has reset it already; reading will tell
            pass
    return sock
