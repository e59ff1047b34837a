"""Imports, and dotted uses of modules."""

import pytest

from trichannels.upgrade.names import MODULES

from .pairs import becomes, left, stays

pytestmark = pytest.mark.once


@pytest.mark.parametrize("module", MODULES)
def test_each_module(module: str) -> None:
    home = MODULES[module]
    for name in sorted(home.names):
        becomes(f"from {module} import {name}\n", f"from {home.module} import {name}\n")
    becomes(f"import {module} as it\n", f"import {home.module} as it\n")
    becomes(f"import {module}\n", f"import {home.module}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from channels import layers, auth as a\n", "from trichannels import layers, auth as a\n"),
        ("from channels.generic import websocket\n", "from trichannels.generic import websocket\n"),
        ("from channels_redis import core\n", "from trichannels.layers import redis as core\n"),
        ("from channels_redis import core as c\n", "from trichannels.layers import redis as c\n"),
        ("from channels.exceptions import *\n", "from trichannels.exceptions import *\n"),
        ("import os, channels.db\n", "import os, trichannels.db\n"),
        ("import channels.layers as cl; cl.channel_layers\n", "import trichannels.layers as cl; cl.channel_layers\n"),
        (
            "def f():\n    from channels.layers import channel_layers\n",
            "def f():\n    from trichannels.layers import channel_layers\n",
        ),
        (
            "import channels.layers\nx = channels.layers.get_channel_layer().send  # it\n",
            "import trichannels.layers\nx = trichannels.layers.get_channel_layer().send  # it\n",
        ),
        (
            "import channels.testing.websocket\nchannels.testing.websocket.WebsocketCommunicator\n",
            "import trichannels.testing.websocket\ntrichannels.testing.websocket.WebsocketCommunicator\n",
        ),
        (
            "import channels_redis.core\nchannels_redis.core.RedisChannelLayer()\n",
            "import trichannels.layers.redis\ntrichannels.layers.redis.RedisChannelLayer()\n",
        ),
        (
            "import channels\nchannels.layers.get_channel_layer(); channels.db.database_sync_to_async\n",
            "import trichannels.db, trichannels.layers\n"
            "trichannels.layers.get_channel_layer(); trichannels.db.database_sync_to_async\n",
        ),
        (
            "try:\n    from channels.db import database_sync_to_async\nexcept ImportError:\n    pass\n",
            "try:\n    from trichannels.db import database_sync_to_async\nexcept ImportError:\n    pass\n",
        ),
        (
            "from channels.layers import (\n    InMemoryChannelLayer,  # for tests\n    get_channel_layer,\n)\n",
            "from trichannels.layers import (\n    InMemoryChannelLayer,  # for tests\n    get_channel_layer,\n)\n",
        ),
    ],
)
def test_forms(before: str, after: str) -> None:
    becomes(before, after)


def test_a_name_that_is_nowhere_keeps_an_import_of_its_own() -> None:
    before = """
        # what we need
        from channels.layers import BaseChannelLayer, get_channel_layer  # both
        """
    after = """
        # what we need
        from channels.layers import BaseChannelLayer
        from trichannels.layers import get_channel_layer  # both
        """
    becomes(before, after)
    (line,) = left(before)
    assert line.startswith(
        "2: from channels.layers import BaseChannelLayer: derive from trichannels.layers.ChannelLayer"
    )


def test_a_module_of_which_more_is_used_than_is_here_stays() -> None:
    said = stays("import channels.layers\nchannels.layers.BaseChannelLayer\nchannels.layers.get_channel_layer\n")
    assert [line.partition(":")[0] for line in said] == ["1", "2"]
    assert stays("import channels\nprint(channels.__version__)\n")
    assert stays("import channels\nprint(channels)\n")


@pytest.mark.parametrize(
    "source",
    [
        "import channels.layers\ndef f(channels): return channels.layers\n",
        "def f(channels): return channels.layers.get_channel_layer()\n",
        "channels = object()\nchannels.layers.x\n",
        "from .channels import layers\nfrom .channels.layers import get_channel_layer\n",
        "from mychannels.layers import get_channel_layer\nx = 'channels'\n",
        "'''channels.layers is a module'''\n# from channels.layers import x\n",
    ],
)
def test_what_only_looks_like_it_stays(source: str) -> None:
    if source.startswith("import"):
        becomes(source, source.replace("import channels", "import trichannels"))
    else:
        assert stays(source) == []


ASGI = """
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
application = ProtocolTypeRouter({"http": get_asgi_application()})
"""


def test_djangos_application_only_beside_a_router() -> None:
    moved = ASGI.replace("channels.routing", "trichannels.routing")
    becomes(ASGI, moved.replace("django.core.asgi", "trichannels.django.http"))
    becomes(moved, moved.replace("django.core.asgi", "trichannels.django.http"))
    assert stays("from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n") == []
    becomes(
        ASGI.replace("ProtocolTypeRouter({", "print({"),
        ASGI.replace("ProtocolTypeRouter({", "print({").replace("from channels", "from trichannels"),
    )


def test_comments_of_an_import_that_becomes_two_stay_above() -> None:
    before = "from channels.layers import (\n    # ours\n    BaseChannelLayer,  # base\n    channel_layers,\n)\n"
    after = (
        "# ours\n# base\nfrom channels.layers import BaseChannelLayer\nfrom trichannels.layers import channel_layers\n"
    )
    becomes(before, after)
