"""What every rule for Python files knows: where a name comes from, and which classes are consumers."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import (
    Assignment,
    PositionProvider,
    ProviderT,
    QualifiedNameProvider,
    QualifiedNameSource,
    ScopeProvider,
)

from .report import Left

CONSUMERS = ("channels.generic.", "channels.consumer.", "trichannels.generic.", "trichannels.consumer.")


class Origins(cst.MetadataDependent):
    """Tells names that were imported from others of the same spelling."""

    METADATA_DEPENDENCIES: ClassVar[Collection[ProviderT]] = (QualifiedNameProvider, ScopeProvider)

    def origins(self, node: cst.CSTNode) -> set[str]:
        """Return what an expression was imported as, such as ``{"asyncio.sleep"}``; empty for anything else."""
        root = node
        while isinstance(root, cst.Attribute):
            root = root.value
        # A parameter named channels hides a module, of which libcst is not aware once there is a dot behind it.
        return self._imported(node) if isinstance(root, cst.Name) and self._imported(root) else set()

    def _imported(self, node: cst.CSTNode) -> set[str]:
        found = self.get_metadata(QualifiedNameProvider, node, set())
        return {name.name for name in found if name.source is QualifiedNameSource.IMPORT}

    def places(self, here: cst.CSTNode, name: str) -> list[cst.CSTNode]:
        """Return where a name gets its value, as it is seen from here."""
        scope = self.get_metadata(ScopeProvider, here, None)
        return [one.node for one in scope[name] if isinstance(one, Assignment)] if scope is not None else []

    def is_consumer(self, node: cst.ClassDef, known: Collection[str]) -> bool:
        """Say whether a class is a consumer by one of its bases; ``known`` are those of this file."""
        return any(self._is_consumer_base(base.value, known) for base in node.bases)

    def _is_consumer_base(self, base: cst.BaseExpression, known: Collection[str]) -> bool:
        if isinstance(base, cst.Subscript):
            base = base.value
        name = get_full_name_for_node(base) or ""
        return (
            name in known
            or name.endswith("Consumer")
            or any(origin.startswith(CONSUMERS) for origin in self.origins(base))
        )


class Rule(Origins, cst.CSTTransformer):
    """One rewriting of a file that has one of its ``words``.

    ``path`` is the file's, ``needs`` are modules that the result has to import, and ``frees`` what it may import
    without a use now.
    """

    METADATA_DEPENDENCIES = Origins.METADATA_DEPENDENCIES
    words: ClassVar[tuple[bytes, ...]]
    frees: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.path = Path()
        self.needs: set[str] = set()


class Look(Origins, cst.CSTVisitor):
    """One look at what is left in a file; collects into ``found``, and ``name`` is the file's."""

    METADATA_DEPENDENCIES: ClassVar[Collection[ProviderT]] = (*Origins.METADATA_DEPENDENCIES, PositionProvider)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.found: set[Left] = set()

    def add(self, node: cst.CSTNode, what: str, advice: str) -> None:
        """List a node."""
        self.found.add(Left(self.line(node), what, advice))

    def line(self, node: cst.CSTNode) -> int:
        """Return the line in which a node begins."""
        return self.get_metadata(PositionProvider, node).start.line


def last_name(node: cst.CSTNode) -> str:
    """Return the last part of a dotted expression; "" if it ends otherwise."""
    if isinstance(node, cst.Attribute):
        return node.attr.value
    return node.value if isinstance(node, cst.Name) else ""


def text_of(node: cst.CSTNode) -> str:
    """Return what a string in one piece says; "" for anything else."""
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else None
    return value if isinstance(value, str) else ""


def within(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node, and all that is in it."""
    yield node
    for child in node.children:
        yield from within(child)


def comments(node: cst.CSTNode) -> list[cst.Comment]:
    """Return the comments within a node, in their order."""
    return [one for one in within(node) if isinstance(one, cst.Comment)]


def has_self(method: cst.FunctionDef) -> bool:
    """Say whether a function of a class gets its instance."""
    decorators = {last_name(decorator.decorator) for decorator in method.decorators}
    return bool(method.params.params) and not decorators & {"staticmethod", "classmethod"}
