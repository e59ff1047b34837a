"""The peers: how each server is started, at its best, and what it needs. Their applications are in ``../peers``."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

APPS = "benchmarks.peers"
Command = Callable[[int], list[str]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to serve. ``needs``: distributions, by the name of their module."""

    command: Command
    needs: tuple[str, ...] = ()
    likes: tuple[str, ...] = ()
    """What it uses where it is there."""
    title: str
    without: tuple[str, ...] = ()
    """Modes that it has nothing for."""

    def missing(self, mode: str) -> str:
        """Return what keeps it from running here, or an empty string."""
        if mode in self.without:
            return f"{mode} in it"
        lacking = [name for name in self.needs if name != "node" and find_spec(name) is None]
        if "node" in self.needs and (shutil.which("node") is None or ws_folder() is None):
            lacking.append("node, and its package ws (make bench gets it)")
        return ", ".join(lacking)

    def versions(self) -> dict[str, str]:
        found = {name: _version(name) for name in (*self.needs, *self.likes)}
        if "node" in self.needs:
            found["ws"] = _ws_version()
        return found


def ours(port: int) -> list[str]:
    return [
        *_module("trichannels"), "serve", f"{APPS}.ours:application", "--bind", f"127.0.0.1:{port}",
        "--log-level", "warning",
    ]  # fmt: skip


def uvicorn(app: str) -> Command:
    return lambda port: [
        *_module("uvicorn"), f"{APPS}.{app}:application", "--port", str(port), "--ws", "websockets-sansio",
        "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip


def daphne(app: str) -> Command:
    return lambda port: [*_module("daphne"), f"{APPS}.{app}:application", "--port", str(port), "--verbosity", "0"]


def hypercorn(app: str) -> Command:
    return lambda port: [
        *_module("hypercorn"), f"{APPS}.{app}:application", "--bind", f"127.0.0.1:{port}",
        "--worker-class", "uvloop", "--log-level", "warning",
    ]  # fmt: skip


def granian(app: str) -> Command:
    return lambda port: [
        *_module("granian"), f"{APPS}.{app}:application", "--interface", "asgi", "--port", str(port),
        "--loop", "uvloop", "--runtime-mode", "st", "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip


def program(name: str) -> Command:
    return lambda port: [*_module(f"{APPS}.{name}"), str(port)]


def node(port: int) -> list[str]:
    folder = ws_folder()
    return ["node", str(Path(__file__).parent.parent / "peers" / "node_ws.js"), str(port), str(folder)]


PEERS = {
    "trichannels": Peer(title="trichannels serve", command=ours, needs=("trichannels", "trio")),
    "channels-uvicorn": Peer(
        title="Channels, uvicorn",
        command=uvicorn("channels_app"),
        needs=("channels", "uvicorn", "uvloop", "websockets"),
    ),
    "channels-daphne": Peer(
        title="Channels, daphne", command=daphne("channels_app"), needs=("channels", "daphne", "twisted")
    ),
    "channels-hypercorn": Peer(
        title="Channels, hypercorn", command=hypercorn("channels_app"), needs=("channels", "hypercorn", "uvloop")
    ),
    "litestar": Peer(
        title="Litestar channels, uvicorn", command=uvicorn("litestar_app"), needs=("litestar", "uvicorn", "uvloop")
    ),
    "starlette": Peer(
        title="Starlette + broadcaster, uvicorn",
        command=uvicorn("starlette_app"),
        needs=("starlette", "broadcaster", "uvicorn", "uvloop"),
    ),
    "asgi-uvicorn": Peer(
        title="bare ASGI, uvicorn", command=uvicorn("bare"), needs=("uvicorn", "uvloop", "websockets")
    ),
    "asgi-granian": Peer(title="bare ASGI, granian", command=granian("bare"), needs=("granian", "uvloop")),
    "websockets": Peer(
        title="websockets, broadcast()",
        command=program("websockets_server"),
        needs=("websockets",),
        likes=("uvloop",),
        without=("http",),
    ),
    "node": Peer(title="Node ws", command=node, needs=("node",)),
}


def ws_folder() -> Path | None:
    """Return the package ``ws`` that ``make bench`` has put beside the virtual environment."""
    folder = Path(sys.prefix) / "node" / "node_modules" / "ws"
    return folder if folder.is_dir() else None


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _version(name: str) -> str:
    if name == "node":
        return subprocess.check_output(["node", "--version"], text=True).strip()
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not here"


def _ws_version() -> str:
    folder = ws_folder()
    if folder is None:
        return "?"
    return str(json.loads((folder / "package.json").read_text())["version"])
