"""One of the two libraries, as a scenario gets it: what user code imports, by its name, and the few ways that differ.

A name such as ``lib.AsyncWebsocketConsumer`` is that of the module ``generic.websocket`` of ``channels`` or of
``trichannels``. What differs is what no user code has: who opens a layer, and who runs a worker.
"""

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import anyio
import anyio.to_thread

NAMES = {
    "consumer": ("AsyncConsumer", "SyncConsumer"),
    "generic.websocket": (
        "AsyncJsonWebsocketConsumer", "AsyncWebsocketConsumer", "JsonWebsocketConsumer", "WebsocketConsumer",
    ),
    "generic.http": ("AsyncHttpConsumer",),
    "exceptions": (
        "AcceptConnection", "ChannelFull", "DenyConnection", "InvalidChannelLayerError", "StopConsumer",
    ),
    "routing": ("ChannelNameRouter", "ProtocolTypeRouter", "URLRouter", "get_default_application"),
    "middleware": ("BaseMiddleware",),
    "security.websocket": ("AllowedHostsOriginValidator", "OriginValidator"),
    "sessions": ("CookieMiddleware", "SessionMiddleware", "SessionMiddlewareStack"),
    "auth": ("AuthMiddleware", "AuthMiddlewareStack", "get_user", "login", "logout"),
    "db": ("aclose_old_connections", "database_sync_to_async"),
    "layers": ("InMemoryChannelLayer", "channel_layers", "get_channel_layer"),
    "testing": ("ApplicationCommunicator", "HttpCommunicator", "WebsocketCommunicator"),
}  # fmt: skip
HOMES = {name: module for module, names in NAMES.items() for name in names}
CAUGHT_AS = ("AcceptConnection", "ChannelFull", "DenyConnection", "MessageTooLarge", "StopConsumer")
"""Errors that have their names in ``channels.exceptions``, and no builtin root."""


@dataclass(frozen=True)
class Library:
    """``package``: ``"channels"`` or ``"trichannels"``. ``redis``: where a server is, and its unix socket; or None."""

    package: str
    redis: dict[str, str] | None = None

    @property
    def ours(self) -> bool:
        """Whether it is trichannels."""
        return self.package == "trichannels"

    @property
    def patience(self) -> float:
        """Seconds to wait for what ours does and Channels does not: few where it is to be seen that nothing comes."""
        return 6 if self.ours else 0.4

    def __getattr__(self, name: str) -> Any:
        if name not in HOMES:
            raise AttributeError(name)
        return getattr(import_module(f"{self.package}.{HOMES[name]}"), name)

    # ---- layers

    def forget_layers(self) -> None:
        """Let nothing be left in the layers of the settings: those of Channels outlive their event loop."""
        if not self.ours:
            self.channel_layers.backends = {}

    @asynccontextmanager
    async def opened(self, alias: str = "default") -> AsyncIterator[Any]:
        """Have the layers of the settings for this block; yields one of them."""
        if self.ours:
            async with self.ProtocolTypeRouter({}).opened():
                yield self.get_channel_layer(alias)
        else:
            yield self.get_channel_layer(alias)

    @asynccontextmanager
    async def memory(self, **options: Any) -> AsyncIterator[Any]:
        """Have a layer in memory of one's own for this block."""
        layer = self.InMemoryChannelLayer(**options)
        if self.ours:
            async with layer:
                yield layer
        else:
            yield layer

    @asynccontextmanager
    async def on_redis(self, kind: str = "core", **options: Any) -> AsyncIterator[Any]:
        """Have a layer on Redis: ``kind`` is ``"core"`` or ``"pubsub"``, the module of channels_redis."""
        assert self.redis is not None
        options = {"hosts": [self.redis["url"]], **options}
        if self.ours:
            async with import_module("trichannels.layers.redis").RedisChannelLayer(**options) as layer:
                yield layer
            return
        name = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}[kind]
        layer = getattr(import_module(f"channels_redis.{kind}"), name)(**options)
        try:
            yield layer
        finally:
            with anyio.CancelScope(shield=True):
                await (layer.close_pools() if kind == "core" else layer.flush())

    def members(self, layer: Any, *groups: str) -> int:
        """Return how many channels are in some groups of a layer in memory, counted once for each group."""
        known = layer.board.groups if self.ours else layer.groups
        return sum(len(known.get(group, ())) for group in groups)

    # ---- clients

    @asynccontextmanager
    async def client(self, application: Any, path: str = "/", **options: Any) -> AsyncIterator[Any]:
        """Have a WebSocket client for a consumer or an application, not connected; its application ends with it."""
        async with self.stopped(self.WebsocketCommunicator(as_asgi(application), path, **options)) as client:
            yield client

    @asynccontextmanager
    async def socket(self, application: Any, path: str = "/", **options: Any) -> AsyncIterator[Any]:
        """Have a connected WebSocket client, and the layers of the settings."""
        async with self.opened(), self.client(application, path, **options) as client:
            accepted, told = await client.connect(5)
            assert accepted, f"the application has refused: {told}"
            yield client

    @asynccontextmanager
    async def request(
        self, application: Any, path: str = "/", method: str = "GET", **options: Any
    ) -> AsyncIterator[Any]:
        """Have an HTTP client with one request, and the layers of the settings."""
        client = self.HttpCommunicator(as_asgi(application), method, path, **options)
        async with self.opened(), self.stopped(client):
            yield client

    @asynccontextmanager
    async def scope(self, application: Any, scope: dict[str, Any]) -> AsyncIterator[Any]:
        """Have a client for any scope, and the layers of the settings."""
        client = self.ApplicationCommunicator(as_asgi(application), scope)
        async with self.opened(), self.stopped(client):
            yield client

    @asynccontextmanager
    async def stopped(self, client: Any) -> AsyncIterator[Any]:
        """Have a client whose application ends with the block."""
        try:
            yield client
        finally:
            client.stop(exceptions=False)

    # ---- what a server does

    @asynccontextmanager
    async def worker(self, application: Any, layer: Any, *channels: str) -> AsyncIterator[None]:
        """Run a worker on some channels for this block."""
        async with anyio.create_task_group() as tasks:
            if self.ours:
                module = import_module("trichannels.worker")
                quick = import_module("trichannels.layers").Retry(retries=2, first=0.01, most=0.01)
                await tasks.start(lambda task_status: module.run_worker(
                    application, layer, channels, retry=quick, drain_time=0.1, task_status=task_status
                ))  # fmt: skip
            else:
                worker = import_module("channels.worker").Worker(application, channels, layer)
                tasks.start_soon(told_of, worker.handle)  # an error ends it, as it would end its process
            yield
            tasks.cancel_scope.cancel()

    async def ends(self, application: Any, scope: dict[str, Any], *events: dict[str, Any]) -> bool:
        """Give an application some events, and say whether it ends by itself soon after the last one."""
        waiting = list(events)

        async def receive() -> dict[str, Any]:
            if not waiting:
                await anyio.sleep_forever()
            return waiting.pop(0)

        async def send(event: dict[str, Any]) -> None:
            """To nobody."""

        with anyio.move_on_after(self.patience):
            async with self.opened():
                await as_asgi(application)(scope, receive, send)
            return True
        return False

    def spawn(self, consumer: Any, work: Callable[[], Any]) -> Any:
        """Start work beside a consumer, as the library's documentation says; keep what is returned."""
        if self.ours:
            return consumer.nursery.start_soon(work)
        return import_module("asyncio").create_task(work())


def as_asgi(application: Any) -> Any:
    """Return the application of a consumer class, or what is an application already."""
    return application.as_asgi() if hasattr(application, "as_asgi") else application


def name_of(error: BaseException) -> str:
    """Return the class by which code written for Channels catches an error."""
    for kind in type(error).__mro__:
        if not kind.__module__.startswith(("trichannels", "channels")) or kind.__name__ in CAUGHT_AS:
            return kind.__name__
    raise AssertionError("every error is an Exception")


async def told(awaitable: Awaitable[Any]) -> Any:
    """Return what comes of a call: its result, or the name of what it raises."""
    try:
        return await awaitable
    except Exception as error:  # noqa: BLE001 - that is what is looked at
        return name_of(error)


async def told_of(function: Callable[[], Awaitable[Any]]) -> None:
    """Run it, and let its error be."""
    await told(function())


def told_at_once(function: Callable[[], Any]) -> Any:
    """As :func:`told`, of a plain call."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - that is what is looked at
        return name_of(error)


async def ended(client: Any, *events: dict[str, Any]) -> Any:
    """Send events to an application, and return what comes of its end."""
    try:
        for event in events:
            await client.send_input(event)
        return await client.wait()
    except Exception as error:  # noqa: BLE001 - that is what is looked at
        return name_of(error)


async def output(client: Any, seconds: float = 5) -> Any:
    """Return the next event of an application, or the name of the error with which it ends before that.

    It asks again and again: where Channels waits for an event, it tells an error at the end of its timeout.
    """
    with anyio.move_on_after(seconds):
        while True:
            try:
                if not await client.receive_nothing(timeout=0.02, interval=0.005):
                    return await client.receive_output()
            except Exception as error:  # noqa: BLE001 - that is what is looked at
                return name_of(error)
    return "nothing"


async def within(seconds: float, awaitable: Awaitable[Any]) -> Any:
    """As :func:`told`; ``"nothing"`` if nothing has come of it by then."""
    with anyio.move_on_after(seconds):
        return await told(awaitable)
    return "nothing"


async def blocking(function: Callable[[], Any]) -> Any:
    """Run code that uses the ORM in a thread of nobody's, and close its connections."""
    from django.db import connections

    def work() -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    return await anyio.to_thread.run_sync(work)


def thread() -> int:
    """Return which thread this is."""
    return threading.get_ident()


def as_json(value: Any) -> str:
    """Return a value as JSON; what a consumer tells its client."""
    return json.dumps(value)
