"""A whole project, in the manner of Channels' tutorial: it is upgraded, and then two people chat in it, on trio."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from trichannels.cli import main

pytestmark = pytest.mark.once

PROJECT: Mapping[str, str] = {
    "requirements.txt": "Django>=5.2\nchannels[daphne]>=4.0  # sockets\nchannels_redis>=4\n",
    "mysite/__init__.py": "",
    "mysite/settings.py": '''\
"""Settings of the chat."""

SECRET_KEY = "not a secret"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"

# Applications
INSTALLED_APPS = [
    "daphne",  # must come first
    "chat",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
]

STATIC_URL = "static/"
ASGI_APPLICATION = "mysite.asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    "redis": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [("127.0.0.1", 6379)]},
    },
}
if True:
    del CHANNEL_LAYERS["redis"]  # for the tests
''',
    "mysite/urls.py": """\
from django.urls import include, path

urlpatterns = [path("chat/", include("chat.urls"))]
""",
    "mysite/asgi.py": """\
import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
# Initialize Django ASGI application early to ensure the AppRegistry
# is populated before importing code that may import ORM models.
django_asgi_app = get_asgi_application()

import chat.routing

application = ProtocolTypeRouter({
    "http": django_asgi_app,
    "websocket": AllowedHostsOriginValidator(
        AuthMiddlewareStack(URLRouter(chat.routing.websocket_urlpatterns))
    ),
})
""",
    "chat/__init__.py": "",
    "chat/urls.py": """\
from django.urls import path

from . import views

urlpatterns = [path("<str:room_name>/", views.announce, name="announce")]
""",
    "chat/views.py": '''\
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse


def announce(request, room_name):
    """Tell a room, from blocking code."""
    async_to_sync(get_channel_layer().group_send)(
        f"chat_{room_name}", {"type": "chat.message", "message": "from a view"}
    )
    return HttpResponse("told")
''',
    "chat/routing.py": """\
from django.urls import re_path

from . import consumers

websocket_urlpatterns = [
    re_path(r"ws/chat/(?P<room_name>\\w+)/$", consumers.ChatConsumer),
    re_path(r"ws/sync/(?P<room_name>\\w+)/$", consumers.SyncChatConsumer.as_asgi()),
]
""",
    "chat/consumers.py": """\
# chat/consumers.py
import asyncio
import json

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class SyncChatConsumer(WebsocketConsumer):
    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"

        # Join room group
        async_to_sync(self.channel_layer.group_add)(
            self.room_group_name, self.channel_name
        )

        self.accept()

    def disconnect(self, close_code):
        # Leave room group
        async_to_sync(self.channel_layer.group_discard)(
            self.room_group_name, self.channel_name
        )

    # Receive message from WebSocket
    def receive(self, text_data):
        message = json.loads(text_data)["message"]

        # Send message to room group
        async_to_sync(self.channel_layer.group_send)(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    # Receive message from room group
    def chat_message(self, event):
        self.send(text_data=json.dumps({"message": event["message"]}))


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"
        self.greeted = asyncio.Event()

        # Join room group
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)

        await self.accept()
        asyncio.create_task(self.greet("welcome"))

    async def greet(self, word):
        await asyncio.sleep(0.01)
        await self.send(text_data=json.dumps({"message": word}))
        self.greeted.set()

    async def disconnect(self, close_code):
        # Leave room group
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    # Receive message from WebSocket
    async def receive(self, text_data):
        await self.greeted.wait()
        message = json.loads(text_data)["message"]

        # Send message to room group
        await self.channel_layer.group_send(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    # Receive message from room group
    async def chat_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"]}))
""",
    "chat/tests.py": """\
from channels.testing import HttpCommunicator, WebsocketCommunicator
from mysite.asgi import application

ORIGIN = [(b"origin", b"http://localhost"), (b"host", b"localhost")]


async def talk():
    async with application.opened():
        ada = WebsocketCommunicator(application, "/ws/chat/lobby/", headers=ORIGIN)
        bob = WebsocketCommunicator(application, "/ws/sync/lobby/", headers=ORIGIN)
        assert (await ada.connect())[0]
        assert await ada.receive_json_from() == {"message": "welcome"}
        assert (await bob.connect())[0]
        for speaker, text in ((ada, "hello"), (bob, "good day")):
            await speaker.send_json_to({"message": text})
            for listener in (ada, bob):
                assert await listener.receive_json_from() == {"message": text}
        page = HttpCommunicator(application, "GET", "/chat/lobby/", headers=[(b"host", b"localhost")])
        assert (await page.get_response())["body"] == b"told"
        for listener in (ada, bob):
            assert await listener.receive_json_from() == {"message": "from a view"}
        await ada.disconnect()
        await bob.disconnect()
    print("they talked")
""",
}

CONSUMERS_AFTER = """\
# chat/consumers.py
import json

import anyio
from trichannels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class SyncChatConsumer(WebsocketConsumer):
    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"

        # Join room group
        self.channel_layer.group_add(
            self.room_group_name, self.channel_name
        )
"""


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write a project into a folder."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def run(where: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in the project; neither Channels nor daphne can be imported there."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['channels', 'channels_redis', 'daphne'])); "
    return subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=where, capture_output=True, text=True, timeout=120
    )


def test_the_tutorials_chat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(PROJECT, tmp_path)
    assert main(["upgrade", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "7 files changed, 0 things are left to you\n"
    assert (tmp_path / "chat" / "consumers.py").read_text().startswith(CONSUMERS_AFTER)
    assert (tmp_path / "requirements.txt").read_text() == "Django>=5.2\ntrichannels[django,redis,serve]  # sockets\n"

    assert main(["upgrade", "--check", str(tmp_path)]) == 0

    talked = run(tmp_path, "import trio; from chat.tests import talk; trio.run(talk)")
    assert talked.stdout == "they talked\n", talked.stderr

    code = "import django; django.setup(); from django.core.management import call_command; call_command('check')"
    checked = run(tmp_path, f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'; {code}")
    assert checked.stdout == "System check identified no issues (0 silenced).\n", checked.stderr
