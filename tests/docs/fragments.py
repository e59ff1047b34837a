"""Code that stands in a ``text`` block because it is not whole: each piece has a check, which completes it and runs it.

A check takes the block. Pieces that need a Django project are run by ``in_a_project.py``, and those of
``docs/upgrading/`` by ``tests/upgrade/fragments.py``.
"""

import configparser
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import anyio
import trio
from trio.testing import MockClock

from trichannels.generic.websocket import AsyncWebsocketConsumer
from trichannels.layers.configured import backend_class
from trichannels.testing import HttpCommunicator, WebsocketCommunicator

from ..upgrade.fragments import UPGRADING
from .commands import check_commands
from .in_a_project import IN_A_PROJECT, came_of
from .pages import ROOT, block
from .whole import on_trio

CALL = 'dsn="postgresql://…").group_send("news", {"type": "news.came"})'
Check = Callable[[str], None]


def settings_that_open(source: str) -> None:
    """Settings of Django: every layer that they name can be made."""
    names: dict[str, Any] = {}
    exec(source, names)
    for one in names["CHANNEL_LAYERS"].values():
        path = one["BACKEND"].replace("site.", "examples.")  # what a page calls its reader's is an example here
        for options in (one.get("CONFIG", {}), one.get("TEST_CONFIG", {})):
            backend_class("default", {"BACKEND": path})(**options)
    for app in names.get("INSTALLED_APPS", [...]):
        assert app is ... or import_module(app)


def on_a_virtual_clock(source: str) -> None:
    """A test that waits for an hour."""

    class Heart(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await anyio.sleep(3600)
            await self.send(text_data="beat")

    names: dict[str, Any] = {"Heart": Heart, "WebsocketCommunicator": WebsocketCommunicator}
    exec(source, names)
    clock = MockClock(autojump_threshold=0)
    trio.run(names["test_heartbeat"], clock, clock=clock)


def is_part_of(program: str, source: str) -> None:
    """Each line is one of a program, in this order; arguments may be others."""
    there = iter(line.strip() for line in (ROOT / program).read_text().splitlines())
    for line in source.splitlines():
        wanted = line.strip().partition("(")[0]
        assert any(one.partition("(")[0] == wanted for one in there), line


def a_call_of_the_example(source: str) -> None:
    """The class and its methods are there, and take these arguments."""
    layer = import_module("examples.postgres_layer").PostgresChannelLayer
    sent: list[object] = []

    def blocking(**options: Any) -> Any:
        client = layer.blocking(**options)
        client._run = sent.append
        return client

    exec(source, {"PostgresChannelLayer": SimpleNamespace(blocking=blocking)})
    assert sent


def unit_of_systemd(source: str) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.read_string(source)
    program, _, options = unit["Service"]["ExecStart"].partition(" ")
    assert program.endswith("/bin/trichannels")
    check_commands(f"trichannels {options}")


def nginx_in_front(source: str) -> None:
    """The block is closed, and says what a WebSocket and ``--proxy-headers legacy`` need."""
    lines = [line.strip() for line in source.splitlines()]
    assert lines[0].endswith("{")
    assert lines[-1] == "}"
    assert all(line.endswith(";") for line in lines[1:-1])
    headers = {line.split()[1] for line in lines if line.startswith("proxy_set_header ")}
    assert headers >= {"Upgrade", "Connection", "Host", "X-Forwarded-For", "X-Forwarded-Proto"}
    assert "proxy_http_version 1.1;" in lines
    socket = re.search(r"unix:(\S+);", source)
    assert socket
    assert f"--bind unix:{socket[1]} " in block("tutorial/4-tests-and-deployment.md", "[Service]")


def what_a_page_hears(source: str) -> None:
    """A page's script listens where the application of the same page serves, and to events that it sends."""
    python = block("sse.md", "class News(EventStreamConsumer)")
    names: dict[str, Any] = {}
    exec(python, names)
    path = re.search(r'EventSource\("(.*?)"\)', source)
    assert path

    async def status() -> int:
        async with names["application"].opened(), HttpCommunicator(names["application"], "GET", path[1]) as request:
            return int((await request.receive_output())["status"])

    assert on_trio(status) == 200
    heard = re.findall(r'addEventListener\("(\w+)"', source)
    assert heard
    assert set(heard) == set(re.findall(r'event="(\w+)"', python))


FRAGMENTS: Mapping[tuple[str, str], Check] = {
    ("django.md", "INSTALLED_APPS = ["): settings_that_open,
    ("sse.md", 'const source = new EventSource("/news/?key=open");'): what_a_page_hears,
    ("testing.md", "async def test_heartbeat(autojump_clock):"): on_a_virtual_clock,
    ("tutorial/4-tests-and-deployment.md", "[Service]"): unit_of_systemd,
    ("tutorial/4-tests-and-deployment.md", "location / {"): nginx_in_front,
    ("writing-a-layer.md", "connection.send_query_params(sql, values)"): partial(
        is_part_of, "examples/postgres_layer.py"
    ),
    ("writing-a-layer.md", "@asynccontextmanager"): partial(is_part_of, "examples/postgres_layer.py"),
    ("writing-a-layer.md", f"PostgresChannelLayer.blocking({CALL}"): a_call_of_the_example,
    ("writing-a-layer.md", "CHANNEL_LAYERS = {"): settings_that_open,
    ("upgrading/index.md", "CHANNEL_LAYERS = {"): settings_that_open,
    **UPGRADING,
    **{name: partial(came_of, name) for name in IN_A_PROJECT},
}
