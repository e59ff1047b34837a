"""What ``trichannels serve`` does once its command line is understood: one process, several, or one that reloads."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..events import ASGIApp
from ..exceptions import ConfigError
from .child import Command
from .config import ServerConfig
from .exits import CLEAN, run_alone
from .listening import open_sockets, rights_of
from .load import load_app, require_shared_layers
from .logs import open_logs
from .parent import Parent
from .reload import Reloader
from .run import run_server, tune_gc
from .serving import Server
from .signals import interrupts_kill
from .supervisor import Supervisor
from .watchdog import obeyed_at_last
from .worker import work


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """A command line, understood. ``run`` raises :class:`ConfigError` and :class:`StartupFailed`, each one line."""

    target: str
    config: ServerConfig
    app_dir: str = "."
    gc_tuning: bool = True
    announce: Callable[[Server], None] = lambda server: None
    worker_command: Command = lambda descriptors: ()
    """The command line of a worker that inherits these descriptors."""
    descriptors: Sequence[int] = ()
    """Those that were inherited, in a worker."""

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        if self.descriptors:
            return work(self.load, self.config, self.descriptors, self.started)
        if self.config.reload or self.config.workers > 1:
            self._hold_workers()
        else:
            run_alone(partial(run_server, self.load(), self.config, started=self.started, obeyed=obeyed_at_last))
        interrupts_kill()
        return CLEAN

    def load(self) -> ASGIApp:
        app = load_app(self.target, self.app_dir)
        require_shared_layers(app, self.config.workers)
        return app

    def started(self, server: Server) -> None:
        """Called once connections are taken."""
        if self.gc_tuning:
            tune_gc()
        self.announce(server)

    def _hold_workers(self) -> None:
        config = self.config
        _check_workers(config)
        with open_logs(config), open_sockets(config.binds, config.backlog, rights_of(config)) as sockets:
            parent: Parent = (
                Reloader(self.worker_command, sockets, config.drain_time, self.app_dir)
                if config.reload
                else Supervisor(self.worker_command, sockets, config.drain_time, config.workers)
            )
            run_alone(parent.run)


def _check_workers(config: ServerConfig) -> None:
    if config.reload and config.workers > 1:
        raise ConfigError("--reload is for one worker: leave out --workers, or --reload")
    if config.hypercorn.get("insecure_bind"):
        raise ConfigError("insecure_bind is for one process: leave out --workers and --reload, or put a proxy in front")


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs ``module`` under this very Python, with its own options (-X, -W, -O)."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-m", module, *arguments]
