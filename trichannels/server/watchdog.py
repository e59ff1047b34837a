"""The end of a process that does not end by itself: an application may shield itself, or hold the event loop.

A supervisor kills its workers; this is for the process that has nobody above it. It works from a thread, and is set off
in the signal handler, so that no event loop is needed.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from .contain import LOG
from .parent import MARGIN
from .signals import obeyed_signals


class Watchdog:
    """Ends the process, with exit code 1, ``margin`` seconds after the moment by which it wanted to be down."""

    def __init__(self, margin: float) -> None:
        self._margin, self._moment = margin, inf
        self._timer: threading.Timer | None = None

    def bring_to(self, seconds: float) -> None:
        """The process is to end within so many seconds; called again, that can only become less."""
        if time.monotonic() + seconds < self._moment:
            self.leave()
            self._moment = time.monotonic() + seconds
            self._timer = threading.Timer(seconds + self._margin, self._end)
            self._timer.daemon = True
            self._timer.start()

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        text = (
            "the drain time has been over for %g s: ended by force, because an application shields itself from its end"
        )
        LOG.critical(text + " or holds the event loop", self._margin)
        os._exit(1)


@contextmanager
def obeyed_at_last(stop: Callable[[float], None], drain_time: float) -> Iterator[None]:
    """As :func:`obeyed_signals`; and what still runs ``MARGIN`` seconds after the drain takes the process with it."""
    watchdog = Watchdog(MARGIN)
    try:
        with obeyed_signals(stop, drain_time, at_once=watchdog.bring_to):
            yield
    finally:
        watchdog.leave()
