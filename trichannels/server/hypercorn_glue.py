"""The only file that imports hypercorn. What it leans on is not hypercorn's public API: the minor version is pinned,
and ``tests/server/test_hypercorn_internals.py`` says in plain words which part changed if one does.

hypercorn gives us its configuration, TLS context, access log, and its HTTP/1.1 and HTTP/2 protocols, behind one object
per connection (``ProtocolWrapper``). We bring the socket, the tasks and the applications.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import randint
from typing import Any, Protocol

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext

from ..exceptions import ConfigError
from .config import ServerConfig
from .handshake import Upgrade, is_upgrade

__all__ = ["Closed", "Config", "Event", "HTTPProtocol", "RawData", "Updated", "UpgradeRequested", "WorkerContext"]

# Our options, where hypercorn has one of the same meaning: its file may set them by its name.
NAMES = {
    "accesslog": "access_log",
    "errorlog": "error_log",
    "graceful_timeout": "drain_time",
    "ssl_handshake_timeout": "handshake_timeout",
    "websocket_max_message_size": "max_message_size",
    "websocket_ping_interval": "ping_interval",
    "use_reloader": "reload",
}


class UpgradeRequested(Exception):
    """The client asks for a WebSocket over HTTP/1.1: hypercorn is done with this connection."""

    def __init__(self, upgrade: Upgrade) -> None:
        super().__init__("upgrade")
        self.upgrade = upgrade


class Spawner(Protocol):
    """What hypercorn's protocols call to run applications and helpers; ``http.py`` has ours."""

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]: ...

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None: ...


class _H11(H11Protocol):
    """hypercorn's HTTP/1.1, except that it hands over where it would begin a WebSocket of its own."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers, version = list(request.headers), request.http_version.decode()
        if is_upgrade(request.method, headers, version):
            rest = bytes(self.connection.trailing_data[0])
            raise UpgradeRequested(Upgrade(target=request.target, headers=headers, http_version=version, rest=rest))
        await super()._create_stream(request)


class HTTPProtocol(ProtocolWrapper):
    """hypercorn's side of one connection. ``handle`` raises :class:`UpgradeRequested` for a WebSocket upgrade."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if isinstance(self.protocol, H11Protocol):
            self.protocol = _H11(*args[:9])

    @property
    def awaits_body(self) -> bool:
        """Whether an HTTP/1.1 request has begun whose body has not ended."""
        connection = getattr(self.protocol, "connection", None)
        return isinstance(connection, h11.Connection) and connection.their_state is h11.SEND_BODY


def hypercorn_config(settings: ServerConfig, log: logging.Logger, access: logging.Logger | None) -> Config:
    """Return hypercorn's configuration for ours; raises ``ConfigError`` if a setting is unknown to it."""
    config = Config()
    for name, value in settings.hypercorn.items():
        _check_known(name)
        setattr(config, name, value)
    config.errorlog, config.accesslog = log, access
    config.certfile, config.keyfile = settings.certfile, settings.keyfile
    config.root_path, config.bind = settings.root_path, list(settings.binds)
    config.websocket_max_message_size = settings.max_message_size
    config.websocket_ping_interval = settings.ping_interval
    config.keep_alive_timeout = settings.keep_alive_timeout
    return config


def worker_context(config: Config) -> WorkerContext:
    """Return what hypercorn's protocols share in a process: whether it drains, and how many requests it has left."""
    limit = config.max_requests
    return WorkerContext(None if limit is None else limit + randint(0, config.max_requests_jitter))  # noqa: S311


def log_access(config: Config, scope: Any, status: int, seconds: float) -> None:
    """Write the access log's line for a WebSocket's handshake, as hypercorn writes those for HTTP."""
    log = config.log
    if log.access_logger is not None:
        log.access_logger.info(log.access_log_format, log.atoms(scope, {"status": status, "headers": []}, seconds))


def _check_known(name: str) -> None:
    if name.startswith("_") or (not hasattr(Config, name) and name not in Config.__annotations__):
        raise ConfigError(f"hypercorn has no setting {name!r}: take it out of the configuration")


def read_config_file(path: str, own: set[str]) -> dict[str, Any]:
    """Return the options that a configuration file sets, ours by our names, hypercorn's others under "hypercorn"."""
    if path.removeprefix("file:").endswith(".toml"):
        return _sorted_out(_read_toml(Path(path)), own)
    names = {name for name in dir(Config) if not name.startswith("_")} | own
    found = {name: value for name, value in _read_python(path.removeprefix("file:")).items() if name in names}
    return _sorted_out(found, own)


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; give a file that this user may read") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {path}: not valid TOML: {error}") from error


def _read_python(path: str) -> dict[str, Any]:
    import runpy

    try:
        return runpy.run_path(path)
    except OSError as error:
        raise ConfigError(
            f"--config {path}: {error.strerror}; give a .toml or .py file that this user may read"
        ) from error
    except Exception as error:
        raise ConfigError(f"--config {path}: {type(error).__name__}: {error}") from error


def _sorted_out(found: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in found.items():
        name = NAMES.get(name, name)
        if name in own:
            ours[name] = tuple(value) if isinstance(value, list) else value
        else:
            _check_known(name)
            rest[name] = value
    if ours.get("ping_interval", 0) is None:
        del ours["ping_interval"]
    return {**ours, "hypercorn": rest}
