"""How long to wait before what failed is tried again: one rule for connections, queues and processes."""

import random


class Backoff:
    """Pauses up to a ``limit``, which doubles from ``first`` to ``most`` seconds.

    Each is random below that (*full jitter*), so that those who lost a server together do not come back in step:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self.limit, self._most = first, first, most

    def __repr__(self) -> str:
        return f"<Backoff: up to {self.limit:g} of {self._most:g} s>"

    def next(self) -> float:
        """Return the seconds to wait now; the next pause may be twice as long."""
        pause = random.uniform(0, self.limit)  # noqa: S311 - jitter, not a secret
        self.limit = min(2 * self.limit, self._most)
        return pause

    def reset(self) -> None:
        """Begin anew with ``first``: it has worked."""
        self.limit = self._first
