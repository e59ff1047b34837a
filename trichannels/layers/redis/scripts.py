"""Lua scripts, each in a file of its own under ``lua/``. They are called by their digest, and sent where it is unknown.

Source: https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

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
        return cls(name, (FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
