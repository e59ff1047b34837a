"""Imports of Channels, and dotted uses of its modules. What is nowhere here stays, with an import of its own."""

from collections.abc import Iterable, Mapping, Sequence

import libcst as cst
from libcst.helpers import get_full_name_for_node

from .names import DJANGO_ASGI, MODULES, Home
from .rule import Origins, Rule, comments

ROUTERS = {"channels.routing.ProtocolTypeRouter", "trichannels.routing.ProtocolTypeRouter"}


class Uses(Origins, cst.CSTVisitor):
    """What a file uses of what it imports, by dotted names; and whether it builds a router."""

    METADATA_DEPENDENCIES = Origins.METADATA_DEPENDENCIES

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.bare: set[str] = set()  # names of modules that stand without a dot behind them
        self.builds_router = False
        self._inner: set[cst.CSTNode] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self.used |= self.origins(node)
        self._inner.add(node.value)

    def visit_Name(self, node: cst.Name) -> None:
        if node not in self._inner:
            self.bare |= self.origins(node)

    def visit_Call(self, node: cst.Call) -> None:
        self.builds_router = self.builds_router or bool(self.origins(node.func) & ROUTERS)


class Imports(Rule):
    """``channels.x`` becomes the module that has its names here."""

    words = (b"channels",)

    def visit_Module(self, node: cst.Module) -> None:
        uses = Uses()
        self.uses = uses
        uses.metadata = self.metadata
        node.visit(uses)
        modules = {**MODULES, **(DJANGO_ASGI if uses.builds_router else {})}
        self.modules: Mapping[str, Home] = {old: new for old, new in modules.items() if not lacks(new, old, uses.used)}
        self.homes = modules

    # ---- import a.b, and a.b.name in code

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        names: list[cst.ImportAlias] = []
        for alias in updated_node.names:
            names += self._imported_as(alias)
        for number, alias in enumerate(names[:-1]):  # one that became several has no commas between them
            if not isinstance(alias.comma, cst.Comma):
                names[number] = alias.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
        return updated_node.with_changes(names=names)

    def _imported_as(self, alias: cst.ImportAlias) -> Sequence[cst.ImportAlias]:
        name = alias.evaluated_name
        if name in self.modules:
            return [alias.with_changes(name=dotted(self.modules[name].module))]
        if name in ("channels", "channels_redis") and alias.asname is None and (used := self._used_of(name)):
            last = alias.comma
            new = [cst.ImportAlias(dotted(module)) for module in used]
            return [*new[:-1], new[-1].with_changes(comma=last)]
        return [alias]

    def _used_of(self, package: str) -> list[str]:
        """Return the modules here that a file with a bare ``import channels`` uses; none if it uses others too."""
        used = {origin for origin in self.uses.used if is_within(origin, package)}
        found = {old for old in self.modules if any(is_within(origin, old) for origin in used)}
        known = all(any(is_within(origin, old) or is_within(old, origin) for old in found) for origin in used)
        return sorted({self.modules[old].module for old in found}) if known and package not in self.uses.bare else []

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        name = get_full_name_for_node(original_node)
        if name in self.modules and name in self.origins(original_node):
            new = dotted(self.modules[name].module)
            return new.with_changes(lpar=updated_node.lpar, rpar=updated_node.rpar)
        return updated_node

    # ---- from a.b import c

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        imports = [self._split(one) if isinstance(one, cst.ImportFrom) else [one] for one in updated_node.body]
        split = [comments(old) for old, new in zip(updated_node.body, imports, strict=True) if len(new) > 1]
        above = [cst.EmptyLine(comment=comment) for found in split for comment in found]
        updated_node = updated_node.with_changes(leading_lines=[*updated_node.leading_lines, *above])
        if len(updated_node.body) == 1 and len(imports[0]) > 1:
            first, *others = ([one] for one in imports[0])
            lines = [cst.SimpleStatementLine(other) for other in others[:-1]]
            last = updated_node.with_changes(body=others[-1], leading_lines=[])
            head = cst.SimpleStatementLine(first, leading_lines=updated_node.leading_lines)
            return cst.FlattenSentinel([head, *lines, last])
        body: list[cst.BaseSmallStatement] = []
        for statements in imports:
            body += statements
        return updated_node.with_changes(body=body)

    def _split(self, node: cst.ImportFrom) -> Sequence[cst.BaseSmallStatement]:
        """Return the import as one for each module that its names are in here; itself if that changes nothing."""
        package = get_full_name_for_node(node.module) if node.module is not None and not node.relative else None
        if package is None:
            return [node]
        if isinstance(node.names, cst.ImportStar):
            home = self.homes.get(package)
            return [node if home is None else node.with_changes(module=dotted(home.module))]
        places = [self._place(package, alias) for alias in node.names]
        modules = list(dict.fromkeys(module for module, _ in places))
        if modules == [package]:
            return [node]
        if len(modules) == 1:
            return [node.with_changes(module=dotted(modules[0]), names=[alias for _, alias in places])]
        return [self._only(node, module, [alias for where, alias in places if where == module]) for module in modules]

    def _place(self, package: str, alias: cst.ImportAlias) -> tuple[str, cst.ImportAlias]:
        """Return the module that a name is to be imported from, and as what."""
        name = get_full_name_for_node(alias.name) or ""
        home, module = self.homes.get(package), self.modules.get(f"{package}.{name}")
        if module is not None:
            parent, _, new = module.module.rpartition(".")
            if new == name:
                return parent, alias
            asname = alias.asname or cst.AsName(cst.Name(name), cst.SimpleWhitespace(" "), cst.SimpleWhitespace(" "))
            return parent, alias.with_changes(name=cst.Name(new), asname=asname)
        return (home.module if home is not None and name in home.names else package), alias

    def _only(self, node: cst.ImportFrom, module: str, names: Iterable[cst.ImportAlias]) -> cst.ImportFrom:
        """Return the import with some of its names, on one line."""
        plain = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in names]
        return node.with_changes(module=dotted(module), names=plain, lpar=None, rpar=None)


def lacks(home: Home, old: str, used: Iterable[str]) -> bool:
    """Say whether something is used of a module that its counterpart here has not: then all of it stays."""
    after = {name.removeprefix(f"{old}.").partition(".")[0] for name in used if name.startswith(f"{old}.")}
    return any(name not in home.names and f"{old}.{name}" not in MODULES for name in after)


def is_within(name: str, module: str) -> bool:
    """Say whether a dotted name is that of a module, or of something in it."""
    return name == module or name.startswith(f"{module}.")


def dotted(name: str) -> cst.Name | cst.Attribute:
    """Return an expression for a dotted name."""
    head, _, last = name.rpartition(".")
    return cst.Attribute(dotted(head), cst.Name(last)) if head else cst.Name(last)
