"""Errors that a server answers with, and whether they go away by themselves. Pure."""

from ...exceptions import LayerRefused

# A server that starts, fails over, is short of memory, or whose password is being changed.
PASSING = (
    "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOAUTH",
    "WRONGPASS",
)  # fmt: skip


def passing(error: LayerRefused) -> bool:
    """Say whether the same may well succeed later."""
    return error.code in PASSING
