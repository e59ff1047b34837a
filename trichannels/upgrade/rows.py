"""The elements of a list or tuple, with the comments that belong to each: to be replaced, taken out, and moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import libcst as cst

from .rule import text_of

Whole: TypeAlias = cst.List | cst.Tuple
EMPTY = cst.SimpleWhitespace("")


@dataclass(frozen=True, slots=True)
class Row:
    """One element, the comments and empty lines above it, and the comment behind it."""

    element: cst.BaseElement
    above: Sequence[cst.EmptyLine] = ()
    behind: cst.TrailingWhitespace | None = None
    indent: cst.SimpleWhitespace = EMPTY

    @property
    def comments(self) -> list[cst.EmptyLine]:
        """The comments that belong to it, each on a line of its own."""
        comment = self.behind.comment if self.behind is not None else None
        behind = [cst.EmptyLine(whitespace=self.indent, comment=comment)] if comment is not None else []
        return [*(line for line in self.above if line.comment is not None), *behind]

    @property
    def text(self) -> str:
        """What it says, if it is a string; else ""."""
        return text_of(self.element.value)

    def says(self, text: str) -> "Row":
        """Return it with another string, in the quotes of its own."""
        value = cst.ensure_type(self.element.value, cst.SimpleString)
        new = value.with_changes(value=f"{value.prefix}{value.quote}{text}{value.quote}")
        return replace(self, element=self.element.with_changes(value=new))


def rows_of(whole: Whole) -> list[Row]:
    """Return the elements."""
    gaps = _gaps(whole)
    indent = next((gap.last_line for gap in gaps if isinstance(gap, cst.ParenthesizedWhitespace)), EMPTY)
    return [
        Row(element, _above(gaps[number]), _behind(gaps[number + 1]), indent)
        for number, element in enumerate(whole.elements)
    ]


def taken_out(rows: Sequence[Row], gone: Sequence[Row]) -> tuple[list[Row], list[cst.EmptyLine]]:
    """Return the other rows, with the comments of those that are gone, and what of these belongs below the last."""
    kept: list[Row] = []
    comments: list[cst.EmptyLine] = []
    for row in rows:
        if row in gone:
            comments += row.comments
        else:
            kept.append(replace(row, above=[*comments, *row.above]))
            comments = []
    return kept, comments


def with_rows(whole: Whole, rows: Sequence[Row], below: Sequence[cst.EmptyLine] = ()) -> Whole:
    """Return the list or tuple with these elements, and with its own spaces, line ends and last comma."""
    gaps = _gaps(whole)
    bottom = [*below, *_above(gaps[-1])]
    if not rows:
        return _emptied(whole, gaps[0], bottom)
    inner = [gaps[0], *[gaps[min(number, len(gaps) - 2)] for number in range(1, len(rows))], gaps[-1]]
    filled = list(_filled(inner, rows, bottom))
    comma = whole.elements[-1].comma
    elements = [
        row.element.with_changes(comma=cst.Comma(whitespace_after=gap))
        for row, gap in zip(rows[:-1], filled[1:-1], strict=True)
    ]
    # The gap behind the last comma belongs to the bracket.
    last = cst.Comma() if isinstance(comma, cst.Comma) else cst.MaybeSentinel.DEFAULT
    elements.append(rows[-1].element.with_changes(comma=last))
    return _bracketed(whole, filled[0], filled[-1]).with_changes(elements=elements)


def _emptied(whole: Whole, first: cst.BaseParenthesizableWhitespace, bottom: Sequence[cst.EmptyLine]) -> Whole:
    """Return it without elements, on one line unless there are comments."""
    if isinstance(whole, cst.Tuple) and not whole.lpar:
        whole = whole.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    head = _behind(first)
    if any(line.comment for line in bottom) or (head is not None and head.comment is not None):
        line = cst.TrailingWhitespace() if head is None else head
        first = cst.ParenthesizedWhitespace(first_line=line, empty_lines=bottom, indent=True)
    else:
        first = EMPTY
    return _bracketed(whole, first, EMPTY).with_changes(elements=[])


def _gaps(whole: Whole) -> list[cst.BaseParenthesizableWhitespace]:
    """Return the spaces before each element and before the closing bracket."""
    first, last = _edges(whole)
    between = [e.comma.whitespace_after for e in whole.elements[:-1] if isinstance(e.comma, cst.Comma)]
    return [first, *between, last]


def _edges(whole: Whole) -> tuple[cst.BaseParenthesizableWhitespace, cst.BaseParenthesizableWhitespace]:
    if isinstance(whole, cst.List):
        return whole.lbracket.whitespace_after, whole.rbracket.whitespace_before
    if not whole.lpar:
        return cst.SimpleWhitespace(""), cst.SimpleWhitespace("")
    return whole.lpar[-1].whitespace_after, whole.rpar[0].whitespace_before


def _bracketed(
    whole: Whole, first: cst.BaseParenthesizableWhitespace, last: cst.BaseParenthesizableWhitespace
) -> Whole:
    if isinstance(whole, cst.List):
        left, right = whole.lbracket, whole.rbracket
        return whole.with_changes(
            lbracket=left.with_changes(whitespace_after=first), rbracket=right.with_changes(whitespace_before=last)
        )
    if not whole.lpar:
        return whole
    opening = [*whole.lpar[:-1], whole.lpar[-1].with_changes(whitespace_after=first)]
    closing = [whole.rpar[0].with_changes(whitespace_before=last), *whole.rpar[1:]]
    return whole.with_changes(lpar=opening, rpar=closing)


def _above(gap: cst.BaseParenthesizableWhitespace) -> Sequence[cst.EmptyLine]:
    return gap.empty_lines if isinstance(gap, cst.ParenthesizedWhitespace) else ()


def _behind(gap: cst.BaseParenthesizableWhitespace) -> cst.TrailingWhitespace | None:
    return gap.first_line if isinstance(gap, cst.ParenthesizedWhitespace) else None


def _filled(
    gaps: Sequence[cst.BaseParenthesizableWhitespace], rows: Sequence[Row], bottom: Sequence[cst.EmptyLine]
) -> Iterator[cst.BaseParenthesizableWhitespace]:
    """Yield the gaps, with the comments of those who stand around them now."""
    model = next((gap for gap in gaps if isinstance(gap, cst.ParenthesizedWhitespace)), None)
    for number, gap in enumerate(gaps):
        before = rows[number - 1].behind if number else _behind(gap)
        above = rows[number].above if number < len(rows) else bottom
        has_comment = (before is not None and before.comment is not None) or any(above)
        if isinstance(gap, cst.SimpleWhitespace) and has_comment and model is not None:
            gap = model
        if isinstance(gap, cst.ParenthesizedWhitespace):
            line = before if before is not None else cst.TrailingWhitespace()
            gap = gap.with_changes(first_line=line, empty_lines=above)
        yield gap
