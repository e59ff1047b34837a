"""The options of a server, checked. What they mean to hypercorn is in ``config_file``; sockets in ``listening``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, Literal, Self

from ..exceptions import ConfigError

ProxyMode = Literal["legacy", "modern"]
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Every option of ``trichannels serve``; each is also a keyword of :func:`trichannels.server.serve`.

    Durations are in seconds, sizes in bytes. A wrong value raises :class:`~trichannels.exceptions.ConfigError`, whose
    text is one line that names the option and the cure.
    """

    bind: str | tuple[str, ...] = "127.0.0.1:8000"
    """Where to listen: ``host:port`` (port 0 takes a free one), ``unix:/path`` or ``fd://N``; one or several."""
    certfile: str | None = None
    keyfile: str | None = None
    root_path: str = ""
    """The path under which a proxy mounts the application (``scope["root_path"]``)."""
    proxy_headers: ProxyMode | None = None
    """Trust X-Forwarded-* ("legacy") or Forwarded ("modern") for the client, the scheme and the host."""
    trusted_hops: int = 1
    """How many proxies stand in front: the value written by the outermost of them is taken."""
    access_log: str | None = None
    """A file, or "-" for standard output. Its logger is ``trichannels.access``."""
    error_log: str | None = None
    """A file, or "-" for standard error. Without it, records go where the program sends ``trichannels.server``."""
    log_level: str = "info"
    """The least that goes to ``error_log``: debug, info, warning, error or critical."""
    ping_interval: float = 20.0
    pong_timeout: float = 20.0
    max_message_size: int = 2**20
    """The largest WebSocket message taken from a peer; above it the socket is closed with 1009."""
    permessage_deflate: bool = False
    """Compress messages with clients that offer it (RFC 7692). ``max_message_size`` holds for what they inflate to."""
    write_timeout: float = 20.0
    """How long a peer may take no byte of what it is sent before its connection is cut."""
    write_buffer: int = 2**16
    """How much may wait for a slow peer before the application's ``send`` waits too."""
    handshake_timeout: float = 10.0
    """How long TLS, and then the first request head, may each take."""
    keep_alive_timeout: float = 5.0
    """How long an HTTP connection may idle between two requests, the next head included."""
    body_timeout: float = 60.0
    """How long a client may stall in the middle of an HTTP/1.1 request body."""
    close_timeout: float = 10.0
    """How long a peer may take to answer our close frame before its connection is cut."""
    drain_time: float = 10.0
    """How long everything may take to end once the server is told to stop."""
    startup_timeout: float = 60.0
    shutdown_timeout: float = 10.0
    """How long the application may take over ``lifespan.startup`` and ``lifespan.shutdown``."""
    backlog: int = 1024
    workers: int = 1
    """More than 1 is for the command line, which starts the processes; :func:`serve` takes only 1."""
    reload: bool = False
    """For the command line as well."""
    hypercorn: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of hypercorn's ``Config``, by their names there."""

    def __post_init__(self) -> None:
        binds = (self.bind,) if isinstance(self.bind, str) else tuple(self.bind)
        object.__setattr__(self, "bind", binds)
        for name, (check, rule) in RULES.items():
            value = getattr(self, name)
            if not check(value):
                raise ConfigError(f"{_flag(name)} {rule}, not {value!r}")
        object.__setattr__(self, "root_path", self.root_path.rstrip("/"))
        for bind in binds:
            parse_bind(bind)
        if (self.certfile is None) != (self.keyfile is None):
            given, missing = ("keyfile", "certfile") if self.certfile is None else ("certfile", "keyfile")
            raise ConfigError(f"{_flag(given)} needs {_flag(missing)} as well: TLS takes both")
        for name in ("certfile", "keyfile"):
            _check_readable(name, getattr(self, name))

    @property
    def binds(self) -> tuple[str, ...]:
        return (self.bind,) if isinstance(self.bind, str) else self.bind

    @classmethod
    def from_options(cls, options: Mapping[str, Any], base: Self | None = None) -> Self:
        """Build from a mapping of options laid over ``base``; an option that nobody knows raises ``ConfigError``."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigError(f"{_flag(name)} is not an option; the options are: {', '.join(sorted(known))}")
        start = {} if base is None else {f.name: getattr(base, f.name) for f in fields(cls)}
        return cls(**{**start, **options})

    @classmethod
    def from_hypercorn_file(cls, path: str, **options: Any) -> Self:
        """Read a hypercorn configuration file (TOML; Python if it ends in ``.py``, or behind ``file:``).

        ``options`` win over what it says.

        The file may also set options of this class by their names. Raises ``ConfigError`` if it cannot be read.
        """
        from .config_file import read_config_file

        return cls.from_options({**read_config_file(path, {f.name for f in fields(cls)}), **options})


def parse_bind(bind: str) -> tuple[str, str | int | tuple[str, int]]:
    """Return ("unix", path), ("fd", number) or ("tcp", (host, port)), or raise ``ConfigError``."""
    if isinstance(bind, str):
        if bind.startswith("unix:") and len(bind) > 5:
            return "unix", bind[5:]
        if bind.startswith("fd://") and bind[5:].isdigit():
            return "fd", int(bind[5:])
        host, colon, port = bind.rpartition(":")
        if colon and host and port.isdigit() and int(port) < 65536 and not bind.startswith(("unix:", "fd:")):
            return "tcp", (host.strip("[]"), int(port))
    raise ConfigError(f"--bind takes host:port, unix:/path or fd://N, not {bind!r}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_readable(name: str, path: str | None) -> None:
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{_flag(name)} {path}: {error.strerror}; give a file that this user may read") from error


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(value: Any) -> bool:
    return _number(value) and value > 0


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _rule(check: Callable[[Any], bool], text: str, *names: str) -> dict[str, tuple[Callable[[Any], bool], str]]:
    return dict.fromkeys(names, (check, text))


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **_rule(
        _seconds,
        "takes a number of seconds above 0",
        *("ping_interval", "pong_timeout", "write_timeout", "handshake_timeout", "keep_alive_timeout"),
        *("body_timeout", "close_timeout", "startup_timeout", "shutdown_timeout"),
    ),
    **_rule(lambda value: _number(value) and 0 <= value < inf, "takes a number of seconds, 0 or more", "drain_time"),
    **_rule(_natural, "takes a whole number above 0", "max_message_size", "write_buffer", "backlog", "workers"),
    **_rule(
        lambda value: isinstance(value, int) and value >= 0,
        "takes the number of proxies in front, 0 or more",
        "trusted_hops",
    ),
    **_rule(
        lambda value: isinstance(value, str) and value.lower() in LEVELS,
        "takes debug, info, warning, error or critical",
        "log_level",
    ),
    **_rule(lambda value: value in (None, "legacy", "modern"), 'takes "legacy" or "modern"', "proxy_headers"),
    **_rule(
        lambda value: value == "" or (isinstance(value, str) and value.startswith("/")),
        'takes a path that begins with "/"',
        "root_path",
    ),
    **_rule(
        lambda value: value is None or (isinstance(value, str) and value != ""),
        "takes the name of a file",
        *("certfile", "keyfile", "access_log", "error_log"),
    ),
    **_rule(lambda value: isinstance(value, bool), "takes true or false", "permessage_deflate"),
    **_rule(bool, "takes at least one address, such as 127.0.0.1:8000", "bind"),
}
