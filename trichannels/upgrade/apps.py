"""Which of a file's lists of apps end in the same INSTALLED_APPS, and which one of them is to have our app.

Django refuses an app that is there twice. Nothing is changed here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import libcst as cst
from libcst.helpers import get_full_name_for_node

from .elsewhere import OURS, STATICFILES, THEIRS, has_app, is_apps, module_file
from .rows import Whole
from .rule import last_name, text_of, within

Outside: TypeAlias = frozenset[bool | None]  # do other files bring one; None where that cannot be seen
CHANNELS = ("channels", "channels.apps.ChannelsConfig")
WRAPPERS = ("list", "tuple")


@dataclass(frozen=True, slots=True)
class Apps:
    """What a list of apps is made of: lists that name Channels or us, and lists of other files."""

    lists: tuple[Whole, ...] = ()
    outside: Outside = frozenset()
    is_whole: bool = False  # it is an INSTALLED_APPS, and not only a part of one

    def __add__(self, other: "Apps") -> "Apps":
        return Apps((*self.lists, *other.lists), self.outside | other.outside, self.is_whole or other.is_whole)


class AppLists(cst.CSTVisitor):
    """Looks through the file at ``path``; then :meth:`plan` tells what is to become of its lists."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.now: dict[str, Apps] = {}  # what names stand for, down to here
        self.sums: list[Apps] = []  # one for each INSTALLED_APPS, or part of it
        self.classes: set[str] = set()
        self.imported: dict[str, str] = {}  # name: module; and "*module" for a star

    def plan(self) -> dict[Whole, bool]:
        """Return for each list whether it is to have our app, or none; those that stay as they are are left out."""
        plan: dict[Whole, bool] = {}
        joined = [apps for apps in _joined(self.sums) if apps.lists]
        parts = [apps for apps in joined if not apps.is_whole]  # of several, another file makes who knows what
        for apps in joined if len(parts) < 2 else [apps for apps in joined if apps.is_whole]:
            if True in apps.outside:
                plan |= dict.fromkeys(apps.lists, False)
            elif None not in apps.outside:
                plan |= dict.fromkeys(apps.lists, False) | {keeper(apps.lists): True}
        return plan

    # ---- looking

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        module = "." * len(node.relative) + ((node.module and get_full_name_for_node(node.module)) or "")
        if isinstance(node.names, cst.ImportStar):
            self.imported[f"*{module}"] = module
            return
        for alias in node.names:
            self.imported[alias.evaluated_alias or alias.evaluated_name] = module

    def visit_Import(self, node: cst.Import) -> None:
        for alias in node.names:
            self.imported[alias.evaluated_alias or alias.evaluated_name.partition(".")[0]] = alias.evaluated_name

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.classes.add(node.name.value)

    def leave_Assign(self, original_node: cst.Assign) -> None:
        for target in original_node.targets:
            self._is_now(last_name(target.target), self._parts(original_node.value))

    def leave_AnnAssign(self, original_node: cst.AnnAssign) -> None:
        if original_node.value is not None:
            self._is_now(last_name(original_node.target), self._parts(original_node.value))

    def leave_AugAssign(self, original_node: cst.AugAssign) -> None:
        self._grows(original_node.target, original_node.value)

    def leave_Call(self, original_node: cst.Call) -> None:
        func = original_node.func
        if isinstance(func, cst.Attribute) and func.attr.value == "extend" and len(original_node.args) == 1:
            self._grows(func.value, original_node.args[0].value)

    def leave_Arg(self, original_node: cst.Arg) -> None:  # settings.configure(INSTALLED_APPS=…)
        if original_node.keyword is not None:
            self._sum(original_node.keyword.value, self._parts(original_node.value))

    def _is_now(self, name: str, apps: Apps) -> None:
        self.now[name] = self._sum(name, apps)

    def _grows(self, target: cst.BaseExpression, value: cst.BaseExpression) -> None:
        if is_apps(last_name(target)):
            self._is_now(last_name(target), self._named(target) + self._parts(value))

    def _sum(self, name: str, apps: Apps) -> Apps:
        if is_apps(name):
            apps = replace(apps, is_whole=apps.is_whole or name == "INSTALLED_APPS")
            self.sums.append(apps)
        return apps

    def _parts(self, value: cst.BaseExpression) -> Apps:
        """Return what an expression is made of, as far as it adds up lists."""
        if isinstance(value, cst.BinaryOperation):
            return self._parts(value.left) + self._parts(value.right)
        if isinstance(value, cst.List | cst.Tuple):
            starred = (self._parts(one.value) for one in value.elements if isinstance(one, cst.StarredElement))
            return sum(starred, Apps((value,) if names_of(value) & {*THEIRS, OURS} else ()))
        if isinstance(value, cst.Call) and last_name(value.func) in WRAPPERS and len(value.args) == 1:
            return self._parts(value.args[0].value)
        return self._named(value) if isinstance(value, cst.Name | cst.Attribute) else self._mentioned(value)

    def _mentioned(self, value: cst.CSTNode) -> Apps:
        """Return the lists of apps that stand in an expression of another kind, such as a comprehension."""
        names = (one for one in within(value) if isinstance(one, cst.Name | cst.Attribute) and is_apps(last_name(one)))
        return sum(map(self._named, names), Apps())

    def _named(self, node: cst.BaseExpression) -> Apps:
        name, root = last_name(node), (get_full_name_for_node(node) or "").partition(".")[0]
        if name in self.now and (root == name or root in self.classes):
            return self.now[name]
        if root in self.imported:
            return Apps(outside=frozenset({self._outside(self.imported[root], name)}))
        if root != name:
            return Apps(outside=frozenset({None}) if is_apps(name) else frozenset())
        stars = [module for key, module in self.imported.items() if key.startswith("*")]
        found = frozenset(self._outside(module, name) for module in stars) or frozenset({None})
        return Apps(outside=found if is_apps(name) else frozenset())

    def _outside(self, module: str, name: str) -> bool | None:
        file = module_file(self.path, module)
        return has_app(file, name) if file is not None else None


def _joined(sums: Sequence[Apps]) -> Iterator[Apps]:
    """Yield those that have a list in common as one."""
    left = list(sums)
    while left:
        one = left.pop(0)
        while common := [other for other in left if set(other.lists) & set(one.lists)]:
            left = [other for other in left if other not in common]
            one = sum(common, one)
        yield replace(one, lists=tuple(dict.fromkeys(one.lists)))


def keeper(lists: Sequence[Whole]) -> Whole:
    """Return the list that is to have our app: the one that has it, or in which it comes before staticfiles."""
    ranks = (OURS,), (STATICFILES,), CHANNELS
    return next((one for rank in ranks for one in lists if names_of(one) & {*rank}), lists[0])


def names_of(whole: Whole) -> set[str]:
    """Return the strings in a list."""
    return {text_of(one.value) for one in whole.elements} - {""}
