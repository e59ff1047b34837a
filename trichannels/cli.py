"""``trichannels serve | worker | dead | demo | upgrade``: from a command line to an exit code.

What these do is in ``server/`` and ``upgrade/``. Exit codes: 0 it stopped when told to; 1 the application or a worker
failed; 2 the command line is wrong. Imports are inside the functions, so that ``--help`` is quick and works without the
extra, and Ctrl-C leaves no traceback early on.
"""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .exceptions import ConfigError, StartupFailed

if TYPE_CHECKING:
    from .server.serving import Server

DEMO = "trichannels.demo.chat:application"
EXTRA = ("hypercorn", "h11", "h2", "websockets")
FOR_WORKERS = "--inherited"  # what a parent adds to the command line of its workers


class Parser(argparse.ArgumentParser):
    """Argparse, except that a mistake is one line, and that what looks like a slip is named."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "add_help": False, **options})
        self.add_argument("--help", "-h", action="help", help="show this and exit")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')} (see: {self.prog} --help)")

    def reject(self, unknown: str) -> NoReturn:
        known = [flag for action in self._actions if action.help != argparse.SUPPRESS for flag in action.option_strings]
        close = difflib.get_close_matches(unknown.partition("=")[0], known, 1)
        self.error(f"{unknown} is not known here" + (f": did you mean {close[0]}?" if close else ""))


class Version(argparse.Action):
    """``--version``: as installed, since nothing inside imports the package's face."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print("trichannels", version("trichannels"))  # noqa: T201
        parser.exit()


def number(text: str) -> int | float | str:
    """Return the number, or the text itself, which :class:`ServerConfig` then refuses by the option's own rule."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


# Titles of --help, then what belongs under each. An option whose name is a field of ServerConfig is passed to it.
NUMBER: dict[str, Any] = {"type": number, "metavar": "N"}
SECONDS = {"type": number, "metavar": "SECONDS"}
BYTES = {"type": number, "metavar": "BYTES"}
FILE = {"metavar": "FILE"}
FLAG = {"action": "store_true"}
BIND: dict[str, Any] = {
    "action": "append",
    "metavar": "ADDRESS",
    "help": "host:port (port 0 takes a free one), unix:/path or fd://N; may be repeated (default: 127.0.0.1:8000)",
}
LOG_LEVEL: dict[str, Any] = {"metavar": "LEVEL", "help": "debug, info, warning, error or critical (default: {})"}

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "where": {
        "--bind": BIND,
        "--certfile": {**FILE, "help": "TLS: the certificate and its chain, PEM"},
        "--keyfile": {**FILE, "help": "TLS: the certificate's key, PEM"},
        "--root-path": {"metavar": "PATH", "help": "the path under which a proxy mounts the application"},
        "--proxy-headers": {
            "metavar": "legacy|modern",
            "help": "believe X-Forwarded-* (legacy) or Forwarded (modern) about the client",
        },
        "--trusted-hops": {**NUMBER, "help": "how many proxies stand in front (default: 1)"},
        "--backlog": {**NUMBER, "help": "connections that may wait to be taken (default: 1024)"},
    },
    "processes": {
        "--workers": {**NUMBER, "help": "how many processes serve (default: 1); one that dies is replaced"},
        "--reload": {**FLAG, "help": "for development: start again when a file changes"},
        "--app-dir": {"metavar": "DIR", "default": ".", "help": "where MODULE is, if not here"},
        "--no-gc-tuning": {
            "action": "store_false",
            "dest": "gc_tuning",
            "default": True,
            "help": "leave the garbage collector alone",
        },
        "--config": {**FILE, "help": "a hypercorn configuration, TOML or Python; the options here win over it"},
    },
    "logs": {
        "--log-level": {**LOG_LEVEL, "help": LOG_LEVEL["help"].format("info")},
        "--access-log": {**FILE, "help": "a line for each request; - is standard output"},
        "--error-log": {**FILE, "help": "a file instead of standard error"},
    },
    "limits of a WebSocket": {
        "--ping-interval": {**SECONDS, "help": "how often to ask whether a peer is there (default: 20)"},
        "--pong-timeout": {**SECONDS, "help": "how long it may take to answer (default: 20)"},
        "--close-timeout": {**SECONDS, "help": "how long it may take to answer our close (default: 10)"},
        "--max-message-size": {**BYTES, "help": "a larger message closes the socket with 1009 (default: 1 MiB)"},
        "--permessage-deflate": {**FLAG, "help": "compress messages with clients that offer it"},
    },
    "limits of a connection": {
        "--write-timeout": {**SECONDS, "help": "a peer that takes no byte for so long is cut off (default: 20)"},
        "--write-buffer": {**BYTES, "help": "what may wait for a slow peer before send() waits (default: 64 KiB)"},
        "--handshake-timeout": {**SECONDS, "help": "for TLS, and for the first request's head (default: 10)"},
        "--keep-alive-timeout": {**SECONDS, "help": "between two requests (default: 5)"},
        "--body-timeout": {**SECONDS, "help": "for a stall in the middle of a request's body (default: 60)"},
    },
    "start and end": {
        "--startup-timeout": {**SECONDS, "help": "for the application's lifespan.startup (default: 60)"},
        "--drain-time": {**SECONDS, "help": "for everything to end once SIGTERM has come (default: 10)"},
        "--shutdown-timeout": {**SECONDS, "help": "for the application's lifespan.shutdown (default: 10)"},
    },
}


WORKER: dict[str, dict[str, Any]] = {
    "--concurrency": {**NUMBER, "help": "how many jobs of each channel run at once (default: 10)"},
    "--retries": {**NUMBER, "help": "how often a job that failed is tried again (default: 5)"},
    "--drain-time": {**SECONDS, "help": "for running jobs to end once SIGTERM has come (default: 10)"},
    "--stats": {**FLAG, "help": "show what is done, and how fast"},
}
DEAD: dict[str, dict[str, Any]] = {
    "--requeue": {"metavar": "ID", "nargs": "+", "help": "let these be tried again, or all"},
    "--discard": {"metavar": "ID", "nargs": "+", "help": "forget these, or all"},
}
QUEUE: dict[str, dict[str, Any]] = {
    "--layer": {"metavar": "ALIAS", "help": "which of the application's channel layers (default: default)"},
    "--app-dir": OPTIONS["processes"]["--app-dir"],
    "--log-level": {**LOG_LEVEL, "help": LOG_LEVEL["help"].format("info")},
}


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser, and those of its commands."""
    parser = Parser(prog="trichannels", description="Channels' architecture on structured concurrency.")
    parser.add_argument(
        "--version", action=Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve an ASGI application",
        description="Serve an ASGI application. SIGTERM drains it; Ctrl-C leaves it half a second.",
        usage="trichannels serve MODULE:APP [options]",
    )
    serve.add_argument("target", metavar="MODULE:APP", help="such as chat:application")
    serve.add_argument(FOR_WORKERS, type=_descriptors, default=(), help=argparse.SUPPRESS)
    for title, options in OPTIONS.items():
        group = serve.add_argument_group(title)
        for flag, option in options.items():
            group.add_argument(flag, **{"default": argparse.SUPPRESS, **option})
    worker = commands.add_parser(
        "worker",
        help="work on the jobs of named channels",
        description="Work on the jobs of named channels. SIGTERM drains it; Ctrl-C leaves it half a second.",
        usage="trichannels worker MODULE:APP CHANNEL... [options]",
    )
    worker.add_argument("target", metavar="MODULE:APP", help="such as thumbnails:application")
    worker.add_argument("channels", metavar="CHANNEL", nargs="+", help="such as thumbnails")
    for flag, option in {**WORKER, **QUEUE}.items():
        worker.add_argument(flag, **{"default": argparse.SUPPRESS, **option})
    dead = commands.add_parser(
        "dead",
        help="list the jobs that failed for good, let them be tried again, or forget them",
        description="List the dead letters of a named channel, let them be tried again, or forget them.",
        usage="trichannels dead MODULE:APP CHANNEL [options]",
    )
    dead.add_argument("target", metavar="MODULE:APP", help="such as thumbnails:application")
    dead.add_argument("channel", metavar="CHANNEL", help="such as thumbnails")
    for flag, option in {**DEAD, **QUEUE}.items():
        dead.add_argument(flag, **{"default": argparse.SUPPRESS, **option})
    demo = commands.add_parser("demo", help="serve the chat that comes with the package", description=DEMO)
    demo.add_argument("--bind", **{**BIND, "default": argparse.SUPPRESS})
    demo.add_argument("--log-level", default="warning", **{**LOG_LEVEL, "help": LOG_LEVEL["help"].format("warning")})
    upgrade = commands.add_parser(
        "upgrade",
        help="move a project of Django Channels here",
        description="Rewrite a project of Django Channels 2 to 4 for trichannels, and list what is left to you.",
        usage="trichannels upgrade PATH... [options]",
    )
    upgrade.add_argument("paths", metavar="PATH", nargs="+", help="files, and directories with all that is in them")
    upgrade.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything would change")
    upgrade.add_argument("--diff", action="store_true", help="change nothing; print a unified diff")
    return parser, {"serve": serve, "worker": worker, "dead": dead, "demo": demo, "upgrade": upgrade}


def _descriptors(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the program's own); returns the exit code. ``--help`` raises ``SystemExit``."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        return _complain(error, 2)
    except StartupFailed as error:
        return _complain(error, 1)
    except KeyboardInterrupt:  # no server yet that could drain, or no more
        return 0


def _complain(error: Exception, code: int) -> int:
    print("trichannels:", " ".join(str(error).split()), file=sys.stderr)  # noqa: T201
    return code


def _run(arguments: Sequence[str]) -> int:
    parser, commands = build_parser()
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands[found.command].reject(unknown[0])
    if found.command in SERVING:
        _need_the_extra()
    options = vars(found)
    return COMMANDS[options.pop("command")](options, arguments)


def _need_the_extra() -> None:
    try:
        from .server import serving  # noqa: F401
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in EXTRA:
            raise ConfigError(f"serving needs {library}: pip install 'trichannels[serve]'") from error
        raise


def _set_up_logging(level: str) -> None:
    import logging

    from .server.logs import LINE

    handler = logging.StreamHandler()
    handler.setFormatter(LINE)
    logging.basicConfig(handlers=[handler], level=level.upper())


def _serve(options: dict[str, Any], arguments: Sequence[str]) -> int:
    from .server.command import ServeCommand, python_command
    from .server.config import ServerConfig

    own = {name: options.pop(name) for name in ("target", "app_dir", "gc_tuning")}
    descriptors, file = options.pop("inherited"), options.pop("config", None)
    config = ServerConfig.from_options(options) if file is None else ServerConfig.from_hypercorn_file(file, **options)
    _set_up_logging(config.log_level)

    def worker_command(numbers: Sequence[int]) -> list[str]:
        passed = f"{FOR_WORKERS}={','.join(map(str, numbers))}"
        return python_command("trichannels", "serve", passed, *arguments[arguments.index("serve") + 1 :])

    return ServeCommand(**own, config=config, descriptors=descriptors, worker_command=worker_command).run()


def _demo(options: dict[str, Any], arguments: Sequence[str]) -> int:
    from .server.command import ServeCommand
    from .server.config import ServerConfig

    config = ServerConfig.from_options(options)
    _set_up_logging(config.log_level)
    return ServeCommand(target=DEMO, config=config, announce=_welcome).run()


def _worker(options: dict[str, Any], arguments: Sequence[str]) -> int:
    from .server.queue_command import WorkCommand

    level = _checked_level(options)
    command = WorkCommand(**options)
    _set_up_logging(level)
    return command.run()


def _dead(options: dict[str, Any], arguments: Sequence[str]) -> int:
    from .server.queue_command import DeadCommand

    level = _checked_level(options)
    command = DeadCommand(**options)
    _set_up_logging(level)
    return command.run()


def _checked_level(options: dict[str, Any]) -> str:
    from .server.config import ServerConfig

    level: dict[str, Any] = {name: options.pop(name) for name in ("log_level",) if name in options}
    return ServerConfig.from_options(level).log_level


def _welcome(server: "Server") -> None:
    print(f"The chat is on {' and '.join(server.addresses)}", "- open it in two tabs; Ctrl-C ends it", flush=True)  # noqa: T201


def _upgrade(options: dict[str, Any], arguments: Sequence[str]) -> int:
    try:
        from .upgrade.command import UpgradeCommand
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "libcst":
            raise ConfigError("upgrading needs libcst: pip install 'trichannels[upgrade]'") from error
        raise
    return UpgradeCommand(**options).run()


COMMANDS = {"serve": _serve, "worker": _worker, "dead": _dead, "demo": _demo, "upgrade": _upgrade}
SERVING = ("serve", "demo")
