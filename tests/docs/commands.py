"""Command lines that the pages show: whether the programs would take them. Nothing is run."""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import django.core.management as of_django
from django.contrib import auth
from django.core.management import find_commands

import trichannels.django
from trichannels.cli import build_parser
from trichannels.server.config import ServerConfig

from .pages import ROOT

ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)
PACKAGE = re.compile(r"trichannels(?:\[([\w,]+)\])?")


def trichannels_takes(*arguments: str) -> None:
    """Raise if ``trichannels`` would refuse these."""
    parser, _ = build_parser()
    found, unknown = parser.parse_known_args(arguments)
    assert not unknown
    if found.command == "serve":
        own = {"command", "target", "app_dir", "gc_tuning", "inherited", "config"}
        ServerConfig.from_options({name: value for name, value in vars(found).items() if name not in own})


def pip_takes(verb: str, package: str) -> None:
    match = PACKAGE.fullmatch(package)
    assert verb == "install"
    assert match
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(filter(None, (match[1] or "").split(","))) <= set(extras)


def make_takes(target: str) -> None:
    assert target in TARGET.findall((ROOT / "Makefile").read_text())


def python_takes(program: str, *arguments: str) -> None:
    if program == "manage.py":
        homes = [of_django, auth, trichannels.django]  # the apps of a project that has followed the tutorial
        folders = [Path(str(home.__file__)).parent for home in homes]
        folders = [folder if folder.name == "management" else folder / "management" for folder in folders]
        assert arguments[0] in {name for folder in folders for name in find_commands(str(folder))}
    elif arguments[0] == "pytest":
        paths = [one for one in arguments if one.startswith("tests/")]
        assert paths
        assert all((ROOT / path).exists() for path in paths)
    elif arguments[0].startswith("benchmarks."):
        import_module(arguments[0]).arguments().parse_args(arguments[1:])
    else:
        assert (program, arguments[0]) == ("-m", "venv")


def shell_takes(script: str) -> None:
    """``. .venv/bin/activate``, of the line above."""
    assert script == ".venv/bin/activate"


PROGRAMS: dict[str, Callable[..., None]] = {
    "trichannels": trichannels_takes,
    "pip": pip_takes,
    "make": make_takes,
    "python": python_takes,
    ".venv-test/bin/python": python_takes,
    ".": shell_takes,
}


def command_lines(source: str) -> Iterator[list[str]]:
    """Yield the words of each line: comments and variables of the environment are not of them."""
    for line in source.splitlines():
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words:
            yield words


def are_commands(source: str) -> bool:
    """Say whether a block begins with a program."""
    first = source.split("\n", 1)[0].split()
    return next((word for word in first if not ASSIGNMENT.fullmatch(word)), "") in PROGRAMS


def check_commands(source: str) -> None:
    """Raise for a line that its program would not take."""
    for program, *arguments in command_lines(source):
        PROGRAMS[program](*arguments)
