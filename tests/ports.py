"""Ports that a server can have again after it was killed."""

import random
import socket

# Below the ports that the kernel gives to outgoing connections: one of those could take a killed server's port, and a
# client that keeps trying a free port of that range will in the end connect to itself.
LOWEST, HIGHEST = 10_000, 32_000


def free_port(and_above: int = 0) -> int:
    """Return a port on which nobody listens on loopback; nor on the one that is ``and_above`` higher."""
    while True:
        port = random.randrange(LOWEST, HIGHEST - and_above)
        if _is_free(port) and _is_free(port + and_above):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
