"""What is left in strings and in lists of apps after all rules: one look at the result, as in ``left``."""

import re
from collections.abc import Iterator

import libcst as cst
from libcst.metadata import PositionProvider

from .elsewhere import OURS, STATICFILES, THEIRS, is_apps
from .names import MODULES, NO_COUNTERPART, longest
from .report import Left
from .requirements import BY_HAND
from .rule import Look, last_name, text_of, within

ORDERED = f"put {OURS!r} before {STATICFILES!r}, which has a `runserver` as well"
ONCE = f"it is {OURS!r} now, once in all lists: {ORDERED}"
APP = f"the app is {OURS!r} now"
REQUIREMENT = re.compile(r"(channels|channels[-_]redis|daphne)\s*(\[[\w, -]*\])?\s*([<>=!~;].*)?")
PATH = re.compile(
    r"(channels\.(apps|asgi|auth|binding|consumer|db|exceptions|generic|handler|http|layers|log|management|message|middleware"
    r"|routing|security|sessions|signals|staticfiles|test|testing|utils|worker)"
    r"|channels_redis\.\w+"
    r"|daphne\.(access|apps|checks|cli|endpoints|http_protocol|management|server|testing|twisted|utils|ws_protocol))"
    r"(\.\w+)*"
)
"""Dotted paths of modules that these packages have or had, and of what is in them."""
MUTATED = {"append", "extend", "insert", "remove"}
ASKED = {"__import__", "find_spec", "get_app_config", "import_module", "importorskip", "is_installed"}


class LeftInStrings(Look):
    """Paths of Channels' in strings, and lists of apps that no rule could change."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.apps: dict[str, tuple[int, int]] = {}  # lines and columns of ours and of staticfiles
        self.behind: list[int] = []  # lines of ours behind lists that are not seen
        self.seen: set[cst.CSTNode] = set()

    # ---- paths

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        value = node.evaluated_value
        if not isinstance(value, str) or node in self.seen:
            return
        self._path(node, value)
        if self.name == "setup.py" and REQUIREMENT.fullmatch(value):
            self.add(node, f"{value!r}", BY_HAND)

    def visit_ConcatenatedString(self, node: cst.ConcatenatedString) -> bool:
        value = node.evaluated_value
        if isinstance(value, str):
            self._path(node, value)
        return not isinstance(value, str)

    def visit_FormattedString(self, node: cst.FormattedString) -> None:
        first = node.parts[0] if node.parts else None
        value = first.value if isinstance(first, cst.FormattedStringText) else ""
        if (match := PATH.match(value)) and (match.end() == len(value) or value[match.end() :] == "."):
            self.add(node, f"f{value + '…'!r}", advice_for(match[0]))

    def _path(self, node: cst.CSTNode, value: str) -> None:
        if PATH.fullmatch(value):
            self.add(node, f"{value!r}", advice_for(value))

    def visit_DictElement(self, node: cst.DictElement) -> None:
        key, path = joined(node.key), joined(node.value)
        if is_apps(key):
            self._lists(node.value)
        if key == "BACKEND" and path.endswith("ChannelLayer") and not path.startswith("trichannels."):
            advice = "use trichannels.layers.redis.RedisChannelLayer or trichannels.layers.InMemoryChannelLayer"
            self.add(node, f"BACKEND {path!r}", advice)

    # ---- lists of apps

    def visit_Assign(self, node: cst.Assign) -> None:
        if any(is_apps(last_name(target.target)) for target in node.targets):
            self._lists(node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None and is_apps(last_name(node.target)):
            self._lists(node.value)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        if is_apps(last_name(node.target)):
            self._lists(node.value, behind=True)

    def visit_Arg(self, node: cst.Arg) -> None:
        if node.keyword is not None and is_apps(node.keyword.value):
            self._lists(node.value)

    def _lists(self, value: cst.BaseExpression, behind: bool = False) -> None:
        """Look at what a list of apps is made of."""
        self._strings(value)
        self.behind += [self.line(node) for node in ours_behind(value, behind)]

    def _strings(self, value: cst.CSTNode) -> None:
        for node in within(value):
            if (text := text_of(node)) in THEIRS and node not in self.seen:
                self.seen.add(node)
                self.add(node, f"{text!r} in a list of apps", ONCE)

    def visit_Call(self, node: cst.Call) -> None:
        name, strings = last_name(node.func), [joined(arg.value) for arg in node.args]
        owner = last_name(node.func.value) if isinstance(node.func, cst.Attribute) else ""
        if is_apps(owner) and name in MUTATED:
            self.seen.update(arg.value for arg in node.args)
            if {*strings} & {*THEIRS} or any(one in THEIRS for one in map(joined, within(node))):
                self.add(node, f"{owner}.{name}", ONCE)
            if name == "extend" and node.args:
                self._lists(node.args[0].value, behind=True)
        elif any(map(is_apps, strings)):  # environ.list("MY_APPS", default=["channels"])
            self._strings(node)
        elif name in ASKED and (found := [text for text in strings if text in (*THEIRS, "channels_redis")]):
            self.seen.update(arg.value for arg in node.args)
            self.add(node, f"{name}({found[0]!r})", APP if found[0] in THEIRS else NO_COUNTERPART["channels_redis"])

    def visit_Comparison(self, node: cst.Comparison) -> None:
        sides = [node.left, *(one.comparator for one in node.comparisons)]
        for side in sides:
            if joined(side) in THEIRS and any(is_apps(last_name(other)) for other in sides):
                self.seen.add(side)
                self.add(node, f"{joined(side)!r} in a list of apps", APP)

    def visit_Element(self, node: cst.Element) -> None:
        if joined(node.value) in (OURS, STATICFILES):
            start = self.get_metadata(PositionProvider, node).start
            self.apps.setdefault(joined(node.value), (start.line, start.column))

    def leave_Module(self, original_node: cst.Module) -> None:
        statics, ours = self.apps.get(STATICFILES), self.apps.get(OURS)
        seen = [ours[0]] if statics is not None and ours is not None and ours > statics else []
        lines = self.behind if statics is None else seen
        self.found.update(Left(line, "INSTALLED_APPS", ORDERED) for line in lines)


def ours_behind(value: cst.BaseExpression, behind: bool) -> Iterator[cst.CSTNode]:
    """Yield where our app is in a sum of lists, if others come before it, which may have staticfiles."""
    if isinstance(value, cst.BinaryOperation):
        yield from ours_behind(value.left, behind)
        yield from ours_behind(value.right, behind=True)
    if isinstance(value, cst.List | cst.Tuple):
        for element in value.elements:
            behind = behind or isinstance(element, cst.StarredElement)
            if behind and joined(element.value) == OURS:
                yield element


def advice_for(path: str) -> str:
    """Return what is to be written for a dotted path."""
    module, _, name = path.rpartition(".")
    if home := MODULES.get(path):
        return f"write {home.module!r}"
    if home := MODULES.get(module):
        return f"write {f'{home.module}.{name}'!r}" if name in home.names else f"{home.module} has no {name}"
    return APP if path.startswith(("channels.apps", "daphne.apps")) else longest(NO_COUNTERPART, path) or APP


def joined(node: cst.CSTNode | None) -> str:
    """Return what a string says, in one piece or in several that stand beside each other; "" for anything else."""
    value = node.evaluated_value if isinstance(node, cst.ConcatenatedString) else None
    return value if isinstance(value, str) else text_of(node) if node is not None else ""
