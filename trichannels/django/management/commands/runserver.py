"""``manage.py runserver``: Django's, with our server, so that sockets and HTTP are served as in production."""

import os
import sys
import threading
from datetime import datetime
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections
from django.utils import autoreload

from ....exceptions import ConfigError, StartupFailed
from ....routing import get_default_application
from ...http import get_asgi_application

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand
else:
    from django.core.management.commands.runserver import Command as RunserverCommand

DRAIN_TIME = 1.0  # seconds for sockets to be closed in, when a file has changed or Ctrl-C has come


class Command(RunserverCommand):  # type: ignore[misc, unused-ignore]
    """Django's command: its options, its checks, its reloading, and another server."""

    help = "Serves the project for development, WebSockets included: ASGI_APPLICATION, or else HTTP alone."

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check, and serve until told to stop: in the main thread, or in one that the reloader ends."""
        autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()
        connections.close_all()
        try:
            self._serve(options)
        except (ConfigError, StartupFailed) as error:
            self._give_up(error)
        except KeyboardInterrupt:
            sys.exit(0)

    def _serve(self, options: dict[str, Any]) -> None:
        from ....server.config import ServerConfig
        from ....server.exits import run_alone
        from ....server.run import run_server
        from ....server.signals import obeyed_signals, stopped_at_exit

        config = ServerConfig.from_options({"bind": self._address(), "drain_time": DRAIN_TIME})
        in_main = threading.current_thread() is threading.main_thread()
        serving = partial(
            run_server,
            self.get_application(options),
            config,
            started=lambda server: self._announce(server.addresses[0]),
            obeyed=obeyed_signals if in_main else stopped_at_exit,
        )
        run_alone(serving)

    def get_application(self, options: dict[str, Any]) -> Any:
        """Return what is served: the project's application, with static files and a line for each scope."""
        from ...development import Narrator, StaticFiles

        named = getattr(settings, "ASGI_APPLICATION", None) is not None
        app = get_default_application() if named else get_asgi_application()
        if options.get("use_static_handler") and (settings.DEBUG or options.get("insecure_serving")):
            app = StaticFiles(app)
        return Narrator(app, self._line)

    def _address(self) -> str:
        host = "0.0.0.0" if self.addr == "0" else self.addr  # noqa: S104 - as Django's own
        return f"[{host}]:{self.port}" if self._raw_ipv6 or ":" in host else f"{host}:{self.port}"

    def _line(self, kind: str, text: str, who: str) -> None:
        from ...development import in_colour

        now = datetime.now().strftime("%d/%b/%Y %H:%M:%S")
        self.stderr.write(in_colour(self.style, kind, f"[{now}] {text} [{who}]"), style_func=lambda line: line)

    def _announce(self, address: str) -> None:
        self.stdout.write(
            f"{datetime.now().strftime('%B %d, %Y - %X')}\n"
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting trichannels' development server at {address}/\n"
            f"Quit the server with {'CTRL-BREAK' if sys.platform == 'win32' else 'CONTROL-C'}."
        )
        self.stdout.flush()

    def _give_up(self, error: Exception) -> None:
        text = str(error).removeprefix("--bind ")  # which is not an option here
        if threading.current_thread() is threading.main_thread():
            raise CommandError(text, returncode=2 if isinstance(error, ConfigError) else 1) from error
        self.stderr.write(f"Error: {text}")
        self.stderr.flush()
        os._exit(2 if isinstance(error, ConfigError) else 1)  # sys.exit() ends a thread alone
