"""What a group's history is: how much of it is kept, where it stands, what came of a recovery. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..exceptions import InvalidChannelLayerError


@dataclass(frozen=True, slots=True)
class Position:
    """Where a group's history stands: ``offset`` counts its events from 1, ``epoch`` names the history."""

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class History:
    """How much of a group's history is kept: its last ``size`` events, until ``seconds`` have passed without a new one.

    More than ``recovery_limit`` missed events (default: ``size``) are not recovered: the answer is then
    ``recovered=False``, and whoever missed them reads the state afresh.
    """

    size: int = 1000
    seconds: float = 3600
    recovery_limit: int | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("size", int), ("seconds", (int, float)), ("recovery_limit", (int, type(None)))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or (value is not None and value <= 0):
                raise InvalidChannelLayerError(f"History({name}=…) must be a number above 0, not {value!r}")

    @property
    def limit(self) -> int:
        """How many missed events are recovered at most."""
        return self.size if self.recovery_limit is None else min(self.size, self.recovery_limit)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What joining a group came to.

    ``position``: where its history stood, None for a group without one. ``recovered``: whether all that was missed
    ``since`` the position that was given is delivered, in order, before anything newer; True if none was given.
    ``count``: how many events that were. Nothing of it is delivered where ``recovered`` is False.
    """

    group: str
    position: Position | None
    recovered: bool
    count: int = 0


def history_of(histories: Mapping[str, History], group: str) -> History | None:
    """Return the history that a group has: that of the first pattern (``fnmatch``) that fits, or None."""
    for pattern, history in histories.items():
        if fnmatchcase(group, pattern):
            return history
    return None


def checked_histories(given: Mapping[str, History] | None) -> dict[str, History]:
    """Return a layer's ``history`` option as a dict; raises :class:`InvalidChannelLayerError`."""
    if given is not None and not isinstance(given, Mapping):
        raise InvalidChannelLayerError(f"history must map group patterns to History(…), not {given!r}")
    for pattern, history in (given or {}).items():
        if not isinstance(pattern, str) or not isinstance(history, History):
            raise InvalidChannelLayerError(
                f"history[{pattern!r}] must be a History(size=…, seconds=…) under a group pattern, not {history!r}"
            )
    return dict(given or {})
