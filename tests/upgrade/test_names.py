"""The tables name what is there, in Channels and here."""

import subprocess
import sys

import pytest

from trichannels.layers.configured import RENAMED
from trichannels.upgrade.names import DJANGO_ASGI, MODULES, longest

pytestmark = pytest.mark.once

LOOK = """
import sys
from importlib import import_module
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"])
import django
django.setup()
for line in sys.stdin:
    module, name = line.split()
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] == module.split(".")[0] == "trichannels":
            print(module)
        continue
    if not hasattr(import_module(module), name):
        print(module, name)
"""


def test_every_name_is_in_the_module_here_and_in_that_of_channels() -> None:
    homes = {**MODULES, **DJANGO_ASGI}
    pairs = [(where, name) for old, home in homes.items() for name in home.names for where in (old, home.module)]
    text = "".join(f"{module} {name}\n" for module, name in pairs)
    ended = subprocess.run([sys.executable, "-c", LOOK], input=text, capture_output=True, text=True, check=True)
    assert ended.stdout == ""


def test_layers_by_path_are_those_of_the_settings() -> None:
    for old, new in RENAMED.items():
        module, _, name = old.rpartition(".")
        assert name in MODULES[module].names
        assert new == f"{MODULES[module].module}.{name}"


def test_the_longest_beginning_counts() -> None:
    table = {"a": "1", "a.b": "2"}
    found = [longest(table, name) for name in ("a", "a.c", "a.b", "a.b.c", "ab", "b")]
    assert found == ["1", "1", "2", "2", None, None]
