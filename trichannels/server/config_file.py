"""hypercorn's settings: which of them are ours by another name, which mean nothing here, and reading its files."""

import logging
from collections.abc import Mapping
from inspect import isroutine
from pathlib import Path
from typing import Any

from ..exceptions import ConfigError
from .config import ServerConfig
from .hypercorn_glue import Config

# Our options, where hypercorn has one of the same meaning: its file may set them by its name.
NAMES = {
    "accesslog": "access_log",
    "errorlog": "error_log",
    "graceful_timeout": "drain_time",
    "loglevel": "log_level",
    "ssl_handshake_timeout": "handshake_timeout",
    "websocket_max_message_size": "max_message_size",
    "websocket_ping_interval": "ping_interval",
    "use_reloader": "reload",
}
# What we do not do, and what to do instead. Refused unless it says what holds anyhow, lest somebody relies on it.
WITHOUT = {
    "application_path": "name the application on the command line",
    "daemon": "let a service manager run it in the background",
    "debug": "use --log-level debug",
    "dogstatsd_tags": "there is no statsd client here: read Server.statistics()",
    "max_app_queue_size": "the queues have bounds of their own",
    "pid_path": "let a service manager keep the process id",
    "quic_bind": "HTTP/3 is not served: put a proxy in front",
    "read_timeout": "use handshake_timeout, keep_alive_timeout and body_timeout",
    "statsd_host": "there is no statsd client here: read Server.statistics()",
    "statsd_prefix": "there is no statsd client here: read Server.statistics()",
    "worker_class": 'every worker is "trio"',
    "wsgi_max_body_size": "WSGI is not served",
}
KINDS: dict[type, str] = {int: "a whole number", bool: "true or false", str: "a string", list: "a list"}
HOLDS: dict[str, Any] = {name: getattr(Config, name, None) for name in WITHOUT} | {"worker_class": "trio"}


def hypercorn_config(settings: ServerConfig, log: logging.Logger, access: logging.Logger | None) -> Config:
    """Return hypercorn's configuration for ours; raises ``ConfigError`` if a setting is unknown, or wrong."""
    config = Config()
    config.errorlog, config.accesslog = log, access
    for name, value in settings.hypercorn.items():
        check_setting(name, value)
        setattr(config, name, value)
    config.certfile, config.keyfile = settings.certfile, settings.keyfile
    config.root_path, config.bind = settings.root_path, list(settings.binds)
    config.websocket_max_message_size = settings.max_message_size
    config.websocket_ping_interval = settings.ping_interval
    config.keep_alive_timeout = settings.keep_alive_timeout
    try:
        _ = config.log  # applies logconfig: now, and not at the first request
    except Exception as error:
        raise ConfigError(f"logconfig: {type(error).__name__}: {error}") from error
    return config


def _is_setting(name: str) -> bool:
    found = getattr(Config, name, None)
    if name.startswith("_") or isroutine(found) or (isinstance(found, property) and found.fset is None):
        return False
    return hasattr(Config, name) or name in Config.__annotations__


def check_setting(name: str, value: object) -> None:
    """Raise ``ConfigError`` if hypercorn has no such setting, or it would have no effect here, or not that type."""
    if not _is_setting(name):
        raise ConfigError(f"hypercorn has no setting {name!r}: take it out of the configuration")
    if name in WITHOUT and value != HOLDS[name] and value != []:
        raise ConfigError(f"{name} has no effect here: take it out of the configuration; {WITHOUT[name]}")
    kind = type(getattr(Config, name, None))
    if kind in KINDS and type(value) is not kind:
        raise ConfigError(f"{name} takes {KINDS[kind]}, not {value!r}")


def read_config_file(path: str, own: set[str]) -> dict[str, Any]:
    """Return the options that a configuration file sets, ours by our names, hypercorn's others under "hypercorn"."""
    if not path.startswith("file:") and not path.endswith(".py"):
        return _sorted_out(_read_toml(Path(path)), own)
    found = _read_python(path.removeprefix("file:"))
    return _sorted_out({name: value for name, value in found.items() if name in own or _is_setting(name)}, own)


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; give a file that this user may read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not valid TOML: {error}") from error


def _read_python(path: str) -> dict[str, Any]:
    import runpy

    try:
        return runpy.run_path(path)
    except OSError as error:
        raise ConfigError(
            f"--config {path}: {error.strerror}; give a TOML or .py file that this user may read"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--config {path}: {type(error).__name__}: {error}") from error


def _sorted_out(found: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in found.items():
        name = NAMES.get(name, name)
        if name in own:
            ours[name] = tuple(value) if isinstance(value, list) else value
        else:
            check_setting(name, value)
            rest[name] = value
    if ours.get("ping_interval", 0) is None:
        del ours["ping_interval"]
    return {**ours, "hypercorn": rest}
