"""``CHANNEL_LAYERS`` and ``TRICHANNELS``: what is made of them, in servers, in views, and where there is no loop."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.db import connections, transaction
from django.test import override_settings

from trichannels.auth import AuthMiddlewareStack
from trichannels.bridge import current_bridge
from trichannels.exceptions import (
    ConfigError,
    InvalidChannelLayerError,
    InvalidName,
    LayerUnreachable,
    UnserializableMessage,
)
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import ChannelLayer, InMemoryChannelLayer, channel_layers, get_channel_layer
from trichannels.layers.anywhere import AnywhereLayer
from trichannels.layers.configured import configurations_for_tests, make_layers
from trichannels.layers.redis import RedisChannelLayer
from trichannels.routing import ProtocolTypeRouter, get_default_application
from trichannels.testing import LiveServer
from trichannels.testing.websocket import WebsocketCommunicator

from ..ports import free_port
from ..redis.servers import RedisProcess
from .people import make_session
from .test_revocation import Who, log_out

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("tables")]

MEMORY = "trichannels.layers.InMemoryChannelLayer"
REDIS = "trichannels.layers.redis.RedisChannelLayer"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as server:
        yield server


def on_redis(redis: RedisProcess, **options: Any) -> Any:
    return {"default": {"BACKEND": REDIS, "CONFIG": {"hosts": [("127.0.0.1", redis.port)], **options}}}


def with_layers(**layers: Any) -> Any:
    return override_settings(CHANNEL_LAYERS=layers)


class Room(AsyncJsonWebsocketConsumer):
    groups = ("room",)

    async def room_message(self, event: Any) -> None:
        await self.send_json(event["n"])


# ---- what is made of the setting


async def test_a_router_without_layers_opens_those_of_the_settings() -> None:
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()})
    with with_layers(default={"BACKEND": MEMORY, "CONFIG": {"capacity": 7}}):
        async with app.opened():
            layer = get_channel_layer()
            assert isinstance(layer, InMemoryChannelLayer)
            assert layer.capacity == 7
            async with WebsocketCommunicator(app, "/") as socket:
                await layer.group_send("room", {"type": "room.message", "n": 1})
                assert await socket.receive_json_from() == 1


async def test_without_an_owner_they_are_opened_by_the_first_socket() -> None:
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()})
    with with_layers(default={"BACKEND": MEMORY}):
        async with WebsocketCommunicator(app, "/") as socket, WebsocketCommunicator(app, "/") as other:
            layer = get_channel_layer()
            assert layer is not None
            await layer.group_send("room", {"type": "room.message", "n": 1})
            assert [await socket.receive_json_from(), await other.receive_json_from()] == [1, 1]
        assert isinstance(get_channel_layer(), AnywhereLayer)


async def test_two_routers_of_one_loop_share_them() -> None:
    outer = ProtocolTypeRouter({"websocket": Room.as_asgi()})
    inner = ProtocolTypeRouter({"websocket": Room.as_asgi()})
    with with_layers(default={"BACKEND": MEMORY}):
        async with outer.opened(), inner.opened():
            assert outer.layers is inner.layers


def test_two_loops_have_each_their_own() -> None:
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()})

    async def layer() -> ChannelLayer:
        return app.layers["default"]

    with with_layers(default={"BACKEND": MEMORY}), LiveServer.in_thread(app) as one, LiveServer.in_thread(app) as other:
        assert one.call(layer) is not other.call(layer)


def test_an_explicit_dict_is_what_it_is() -> None:
    with with_layers(default={"BACKEND": MEMORY}):
        assert ProtocolTypeRouter({}, layers={}).layers == {}


def test_a_test_config_takes_the_place_of_the_config_in_tests() -> None:
    with with_layers(default={"BACKEND": MEMORY, "CONFIG": {"capacity": 7}, "TEST_CONFIG": {"capacity": 8}}):
        assert make_layers()["default"].capacity == 7
        with configurations_for_tests():
            assert make_layers()["default"].capacity == 8


def test_channel_layers_is_a_mapping_of_what_is_configured() -> None:
    with with_layers(default={"BACKEND": MEMORY}, other={"BACKEND": MEMORY}):
        assert list(channel_layers) == ["default", "other"]
        assert len(channel_layers) == 2
        assert "other" in channel_layers
        assert channel_layers["other"] == get_channel_layer("other")
        with pytest.raises(InvalidChannelLayerError, match="CHANNEL_LAYERS, in Django's settings, has no 'third'"):
            channel_layers["third"]
        assert get_channel_layer("third") is None


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, f"is of Channels: write '{MEMORY}'"),
        ({"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}, f"is of Channels: write '{REDIS}'"),
        (
            {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}},
            "write 'trichannels.layers.redis.RedisPubSubChannelLayer'",
        ),
        ({"default": {"BACKEND": "no.such.Layer"}}, r"there is no 'no\.such\.Layer'"),
        ({"default": {"BACKEND": "Layer"}}, "there is no 'Layer'"),
        ({"default": {}}, "must be a dict with a 'BACKEND'"),
        ({"default": {"BACKEND": MEMORY, "capacity": 3}}, "has no 'capacity': put options into 'CONFIG'"),
        ({"default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 0}}}, "capacity must be a number above 0"),
        ({"default": {"BACKEND": MEMORY, "CONFIG": {"capacty": 1}}}, "capacty"),
        ({"default": {"BACKEND": REDIS, "CONFIG": {"hostz": []}}}, "did you mean 'hosts'"),
        (["default"], "must be a dict of aliases"),
    ],
)
def test_what_cannot_be_used_is_said_and_checked(layers: Any, problem: str) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        with pytest.raises(InvalidChannelLayerError, match=problem):
            make_layers()
        assert "trichannels.E001" in ids()


# ---- where no loop runs


def hear_one(redis: RedisProcess, send: Any) -> Any:
    """Return what a process of its own, with a server, hears when this one sends."""
    from websockets.sync.client import connect

    with override_settings(CHANNEL_LAYERS=on_redis(redis)):
        app = ProtocolTypeRouter({"websocket": Room.as_asgi()})
        with LiveServer.in_thread(app) as live, connect(live.ws_url) as socket:
            send()
            return socket.recv(5)


def send(**options: Any) -> None:
    layer = get_channel_layer()
    assert isinstance(layer, AnywhereLayer)
    layer.group_send("room", {"type": "room.message", "n": 1}, **options)


def test_plain_code_sends_by_a_blocking_client(redis: RedisProcess) -> None:
    assert hear_one(redis, send) == "1"


def test_asgirefs_async_to_sync_in_plain_code_sends(redis: RedisProcess) -> None:
    from asgiref.sync import async_to_sync

    layer: Any = AnywhereLayer()
    event = {"type": "room.message", "n": 2}
    assert hear_one(redis, lambda: async_to_sync(layer.group_send)("room", event)) == "2"


@pytest.mark.once
def test_after_a_fork_both_send(redis: RedisProcess) -> None:
    code = f"""
import os
from tests.project.configured import configure
configure()
from django.conf import settings
settings.CHANNEL_LAYERS = {on_redis(redis)!r}
from trichannels.layers import get_channel_layer
def send(n):
    get_channel_layer().group_send("room", {{"type": "room.message", "n": n}})
send(1)
if os.fork() == 0:
    send(2)
    os._exit(0)
os.wait()
send(3)
"""
    from websockets.sync.client import connect

    with override_settings(CHANNEL_LAYERS=on_redis(redis)):
        app = ProtocolTypeRouter({"websocket": Room.as_asgi()})
        with LiveServer.in_thread(app) as live, connect(live.ws_url) as socket:
            subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
            assert [socket.recv(5) for _ in range(3)] == ["1", "2", "3"]


def test_a_layer_in_memory_says_that_it_is_elsewhere() -> None:
    with with_layers(default={"BACKEND": MEMORY}), pytest.raises(InvalidChannelLayerError, match="by the process"):
        send()


def test_a_server_that_is_away_is_unreachable() -> None:
    config = {"hosts": [("127.0.0.1", free_port())]}
    with with_layers(default={"BACKEND": REDIS, "CONFIG": config}), pytest.raises(LayerUnreachable):
        send()


# ---- on commit


def test_on_commit_sends_what_is_committed_and_not_what_is_rolled_back(redis: RedisProcess) -> None:
    def work() -> None:
        with pytest.raises(KeyError), transaction.atomic():
            send_rolled_back()
        with transaction.atomic():
            send(on_commit=True)

    def send_rolled_back() -> None:
        layer: Any = get_channel_layer()
        layer.group_send("room", {"type": "room.message", "n": "never"}, on_commit=True)
        raise KeyError

    assert hear_one(redis, work) == "1"
    connections.close_all()


def test_without_a_transaction_on_commit_sends_at_once(redis: RedisProcess) -> None:
    assert hear_one(redis, lambda: send(on_commit=True)) == "1"
    assert hear_one(redis, lambda: send(on_commit="default")) == "1"
    connections.close_all()


async def test_on_commit_works_in_lanes() -> None:
    app = ProtocolTypeRouter({"websocket": Room.as_asgi()})

    def work() -> None:
        with transaction.atomic():
            send(on_commit=True)
            transaction.on_commit(lambda: None)

    with with_layers(default={"BACKEND": MEMORY}):
        async with app.opened(), WebsocketCommunicator(app, "/") as socket:
            await current_bridge().run(work)
            assert await socket.receive_json_from() == 1


def test_the_blocking_client_has_it_too(redis: RedisProcess) -> None:
    def work() -> None:
        from trichannels.layers.redis import SyncChannelLayer

        with SyncChannelLayer([("127.0.0.1", redis.port)]) as layer, transaction.atomic():
            layer.group_send("room", {"type": "room.message", "n": 3}, on_commit=True)

    # the block of the layer is left after the transaction's
    assert hear_one(redis, work) == "3"
    connections.close_all()


def test_what_is_sent_later_is_what_it_was_and_what_is_wrong_is_told_now(redis: RedisProcess) -> None:
    def work() -> None:
        layer: Any = get_channel_layer()
        message = {"type": "room.message", "n": 4}
        with transaction.atomic():
            layer.group_send("room", message, on_commit=True)
            message["n"] = 5
            with pytest.raises(UnserializableMessage):
                layer.group_send("room", {"type": "room.message", "n": object()}, on_commit=True)
            with pytest.raises(InvalidName):
                layer.group_send("no name", {"type": "x"}, on_commit=True)

    assert hear_one(redis, work) == "4"
    connections.close_all()


def test_what_cannot_be_sent_after_the_commit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    config = {"hosts": [("127.0.0.1", free_port())]}
    with with_layers(default={"BACKEND": REDIS, "CONFIG": config}):
        with transaction.atomic():
            send(on_commit=True)
        connections.close_all()
    assert "LayerUnreachable" in caplog.text


def test_where_a_layer_in_memory_cannot_be_reached_saving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """In a shell or a test of views, a signal that sends on commit must not keep anything from being saved."""
    with with_layers(default={"BACKEND": MEMORY}):
        with transaction.atomic():
            send(on_commit=True)
        connections.close_all()
    assert "can be used by the process" in caplog.text


# ---- across processes


def test_a_logout_in_another_process_closes_the_socket(ada: Any, redis: RedisProcess) -> None:
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import connect

    key = make_session(ada)
    with override_settings(CHANNEL_LAYERS=on_redis(redis)):
        app = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(Who.as_asgi())})
        cookie = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={key}"}
        with LiveServer.in_thread(app) as live, connect(live.ws_url, additional_headers=cookie) as socket:
            socket.send('"who"')
            assert socket.recv(5) == '"ada"'
            log_out(key)  # this thread has no loop: it publishes as any other process
            with pytest.raises(ConnectionClosedError) as caught:
                socket.recv(5)
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "logged out")
    connections.close_all()


# ---- checks


def ids(**options: Any) -> set[str]:
    return {message.id for message in run_checks(**options) if (message.id or "").startswith("trichannels")}


def test_the_project_of_the_tests_is_fine() -> None:
    assert ids() == set()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ASGI_APPLICATION": "application"}, "trichannels.E002"),
        ({"TRICHANNELS": {"PROCESSES": 2}, "CHANNEL_LAYERS": {"default": {"BACKEND": MEMORY}}}, "trichannels.E005"),
    ],
)
def test_a_wrong_setting_is_found(changes: Any, expected: str) -> None:
    with override_settings(**changes):
        assert ids() == {expected}


def test_a_layer_in_memory_in_production_is_warned_of() -> None:
    with with_layers(default={"BACKEND": MEMORY}):
        assert "trichannels.W003" in ids(include_deployment_checks=True)
        with override_settings(TRICHANNELS={"PROCESSES": 1}):
            assert "trichannels.W003" not in ids(include_deployment_checks=True)


def test_a_layer_that_cannot_be_reached_is_found(redis: RedisProcess) -> None:
    with override_settings(CHANNEL_LAYERS=on_redis(redis)):
        assert "trichannels.E006" not in ids(include_deployment_checks=True)
    with with_layers(default={"BACKEND": REDIS, "CONFIG": {"hosts": [("127.0.0.1", free_port())], "timeout": 1}}):
        assert "trichannels.E006" in ids(include_deployment_checks=True)
        assert "trichannels.E006" not in ids(), "not with every command"


CHECK = """
from django.conf import settings
settings.configure(SECRET_KEY="x", INSTALLED_APPS={apps!r}, DATABASES={databases!r}, TRICHANNELS={options!r})
import django
django.setup()
from django.core.checks import run_checks
print(sorted(message.id for message in run_checks() if message.id.startswith("trichannels")))
"""
PG = "django.db.backends.postgresql"
AUTH = ["django.contrib.contenttypes", "django.contrib.auth"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("apps", "databases", "options", "expected"),
    [
        (["trichannels.django"], {}, {}, "[]"),
        (["trichannels.django", "django.contrib.staticfiles"], {}, {}, "[]"),
        (["django.contrib.staticfiles", "trichannels.django"], {}, {}, "['trichannels.E003']"),
        (
            ["trichannels.django"],
            {"default": {"ENGINE": PG, "CONN_MAX_AGE": 60, "OPTIONS": {"pool": {"max_size": 20}}}},
            {},
            "['trichannels.E004']",
        ),
        (
            ["trichannels.django"],
            {"default": {"ENGINE": PG, "OPTIONS": {"pool": {"max_size": 19}}}},
            {},
            "['trichannels.W002']",
        ),
        (["trichannels.django"], {"default": {"ENGINE": PG, "OPTIONS": {"pool": True}}}, {}, "['trichannels.W002']"),
        (
            ["trichannels.django"],
            {"default": {"ENGINE": PG, "OPTIONS": {"pool": {"max_size": 8}}}},
            {"LANES": 4, "HTTP_LANES": 4},
            "[]",
        ),
        (["trichannels.django", *AUTH], {}, {}, "[]"),
    ],
)
def test_a_project_as_a_whole_is_looked_at(apps: Any, databases: Any, options: Any, expected: str) -> None:
    code = CHECK.format(apps=apps, databases=databases, options=options)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.strip() == expected, told.stderr


@pytest.mark.once
def test_channels_and_daphne_beside_us_are_warned_of(tmp_path: Any) -> None:
    for name in ("channels", "daphne"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    code = CHECK.format(apps=["trichannels.django", "channels", "daphne"], databases={}, options={})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert told.stdout.strip() == "['trichannels.W001', 'trichannels.W001']", told.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"LANES": 0}, "TRICHANNELS['LANES'] must be an int of at least 1, not 0"),
        ({"LANE": 1}, "TRICHANNELS has no 'LANE': did you mean 'LANES'?"),
        ({"RECHECK": 0}, "TRICHANNELS['RECHECK'] must be a number of seconds above 0"),
        ({"LOOP_GUARD": 1}, "TRICHANNELS['LOOP_GUARD'] must be True or False"),
        ([], "TRICHANNELS must be a dict"),
    ],
)
def test_a_wrong_option_is_found_by_a_check(options: Any, problem: str) -> None:
    with override_settings(TRICHANNELS=options):
        (found,) = [message for message in run_checks() if (message.id or "").startswith("trichannels")]
        assert found.id == "trichannels.E007"
        assert found.msg.startswith(problem)


@pytest.mark.once
def test_with_a_wrong_option_the_project_starts_and_the_check_tells() -> None:
    code = CHECK.format(apps=["trichannels.django"], databases={}, options={"LANE": 1})
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.strip() == "['trichannels.E007']", told.stderr


def test_more_lanes_than_the_database_has_connections_are_warned_of(postgres: Any) -> None:
    with override_settings(TRICHANNELS={"PROCESSES": 3}):  # sixty, of which three are kept for superusers
        assert "trichannels.W004" in ids(databases=["pg"])
    with override_settings(TRICHANNELS={"PROCESSES": 2}):
        assert ids(databases=["pg"]) == set()
    assert ids(databases=["default"]) == set()
    connections.close_all()


# ---- ASGI_APPLICATION


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (None, "must be a path such as"),
        ("application", "must be a path such as"),
        ("no_such.asgi.application", "there is no module 'no_such'"),
        ("tests.project.people.application", "'tests.project.people' has no 'application'"),
    ],
)
def test_the_default_application_must_be_there(path: Any, problem: str) -> None:
    with override_settings(ASGI_APPLICATION=path), pytest.raises(ConfigError, match=problem):
        get_default_application()


def test_the_default_application_is_what_the_setting_names() -> None:
    with override_settings(ASGI_APPLICATION="tests.project.people.with_cookie"):
        from .people import with_cookie

        assert get_default_application() is with_cookie  # type: ignore[comparison-overlap]


def test_redis_layers_take_their_options_from_the_setting(redis: RedisProcess) -> None:
    with override_settings(CHANNEL_LAYERS=on_redis(redis, capacity=3)):
        layer = make_layers()["default"]
        assert isinstance(layer, RedisChannelLayer)
        assert layer.capacity == 3
