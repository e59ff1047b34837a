"""channels_redis: the options of its layers, and what passes between processes."""

# mypy: allow-subclassing-any

import itertools
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import anyio
import anyio.to_thread
from asgiref.sync import async_to_sync

from .layers import SENT, WAIT, filled, taken
from .library import told, within
from .rows import README, documented_at

behaviour = documented_at(README)
DISCONNECTS = "#on_disconnect--on_reconnect"
NUMBERS = itertools.count()


def prefix() -> str:
    """Return a prefix that no other scenario uses."""
    return f"p{os.getpid()}-{next(NUMBERS)}"


@asynccontextmanager
async def two(lib: Any, kind: str = "core", **options: Any) -> AsyncIterator[Any]:
    """Have two layers on one server with the same options, as two processes have them."""
    options = {"prefix": prefix(), **options}
    async with lib.on_redis(kind, **options) as first, lib.on_redis(kind, **options) as second:
        yield first, second


def configured(lib: Any, kind: str = "core", **options: Any) -> Any:
    """Return a block in which the layer of the settings is one on Redis."""
    from django.test import override_settings

    home = "trichannels.layers.redis" if lib.ours else f"channels_redis.{kind}"
    name = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}[kind]
    config = {"hosts": [lib.redis["url"]], "prefix": prefix(), **options}
    return override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{home}.{name}", "CONFIG": config}})


async def passed(lib: Any, message: Any = None, **options: Any) -> Any:
    """Return what comes of a message that one layer sends to a channel of another."""
    message = message or {"type": "x", "n": 1}
    async with two(lib, **options) as (sender, receiver):
        return await _passed_on(sender, receiver, message)


async def _passed_on(sender: Any, receiver: Any, message: Any) -> Any:
    channel = await receiver.new_channel()
    said = await told(sender.send(channel, message))
    got = said if said is not None else await within(WAIT, receiver.receive(channel))
    return True if got == message else got


@behaviour("#hosts", "`hosts`: URLs, `(host, port)` pairs, or dicts with an `address`", same=[True, True, True])
async def forms_of_hosts(lib: Any) -> Any:
    url = lib.redis["url"]
    host, _, port = url.rpartition("/")[2].partition(":")
    return [await passed(lib, hosts=[form]) for form in (url, (host, int(port)), {"address": url})]


@behaviour("#hosts", "… or a socket of Unix", same=True)
async def a_unix_socket(lib: Any) -> Any:
    return await passed(lib, hosts=[f"unix://{lib.redis['path']}"])


@behaviour("#hosts", "Several hosts share groups and channels among them", same=[[1], [2], [3], [4]])
async def several_hosts(lib: Any) -> Any:
    hosts = [f"{lib.redis['url']}/{number}" for number in (0, 1)]
    async with two(lib, hosts=hosts) as (sender, receiver):
        found = []
        for number in (1, 2, 3, 4):
            channel = await receiver.new_channel()
            await receiver.group_add(f"group{number}", channel)
            await sender.group_send(f"group{number}", {"type": "x", "n": number})
            found.append([(await receiver.receive(channel))["n"]])
        return found


@behaviour("#prefix", "Layers with another `prefix` hear nothing of each other", same=[[], [1]], waits=True)
async def prefixes(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix()) as other, two(lib) as (sender, receiver):
        found = []
        for layer in (other, receiver):
            channel = await layer.new_channel()
            await layer.group_add("all", channel)
            found.append((layer, channel))
        await sender.group_send("all", {"type": "x", "n": 1})
        heard = await taken(*found[1], 1)
        return [await taken(*found[0]), heard]


@behaviour("#usage", "What is sent to a group reaches its members in all processes", same=[[1], [1]], waits=True)
async def groups_across_processes(lib: Any) -> Any:
    async with two(lib) as (sender, receiver):
        found = []
        for layer in (sender, receiver):
            channel = await layer.new_channel()
            await layer.group_add("all", channel)
            found.append((layer, channel))
        await sender.group_send("all", {"type": "x", "n": 1})
        return [await taken(layer, channel, 1) for layer, channel in found]


@behaviour("#usage", "A channel's name reaches it from any process", same=True)
async def channels_across_processes(lib: Any) -> Any:
    return await passed(lib)


@behaviour("#usage", "A process may put a channel of another one into a group", same=[1], waits=True)
async def a_group_for_another(lib: Any) -> Any:
    async with two(lib) as (sender, receiver):
        channel = await receiver.new_channel()
        await sender.group_add("all", channel)
        await sender.group_send("all", {"type": "x", "n": 1})
        return await taken(receiver, channel, 1)


@behaviour(
    "#usage",
    "The same with `channels_redis.pubsub`",
    theirs="RuntimeError",
    ours=[1],
    better="it may; that layer knows the channels of its own process alone",
    waits=True,
)
async def a_group_for_another_on_pubsub(lib: Any) -> Any:
    async with two(lib, "pubsub") as (sender, receiver):
        channel = await receiver.new_channel()
        said = await told(sender.group_add("all", channel))
        if said is not None:
            return said
        await sender.group_send("all", {"type": "x", "n": 1})
        return await taken(receiver, channel, 1)


@behaviour("#usage", "`channels_redis.pubsub` keeps the order of a sender to a group", same=list(range(50)))
async def the_order_of_a_sender(lib: Any) -> Any:
    return await _order_of_fifty(lib, "pubsub")


async def _order_of_fifty(lib: Any, *wire: str) -> Any:
    async with two(lib, *wire) as (sender, receiver):
        channel = await receiver.new_channel()
        await receiver.group_add("all", channel)
        for number in range(50):
            await sender.group_send("all", {"type": "x", "n": number})
        return [(await receiver.receive(channel))["n"] for _ in range(50)]


@behaviour(
    "#usage",
    "With `channels_redis.core`, what one sender sends to a group comes in order",
    same=list(range(50)),
)
async def the_order_of_a_sender_on_core(lib: Any) -> Any:
    return await _order_of_fifty(lib)


@behaviour(
    "#usage",
    "`channels_redis.pubsub`, and a named channel that nobody reads yet",
    theirs="nothing",
    ours=1,
    better="the message waits for a reader; there it is lost",
    waits=True,
)
async def a_named_channel_on_pubsub(lib: Any) -> Any:
    async with two(lib, "pubsub") as (sender, receiver):
        await sender.send("thumbnails", {"type": "x", "n": 1})
        message = await within(lib.patience, receiver.receive("thumbnails"))
        return message["n"] if isinstance(message, dict) else message


@behaviour("#usage", "A named channel keeps its messages until some process reads them", same=[1, 2])
async def a_named_channel(lib: Any) -> Any:
    async with two(lib) as (sender, receiver):
        for number in (1, 2):
            await sender.send("thumbnails", {"type": "x", "n": number})
        return [(await receiver.receive("thumbnails"))["n"] for _ in range(2)]


@behaviour("#expiry", "A message that nobody reads for `expiry` seconds is gone", same="nothing", waits=True)
async def expired(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), expiry=1) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x"})
        await anyio.sleep(1.5)  # what is looked at is time itself
        return await within(0.5, layer.receive(channel))


@behaviour("#group_expiry", "A channel leaves its group after `group_expiry` seconds", same="nothing", waits=True)
async def an_expired_membership(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), group_expiry=1) as layer:
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        await anyio.sleep(2.1)  # channels_redis counts in whole seconds
        await layer.group_send("all", {"type": "x"})
        return await within(0.5, layer.receive(channel))


@behaviour(
    "#capacity", "A channel takes `capacity` messages; then `send` raises `ChannelFull`", same=[2, "ChannelFull"]
)
async def a_full_channel(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), capacity=2) as layer:
        return await filled(layer, await layer.new_channel())


@behaviour("#capacity", "A named channel as well, from any process", same=[2, "ChannelFull"])
async def a_full_named_channel(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), capacity=2) as layer:
        return await filled(layer, "thumbnails")


@behaviour(
    "#capacity",
    "A full channel of another process",
    theirs=[[2, "ChannelFull"], [0, 1]],
    ours=[[20, None], [0, 1]],
    different="what does not fit is dropped by its reader, a consumer that wants to know is told "
    "(`layer_dropped(event)`), and the sender is not",
    tests=("tests/test_consumer.py::test_what_overflows_is_told_to_who_wants_to_know",),
    waits=True,
)
async def a_full_channel_elsewhere(lib: Any) -> Any:
    async with two(lib, capacity=2) as (sender, receiver):
        channel = await receiver.new_channel()
        went = await filled(sender, channel, 20)
        return [went, (await taken(receiver, channel, 2))[:2]]  # a late one may find room, once those are taken


@behaviour(
    "#capacity",
    "One channel of a process is full; another of the same process",
    theirs="ChannelFull",
    ours=None,
    better="each channel has a capacity of its own; in `channels_redis.core` they share one",
)
async def a_neighbour(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), capacity=2) as layer:
        full, other = await layer.new_channel(), await layer.new_channel()
        await filled(layer, full)
        return await told(layer.send(other, {"type": "x"}))


@behaviour("#capacity", "`group_send` to a full member raises nothing", same=None)
async def a_full_member(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix(), capacity=2) as layer:
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        await filled(layer, channel)
        return await told(layer.group_send("all", {"type": "x"}))


@behaviour(
    "#channel_capacity", "`channel_capacity`: globs and regular expressions, the first that fits", same=[1, 3, 5]
)
async def capacities(lib: Any) -> Any:
    patterns = {"jobs.*": 1, re.compile(r"^thumb.+s$"): 3, "jobs.a": 2}
    async with lib.on_redis(prefix=prefix(), capacity=5, channel_capacity=patterns) as layer:
        return [(await filled(layer, channel))[0] for channel in ("jobs.a", "thumbnails", "other")]


@behaviour(
    "#symmetric_encryption_keys",
    "With `symmetric_encryption_keys` nothing can be read on the way",
    same=[[True, True], [True, False]],
)
async def encrypted(lib: Any) -> Any:
    found = []
    for keys in (None, ["k" * 32]):
        name = prefix()
        async with lib.on_redis(prefix=name, symmetric_encryption_keys=keys) as layer:
            await layer.send("thumbnails", {"type": "x", "text": "a secret"})
            inside = await anyio.to_thread.run_sync(_held, lib, name)
            found.append([(await layer.receive("thumbnails"))["text"] == "a secret", b"a secret" in inside])
    return found


def _held(lib: Any, name: str) -> bytes:
    """Return all that the server holds under a prefix."""
    import redis

    client: Any = redis.Redis(unix_socket_path=lib.redis["path"])
    try:
        readers: dict[Any, Any] = {
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"list": lambda key: client.lrange(key, 0, -1),
            b"stream": lambda key: [value for _, fields in client.xrange(key) for value in fields.values()],
            b"hash": lambda key: list(client.hgetall(key).values()),
        }
        keys = {key: client.type(key) for key in client.keys(f"{name}*")}
        held = [readers[kind](key) for key, kind in keys.items() if kind in readers]
        return b"".join(value for values in held for value in values if isinstance(value, bytes))
    finally:
        client.close()


@behaviour(
    "#symmetric_encryption_keys",
    "The first key encrypts, all decrypt: keys can be changed while processes run",
    same=[True, True],
)
async def rotated_keys(lib: Any) -> Any:
    old, new = "old" * 11, "new" * 11
    options = {"prefix": prefix()}
    found = []
    for keys in ([old], [new, old]):
        async with (
            lib.on_redis(**options, symmetric_encryption_keys=keys) as sender,
            lib.on_redis(**options, symmetric_encryption_keys=[new, old]) as receiver,
        ):
            found.append(await _passed_on(sender, receiver, {"type": "x", "n": 1}))
    return found


@behaviour("#symmetric_encryption_keys", "One key that is not in a list is a `ValueError`", same="ValueError")
async def no_list_of_keys(lib: Any) -> Any:
    async def opened() -> None:
        async with lib.on_redis(symmetric_encryption_keys="one"):
            pass

    return await told(opened())


@behaviour("#serializer_format", "Messages are msgpack: bytes pass, as all else that a message may hold", same=True)
async def msgpack(lib: Any) -> Any:
    return await passed(lib, SENT)


@behaviour("#serializer_format", "A tuple comes as a list", same="list")
async def tuples(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix()) as layer:
        await layer.send("a", {"type": "x", "it": (1, 2)})
        return type((await layer.receive("a"))["it"]).__name__


@behaviour(
    "#serializer_format", "… and what it does not know is a `TypeError` at the sender", same=["TypeError", "TypeError"]
)
async def not_msgpack(lib: Any) -> Any:
    return [await passed(lib, {"type": "x", "it": it}) for it in ({1}, object())]


@behaviour("#serializer_format", "`serializer_format='json'` takes JSON instead", same=[True, "TypeError"])
async def as_json(lib: Any) -> Any:
    messages = {"type": "x", "it": [1, None, "ä"]}, {"type": "x", "it": b"b"}
    return [await passed(lib, message, serializer_format="json") for message in messages]


@behaviour(
    "#serializer_format",
    "A serializer of one's own",
    theirs=[True, "registered"],
    ours=[True, "given"],
    different="`CONFIG` has the object itself, with `encode()` and `decode()`; in channels_redis a class is registered "
    "under a name",
)
async def another_serializer(lib: Any) -> Any:
    import json

    class Reversed:
        def __init__(self, **options: Any) -> None:
            """Options are channels_redis's own."""

        def encode(self, message: Any) -> bytes:
            return json.dumps(message).encode()[::-1]

        def decode(self, payload: bytes) -> Any:
            return json.loads(payload[::-1])

        serialize, deserialize = encode, decode

    if lib.ours:
        return [await passed(lib, serializer_format=Reversed()), "given"]
    import_module("channels_redis.serializers").registry.register_serializer("reversed", Reversed)
    return [await passed(lib, serializer_format="reversed"), "registered"]


@behaviour("#usage", "Plain blocking code, such as a management command, sends by `async_to_sync`", same="hello")
async def from_plain_code(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    def send() -> None:
        async_to_sync(lib.get_channel_layer().group_send)("all", {"type": "chat.message", "text": "hello"})

    with configured(lib):
        async with lib.opened() as layer, lib.socket(Consumer) as client:
            thread = threading.Thread(target=send)
            thread.start()
            try:
                return await client.receive_from(WAIT)
            finally:
                thread.join()
                if not lib.ours:
                    await layer.close_pools()


@behaviour("#usage", "`flush()` forgets all messages and groups", same=["nothing", "nothing"], waits=True)
async def flushed(lib: Any) -> Any:
    async with lib.on_redis(prefix=prefix()) as layer:
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        await layer.send("thumbnails", {"type": "x"})
        await layer.flush()
        await layer.group_send("all", {"type": "x"})
        return [await within(0.3, layer.receive(name)) for name in ("thumbnails", channel)]


@behaviour(
    DISCONNECTS,
    "`on_disconnect` and `on_reconnect` of the layer on pub/sub name events, which consumers get when the connection "
    "is lost and when it is back",
    theirs="nothing",
    ours=[True, "layer.resync"],
    better="such options are refused, with an error that names the event that consumers do get: `layer_resync(event)`. "
    "channels_redis takes both, and does nothing with them",
)
async def events_of_disconnects(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

        async def redis_disconnect(self, event: Any) -> None:
            await self.send(event["type"])

        redis_reconnect = layer_resync = redis_disconnect

    async def heard() -> Any:
        async with lib.opened() as layer, lib.socket(Consumer) as client:
            await anyio.to_thread.run_sync(_cut, lib)
            found = await within(lib.patience, client.receive_from(9))
            if not lib.ours:
                await layer.flush()
            return found

    try:
        with configured(lib, "pubsub", on_disconnect="redis.disconnect", on_reconnect="redis.reconnect"):
            return await heard()
    except lib.InvalidChannelLayerError as error:
        with configured(lib, "pubsub"):
            return ["layer_resync" in str(error), await heard()]


@behaviour(
    DISCONNECTS,
    "Functions in their place",
    theirs=[],
    ours=["back", "lost"],
    better="are called, and not when the layer closes",
    tests=("tests/redis/test_layer.py::test_of_a_loss_is_told_and_of_closing_is_not",),
)
async def calls_of_disconnects(lib: Any) -> Any:
    found: set[str] = set()
    options = {"on_disconnect": lambda: found.add("lost"), "on_reconnect": lambda: found.add("back")}
    async with lib.on_redis("pubsub", prefix=prefix(), **options) as layer:
        await layer.group_add("all", await layer.new_channel())
        await anyio.to_thread.run_sync(_cut, lib)
        with anyio.move_on_after(lib.patience):
            while len(found) < 2:
                await anyio.sleep(0.01)  # nobody would wake us if nothing is called
        return sorted(found)


def _cut(lib: Any) -> None:
    """Cut all connections that are subscribed to something."""
    import redis

    client: Any = redis.Redis(unix_socket_path=lib.redis["path"])
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    client.close()
