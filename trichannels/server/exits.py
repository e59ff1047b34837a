"""How a process ends: exit codes as a table, read by the command line and by both sides of a worker."""

from collections.abc import Awaitable, Callable

import trio

from ..exceptions import ConfigError, StartupFailed
from .contain import unwrapped

CLEAN = 0
CODES: dict[type[Exception], int] = {StartupFailed: 1, ConfigError: 2}
"""1: the application did not start, or did not end as it should; 2: the command line is wrong."""


def code_of(error: Exception) -> int:
    """Return the exit code that tells of ``error``."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 1)


def error_of(code: int, text: str) -> ConfigError | StartupFailed:
    """Return the error that another process reported by its code and its one line."""
    return ConfigError(text) if code == CODES[ConfigError] else StartupFailed(text)


def run_alone(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` in a trio loop of its own; the one error that ended it comes out by itself, not in a group."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        error = unwrapped(group)
        raise error from error.__cause__
