"""Where the names of Channels are here, and what to do about those that are nowhere. Tables only."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Home:
    """A module here, and which names of Channels it has."""

    module: str
    names: frozenset[str]


def _home(module: str, *names: str) -> Home:
    return Home(module, frozenset(names))


MODULES: Mapping[str, Home] = {
    "channels.auth": _home("trichannels.auth", "AuthMiddleware", "AuthMiddlewareStack", "get_user", "login", "logout"),
    "channels.consumer": _home("trichannels.consumer", "AsyncConsumer", "SyncConsumer", "get_handler_name"),
    "channels.db": _home("trichannels.db", "aclose_old_connections", "database_sync_to_async"),
    "channels.exceptions": _home(
        "trichannels.exceptions",
        *("AcceptConnection", "ChannelFull", "DenyConnection", "InvalidChannelLayerError", "MessageTooLarge"),
        *("RequestAborted", "RequestTimeout", "StopConsumer"),
    ),
    "channels.generic.http": _home("trichannels.generic.http", "AsyncHttpConsumer"),
    "channels.generic.websocket": _home(
        "trichannels.generic.websocket",
        *("AsyncJsonWebsocketConsumer", "AsyncWebsocketConsumer", "JsonWebsocketConsumer", "WebsocketConsumer"),
    ),
    "channels.layers": _home("trichannels.layers", "InMemoryChannelLayer", "channel_layers", "get_channel_layer"),
    "channels.middleware": _home("trichannels.middleware", "BaseMiddleware"),
    "channels.routing": _home(
        "trichannels.routing", "ChannelNameRouter", "ProtocolTypeRouter", "URLRouter", "get_default_application"
    ),
    "channels.security.websocket": _home(
        "trichannels.security.websocket", "AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"
    ),
    "channels.sessions": _home(
        "trichannels.sessions", "CookieMiddleware", "SessionMiddleware", "SessionMiddlewareStack"
    ),
    "channels.testing": _home(
        "trichannels.testing",
        *("ApplicationCommunicator", "ChannelsLiveServerTestCase", "HttpCommunicator", "WebsocketCommunicator"),
    ),
    "channels.testing.application": _home("trichannels.testing.application", "ApplicationCommunicator"),
    "channels.testing.http": _home("trichannels.testing.http", "HttpCommunicator"),
    "channels.testing.live": _home("trichannels.testing.cases", "ChannelsLiveServerTestCase"),
    "channels.testing.websocket": _home("trichannels.testing.websocket", "WebsocketCommunicator"),
    "channels.worker": _home("trichannels.worker", "Worker"),
    "channels_redis.core": _home("trichannels.layers.redis", "RedisChannelLayer"),
    "channels_redis.pubsub": _home("trichannels.layers.redis", "RedisPubSubChannelLayer"),
}

DJANGO_ASGI = {"django.core.asgi": _home("trichannels.django.http", "get_asgi_application")}
"""Only where a ProtocolTypeRouter is built: elsewhere the project may be served without us."""

NO_COUNTERPART: Mapping[str, str] = {
    "channels": "trichannels has no such name: docs/index.md says what there is",
    "channels.DEFAULT_CHANNEL_LAYER": 'write "default", which it stands for',
    "channels.Channel": "of Channels 1: send with `await get_channel_layer().send(channel, message)`",
    "channels.Group": "of Channels 1: get_channel_layer().group_send(group, message) sends; a consumer enters with "
    "self.join(group)",
    "channels.asgi": "of Channels 1: build a ProtocolTypeRouter in asgi.py, see docs/django.md",
    "channels.auth": "trichannels.auth has get_user, login, logout and AuthMiddlewareStack",
    "channels.auth.channel_session_user": "of Channels 1: a consumer awaits get_user(self.scope)",
    "channels.auth.channel_session_user_from_http": "of Channels 1: a consumer awaits get_user(self.scope)",
    "channels.auth.http_session_user": "of Channels 1: a consumer awaits get_user(self.scope)",
    "channels.auth.UserLazyObject": 'middleware of your own sets scope["user"] to the user itself, see '
    "docs/upgrading/channels-4.md",
    "channels.binding": "of Channels 1: send to a group in a signal, see docs/django.md",
    "channels.db": "trichannels.db has database_sync_to_async, and a bridge whose threads keep their connections",
    "channels.generic.websockets": "of Channels 1: write a consumer of trichannels.generic.websocket",
    "channels.http": "of Channels 2 and 3: trichannels.django.http.get_asgi_application() serves the project",
    "channels.include": "of Channels 1: build a URLRouter, see docs/routing.md",
    "channels.layers.BaseChannelLayer": "derive from trichannels.layers.ChannelLayer, which has another contract: "
    "docs/layers.md",
    "channels.route": "of Channels 1: build a URLRouter, see docs/routing.md",
    "channels.routing.include": "of Channels 1: build a URLRouter, see docs/routing.md",
    "channels.routing.route": "of Channels 1: build a URLRouter, see docs/routing.md",
    "channels.routing.route_class": "of Channels 1: build a URLRouter, see docs/routing.md",
    "channels.sessions.channel_and_http_session": "of Channels 1: keep what belongs to a socket on self",
    "channels.sessions.channel_session": "of Channels 1: keep what belongs to a socket on self",
    "channels.sessions.enforce_ordering": "of Channels 1: consumers get their events in order",
    "channels.sessions.http_session": "of Channels 1: a consumer awaits get_session(self.scope)",
    "channels.staticfiles": "of Channels 2: runserver of trichannels.django serves static files",
    "channels.test": "of Channels 1: use the communicators of trichannels.testing",
    "channels_redis": "layers on Redis are in trichannels.layers.redis: docs/redis.md",
    # Built on Channels' own classes, which do not run here.
    "channels_postgres": "a layer for Channels: use trichannels.layers.redis, or the layer in memory",
    "channels_presence": "built on Channels: presence is in every layer here, see docs/presence.md",
    "channels_rabbitmq": "a layer for Channels: use trichannels.layers.redis, or the layer in memory",
    "channelsmultiplexer": "built on Channels: a Multiplexer has the same frames, see docs/multiplexing.md",
    "daphne": "daphne is not needed: `trichannels serve` and runserver take its place, see docs/serving.md",
    "djangochannelsrestframework": "built on Channels: it runs here only as a copy that was upgraded, too",
}
"""By the longest beginning that fits."""

BUILT_ON_CHANNELS = frozenset(
    name for name, advice in NO_COUNTERPART.items() if advice.startswith(("built on Channels", "a layer for Channels"))
)

_OPENED = "layers are open inside `async with application.opened():`, see docs/testing.md"
MANAGER: Mapping[str, str] = {
    f"trichannels.layers.channel_layers.{name}": f"channel_layers has no {name} here: {_OPENED}"
    for name in ("backends", "configs", "make_backend", "make_test_backend", "set")
}
"""What Channels' ``channel_layers`` had, beside its aliases."""

OTHER_ARGUMENTS: Mapping[str, str] = {
    "trichannels.worker.Worker": "takes other arguments here: await run_worker(application, layer, channels)",
}
"""What has a counterpart of the same name that is used differently."""


def longest(table: Mapping[str, str], name: str) -> str | None:
    """Return what a table says of a dotted name, or of the longest beginning of it."""
    while name not in table:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return table[name]
