"""async_to_sync around a layer, and consumers as classes in routes."""

import pytest

from .pairs import becomes, left, stays

pytestmark = pytest.mark.once
HEAD = "from asgiref.sync import async_to_sync\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("async_to_sync(layer.group_send)(group, message)", "layer.group_send(group, message)"),
        ("async_to_sync(get_channel_layer().group_send)('a', {})", "get_channel_layer().group_send('a', {})"),
        (
            "async_to_sync(self.channel_layer.group_send)(\n    a,\n    b,  # b\n)",
            "self.channel_layer.group_send(\n    a,\n    b,  # b\n)",
        ),
        ("async_to_sync(self.channel_layer.group_add)(a, b)", "self.channel_layer.group_add(a, b)"),
        ("async_to_sync(self.channel_layer.group_discard)(a, b)", "self.channel_layer.group_discard(a, b)"),
        ("async_to_sync(self.channel_layer.send)(a, b)", "self.channel_layer.send(a, b)"),
        ("async_to_sync(channel_layers['b'].send)(a, b)", "channel_layers['b'].send(a, b)"),
        ("l = get_channel_layer()\nasync_to_sync(l.send)(a, b)", "l = get_channel_layer()\nl.send(a, b)"),
        ("if l := get_channel_layer():\n    async_to_sync(l.send)(a)", "if l := get_channel_layer():\n    l.send(a)"),
        ("on_commit(lambda: async_to_sync(layer.send)(a, b))", "on_commit(lambda: layer.send(a, b))"),
        ("async_to_sync(\n    layer\n    .send\n)(a, b)", "(layer\n    .send)(a, b)"),
    ],
)
def test_a_layer_blocks_by_itself(before: str, after: str) -> None:
    becomes(f"{HEAD}{before}\n", f"{after}\n")


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
        ("import asgiref.sync\nfrom asgiref.sync import async_to_sync\n", "import asgiref.sync\n"),
    ],
)
def test_its_import_goes_with_the_last_use(before: str, after: str) -> None:
    call = "async_to_sync(layer.group_send)(a, b)\n"
    becomes(before + call, f"{after}layer.group_send(a, b)\n")
    both = f"{call}async_to_sync(f)()\n"
    becomes(before + both, f"{before}layer.group_send(a, b)\nasync_to_sync(f)()\n")


@pytest.mark.parametrize(
    "code",
    [
        "async_to_sync(f)()",
        "async_to_sync(f)(layer.group_send)(a, b)",
        "async_to_sync(group_send)(a, b)",
        "async_to_sync(socket.send)(a)",
        "async_to_sync(self.send)(a)",
        "send = async_to_sync(layer.group_send)",
        "layer = InMemoryChannelLayer()\nasync_to_sync(layer.group_send)(a, b)",
        "async def f():\n    async_to_sync(layer.group_send)(a, b)",
    ],
)
def test_everything_else_stays_around(code: str) -> None:
    assert stays(f"{HEAD}{code}\n") == []


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
    assert (
        stays(
            ASYNC.replace("AsyncWebsocketConsumer", "Base").replace("    def", "    async def f(self): pass\n    def")
        )
        == []
    )
