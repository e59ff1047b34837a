"""Where a server's log records go while it runs. Without options, the program's own logging is left alone."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..events import printable
from ..exceptions import ConfigError
from .config import ServerConfig
from .contain import LOG

ACCESS = logging.getLogger("trichannels.access")
LINE = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


class OneLine(logging.Formatter):
    """For what clients have written, such as paths: no line break in them begins another line, nothing is obeyed."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


ACCESS_LINE = OneLine("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


@contextmanager
def open_logs(settings: ServerConfig) -> Iterator[logging.Logger | None]:
    """Send the logs where the options say; yields the access logger if one is wanted. Undone when the block ends."""
    with ExitStack() as opened:
        if settings.error_log is not None:
            opened.enter_context(_directed(LOG, settings.error_log, "error_log", settings.log_level))
        if settings.access_log is None:
            yield None
        else:
            opened.enter_context(_directed(ACCESS, settings.access_log, "access_log", "info"))
            yield ACCESS


@contextmanager
def _directed(logger: logging.Logger, target: str, option: str, level: str) -> Iterator[None]:
    handler = _handler(target, option)
    handler.setFormatter(ACCESS_LINE if logger is ACCESS else LINE)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])  # not by the attribute: loggers remember what is enabled
        logger.propagate = before[1]
        handler.close()


def _handler(target: str, option: str) -> logging.Handler:
    if target == "-":
        return logging.StreamHandler(sys.stdout if option == "access_log" else sys.stderr)
    try:
        return logging.FileHandler(target)
    except OSError as error:
        flag = "--" + option.replace("_", "-")
        raise ConfigError(f"{flag} {target}: {error.strerror}; give a file that this user may write, or -") from error
