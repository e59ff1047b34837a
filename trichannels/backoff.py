"""How long to wait before what failed is tried again: one rule for connections, queues and processes."""

import random

MANY = 64  # failures after which the limit is not worked out any more


def limit_after(failures: int, first: float, most: float) -> float:
    """Return the longest pause after so many failures: ``first`` seconds, doubled for each, and at most ``most``."""
    return min(most, first * 2.0 ** min(failures, MANY))


def pause_after(failures: int, first: float, most: float) -> float:
    """Return the seconds to wait after so many failures: random up to their limit.

    By this *full jitter* those who lost a server together do not come back in step:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(0, limit_after(failures, first, most))  # noqa: S311 - jitter, not a secret


class Backoff:
    """The same for who counts nothing else: pauses up to a ``limit``, doubled from ``first`` to ``most`` seconds."""

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most, self._failures = first, most, 0

    def __repr__(self) -> str:
        return f"<Backoff: up to {self.limit:g} of {self._most:g} s>"

    @property
    def limit(self) -> float:
        """The longest that the next pause can be, in seconds."""
        return limit_after(self._failures, self._first, self._most)

    def next(self) -> float:
        """Return the seconds to wait now; the next pause may be twice as long."""
        pause = pause_after(self._failures, self._first, self._most)
        self._failures += 1
        return pause

    def reset(self) -> None:
        """Begin anew with ``first``: it has worked."""
        self._failures = 0
