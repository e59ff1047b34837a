"""async_to_sync around a layer, and consumers as classes in routes."""

import pytest

from .pairs import becomes, left, stays

pytestmark = pytest.mark.once
HEAD = "from asgiref.sync import async_to_sync\n"
LAYER = "from trichannels.layers import channel_layers, get_channel_layer\nlayer = get_channel_layer()\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("async_to_sync(layer.group_send)(group, message)", "layer.group_send(group, message)"),
        ("async_to_sync(get_channel_layer().group_send)('a', {})", "get_channel_layer().group_send('a', {})"),
        ("async_to_sync(channel_layers['b'].send)(a, b)", "channel_layers['b'].send(a, b)"),
        ("l = get_channel_layer()\nasync_to_sync(l.send)(a, b)", "l = get_channel_layer()\nl.send(a, b)"),
        ("if l := get_channel_layer():\n    async_to_sync(l.send)(a)", "if l := get_channel_layer():\n    l.send(a)"),
        ("on_commit(lambda: async_to_sync(layer.send)(a, b))", "on_commit(lambda: layer.send(a, b))"),
        ("async_to_sync(\n    layer\n    .send\n)(a, b)", "(layer\n    .send)(a, b)"),
    ],
)
def test_a_layer_blocks_by_itself(before: str, after: str) -> None:
    becomes(f"{HEAD}{LAYER}{before}\n", f"{LAYER}{after}\n")


BLOCKING = """
class Chat(WebsocketConsumer):
    def receive(self):
        {}

    async def helper(self): ...
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "async_to_sync(self.channel_layer.group_send)(\n    a,\n    b,  # b\n)",
            "self.channel_layer.group_send(\n    a,\n    b,  # b\n)",
        ),
        (
            "on_commit(lambda: async_to_sync(self.channel_layer.group_add)(a, b))",
            "on_commit(lambda: self.channel_layer.group_add(a, b))",
        ),
        ("async_to_sync(self.channel_layer.group_discard)(a)", "self.channel_layer.group_discard(a)"),
        ("async_to_sync(self.channel_layer.send)(a, b)", "self.channel_layer.send(a, b)"),
    ],
)
def test_a_blocking_consumers_own_layer_blocks(before: str, after: str) -> None:
    becomes(HEAD + BLOCKING.format(before).lstrip("\n"), BLOCKING.format(after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from asgiref.sync import async_to_sync, sync_to_async\n", "from asgiref.sync import sync_to_async\n"),
        ("from asgiref.sync import sync_to_async, async_to_sync\n", "from asgiref.sync import sync_to_async\n"),
        (
            "from asgiref.sync import (\n    async_to_sync,\n    sync_to_async,\n)\n",
            "from asgiref.sync import (\n    sync_to_async,\n)\n",
        ),
        ("import os; from asgiref.sync import async_to_sync\n", "import os\n"),
        (
            "# header\n\nimport os\n# why\nfrom asgiref.sync import async_to_sync\nimport re\n",
            "# header\n\nimport os\n# why\nimport re\n",
        ),
        ("import os\n\nfrom asgiref.sync import async_to_sync\nfrom x import y\n", "import os\n\nfrom x import y\n"),
        (
            "try:\n    from asgiref.sync import async_to_sync\nfinally:\n    pass\n",
            "try:\n    pass\nfinally:\n    pass\n",
        ),
        ("import asgiref.sync\nfrom asgiref.sync import async_to_sync  # noqa\n", "import asgiref.sync\n"),
        *[
            (f"from asgiref.sync import {names}\n",) * 2
            for names in ("async_to_sync  # why", "(\n    # why\n    async_to_sync,\n)")
        ],
    ],
)
def test_its_import_goes_with_the_last_use(before: str, after: str) -> None:
    call = "async_to_sync(layer.group_send)(a, b)\n"
    becomes(before + LAYER + call, f"{after}{LAYER}layer.group_send(a, b)\n")
    both = f"{call}async_to_sync(f)()\n"
    becomes(before + LAYER + both, f"{before}{LAYER}layer.group_send(a, b)\nasync_to_sync(f)()\n")


@pytest.mark.parametrize(
    "code",
    [
        "async_to_sync(f)()",
        "async_to_sync(f)(layer.group_send)(a, b)",
        "async_to_sync(group_send)(a, b)",
        "async_to_sync(socket.send)(a)",
        "async_to_sync(self.send)(a)",
    ],
)
def test_everything_else_stays_around(code: str) -> None:
    assert stays(f"{HEAD}{code}\n") == []


UNPROVEN = """
async_to_sync(player.send)(a)  # if that is a channel layer
async_to_sync(bus.group_send)(a)  # if that is a channel layer
async_to_sync(self.layer.group_send)(a)  # if that is a channel layer
def given(layer): async_to_sync(layer.group_send)(a)  # if that is a channel layer
def either():
    layer = x or get_channel_layer()
    async_to_sync(layer.send)(a)  # if that is a channel layer
def made():
    layer = InMemoryChannelLayer()
    async_to_sync(layer.group_send)(a)  # if that is a channel layer
def other(get_channel_layer): async_to_sync(get_channel_layer().group_send)(a)  # if that is a channel layer
class Helper:
    def helps(self): async_to_sync(self.channel_layer.send)(a)  # if that is a channel layer
class Sync(SyncConsumer):
    def own(self): async_to_sync(self.group_send)(a)  # if that is a channel layer
    def inner(self):
        def own(self): async_to_sync(self.channel_layer.send)(a)  # if that is a channel layer
send = async_to_sync(layer.group_send)  # the layer blocks by itself here
async_to_sync(layer.receive)(a)  # blocking code has send, group_send
async def task(): async_to_sync(layer.group_send)(a)  # in async code await the layer
async_to_sync(  # the layer blocks by itself here
    layer.group_send
)(a, b)
"""


def test_what_is_not_proven_to_be_a_layer_stays_and_is_listed() -> None:
    source = f"{HEAD}{LAYER}{UNPROVEN}"
    lines = enumerate(source.splitlines(), 1)
    expected = {number: line.partition("  # ")[2] for number, line in lines if "  # " in line}
    said = [line.split(": ", 2) for line in stays(source)]
    assert {int(number) for number, _, _ in said} == expected.keys()
    assert [line for line in said if not line[2].startswith(expected[int(line[0])])] == []


CAPTURED = """
from asgiref.sync import async_to_sync, sync_to_async
from trichannels.layers import get_channel_layer

async def view(request):
    layer = get_channel_layer()

    @sync_to_async
    def work():
        async_to_sync(layer.group_send)("g", {})

    await sync_to_async(lambda: async_to_sync(layer.send)("c", {}))()
"""


def test_a_layer_taken_on_the_loop_is_the_loops_own_in_threads_too() -> None:
    said = [line.partition(": asgiref.sync.async_to_sync: ") for line in stays(CAPTURED)]
    assert [line for line, _, _ in said] == ["9", "11"]
    assert all("take get_channel_layer() inside of the blocking function" in advice for _, _, advice in said)
    inside = CAPTURED.replace("        async_to", "        layer = get_channel_layer()\n        async_to")
    becomes(inside, inside.replace("async_to_sync(layer.group_send)", "layer.group_send"))


def test_another_async_to_sync_stays() -> None:
    assert stays("from mine import async_to_sync\nasync_to_sync(layer.group_send)(a, b)\n") == []


def test_in_a_consumer_what_stays_is_listed() -> None:
    (line,) = left(f"{HEAD}class A(WebsocketConsumer):\n    def receive(self): async_to_sync(f)()\n")
    assert line.startswith("3: asgiref.sync.async_to_sync: in a consumer use that of trichannels.bridge")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("path('ws/', ChatConsumer)", "path('ws/', ChatConsumer.as_asgi())"),
        (
            "re_path(r'^ws/$', consumers.ChatConsumer, name='a')",
            "re_path(r'^ws/$', consumers.ChatConsumer.as_asgi(), name='a')",
        ),
        ("path('ws/', view=consumers.Chat)", "path('ws/', view=consumers.Chat.as_asgi())"),
        ("url('ws/', app.consumers.Chat)", "url('ws/', app.consumers.Chat.as_asgi())"),
        ("ChannelNameRouter({'a': PrintConsumer, **b})", "ChannelNameRouter({'a': PrintConsumer.as_asgi(), **b})"),
        (
            "ProtocolTypeRouter({'websocket': ChatConsumer})",
            "ProtocolTypeRouter({'websocket': ChatConsumer.as_asgi()})",
        ),
        (
            "class Chat(AsyncConsumer): pass\npath('a', Chat)",
            "class Chat(AsyncConsumer): pass\npath('a', Chat.as_asgi())",
        ),
    ],
)
def test_consumers_in_routes(before: str, after: str) -> None:
    becomes(f"{before}\n", f"{after}\n", "routing.py")


@pytest.mark.parametrize(
    "code",
    [
        "path('ws/', ChatConsumer.as_asgi())",
        "path('', views.index)",
        "path('', consumers.index)",
        "path(ChatConsumer, 1)",
        "open('a', ChatConsumer)",
    ],
)
def test_other_routes_stay(code: str) -> None:
    assert stays(f"{code}\n") == []


ASYNC = """
from asgiref.sync import async_to_sync
class Chat(AsyncWebsocketConsumer):
    def in_a_thread(self):
        async_to_sync(self.channel_layer.group_send)(a, b)
"""


def test_an_async_consumers_own_layer_is_awaited() -> None:
    (line,) = stays(ASYNC)
    assert line.startswith(
        "4: asgiref.sync.async_to_sync: in a thread get_channel_layer().group_send(…) blocks by itself"
    )
    (line,) = stays(ASYNC.replace("AsyncWebsocketConsumer", "Base"))
    assert line.startswith("4: asgiref.sync.async_to_sync: if that is a channel layer: ")
