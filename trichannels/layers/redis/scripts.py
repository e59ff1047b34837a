"""Lua scripts, each in a file of its own under ``lua/``. They are called by their digest, and sent where it is unknown.

A line ``-- include NAME`` stands for the lines of ``NAME.lua``.

Source: https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from .outbox import packed

FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script. ``sha1`` is what EVALSHA calls it by."""

    name: str
    text: str = field(repr=False)
    sha1: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha1", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def from_file(cls, name: str) -> "Script":
        """Return the script in ``lua/NAME.lua``."""
        return cls(name, _read(name))


def _read(name: str) -> str:
    text = (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    return re.sub(r"^-- include (\w+)\n", lambda line: _read(line[1]), text, flags=re.MULTILINE)


async def run_script(
    ask: Callable[[bytes, float], Awaitable[Any]], script: Script, arguments: list[Any], timeout: float
) -> Any:
    """Run a script by its digest; where the server does not know it, by its text, which makes it known.

    ``ask`` sends a packed command, and returns its answer, be it an error, within the seconds that it is given.
    """
    began = anyio.current_time()
    answer = await ask(packed("EVALSHA", script.sha1, *arguments), timeout)
    if isinstance(answer, Exception) and str(answer).startswith("NOSCRIPT"):
        left = max(0.0, began + timeout - anyio.current_time())
        answer = await ask(packed("EVAL", script.text, *arguments), left)
    return answer
