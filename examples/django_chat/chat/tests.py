"""The chat, tested in the two ways there are: on the test's own transaction, and on a live server."""

import json
from typing import Any

from chatsite.asgi import application
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client, TestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from trichannels.db import database_sync_to_async
from trichannels.testing import ChannelsLiveServerTestCase, WebsocketCommunicator, on_test_thread

from .models import Message, Room


class RoomTests(TestCase):
    """Consumers without a server: what they read and write is in the test's transaction, and rolled back with it."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.alice = get_user_model().objects.create_user("alice")
        cls.lobby = Room.objects.create(slug="lobby", title="Lobby")

    def socket(self, client: Client, path: str = "/ws/rooms/lobby/") -> WebsocketCommunicator:
        key = client.cookies[settings.SESSION_COOKIE_NAME].value if client.cookies else ""
        headers = [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()), (b"origin", b"http://localhost")]
        return WebsocketCommunicator(application, path, headers=headers)

    @on_test_thread
    async def test_what_is_said_is_kept_and_heard(self) -> None:
        await database_sync_to_async(self.client.force_login)(self.alice)
        async with application.opened(), self.socket(self.client) as socket:
            await socket.send_json_to({"text": "hello"})
            # The signal waits for the commit, which a TestCase never makes: what was saved is seen all the same.
            await socket.send_json_to({"after": 0})
            while "message" not in (heard := await socket.receive_json_from(5)):
                self.assertEqual(heard, {"here": ["alice"]})
            self.assertEqual(heard["message"]["text"], "hello")
        self.assertEqual(await database_sync_to_async(Message.objects.count)(), 1)

    @on_test_thread
    async def test_strangers_are_sent_away(self) -> None:
        async with application.opened(), self.socket(Client()) as socket:
            await socket.receive_output()
            self.assertEqual(socket.close_code, 4401)

    def test_pages(self) -> None:
        self.assertRedirects(self.client.get("/"), "/accounts/login/?next=/")
        self.client.force_login(self.alice)
        self.assertContains(self.client.get("/"), "Lobby")
        self.client.post("/rooms/lobby/say/", {"text": "by the form"})
        self.assertContains(self.client.get("/rooms/lobby/"), "by the form")
        self.assertEqual(self.client.get("/rooms/lobby/messages/").json()["messages"][0]["author"], "alice")
        self.assertEqual(self.client.post("/", {"title": "Tea & cake"}).headers["Location"], "/rooms/tea-cake/")

    def test_a_message_is_told_once_it_is_committed(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks:
            Message.objects.create(room=self.lobby, author=self.alice, text="hello")
        self.assertEqual(len(callbacks), 1)


class LiveTests(ChannelsLiveServerTestCase):
    """The whole project on a port: pages, sockets, signals and sessions as browsers have them."""

    def setUp(self) -> None:
        self.alice = get_user_model().objects.create_user("alice")
        self.lobby = Room.objects.create(slug="lobby", title="Lobby")
        self.client.force_login(self.alice)

    def connect(self) -> ClientConnection:
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.client.cookies[settings.SESSION_COOKIE_NAME].value}"
        url = f"{self.live_server_ws_url}/ws/rooms/lobby/"
        return connect(url, additional_headers={"Cookie": cookie}, origin=self.live_server_url)

    def hear(self, socket: ClientConnection, kind: str) -> Any:
        """Return the next event of this kind; who is here may be told in between."""
        while kind not in (event := json.loads(socket.recv(5))):
            self.assertIn("here", event)
        return event[kind]

    def test_two_sockets_hear_each_other(self) -> None:
        with self.connect() as one, self.connect() as other:
            for socket in (one, other):
                self.assertEqual(self.hear(socket, "here"), ["alice"])
            one.send(json.dumps({"text": "hello"}))
            for socket in (one, other):
                self.assertEqual(self.hear(socket, "message")["text"], "hello")

    def test_whoever_logs_out_is_closed(self) -> None:
        import urllib.request

        with self.connect() as socket:
            self.assertEqual(self.hear(socket, "here"), ["alice"])
            cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.client.cookies.items())
            page = urllib.request.Request(f"{self.live_server_url}/rooms/lobby/", headers={"Cookie": cookies})
            with urllib.request.urlopen(page, timeout=10) as response:
                text, mark = response.read().decode(), response.headers["Set-Cookie"].split(";")[0]
            token = text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
            logout = urllib.request.Request(
                f"{self.live_server_url}/accounts/logout/",
                data=f"csrfmiddlewaretoken={token}".encode(),
                headers={"Cookie": f"{cookies}; {mark}", "Referer": self.live_server_url},
            )
            urllib.request.urlopen(logout, timeout=10).close()
            with self.assertRaises(ConnectionClosed) as closed:
                self.hear(socket, "nothing")
            self.assertEqual(closed.exception.rcvd.code, 4401)

    def test_static_files_are_served(self) -> None:
        import urllib.request

        with urllib.request.urlopen(f"{self.live_server_url}/static/chat/room.js", timeout=10) as response:
            self.assertIn("WebSocket", response.read().decode())
