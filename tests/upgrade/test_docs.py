"""The pages of docs/upgrading: what they say of the command is so. Their code is in ``fragments.py``."""

import re
from pathlib import Path

import pytest

from trichannels.layers.configured import RENAMED
from trichannels.upgrade import names

from ..docs.pages import ROOT
from .fragments import page
from .pairs import python, stays

pytestmark = pytest.mark.once

PAGES = sorted((ROOT / "docs" / "upgrading").glob("*.md"))
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")

# Files in which a row of the command's table is rewritten, and what the row leaves out.
WRITTEN_OUT = {
    "async_to_sync(layer.group_send)(…)": (
        "from asgiref.sync import async_to_sync\nfrom channels.layers import get_channel_layer\n\n\n"
        "def view(request):\n    layer = get_channel_layer()\n    async_to_sync(layer.group_send)('a', {})\n"
    ),
    'path("ws/", ChatConsumer)': (
        "from channels.routing import URLRouter\nfrom django.urls import path\nfrom .consumers import ChatConsumer\n\n"
        'application = URLRouter([path("ws/", ChatConsumer)])\n'
    ),
    "asyncio.create_task(self.tick())": (
        "import asyncio\n\n\nclass Ticks(AsyncConsumer):\n    async def connect(self):\n"
        "        asyncio.create_task(self.tick())\n\n    async def tick(self):\n        pass\n"
    ),
}


def rewritten() -> list[tuple[str, str]]:
    """Return code before and after, of the rows that show both."""
    table = page("index.md").partition("| what | becomes |\n")[2].partition("\n\n")[0]
    cells = [(CODE.findall(before), CODE.findall(after)) for before, after in ROW.findall(table)]
    return [(before[0], after[0]) for before, after in cells if before and after and re.search(r"[( ]", before[0])]


def test_all_rows_with_code_are_tried() -> None:
    assert [before for before, _ in rewritten()] == list(WRITTEN_OUT)


@pytest.mark.parametrize(("before", "after"), rewritten())
def test_the_command_rewrites_as_its_table_says(before: str, after: str) -> None:
    source = WRITTEN_OUT[before]
    new = python(source).new.decode()
    assert before.replace("(…)", "(") in source
    assert before.replace("(…)", "(") not in new
    assert after.replace("(…)", "(") in new


OF_CHANNELS_1 = """\
from channels import Channel, Group, include, route
from channels.generic.websockets import WebsocketDemultiplexer
from channels.sessions import channel_session, enforce_ordering
from channels.test import ChannelTestCase, WSClient

"""


def test_each_use_of_channels_1_is_listed_and_left_alone() -> None:
    known = set(re.findall(r"\w+(?=,|\n)", OF_CHANNELS_1))
    spans = [span for before, _ in ROW.findall(page("channels-1.md")) for span in CODE.findall(before)]
    uses = [span for span in spans if (name := re.match(r"@?(\w+)", span)) and name[1] in known]
    assert len(uses) > 8
    lines = [use.partition(" def ")[0].replace("{…}", "{}").replace("…", "x").removeprefix("@") for use in uses]
    said = stays(OF_CHANNELS_1 + "\n".join(lines) + "\n")
    of_channels_1 = {int(line.partition(":")[0]) for line in said if ": of Channels 1: " in line}
    first = OF_CHANNELS_1.count("\n") + 1
    assert [line for number, line in enumerate(lines, first) if number not in of_channels_1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"`(examples/[\w./]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_pages_that_the_command_names_exist() -> None:
    texts = [*names.NO_COUNTERPART.values(), *names.MANAGER.values(), *names.OTHER_ARGUMENTS.values()]
    for path in {path for text in texts for path in re.findall(r"docs/[\w./-]+\.md", text)}:
        assert (ROOT / path).exists(), path


def test_layers_that_the_pages_name_are_ours() -> None:
    named = {path for page in PAGES for path in re.findall(r'"BACKEND": "([\w.]+)"', page.read_text())}
    assert named <= set(RENAMED.values())
