"""From event type to method: the consumers that everything generic is built on."""

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, ClassVar, TypeAlias

from .bridge import LaneCancelled, call, call_soon, current_bridge
from .bridge.home import this_loop
from .events import ASGIApp, Event, Receive, Scope, Send, Shares
from .exceptions import BadEvent, ConfigError, ConnectionClosed, InvalidChannelLayerError, NoHandler
from .inbox import DEFAULT_INBOX, Inbox
from .instance import Instance, InstanceStatistics
from .layers.anywhere import AnywhereLayer, newest
from .layers.base import ChannelLayer
from .layers.history import Position, Recovery
from .nursery import Nursery


def get_handler_name(message: Event) -> str:
    """Return the method name for an event: its type with dots as underscores.

    Raises :class:`BadEvent` (a ValueError) for events without a type, and for types that begin with an underscore.
    """
    kind = message.get("type")
    if not isinstance(kind, str) or not kind:
        raise BadEvent("Incoming message has no 'type' attribute")
    return _method_name(kind)


@lru_cache(maxsize=1024)
def _method_name(kind: str) -> str:
    """Return the method name for an event type; raises :class:`BadEvent`."""
    name = kind.replace(".", "_")
    if name.startswith("_"):
        raise BadEvent("Malformed type in message (leading underscore)")
    return name


class NoLayer:
    """Stands where a consumer has no channel layer. False; any use of it says what is missing."""

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise InvalidChannelLayerError(
            f"channel_layer.{name}: no channel layer is open here; give one to "
            "ProtocolTypeRouter(..., layers={'default': InMemoryChannelLayer()})"
        )


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


Settings: TypeAlias = Mapping[str, tuple[Callable[[Any], bool], str]]
"""What fits, and that in words, by the name of the setting."""

SETTINGS: Settings = {
    "concurrency": (lambda value: isinstance(value, int) and value >= 1, "an int of at least 1"),
    "disconnect_grace": (_is_seconds, "a number of seconds, 0 or more"),
    "disconnect_timeout": (_is_seconds, "a number of seconds, 0 or more"),
    "inbox": (lambda value: isinstance(value, Inbox), "an Inbox(messages=…, bytes=…, overflow=…)"),
    "groups": (lambda value: not isinstance(value, str), "a list of names, not one str: its letters would be joined"),
}


def check_settings(consumer: type, settings: Settings) -> None:
    """Raise :class:`ConfigError` for a setting that a class gives itself, and that does not fit."""
    for name, (fits, needed) in settings.items():
        value = vars(consumer).get(name)
        ours = name in vars(consumer) and hasattr(super(consumer, consumer), name)
        if ours and not hasattr(value, "__get__") and not fits(value):
            raise ConfigError(f"{consumer.__qualname__}.{name} must be {needed}, not {value!r}")


class AsyncConsumer:
    """One instance for each scope; an event of type ``chat.message`` runs ``await self.chat_message(event)``.

    ``concurrency``: how many handlers may run at once. With 1, each event is handled when the one before it is done.
    ``disconnect_grace``: seconds that running handlers get when the socket ends; then they are cancelled.
    ``disconnect_timeout``: seconds that ``disconnect()`` gets. ``inbox``: the bounds of what waits for a handler.
    """

    concurrency: int = 1
    disconnect_grace: float = 5.0
    disconnect_timeout: float = 5.0
    inbox: Inbox = DEFAULT_INBOX
    channel_layer_alias: str = "default"
    _sync: ClassVar[bool] = False
    _dispatches_plainly = False

    scope: Scope
    channel_layer: ChannelLayer
    _instance: Instance
    base_send: Callable[[Event], Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_settings(cls, SETTINGS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the whole life of one scope; raises what a handler raised, unwrapped, with a note of where."""
        layer = find_layer(scope, self.channel_layer_alias)
        self.scope = scope
        self._instance = Instance(self, scope, receive, send, layer=layer)
        self.channel_layer = self._facing(layer) if layer is not None else NoLayer()  # type: ignore[assignment]
        self.base_send = self._sender(self._instance)
        # Looked at for each socket: instrumentation puts its own in place of ours long after a class was made.
        ways = getattr(self.dispatch, "__func__", None), getattr(self.handler_of, "__func__", None)
        self._dispatches_plainly = ways == _PLAIN_WAYS
        await self._instance.run()

    def _sender(self, instance: Instance) -> Callable[[Event], Any]:
        return instance.send

    def _facing(self, layer: ChannelLayer) -> Any:
        return layer

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ASGIApp:
        """Return an ASGI application that makes an instance of this consumer for every scope."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(**initkwargs)(scope, receive, send)

        app.consumer_class = cls  # type: ignore[attr-defined]
        app.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        app.__name__ = app.__qualname__ = cls.__name__
        app.__doc__ = cls.__doc__
        return app

    # ---- what the instance asks

    async def dispatch(self, message: Event) -> None:
        """Run the handler of an event."""
        await self.handler_of(message)(message)

    def handling(self, message: Event) -> Awaitable[None]:
        """Return what runs the handler of an event: ``dispatch()``, or what it would await if nobody has changed it."""
        if not self._dispatches_plainly:
            return self.dispatch(message)
        kind = message.get("type")
        handler = getattr(self, _method_name(kind), None) if kind and type(kind) is str else None
        handling: Awaitable[None] = (handler or self.handler_of(message))(message)  # which says what is wrong
        return handling

    def handler_of(self, message: Event) -> Callable[[Event], Any]:
        """Return the bound method for an event; raises :class:`NoHandler` or :class:`BadEvent`."""
        name = get_handler_name(message)
        handler: Callable[[Event], Any] | None = getattr(self, name, None)
        if handler is None:
            raise NoHandler(type(self).__qualname__, message["type"], name)
        return handler

    def handles(self, event_type: str) -> bool:
        """Say whether there is a handler for events of this type."""
        return hasattr(self, event_type.replace(".", "_"))

    def shares(self) -> Shares | None:
        """Say of which event types all instances send the same, and what makes that of an event; None for none."""
        return None

    def order_key(self, message: Event) -> Hashable | None:
        """With ``concurrency`` above 1: events for which this returns the same key are handled one after the other.

        None, the default, keeps no order. Return for instance ``message.get("sender")``.
        """
        return None

    # ---- what handlers use

    @property
    def channel_name(self) -> str:
        """The name of this instance's own channel; "" where there is no layer."""
        return self._instance.channel_name

    @property
    def close_code(self) -> int | None:
        """The code with which the socket ends; None while it lives. Set before ``disconnect`` runs."""
        return self._instance.ending.code if self._instance.ending else None

    @property
    def close_reason(self) -> str:
        """The reason that came with the code."""
        return self._instance.ending.reason if self._instance.ending else ""

    @property
    def nursery(self) -> Nursery:
        """The socket's nursery: ``self.nursery.start_soon(task)`` runs until the socket ends."""
        assert self._instance.nursery is not None
        return self._instance.nursery

    async def send(self, message: Event) -> None:
        """Send an ASGI event; raises :class:`~trichannels.exceptions.ConnectionClosed` when the socket has ended."""
        await self.base_send(message)

    @property
    def position(self) -> Position | None:
        """In a handler: where its event stands in the history of its group; None where there is no history."""
        return self._instance.position

    async def join(self, group: str, since: Position | None = None) -> Recovery:
        """Enter a group: its events arrive as handler calls. In force on return; left by itself at the end.

        ``since``, for groups with history: a position up to which the client has seen it all. What it missed is then
        handled first, in order; if that cannot be proven to be all, ``recovered`` is False, and nothing is handled.
        Cancelled, it has joined nothing.
        """
        return await self._instance.join(group, since)

    async def leave(self, group: str) -> None:
        """Leave a group."""
        await self._instance.leave(group)

    async def track(self, group: str, key: str, meta: Any = None) -> None:
        """Be present in a group as ``key``: whoever looks finds it there, until the socket ends. In force on return.

        The group's members get a ``presence.diff`` event if ``key`` was not present yet; the socket itself need not be
        one. Again with the same group and key, it replaces ``meta``. Raises
        :class:`~trichannels.exceptions.ConnectionClosed` when the socket has ended. Cancelled, it has not entered.
        """
        await self._instance.track(group, key, meta)

    async def untrack(self, group: str, key: str) -> None:
        """Be no longer present in a group as ``key``."""
        await self._instance.untrack(group, key)

    def statistics(self) -> InstanceStatistics:
        """Return the numbers of this instance."""
        return self._instance.statistics()

    # ---- what the layer tells; counted, and ignored unless a consumer defines them

    async def layer_dropped(self, event: Event) -> None:
        """Events for this instance were dropped: ``event["count"]`` of ``event["bytes"]`` bytes in ``["groups"]``."""

    async def layer_resync(self, event: Event) -> None:
        """There may be a gap in the events of ``event["group"]``: fetch afresh what they told."""

    async def presence_diff(self, event: Event) -> None:
        """Who came to and left the presence of ``event["group"]``: ``["joins"]``, ``["leaves"]``, ``["position"]``."""


_PLAIN_WAYS = (AsyncConsumer.dispatch, AsyncConsumer.handler_of)


class SyncConsumer(AsyncConsumer):
    """A consumer with blocking handlers. They run in the bridge's threads: in order, one at a time an instance.

    Cancelling cannot stop a thread: a handler that overstays its grace is left behind, and its next ``send`` raises.
    ``self.channel_layer.group_send(…)`` and the layer's other methods block in handlers; ``async_to_sync`` around them
    changes nothing.
    """

    channel_layer: AnywhereLayer  # type: ignore[assignment]
    _sync: ClassVar[bool] = True

    async def dispatch(self, message: Event) -> None:
        """Run the handler of an event in a thread; the layer's own notices may be async."""
        handler = self.handler_of(message)
        if iscoroutinefunction(handler):
            await handler(message)
        else:
            await current_bridge().run_or_abandon(handler, message)

    def _sender(self, instance: Instance) -> Callable[[Event], Any]:
        def send(message: Event) -> None:
            try:
                call(instance.send, message)
            except LaneCancelled:  # this handler was left behind
                ending = instance.ending
                raise ConnectionClosed(*(() if ending is None else (ending.code, ending.reason))) from None

        return send

    def _facing(self, layer: ChannelLayer) -> Any:
        return AnywhereLayer(self.channel_layer_alias, (this_loop(), layer))

    @property
    def nursery(self) -> Any:
        """The socket's nursery, for use from a handler: ``self.nursery.start_soon(async_function, *args)``."""
        return _NurseryFromThread(super().nursery)

    def send(self, message: Event) -> None:  # type: ignore[override]
        """Send an ASGI event and wait until the server has taken it."""
        self.base_send(message)

    def join(self, group: str, since: Position | None = None) -> Recovery:  # type: ignore[override]
        """Enter a group, and wait until the membership is in force."""
        return call(self._instance.join, group, since)

    def leave(self, group: str) -> None:  # type: ignore[override]
        """Leave a group."""
        call(self._instance.leave, group)

    def track(self, group: str, key: str, meta: Any = None) -> None:  # type: ignore[override]
        """Be present in a group as ``key``, and wait until that is in force."""
        call(self._instance.track, group, key, meta)

    def untrack(self, group: str, key: str) -> None:  # type: ignore[override]
        """Be no longer present in a group as ``key``."""
        call(self._instance.untrack, group, key)


class _NurseryFromThread:
    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        call_soon(lambda: self._nursery.start_soon(func, *args, name=name))


def find_layer(scope: Scope, alias: str) -> ChannelLayer | None:
    """Return the layer that the router carries in the scope, else the loop's."""
    carried: ChannelLayer | None = (scope.get("channel_layers") or {}).get(alias)
    return carried or newest(this_loop(), alias)
