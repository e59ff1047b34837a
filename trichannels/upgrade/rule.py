"""What every rule for Python files knows: where a name comes from, and which classes are consumers."""

from collections.abc import Collection
from typing import ClassVar

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import ProviderT, QualifiedNameProvider, QualifiedNameSource

CONSUMERS = ("channels.generic.", "channels.consumer.", "trichannels.generic.", "trichannels.consumer.")


class Origins(cst.MetadataDependent):
    """Tells names that were imported from others of the same spelling."""

    METADATA_DEPENDENCIES: ClassVar[Collection[ProviderT]] = (QualifiedNameProvider,)

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

    ``needs`` are modules that the result has to import, and ``frees`` what it may import without a use now.
    """

    METADATA_DEPENDENCIES = Origins.METADATA_DEPENDENCIES
    words: ClassVar[tuple[bytes, ...]]
    frees: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.needs: set[str] = set()
