"""What is left in Python files is listed, with the line and the cure."""

import pytest

from trichannels.upgrade.python import upgrade_python

from .pairs import left, stays

pytestmark = pytest.mark.once

CHANNELS_1 = """
from channels import Group
from channels.routing import route
from channels.sessions import channel_session


@channel_session
def connected(message):
    Group("chat").add(message.reply_channel)


routes = [route("websocket.connect", connected)]
"""


def test_channels_1_is_only_listed() -> None:
    said = [line.split(": ")[:2] for line in stays(CHANNELS_1)]
    assert said == [
        ["1", "from channels import Group"],
        ["2", "from channels.routing import route"],
        ["3", "from channels.sessions import channel_session"],
        ["6", "channels.sessions.channel_session"],
        ["8", "channels.Group"],
        ["11", "channels.routing.route"],
    ]
    assert all(": of Channels 1: " in line for line in left(CHANNELS_1))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from channels.http import AsgiHandler\n", "1: from channels.http import AsgiHandler: of Channels 2 and 3: "),
        ("import channels.staticfiles\n", "1: import channels.staticfiles: of Channels 2: runserver of "),
        ("from channels_redis.core import x\n", "1: from channels_redis.core import x: layers on Redis are in "),
        ("from channelsmultiplexer import A\n", "1: from channelsmultiplexer import A: built on Channels: "),
        ("from daphne.server import Server\n", "1: from daphne.server import Server: daphne is not needed: "),
        ("from django.conf.urls import url\nurl('channels', x)\n", "2: django.conf.urls.url: Django has no url() "),
        ("patch('channels.layers.get_channel_layer')\n", "1: 'channels.layers.get_channel_layer': write 'trichannels."),
        ("x = 'channels_redis.' 'core.RedisChannelLayer'\n", "1: 'channels_redis.core.RedisChannelLayer': write "),
        ("x = f'channels_redis.core.{y}'\n", "1: f'channels_redis.core.…': write 'trichannels.layers.redis'"),
        ("x = 'daphne.server.Server'\n", "1: 'daphne.server.Server': daphne is not needed: "),
        ("import_module('channels')\n", "1: import_module('channels'): the app is 'trichannels.django' now"),
        ("if 'channels' in settings.INSTALLED_APPS: ...\n", "1: 'channels' in a list of apps: the app is "),
        (
            "patch('channels.layers.BaseChannelLayer')\n",
            "1: 'channels.layers.BaseChannelLayer': trichannels.layers has ",
        ),
    ],
)
def test_other_leftovers(source: str, expected: str) -> None:
    (line,) = stays(source)
    assert line.startswith(expected)


def test_a_worker_has_other_arguments() -> None:
    (line,) = left("from channels.worker import Worker\nWorker(application, ['a'], layer)\n")
    assert line.startswith("2: trichannels.worker.Worker: takes other arguments here: await run_worker(")


def test_a_router_without_http_is_listed_but_not_in_tests() -> None:
    source = "from channels.routing import ProtocolTypeRouter\nx = ProtocolTypeRouter({'websocket': y})\n"
    (line,) = left(source, "routing.py")
    assert line.startswith("2: ProtocolTypeRouter without http: add ")
    assert left(source, "test_routing.py") == []
    assert left(source.replace("{", "{'http': z, "), "routing.py") == []


LAZY = """
class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        self.user = self.scope["user"]
        self.scope.get("session")["seen"] = True

    def name(self):
        return self.scope["user"]
"""


def test_the_user_in_async_code_is_listed_unless_somebody_asks_for_it() -> None:
    said = left(LAZY)
    assert said == [
        '3: scope["user"] in async code: await get_user(self.scope) (trichannels.auth) first: '
        "nothing is read before somebody asks",
        '4: scope["session"] in async code: await get_session(self.scope) (trichannels.sessions) first: '
        "nothing is read before somebody asks",
    ]
    known = LAZY.replace("def connect(self):", "def connect(self):\n        await get_user(self.scope)")
    assert [line.partition(":")[0] for line in left(known)] == ["5"]


def test_what_is_built_on_channels_is_listed_where_it_is_imported() -> None:
    (line,) = left("from djangochannelsrestframework.decorators import action\n\n@action()\ndef f(): ...\n")
    assert line.startswith("1: from djangochannelsrestframework.decorators import action: built on Channels: ")


MIDDLEWARE = """
from channels.auth import AuthMiddleware


class Token(AuthMiddleware):
    def populate_scope(self, scope):
        scope["user"] = None


class OfUrl(Token):
    async def resolve_scope(self, scope):
        scope["user"] = await self.find(scope)

    def find(self, scope): ...
"""


def test_middleware_whose_methods_nobody_calls_is_listed() -> None:
    said = [line.partition(": nobody calls it here: ")[0] for line in left(MIDDLEWARE)]
    assert said == ["5: populate_scope", "10: resolve_scope"]
    assert left(MIDDLEWARE.replace("from channels.auth", "from elsewhere")) == []


@pytest.mark.parametrize("name", ["backends", "make_test_backend", "set"])
def test_what_else_channel_layers_had_is_listed(name: str) -> None:
    (line,) = left(f"from channels.layers import channel_layers\n\nchannel_layers.{name}\n")
    assert line.startswith(f"3: trichannels.layers.channel_layers.{name}: channel_layers has no {name} here: ")
    assert left("from channels.layers import channel_layers\nchannel_layers['default']\n") == []


def test_small_names_that_are_nowhere_here_are_listed() -> None:
    (line,) = left("from channels import DEFAULT_CHANNEL_LAYER\n")
    assert line == '1: from channels import DEFAULT_CHANNEL_LAYER: write "default", which it stands for'
    (line,) = left("from channels.auth import UserLazyObject\n")
    assert line.startswith("1: from channels.auth import UserLazyObject: middleware of your own sets ")


def test_requirements_in_setup_py() -> None:
    (line,) = stays("setup(install_requires=['channels[daphne]>=4'], keywords=['a channels'])\n", "setup.py")
    assert line.startswith("1: 'channels[daphne]>=4': write trichannels[django,redis,serve]")
    assert stays("setup(install_requires=['channels>=4'])\n", "other.py") == []


@pytest.mark.parametrize(
    "source",
    [
        b"import channels.layers\nprint 'two'\n",
        b"# coding: nope\nimport channels\n",
        b"import channels  # \xff\n",
        b"import channels\0\n",
        b"import channels\nx = " + b"(" * 10_000 + b")" * 10_000,
        b"import channels\nx = " + b"-" * 100_000 + b"1",
        b"import channels.layers\nif x:\n        a\n    b\n",
    ],
)
def test_what_cannot_be_parsed_is_listed(source: bytes) -> None:
    upgraded = upgrade_python("a.py", source)
    (said,) = upgraded.left
    assert upgraded.new == source
    assert said.what.startswith("cannot be parsed (")


def test_what_libcst_would_not_keep_is_left_alone() -> None:
    source = b"import channels.layers\n\x0cx = 1\n"
    upgraded = upgrade_python("a.py", source)
    assert upgraded.new == source
    assert [said.what for said in upgraded.left] == ["cannot be rewritten"]
    assert upgrade_python("a.py", source.replace(b"channels", b"trichannels")).left == ()


@pytest.mark.parametrize(
    "source",
    [
        b"import channels.layers\r\nx = '\xc3\xa9'\r\n",
        b"import channels.layers\r\nx = 1",
        b"import channels.layers\nx = 1",
        b"\xef\xbb\xbfimport channels.layers\n",
        b"# -*- coding: latin-1 -*-\nimport channels.layers\nx = '\xe9'\n",
        b"import channels.layers\n\n\n\n# the end",
        b"#!/usr/bin/env python\n# \t\n\nimport   channels.layers ;x=1   # c\n",
        b"if 1:\n\timport channels.layers\n\tx = [1,\n2 ]\n",
    ],
)
def test_encodings_and_ends_of_lines_stay(source: bytes) -> None:
    assert upgrade_python("a.py", source).new == source.replace(b"channels.layers", b"trichannels.layers")


def test_new_lines_end_as_the_others() -> None:
    source = (
        "import asyncio\r\nimport x\r\nclass A(BConsumer):\r\n    async def f(self):\r\n        await asyncio.sleep(1)"
    )
    new = upgrade_python("a.py", source.encode()).new.decode()
    assert new == source.replace("asyncio", "anyio")
