"""Ports that a server can have again after it was killed."""

import random
import socket

# Below the ports that the kernel gives to outgoing connections: one of those could take a killed server's port, and a
# client that keeps trying a free port of that range will in the end connect to itself.
LOWEST, HIGHEST = 10_000, 32_000


def free_port() -> int:
    """Return a port on which nobody listens on loopback."""
    while True:
        port = random.randrange(LOWEST, HIGHEST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
