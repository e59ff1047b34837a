"""``manage.py runworker CHANNEL…``: works on the jobs of named channels, by ``ASGI_APPLICATION``."""

import logging
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ....exceptions import ConfigError, StartupFailed
from ....routing import get_default_application


class Command(BaseCommand):  # type: ignore[misc, unused-ignore]
    """``trichannels worker`` for a Django project."""

    help = "Works on the jobs of named channels. SIGTERM drains it; Ctrl-C leaves it half a second."
    requires_system_checks = ()  # what is wrong is told in one line

    def add_arguments(self, parser: CommandParser) -> None:
        """As ``trichannels worker`` has them."""
        parser.add_argument("channels", nargs="+", metavar="CHANNEL", help="such as thumbnails")
        parser.add_argument("--layer", default="default", help="which of CHANNEL_LAYERS (default: default)")
        parser.add_argument("--concurrency", type=int, default=10, help="jobs of each channel at once (default: 10)")
        parser.add_argument("--retries", type=int, default=5, help="how often a failed job is tried again (default: 5)")
        parser.add_argument("--drain-time", type=float, default=10.0, help="seconds for running jobs to end")
        parser.add_argument("--stats", action="store_true", help="show what is done, and how fast")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until told to stop."""
        from ....server.queue_command import WorkCommand

        logging.getLogger("trichannels").setLevel(logging.INFO if options["verbosity"] > 0 else logging.WARNING)
        names = ("channels", "layer", "concurrency", "retries", "drain_time", "stats")
        try:
            get_default_application()  # or say what is wrong with the setting
            module, _, name = settings.ASGI_APPLICATION.rpartition(".")
            WorkCommand(target=f"{module}:{name}", **{name: options[name] for name in names}).run()
        except ConfigError as error:
            raise CommandError(str(error), returncode=2) from error
        except StartupFailed as error:
            raise CommandError(str(error)) from error
