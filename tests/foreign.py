"""Programs of others that a few tests need. A test whose program is missing is left out, and a line at the end says so.

``.ci/suite`` installs them where it can; ``conftest.py`` prints the lines.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

LEFT_OUT: list[str] = []
NODE_WS = Path(__file__).parent.parent / ".venv-node" / "node_modules" / "ws"


def have(wanted: bool, left_out: str) -> bool:
    """Return ``wanted``; if it is false, note what is left out, and why."""
    if not wanted:
        LEFT_OUT.append(left_out)
    return wanted


def node() -> str | None:
    """Return the path of Node if it is here, together with its ``ws``."""
    return shutil.which("node") if NODE_WS.exists() else None


def missing(server: str, cure: str) -> NoReturn:
    """End a test that cannot find its server: in CI it fails, elsewhere it is skipped with what would install it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no {server}: {cure}")


def require_index(said: str) -> None:
    """End a test whose pip, by what it ``said``, has found no package index, as :func:`missing` does."""
    if "No matching distribution" in said:
        missing("package index that can be reached", "connect this machine, or give pip a mirror")
