"""The Django app: ``INSTALLED_APPS = ["trichannels.django", …]``. What is set up for a whole project, and when."""

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from .. import status  # noqa: F401 - which answers on the control channel
from ..bridge import surround_with
from ..control import controlled
from ..db import DjangoHooks, install_async_orm, install_loop_guard
from ..exceptions import ConfigError
from ..layers.configured import forget_layers
from ..layers.host import COMPANIONS
from .checks import ALL, check_limits
from .options import Options


class TrichannelsConfig(AppConfig):  # type: ignore[misc, unused-ignore]
    """Installs the loop guard, the async ORM on trio, the checks, and what closes the sockets of who logs out."""

    name = "trichannels.django"
    label = "trichannels"
    verbose_name = "trichannels"

    def ready(self) -> None:
        """Set up; Django calls it once."""
        for check, when in ALL:
            checks.register(check, "trichannels", **when)
        checks.register(check_limits, checks.Tags.database)
        try:
            options = Options.read()
        except ConfigError:  # the check E007 tells, in one line
            options = Options()
        surround_with(DjangoHooks, options.LANES)
        install_async_orm()
        if options.LOOP_GUARD:
            install_loop_guard()
        setting_changed.connect(_setting_changed, dispatch_uid="trichannels")
        if controlled not in COMPANIONS:
            COMPANIONS.append(controlled)
        self._watch_users(options.RECHECK)

    def _watch_users(self, recheck: float) -> None:
        from django.apps import apps

        if apps.is_installed("django.contrib.auth"):
            from ..revocation import connect_signals, recheck_every

            connect_signals()
            recheck_every(recheck)


def _setting_changed(*, setting: str, **more: Any) -> None:
    if setting == "CHANNEL_LAYERS":
        forget_layers()
