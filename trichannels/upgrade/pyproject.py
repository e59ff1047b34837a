"""pyproject.toml: the lists of requirements in it, changed as text. Whatever else names Channels is listed.

What was done is looked at through ``tomllib``: unless it is exactly what was meant, the file stays as it is.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from .report import Left, Upgraded
from .requirements import BY_HAND, OLD, goes, is_too_old, parsed, replaced

TOKEN = re.compile(
    r"""(?P<comment>\#[^\r\n]*)
    | (?P<string>\"{3}[\s\S]*?\"{3} | '{3}[\s\S]*?'{3} | "(?:[^"\\\r\n]|\\.)*" | '[^'\r\n]*')
    | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<line>\r?\n) | (?P<other>[^\#"'\[\]{}\r\n]+ | .)""",
    re.VERBOSE,
)
LISTS = (
    re.compile(r"project\.dependencies"),
    re.compile(r"project\.optional-dependencies\.[^.]+"),
    re.compile(r"dependency-groups\.[^.]+"),
    re.compile(r"tool\.uv\.dev-dependencies"),
    re.compile(r"tool\.pdm\.dev-dependencies\.[^.]+"),
    re.compile(r"tool\.hatch\.envs\.[^.]+\.(extra-)?dependencies"),
)
"""Where lists of requirements are."""


def upgrade_pyproject(name: str, old: bytes) -> Upgraded:
    """Return a pyproject.toml upgraded; as it is, with a note, if it cannot be read."""
    try:
        text = old.decode()
        before = tomllib.loads(text.removeprefix("\ufeff"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Upgraded(old, (Left(1, f"cannot be parsed ({error})", "mend it, or change it by hand"),))
    new = text
    for start, end in reversed(list(_arrays(text))):
        new = new[:start] + _array(new[start:end]) + new[end:]
    if new != text and not _is(new, upgraded(before)):
        new = text
    return Upgraded(new.encode(), tuple(_left(new)))


def upgraded(value: Any, path: str = "") -> Any:
    """Return the parsed file as it should be."""
    if isinstance(value, dict):
        return {key: upgraded(one, f"{path}.{key}".lstrip(".")) for key, one in value.items()}
    if not isinstance(value, list) or not is_list(path):
        return value
    new = replaced([one if isinstance(one, str) else "" for one in value])
    every = [new.get(number, one) for number, one in enumerate(value)]
    return [one for one in every if one != ""] if new else value


def is_list(path: str) -> bool:
    """Say whether a list of requirements is there."""
    return any(pattern.fullmatch(path) for pattern in LISTS)


def _is(text: str, expected: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text.removeprefix("\ufeff")) == expected
    except tomllib.TOMLDecodeError:
        return False


def _arrays(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each array of requirements begins and ends, brackets included."""
    table, line, depth, start = "", "", 0, 0
    for token in TOKEN.finditer(text):
        if token["line"] and not depth:
            header = re.fullmatch(r"\s*\[\s*([^\[\]]+?)\s*\]\s*", line)
            table, line = (_plain(header[1]), "") if header else (table, "")
        elif token["open"] and "=" in line:
            depth += 1
            start = token.start() if depth == 1 else start
        elif token["close"] and depth:
            depth -= 1
            key = _plain(line.partition("=")[0].strip())
            if not depth and text[start] == "[" and is_list(f"{table}.{key}".lstrip(".")):
                yield start, token.end()
        elif not depth and not token["comment"] and not token["line"]:
            line += token[0]


def _plain(key: str) -> str:
    """Return a dotted key without quotes and spaces."""
    return re.sub(r"[\"'\s\ufeff]", "", key)


def _array(text: str) -> str:
    """Return an array of requirements upgraded."""
    tokens = [token for token in TOKEN.finditer(text) if token["string"]]
    strings = [tomllib.loads(f"it = {token[0]}")["it"] for token in tokens]
    new = replaced(strings)
    for at, token in reversed(list(enumerate(tokens))):
        quote, ours = token[0][0], new.get(at)
        if ours:
            inner = ours.replace('"', "'") if quote == '"' else ours.replace("'", '"')
            text = text[: token.start()] + quote + inner + quote + text[token.end() :]
        elif ours is not None:
            text = _without(text, token.start(), token.end())
    return text


def _without(text: str, start: int, end: int) -> str:
    """Return an array without the entry there: with its comma, and with its line if nothing else is on it."""
    before, behind = text[:start], text[end:]
    comma = re.match(r"[ \t]*,[ \t]*", behind)
    behind = behind[comma.end() :] if comma else behind
    if not comma and re.match(r"[ \t]*\]", behind):  # the last, on one line with others
        before = re.sub(r",[ \t]*\Z", "", before)
    line_before = before.rpartition("\n")[2]
    ended = re.match(r"[ \t]*\r?\n", behind)
    if "\n" in before and not line_before.strip() and ended:
        return before[: len(before) - len(line_before)] + behind[ended.end() :]
    return before + behind


def _left(text: str) -> Iterator[Left]:
    """Yield the lines that name Channels as a requirement still: Poetry's tables, for instance."""
    in_keywords = False
    for number, line in enumerate(text.splitlines()):
        bare = line.partition("#")[0].strip()
        if in_keywords or re.match(r"keywords\s*=\s*\[", bare):  # words about the project, no requirements
            in_keywords = "]" not in bare
            continue
        key = re.match(r"""["']?(channels|channels[-_]redis|daphne)["']?\s*=""", bare)
        strings = [token["string"][1:-1] for token in TOKEN.finditer(bare) if token["string"]]
        theirs = [one for one in strings if goes(one) and parsed(one)[0] != "trichannels"]
        if key or theirs:
            old = all(is_too_old(parsed(one)[2]) for one in theirs) and not key
            yield Left(number + 1, bare, OLD if old else BY_HAND)
