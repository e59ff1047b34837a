"""The setting ``TRICHANNELS``: a dict, of which everything is optional."""

import difflib
from dataclasses import dataclass, fields
from typing import Any, Self

from django.conf import settings

from ..exceptions import ConfigError

SETTING = "TRICHANNELS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``LANES``: threads for consumers and ``database_sync_to_async``. ``HTTP_LANES``: threads for requests.

    ``PROCESSES``: how many processes serve, for the system checks; None if that is not said. ``RECHECK``: seconds
    between two looks at the sessions and users of open sockets. ``LOOP_GUARD``: whether using the ORM in a task is an
    error on trio, as it is on asyncio.
    """

    LANES: int = 10
    HTTP_LANES: int = 10
    PROCESSES: int | None = None
    RECHECK: float = 60.0
    LOOP_GUARD: bool = True

    def __post_init__(self) -> None:
        for name in ("LANES", "HTTP_LANES", "PROCESSES"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{SETTING}[{name!r}] must be an int of at least 1, not {value!r}")
        if isinstance(self.RECHECK, bool) or not isinstance(self.RECHECK, int | float) or not self.RECHECK > 0:
            raise ConfigError(f"{SETTING}['RECHECK'] must be a number of seconds above 0, not {self.RECHECK!r}")
        if not isinstance(self.LOOP_GUARD, bool):
            raise ConfigError(f"{SETTING}['LOOP_GUARD'] must be True or False, not {self.LOOP_GUARD!r}")

    @classmethod
    def read(cls) -> Self:
        """Return what the settings say; raises :class:`ConfigError`."""
        given: Any = getattr(settings, SETTING, {})
        if not isinstance(given, dict):
            raise ConfigError(f"{SETTING} must be a dict, not {given!r}")
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(str(name).upper(), known, 1)
                raise ConfigError(
                    f"{SETTING} has no {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"it has {known}")
                )
        return cls(**given)
