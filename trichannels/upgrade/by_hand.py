"""Files that are looked at, and never changed: where else requirements, and commands that start a server, may be."""

import re

from .report import Left, Upgraded, text_of
from .requirements import BY_HAND, ELSEWHERE

SERVE = "serve with `trichannels serve mysite.asgi:application`, see docs/serving.md"
REQUIRED = ("setup.cfg", "Pipfile", "environment.yml", "environment.yaml", "tox.ini")
STARTED = ("Procfile", "Makefile", "supervisord.conf")
SUFFIXES = (".service", ".sh")
ABOUT = re.compile(r"(name|summary|description|long_description|keywords|url)\s*[=:]")  # words about the project
DAPHNE = re.compile(r"(^|[\s\"'/\[])daphne(?=$|[\s\"',])")


def names_requirements(name: str) -> bool:
    """Say whether a file may list requirements."""
    return name in REQUIRED or (name.startswith("constraints") and name.endswith(".txt"))  # which have no extras


def starts_servers(name: str) -> bool:
    """Say whether a file may start daphne."""
    containers = name.startswith(("Dockerfile", "docker-compose", "compose."))
    return name in STARTED or name.endswith(SUFFIXES) or containers


def look(name: str, old: bytes, pattern: re.Pattern[str], advice: str) -> Upgraded:
    """Return the file as it is, with a note for each line that has the pattern outside of comments."""
    lines = text_of(old).splitlines()
    found = (
        Left(number + 1, line.strip(), advice)
        for number, line in enumerate(lines)
        if pattern.search(line) and not line.lstrip().startswith("#") and not ABOUT.match(line)
    )
    return Upgraded(old, tuple(found))


def look_at_requirements(name: str, old: bytes) -> Upgraded:
    """Look for requirements."""
    return look(name, old, ELSEWHERE, BY_HAND)


def look_at_commands(name: str, old: bytes) -> Upgraded:
    """Look for daphne."""
    return look(name, old, DAPHNE, SERVE)
