"""Django's settings: the paths of layers, wherever they stand as strings, and the lists of apps."""

from collections.abc import Sequence

import libcst as cst

from ..layers.configured import RENAMED
from .calls import last_name
from .rows import Row, Whole, rows_of, with_rows
from .rule import Rule

OURS, STATICFILES = "trichannels.django", "django.contrib.staticfiles"
REPLACED = ("channels", "channels.apps.ChannelsConfig")
SERVERS = ("daphne", "daphne.apps.DaphneConfig")  # Channels 4 may be installed as its server alone


def is_apps(name: str) -> bool:
    """Say whether a setting is a list of apps: INSTALLED_APPS, or one of those that it is made of."""
    return name == "APPS" or name.endswith("_APPS")


def moved(rows: Sequence[Row]) -> Sequence[Row]:
    """Return a list of apps with ours in the place of Channels, before staticfiles; the same if there is neither."""
    names = [row.text for row in rows]
    theirs = [name for name in (*REPLACED, *SERVERS) if name in names]
    if not theirs:
        return rows
    chosen = rows[names.index(theirs[0])]
    kept = [row for row in rows if row.text not in theirs or row is chosen]
    if OURS in names:
        return [row for row in kept if row is not chosen]
    kept[kept.index(chosen)] = ours = chosen.says(OURS)
    statics = next((number for number, row in enumerate(kept) if row.text == STATICFILES), len(kept))
    if statics < kept.index(ours):
        kept.remove(ours)
        kept.insert(statics, ours)
    return kept


class Settings(Rule):
    """``CHANNEL_LAYERS`` and ``INSTALLED_APPS``."""

    words = (b"APPS", b"ChannelLayer")

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        value = original_node.evaluated_value
        if not isinstance(value, str) or value not in RENAMED:
            return updated_node
        return updated_node.with_changes(value=original_node.value.replace(value, RENAMED[value]))

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        if any(is_apps(last_name(target.target)) for target in original_node.targets):
            return updated_node.with_changes(value=self._apps(updated_node.value))
        return updated_node

    def leave_AnnAssign(self, original_node: cst.AnnAssign, updated_node: cst.AnnAssign) -> cst.AnnAssign:
        if original_node.value is not None and is_apps(last_name(original_node.target)):
            return updated_node.with_changes(value=self._apps(updated_node.value))
        return updated_node

    def leave_AugAssign(self, original_node: cst.AugAssign, updated_node: cst.AugAssign) -> cst.AugAssign:
        if is_apps(last_name(original_node.target)):
            return updated_node.with_changes(value=self._apps(updated_node.value))
        return updated_node

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:  # settings.configure(…)
        if original_node.keyword is not None and is_apps(original_node.keyword.value):
            return updated_node.with_changes(value=self._apps(updated_node.value))
        return updated_node

    def _apps(self, value: cst.BaseExpression | None) -> cst.BaseExpression | None:
        """Return a list of apps upgraded, also one that is a sum of lists."""
        if isinstance(value, cst.BinaryOperation):
            return value.with_changes(left=self._apps(value.left), right=self._apps(value.right))
        return self._list(value) if isinstance(value, cst.List | cst.Tuple) and value.elements else value

    def _list(self, whole: Whole) -> Whole:
        rows = rows_of(whole)
        new = moved(rows)
        return whole if new is rows else with_rows(whole, new)
