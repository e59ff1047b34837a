"""What a user gets: wheel and sdist are complete and run alone, and an import costs no more than it says."""

import json
import re
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

import trichannels

from .foreign import require_index
from .processes import running_program

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


@pytest.mark.once
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


@pytest.mark.once
def test_importing_the_layers_loads_no_layer() -> None:
    code = "import sys, trichannels.layers; print('trichannels.layers.memory' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


class Built(NamedTuple):
    """What ``python -m build`` makes: the source distribution, and the wheel that is built from it."""

    sdist: Path
    wheel: Path


def build(folder: Path) -> Built:
    """Build both into a folder."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.mark.once
def test_the_wheel_is_complete(built: Built) -> None:
    packed = set(zipfile.ZipFile(built.wheel).namelist())
    source = ROOT / "trichannels"
    expected = {
        str(file.relative_to(ROOT)) for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    }
    info = f"trichannels-{trichannels.__version__}.dist-info"
    assert expected <= packed
    assert {"trichannels/py.typed", "trichannels/demo/web/page.html", "trichannels/demo/web/chat.js"} <= packed
    assert {name.split("/")[0] for name in packed} == {"trichannels", info}, "no tests, no examples"
    assert f"{info}/licenses/LICENSE" in packed


@pytest.mark.once
def test_the_sdist_is_what_is_kept_here(built: Built) -> None:
    """Who packages it finds the tests, the docs and what they need; and nothing that lay about here."""
    top = f"trichannels-{trichannels.__version__}/"
    with tarfile.open(built.sdist) as archive:
        packed = {member.name.removeprefix(top) for member in archive if member.isfile()}
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git repository: there is nothing to compare with")
    assert packed == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} | {"PKG-INFO"}
    assert not {name for name in packed if "_build/" in name or name.endswith((".pyc", ".sqlite3"))}


@pytest.mark.server
def test_in_an_empty_environment_it_runs_the_demo(built: Built, tmp_path: Path) -> None:
    """With what its metadata asks for and nothing else, on each Python that the suite runs on."""
    venv.create(tmp_path / "env", symlinks=True)
    programs = tmp_path / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet", "--no-compile"]
    got = subprocess.run([*pip, f"{built.wheel}[serve]"], capture_output=True, text=True)
    if got.returncode != 0:
        require_index(got.stderr)
    assert got.returncode == 0, got.stderr
    command = [str(programs / "trichannels"), "demo", "--bind", "127.0.0.1:0"]
    with running_program(command, cwd=tmp_path, environment={"PYTHONPATH": "", "PYTHONWARNINGS": "error"}) as demo:
        address = demo.address()
        assert "Your name" in httpx.get(f"{address}/room/lobby", trust_env=False).text
        with connect(f"{address.replace('http', 'ws')}/ws/lobby", proxy=None) as socket:
            socket.send(json.dumps({"kind": "enter", "name": "Ada"}))
            assert "Ada" in socket.recv(20)
        assert demo.end(signal.SIGTERM) == 0
        assert demo.err == ""
    check = "import trichannels, sys; print(trichannels.__version__, trichannels.__file__.startswith(sys.prefix))"
    told = subprocess.check_output([programs / "python", "-c", check], text=True, cwd=tmp_path)
    assert told.split() == [trichannels.__version__, "True"]


@pytest.mark.once
def test_the_changelog_knows_this_version() -> None:
    assert f"## {trichannels.__version__}" in (ROOT / "CHANGELOG.md").read_text()
