"""What a user gets: the wheel has all its files, and ``import trichannels`` costs no more than it says."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

import trichannels

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``statement``, beyond the stdlib."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    return {name.partition(".")[0] for name in output.split()} - sys.stdlib_module_names


def requirements(distribution: str) -> set[str]:
    """Return what a distribution requires without extras, or nothing where a marker keeps it from being installed."""
    try:
        lines = requires(distribution) or ()
    except PackageNotFoundError:
        return set()
    return {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines if "extra ==" not in line}


def allowed() -> set[str]:
    """Return what trio, anyio and msgspec bring along, by their own metadata, and themselves."""
    known: set[str] = set()
    fresh = {"trio", "anyio", "msgspec"}
    while fresh:
        known |= fresh
        fresh = set().union(*map(requirements, fresh)) - known
    return known | {"trichannels", "attr"}  # the distribution attrs has two packages


@pytest.mark.parametrize(
    "module",
    [
        "trichannels",
        "trichannels.generic.websocket",
        "trichannels.generic.http",
        "trichannels.routing",
        "trichannels.layers.memory",
    ],
)
def test_import_needs_only_trio_anyio_and_msgspec(module: str) -> None:
    assert loaded_after(f"import {module}") <= allowed()


def test_importing_the_layers_loads_no_layer() -> None:
    code = "import sys, trichannels.layers; print('trichannels.layers.memory' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_wheel_is_complete(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "-w",
            tmp_path,
            ROOT,
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "trichannels"
    expected = {
        str(file.relative_to(ROOT)) for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= packed
    assert {"trichannels/py.typed", "trichannels/demo/web/page.html", "trichannels/demo/web/chat.js"} <= packed
    assert not {name for name in packed if name.startswith(("tests/", "examples/", "benchmarks/"))}
    info = f"trichannels-{trichannels.__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in packed


def test_the_changelog_knows_this_version() -> None:
    assert f"## {trichannels.__version__}" in (ROOT / "CHANGELOG.md").read_text()
