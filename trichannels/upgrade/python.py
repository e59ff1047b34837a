"""One Python file: through all rules, then a look at what is left."""

import ast
import warnings
from collections.abc import Sequence
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper

from .calls import AsAsgi, PlainCalls
from .concurrency import Concurrency
from .imports import Imports
from .left import LeftInPython
from .left_strings import LeftInStrings
from .report import Left, Upgraded
from .rule import Rule
from .settings import Settings
from .unused import with_import, without_unused

RULES: Sequence[type[Rule]] = (Imports, Settings, PlainCalls, AsAsgi, Concurrency)

WORDS = (b"channels", b"daphne", b"onsumer", b"CHANNEL_LAYERS", b"async_to_sync", b"group_send", b"_APPS")
"""A file without any of these has nothing for us, and is not parsed."""

BROKEN = (SyntaxError, ValueError, LookupError, RecursionError, MemoryError, cst.ParserSyntaxError)


def upgrade_python(name: str, old: bytes) -> Upgraded:
    """Return the Python file at a path upgraded; as it is, with a note, if it cannot be parsed."""
    if not any(word in old for word in WORDS):
        return Upgraded(old)
    try:
        return _upgraded(Path(name), old)
    except BROKEN as error:
        line = getattr(error, "lineno", None) or getattr(error, "raw_line", None) or 1
        reason = str(getattr(error, "msg", error)).partition("\n")[0]
        return Upgraded(old, (Left(line, f"cannot be parsed ({reason})", "mend it, or change it by hand"),))


def _upgraded(path: Path, old: bytes) -> Upgraded:
    _check(old)
    first = module = cst.parse_module(old)
    for rule in RULES:
        module = _applied(rule(), module, path)
    if module.bytes == first.bytes:
        module = first
    elif first.bytes != old:  # libcst keeps nearly everything, but no form feed at the beginning of a line
        advice = "its white space would not stay as it is: change it by hand"
        return Upgraded(old, (Left(1, "cannot be rewritten", advice),))
    return Upgraded(old if module is first else module.bytes, tuple(sorted(_left(path.name, module))))


def _left(name: str, module: cst.Module) -> set[Left]:
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    looks = LeftInPython(name), LeftInStrings(name)
    for look in looks:
        wrapper.visit(look)
    return looks[0].found | looks[1].found


def _check(source: bytes) -> None:
    """Let Python parse it first, whose limits are errors: libcst's parser runs out of its stack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ast.parse(source)


def _applied(rule: Rule, module: cst.Module, path: Path) -> cst.Module:
    """Return the module after one rule, parsed anew if that has changed it."""
    source = module.bytes
    if not any(word in source for word in rule.words):
        return module
    rule.path = path
    new = MetadataWrapper(module, unsafe_skip_copy=True).visit(rule)
    if new.bytes == source:
        return module
    for name in sorted(rule.needs):
        new = with_import(new, name)
    return cst.parse_module(without_unused(new, rule.frees).bytes)
