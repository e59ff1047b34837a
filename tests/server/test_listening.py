"""Taking connections when the kernel has none to give."""

import errno
import logging
import os
import socket
from pathlib import Path

import pytest
import trio

from trichannels.exceptions import ConfigError
from trichannels.server import ServerConfig
from trichannels.server.listening import Listener, open_sockets, rights_of, take_connections

pytestmark = [pytest.mark.trio_only, pytest.mark.server, pytest.mark.usefixtures("descriptors")]


class Flaky(socket.socket):
    """A listener whose accept() fails with the errors in ``failures`` before it works."""

    failures: tuple[int, ...] = ()

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            number, *rest = self.failures
            self.failures = tuple(rest)
            raise OSError(number, "made up")
        return super().accept()


async def taken(*failures: int) -> None:
    """Accept one connection through ``failures``."""
    came = trio.Event()
    with Flaky() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        sock.failures = failures

        def take(client: socket.socket, listener: Listener) -> None:
            client.close()
            came.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_connections, Listener(sock), take)
            with socket.create_connection(sock.getsockname()), trio.fail_after(5):
                await came.wait()
            nursery.cancel_scope.cancel()


async def test_errors_of_a_peer_that_left_at_once_are_passed_over() -> None:
    await taken(errno.ECONNABORTED, errno.EPROTO, errno.EAGAIN, errno.ENETDOWN)


async def test_without_descriptors_it_waits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    await taken(errno.EMFILE, errno.EMFILE, errno.ENFILE)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_listener_that_is_none_is_an_error() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="made up")):
        await taken(errno.ENOTSOCK)


def test_addresses() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        assert Listener(sock).address == f"http://[::1]:{sock.getsockname()[1]}"


def test_hypercorns_umask_and_owner_hold_for_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o022)
    try:
        config = ServerConfig(hypercorn={"umask": 0o077, "user": os.getuid(), "group": os.getgid()})
        with open_sockets([f"unix:{path}"], 5, rights_of(config)):
            facts = path.stat()
            assert facts.st_mode & 0o777 == 0o700
            assert (facts.st_uid, facts.st_gid) == (os.getuid(), os.getgid())
    finally:
        assert os.umask(before) == 0o022
    assert not path.exists()


def test_a_umask_that_is_no_number() -> None:
    with pytest.raises(ConfigError, match=r"^umask takes a whole number, not '077'$"):
        rights_of(ServerConfig(hypercorn={"umask": "077"}))


def test_a_successors_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_sockets([f"unix:{path}"], 5):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.exists()
