"""Pieces of the pages that need a Django project: ``project_pieces.py`` runs them all, in one process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache

from .pages import ROOT

IN_A_PROJECT: Mapping[tuple[str, str], str] = {
    ("django.md", "import os"): "an_asgi_file",
    ("django.md", "from trichannels.layers import get_channel_layer"): "a_signal",
    ("authentication.md", "from trichannels.auth import AuthMiddlewareStack, get_user"): "a_consumer_with_users",
    ("django.md", "async with database_bridge().lease(atomic=True) as lane:"): "a_lease",
    ("testing.md", "from trichannels.testing import on_test_thread, shared_connections"): "both_ways_to_test",
    ("testing.md", "def test_saving_tells_the_room(db):"): "a_blocking_test_of_what_sends",
    ("upgrading/channels-4.md", 'user = self.scope["user"]'): "who_is_there",
    ("upgrading/channels-4.md", "from trichannels.middleware import BaseMiddleware"): "a_middleware_with_tokens",
    ("upgrading/channels-4.md", "@pytest_asyncio.fixture(autouse=True)"): "layers_of_a_fixture",
    ("upgrading/channels-4.md", "count = await database_sync_to_async(read)()"): "a_lost_update",
}
"""Page and first line of each, and its check."""


PROGRAM = (
    "from tests.project.configured import configure; configure(); from tests.docs.project_pieces import main; main()"
)


@cache
def outcomes() -> Mapping[str, str]:
    """Return what came of each check: nothing, or a traceback."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    found: Mapping[str, str] = json.loads(told.stdout or "{}")
    return {name: found.get(name, told.stderr) for name in IN_A_PROJECT.values()}


def came_of(name: tuple[str, str], source: str) -> None:
    """Raise what its check has raised; that one reads the page itself."""
    failure = outcomes()[IN_A_PROJECT[name]]
    assert not failure, failure
