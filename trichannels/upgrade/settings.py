"""Django's settings: the paths of layers, wherever they stand as strings, and the lists of apps."""

import libcst as cst

from ..layers.configured import RENAMED
from .apps import CHANNELS, AppLists
from .elsewhere import OURS, STATICFILES, THEIRS
from .rows import Row, Whole, rows_of, taken_out, with_rows
from .rule import Rule, text_of


def moved(rows: list[Row]) -> list[Row]:
    """Return a list of apps with ours in the place of Channels, before staticfiles; others of theirs stay."""
    names = [row.text for row in rows]
    place = next(names.index(name) for name in (OURS, *CHANNELS, *THEIRS) if name in names)
    statics = next((number for number, name in enumerate(names) if name == STATICFILES), len(names))
    ours = rows[place] if names[place] == OURS else rows[place].says(OURS)
    others = [*rows[:place], *rows[place + 1 :]]
    to = statics if statics < place and names[place] != OURS else place
    return [*others[:to], ours, *others[to:]]


class Settings(Rule):
    """``CHANNEL_LAYERS`` and ``INSTALLED_APPS``."""

    words = (b"APPS", b"ChannelLayer")

    def visit_Module(self, node: cst.Module) -> None:
        apps = AppLists(self.path)
        node.visit(apps)
        self.plan = apps.plan()

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        value = text_of(original_node)
        if value not in RENAMED:
            return updated_node
        return updated_node.with_changes(value=original_node.value.replace(value, RENAMED[value]))

    def leave_List(self, original_node: cst.List, updated_node: cst.List) -> cst.BaseExpression:
        return self._apps(original_node, updated_node)

    def leave_Tuple(self, original_node: cst.Tuple, updated_node: cst.Tuple) -> cst.BaseExpression:
        return self._apps(original_node, updated_node)

    def _apps(self, old: Whole, whole: Whole) -> Whole:
        ours = self.plan.get(old)
        if ours is None:
            return whole
        before = rows_of(whole)
        rows = moved(before) if ours else before
        gone = [row for row in rows if row.text in THEIRS or (row.text == OURS and not ours)]
        return with_rows(whole, *taken_out(rows, gone)) if gone or rows != before else whole
