"""Signals, for the command line alone: ``serve()`` inside somebody's program leaves them to that program."""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import trio

LEEWAY_AT_EXIT = 2.0  # seconds that a server may take beyond its drain, before its program ends all the same

PATIENCE_AFTER_INTERRUPT = (0.5, 0.0)
"""Seconds that the drain may take after the first and the second Ctrl-C; a third ends the process there and then."""


@contextmanager
def obeyed_signals(
    stop: Callable[[float], None], drain_time: float, *, at_once: Callable[[float], None] = lambda seconds: None
) -> Iterator[None]:
    """Call ``stop(seconds)`` in this trio run when a signal asks for it; for the main thread.

    SIGTERM gives ``drain_time``, Ctrl-C half a second, a second one none. The third needs no event loop any more: it
    ends the process also where an application's endless loop holds the thread. SIGHUP (the terminal was closed) is
    taken as SIGTERM, unless the program was started with it ignored, as nohup does. ``at_once`` is called as ``stop``
    is, but in the signal handler, whatever the event loop is at.
    """
    token = trio.lowlevel.current_trio_token()
    interrupts = 0

    def obey(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        patience = drain_time
        if number == signal.SIGINT:
            if interrupts == len(PATIENCE_AFTER_INTERRUPT):
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            patience = PATIENCE_AFTER_INTERRUPT[interrupts]
            interrupts += 1
        token.run_sync_soon(stop, patience)
        at_once(patience)

    heard = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    with _handled(dict.fromkeys(heard, obey)):
        yield


@contextmanager
def obeyed_in_worker(stop: Callable[[float], None], drain_time: float) -> Iterator[None]:
    """As :func:`obeyed_signals`, for a worker: only SIGTERM counts.

    Ctrl-C and SIGHUP reach the worker straight from the terminal, and once more through its supervisor, who alone can
    tell the first from the second.
    """
    token = trio.lowlevel.current_trio_token()

    def obey(number: int, frame: FrameType | None) -> None:
        token.run_sync_soon(stop, drain_time)

    with _handled({signal.SIGTERM: obey}):
        yield


@contextmanager
def stopped_at_exit(stop: Callable[[float], None], drain_time: float) -> Iterator[None]:
    """As :func:`obeyed_signals`, for a thread that is not the main one: when the program ends, the drain begins, and
    the program waits for it.
    """
    token, thread = trio.lowlevel.current_trio_token(), threading.current_thread()

    def at_exit() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(stop, drain_time)
            thread.join(drain_time + LEEWAY_AT_EXIT)

    atexit.register(at_exit)
    try:
        yield
    finally:
        atexit.unregister(at_exit)


def interrupts_kill() -> None:
    """From here on, while the interpreter ends, one more Ctrl-C kills: it would only leave a traceback otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def leave_interrupts_to_the_parent() -> None:
    """Let Ctrl-C and SIGHUP pass by this process. Not SIG_IGN: the programs that it starts would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)


@contextmanager
def _handled(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
