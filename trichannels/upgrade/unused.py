"""Adding an import at the top of a file, and taking away those that a rule has left unused."""

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import dropwhile
from typing import TypeVar

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import ImportAssignment, MetadataWrapper, ScopeProvider

from .rule import comments

PRAGMA = re.compile(r"#\s*(noqa|type:|isort:|pylint:|ruff:|flake8|pyright:|mypy:|nopep8|nosec)", re.IGNORECASE)
Statement = TypeVar("Statement", bound=cst.BaseStatement)


def with_import(module: cst.Module, name: str) -> cst.Module:
    """Return the module with ``import name``, where isort would put a library; itself if it is there."""
    if any(name in imported_by(statement) for statement in module.body):
        return module
    body = list(module.body)
    place = _place(body)
    lines: Sequence[cst.EmptyLine] = ()
    if place < len(body) and imported_by(body[place]):  # it begins that group of imports
        lines = body[place].leading_lines
        body[place] = body[place].with_changes(leading_lines=())
    elif place:
        lines = (cst.EmptyLine(indent=False),)
    new = cst.SimpleStatementLine([cst.Import([cst.ImportAlias(cst.Name(name))])], leading_lines=lines)
    return module.with_changes(body=[*body[:place], new, *body[place:]])


def imported_by(statement: cst.CSTNode) -> list[str]:
    """Return the modules that a line imports, or imports from; those of relative imports begin with a dot."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return []
    found: list[str] = []
    for one in statement.body:
        if isinstance(one, cst.Import):
            found += [alias.evaluated_name for alias in one.names if alias.asname is None]
        if isinstance(one, cst.ImportFrom):
            name = get_full_name_for_node(one.module) if one.module is not None else ""
            found.append("." * len(one.relative) + (name or ""))
    return found


def _place(body: Sequence[cst.CSTNode]) -> int:
    """Return where: before the first import that is not of the standard library, or else behind the last one."""
    last = 0
    for number, statement in enumerate(body):
        names = imported_by(statement)
        if names and names[0].partition(".")[0] not in sys.stdlib_module_names:
            return number
        if names or (number == 0 and _is_docstring(statement)):
            last = number + 1
        elif number:
            break
    return last


def _is_docstring(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and (
        isinstance(one := statement.body[0], cst.Expr) and isinstance(one.value, cst.SimpleString)
    )


def says_something(statement: cst.SimpleStatementLine) -> bool:
    """Say whether there is a comment behind an import for people, and not for programs."""
    comment = statement.trailing_whitespace.comment
    return comment is not None and PRAGMA.match(comment.value) is None


def without_unused(module: cst.Module, origins: Iterable[str]) -> cst.Module:
    """Return the module without those imports of ``origins`` (such as ``asgiref.sync.async_to_sync``) nobody uses."""
    wrapper = MetadataWrapper(module)
    unused = {
        (node, assignment.name)
        for scope in set(wrapper.resolve(ScopeProvider).values())
        if scope is not None
        for assignment in scope.assignments
        if isinstance(assignment, ImportAssignment) and not assignment.references
        if isinstance(node := assignment.node, cst.Import | cst.ImportFrom)
        if _origin(node, assignment.name) in set(origins)
    }
    return wrapper.module.visit(_Without(unused)) if unused else module


def _origin(node: cst.Import | cst.ImportFrom, name: str) -> str:
    """Return what a name of an import stands for, such as ``asyncio.sleep``."""
    for alias in node.names if not isinstance(node.names, cst.ImportStar) else ():
        if (alias.evaluated_alias or alias.evaluated_name) == name:
            inside = get_full_name_for_node(node.module) if isinstance(node, cst.ImportFrom) and node.module else ""
            return f"{inside}.{alias.evaluated_name}" if inside else alias.evaluated_name
    return ""


class _Without(cst.CSTTransformer):
    """Takes names out of imports, and imports without a name out of blocks; comments above them stay."""

    def __init__(self, unused: set[tuple[cst.Import | cst.ImportFrom, str]]) -> None:
        super().__init__()
        self.unused = unused
        self.empty: set[cst.CSTNode] = set()

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        return updated_node.with_changes(names=self._kept(original_node, updated_node.names))

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.ImportFrom:
        if isinstance(updated_node.names, cst.ImportStar):
            return updated_node
        return updated_node.with_changes(names=self._kept(original_node, updated_node.names))

    def _kept(self, node: cst.Import | cst.ImportFrom, names: Sequence[cst.ImportAlias]) -> Sequence[cst.ImportAlias]:
        kept = [a for a in names if (node, a.evaluated_alias or a.evaluated_name) not in self.unused]
        if not kept or comments(node):  # which stay, and what they stand beside as well
            return names  # the line goes as a whole, in on_leave_body()
        if len(kept) < len(names) and names[-1] is not kept[-1]:
            kept[-1] = kept[-1].with_changes(comma=names[-1].comma)
        return kept

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        pairs = zip(original_node.body, updated_node.body, strict=True)
        kept = [new for old, new in pairs if not self._is_empty(old) or says_something(original_node)]
        if not kept:
            gone = updated_node.with_changes(body=[cst.Pass()])
            self.empty.add(gone)
            return gone
        if kept[-1] is not updated_node.body[-1]:
            kept[-1] = kept[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        return updated_node if len(kept) == len(updated_node.body) else updated_node.with_changes(body=kept)

    def _is_empty(self, node: cst.BaseSmallStatement) -> bool:
        if (
            not isinstance(node, cst.Import | cst.ImportFrom)
            or isinstance(node.names, cst.ImportStar)
            or comments(node)
        ):
            return False
        return all((node, a.evaluated_alias or a.evaluated_name) in self.unused for a in node.names)

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        body = list(self._body(updated_node.body))
        if body and not updated_node.header and updated_node.body[0] in self.empty:
            lines = getattr(body[0], "leading_lines", ())
            body[0] = body[0].with_changes(leading_lines=list(dropwhile(lambda line: line.comment is None, lines)))
        return updated_node.with_changes(body=body)

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return updated_node.with_changes(body=self._body(updated_node.body) or updated_node.body)  # a `pass` is left

    def _body(self, body: Sequence[cst.BaseStatement]) -> Sequence[cst.BaseStatement]:
        kept: list[cst.BaseStatement] = []
        above: list[cst.EmptyLine] = []
        for statement in body:
            if statement in self.empty:
                above += statement.leading_lines  # type: ignore[attr-defined]
                continue
            lines = getattr(statement, "leading_lines", ())
            if above and (not lines or any(line.comment for line in above)):
                statement = statement.with_changes(leading_lines=[*above, *lines])
            above = []
            kept.append(statement)
        return kept
