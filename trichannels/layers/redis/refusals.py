"""What an error tells of what was asked for: whether it was sent at all, and whether it may succeed later. Pure."""

from ...exceptions import LayerRefused, LayerUnreachable, OutcomeUnknown

# A server that starts, fails over, is short of memory, or whose password is being changed.
PASSING = (
    "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOAUTH",
    "WRONGPASS",
)  # fmt: skip


def passing(error: LayerRefused) -> bool:
    """Say whether the same may well succeed later."""
    return error.code in PASSING


def not_sent(error: Exception | None) -> bool:
    """Say whether nothing was done, so that it may be tried again. What is of unknown outcome may have been."""
    return isinstance(error, LayerUnreachable) and not isinstance(error, OutcomeUnknown)
