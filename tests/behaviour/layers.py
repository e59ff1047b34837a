"""Channel layers: what all do, shown on the one in memory, and how they are configured."""

# mypy: allow-subclassing-any

import re
from typing import Any

import anyio
import anyio.lowlevel
from asgiref.sync import async_to_sync

from .library import told, told_at_once, within
from .rows import documented_at

behaviour = documented_at("channel_layer_spec.html")
TOPIC = "https://channels.readthedocs.io/en/latest/topics/channel_layers.html"
NOTHING = 0.25  # seconds in which nothing may come
WAIT = 5.0  # seconds in which what comes must come


async def taken(layer: Any, channel: str, least: int = 0) -> list[Any]:
    """Return what waits on a channel; ``least`` messages are on their way."""
    found: list[Any] = []
    while True:
        message = await within(NOTHING if len(found) >= least else WAIT, layer.receive(channel))
        if not isinstance(message, dict):
            return found
        found.append(message["n"])
    return found


@behaviour("#specification-details", "What is sent to a channel is received from it, in order", same=[1, 2, 3])
async def sent_and_received(lib: Any) -> Any:
    async with lib.memory() as layer:
        channel = await layer.new_channel()
        for number in (1, 2, 3):
            await layer.send(channel, {"type": "x", "n": number})
        return [(await layer.receive(channel))["n"] for _ in range(3)]


@behaviour("#channels", "A channel is named by its sender: one without `!` is anybody's to read", same=[1])
async def a_named_channel(lib: Any) -> Any:
    async with lib.memory() as layer:
        await layer.send("thumbnails", {"type": "x", "n": 1})
        return [(await layer.receive("thumbnails"))["n"]]


@behaviour("#channels", "Of two who read a channel, each message reaches one", same=[1, 2])
async def two_readers(lib: Any) -> Any:
    async with lib.memory() as layer, anyio.create_task_group() as tasks:
        channel = await layer.new_channel()
        found: list[int] = []

        async def read() -> None:
            found.append((await layer.receive(channel))["n"])

        for _ in range(2):
            tasks.start_soon(read)
        await anyio.sleep(0)
        for number in (1, 2):
            await layer.send(channel, {"type": "x", "n": number})
        with anyio.fail_after(2):
            while len(found) < 2:
                await anyio.lowlevel.checkpoint()
        return sorted(found)


@behaviour(
    "#channels", "`new_channel(prefix)` returns a name that nobody else has, with a `!` in it", same=[True, True, True]
)
async def new_channels(lib: Any) -> Any:
    async with lib.memory() as layer:
        first, second = await layer.new_channel("mine"), await layer.new_channel("mine")
        return [first != second, first.startswith("mine"), "!" in first]


@behaviour("#groups", "`group_send` reaches every member, once however often it was added", same=[[1], [1]], waits=True)
async def members(lib: Any) -> Any:
    async with lib.memory() as layer:
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in (*channels, channels[0]):
            await layer.group_add("all", channel)
        await layer.group_send("all", {"type": "x", "n": 1})
        return [await taken(layer, channel, 1) for channel in channels]


@behaviour(
    "#specification-details",
    "`group_discard` takes a channel out, and does nothing if it is in no such group",
    same=[[], [1]],
    waits=True,
)
async def discarded(lib: Any) -> Any:
    async with lib.memory() as layer:
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("all", channel)
        await layer.group_discard("all", channels[0])
        await layer.group_discard("other", channels[1])
        await layer.group_send("all", {"type": "x", "n": 1})
        return [await taken(layer, channel) for channel in channels]


@behaviour("#groups", "Sending to a group without members does nothing", same=None)
async def nobody_there(lib: Any) -> Any:
    async with lib.memory() as layer:
        return await told(layer.group_send("nobody", {"type": "x"}))


@behaviour(
    "#capacity",
    "A channel takes 100 messages, or `capacity`; then `send` raises `ChannelFull`",
    same=[[100, "ChannelFull"], [2, "ChannelFull"]],
)
async def a_full_channel(lib: Any) -> Any:
    found = []
    for options in ({}, {"capacity": 2}):
        async with lib.memory(**options) as layer:
            found.append(await filled(layer, await layer.new_channel()))
    return found


async def filled(layer: Any, channel: str, most: int = 200) -> list[Any]:
    """Return how many messages a channel has taken, at most so many, and what came then."""
    for number in range(most):
        said = await told(layer.send(channel, {"type": "x", "n": number}))
        if said is not None:
            return [number, said]
    return [most, None]


@behaviour(
    "#capacity",
    "`group_send` never raises it: a full member gets nothing, the others do",
    same=[None, [0, 1], [7]],
    waits=True,
)
async def a_full_member(lib: Any) -> Any:
    async with lib.memory(capacity=2) as layer:
        full, free = await layer.new_channel(), await layer.new_channel()
        await filled(layer, full)
        for channel in (full, free):
            await layer.group_add("all", channel)
        said = await told(layer.group_send("all", {"type": "x", "n": 7}))
        return [said, await taken(layer, full), await taken(layer, free)]


@behaviour(
    "#capacity",
    "`channel_capacity` gives channels a capacity of their own, by their names",
    theirs=["ValueError", "ValueError", "ValueError"],
    ours=[1, 3, 5],
    better="patterns for `fnmatch` and regular expressions, the first that fits; Channels' layer in memory cannot take "
    "these, channels_redis can",
)
async def capacities(lib: Any) -> Any:
    patterns = {"jobs.*": 1, re.compile(r"^thumb.+s$"): 3, "jobs.a": 2}
    async with lib.memory(capacity=5, channel_capacity=patterns) as layer:
        return [await _taken_or_said(layer, channel) for channel in ("jobs.a", "thumbnails", "other")]


async def _taken_or_said(layer: Any, channel: str) -> Any:
    number, said = await filled(layer, channel)
    return number if said == "ChannelFull" else said


@behaviour("#channels", "A message that nobody reads for `expiry` seconds is gone", same=["nothing"], waits=True)
async def expired(lib: Any) -> Any:
    async with lib.memory(expiry=0.05) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x"})
        await anyio.sleep(0.1)  # what is looked at is time itself
        return [await within(NOTHING, layer.receive(channel))]


@behaviour(
    "#persistence", "A channel is a member for `group_expiry` seconds after it was last added", same=[], waits=True
)
async def an_expired_membership(lib: Any) -> Any:
    async with lib.memory(group_expiry=1) as layer:
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        await anyio.sleep(2.1)  # Channels counts in whole seconds
        await layer.group_send("all", {"type": "x", "n": 1})
        return await taken(layer, channel)


@behaviour(
    "#persistence",
    "The membership of a consumer ends after `group_expiry`, a day",
    theirs="nothing",
    ours="still there",
    better="that of an open socket does not end",
    waits=True,
)
async def the_membership_of_a_socket(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        channel_layer_alias = "brief"  # its group_expiry is a second
        groups = ("all",)

        async def chat_message(self, event: Any) -> None:
            await self.send("still there")

    async with lib.opened("brief") as layer, lib.socket(Consumer) as client:
        await anyio.sleep(2.1)  # Channels counts in whole seconds
        await layer.group_send("all", {"type": "chat.message"})
        return await within(lib.patience, client.receive_from(9))


@behaviour(
    "#strings-and-unicode",
    "A name has ASCII letters, digits, `-`, `_` and `.`, and less than 100 of them: any other is a `TypeError`",
    same=[None, None, *["TypeError"] * 6],
)
async def names(lib: Any) -> Any:
    async with lib.memory() as layer:
        tried = "a-Z_0.9", "x" * 99, "x" * 100, "a b", "a:b", "ä", "", 7
        return [await told(layer.group_send(name, {"type": "x"})) for name in tried]


@behaviour(
    "#strings-and-unicode",
    "Digits of other scripts, and a line end behind the name",
    theirs=[None, None],
    ours=["TypeError", "TypeError"],
    better="refused, as documented; Channels lets them through",
)
async def odd_names(lib: Any) -> Any:
    async with lib.memory() as layer:
        return [await told(layer.group_send(name, {"type": "x"})) for name in ("room٣", "room\n")]


@behaviour(
    "#strings-and-unicode",
    "One `!` may stand in a channel's name, and none in a group's",
    same=[None, "TypeError", "TypeError"],
)
async def exclamation_marks(lib: Any) -> Any:
    async with lib.memory() as layer:
        message = {"type": "x"}
        sends = layer.send("a!b", message), layer.send("a!b!c", message), layer.group_send("a!b", message)
        return [await told(send) for send in sends]


@behaviour(
    "#messages",
    "A message is a dict",
    theirs=["AssertionError", "AssertionError"],
    ours=["TypeError", "TypeError"],
    different="anything else is a `TypeError`, and not by `assert`",
)
async def no_dict(lib: Any) -> Any:
    async with lib.memory() as layer:
        return [await told(layer.send("a", "text")), await told(layer.group_send("a", ["text"]))]


SENT = {"type": "x", "s": "ä", "b": b"\x00b", "i": -(2**63), "f": 1.5, "l": [1, [2]], "d": {"a": None}, "t": True}


@behaviour(
    "#messages", "It may hold str, bytes, int, float, list, dict with str keys, bool and None", same=[True, "bytes"]
)
async def what_a_message_holds(lib: Any) -> Any:
    async with lib.memory() as layer:
        await layer.send("a", SENT)
        got = await layer.receive("a")
        return [got == SENT, type(got["b"]).__name__]


@behaviour(
    "#messages",
    "A tuple comes as a list",
    theirs="tuple",
    ours="list",
    better="in memory as [on Redis](#redis); Channels' layer in memory lets it pass as it is",
)
async def tuples(lib: Any) -> Any:
    async with lib.memory() as layer:
        await layer.send("a", {"type": "x", "it": (1, 2)})
        return type((await layer.receive("a"))["it"]).__name__


@behaviour(
    "#messages",
    "What cannot be serialized: a set, a date, an object",
    theirs=[None, None],
    ours=["TypeError", "TypeError"],
    better="an error at the sender, in memory as [on Redis](#redis); Channels' layer in memory lets it pass",
)
async def what_no_message_holds(lib: Any) -> Any:
    async with lib.memory() as layer:
        return [await told(layer.send("a", {"type": "x", "it": it})) for it in ({1}, object())]


@behaviour("#messages", "Each reader has a copy of its own", same=[[], ["changed"]])
async def copies(lib: Any) -> Any:
    async with lib.memory() as layer:
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("all", channel)
        await layer.group_send("all", {"type": "x", "it": []})
        changed = await layer.receive(channels[1])
        changed["it"].append("changed")
        return [(await layer.receive(channels[0]))["it"], changed["it"]]


@behaviour("#channels", "A message of a megabyte passes", same=1_000_000)
async def a_megabyte(lib: Any) -> Any:
    async with lib.memory() as layer:
        await layer.send("a", {"type": "x", "text": "x" * 1_000_000})
        return len((await layer.receive("a"))["text"])


@behaviour("#extensions", "`extensions` names `groups` and `flush`", same=["flush", "groups"])
async def extensions(lib: Any) -> Any:
    async with lib.memory() as layer:
        return sorted(layer.extensions)


@behaviour("#specification-details", "`flush()` empties channels and groups", same=[[], []], waits=True)
async def flushed(lib: Any) -> Any:
    async with lib.memory() as layer:
        await layer.group_add("all", "a")
        await layer.send("a", {"type": "x", "n": 1})
        await layer.flush()
        before = await taken(layer, "a")
        await layer.group_send("all", {"type": "x", "n": 2})
        return [before, await taken(layer, "a")]


# ---- configuration


@behaviour(
    TOPIC + "#configuration",
    "`get_channel_layer(alias)` returns what `CHANNEL_LAYERS` says, or `None`",
    same=[True, True, True],
)
async def by_alias(lib: Any) -> Any:
    async with lib.opened():
        default, second = lib.get_channel_layer(), lib.get_channel_layer("second")
        return [
            isinstance(default, lib.InMemoryChannelLayer) and isinstance(second, lib.InMemoryChannelLayer),
            default is not second and default is lib.get_channel_layer("default"),
            lib.get_channel_layer("unknown") is None,
        ]


@behaviour(TOPIC, "Without `CHANNEL_LAYERS` it returns `None`", same=[True, True])
def not_configured(lib: Any) -> Any:
    from django.conf import settings
    from django.test import override_settings

    with override_settings(CHANNEL_LAYERS={}):
        empty = lib.get_channel_layer() is None
    with override_settings():
        del settings.CHANNEL_LAYERS
        return [empty, lib.get_channel_layer() is None]


@behaviour(
    TOPIC + "#configuration",
    "A layer without a `BACKEND`, or with one that cannot be imported, is an `InvalidChannelLayerError`",
    same=["InvalidChannelLayerError"] * 2,
)
async def wrong_backends(lib: Any) -> Any:
    from django.test import override_settings

    found = []
    for one in ({}, {"BACKEND": "nowhere.Layer"}):
        with override_settings(CHANNEL_LAYERS={"default": one}):
            try:
                async with lib.opened():
                    found.append("opened")
            except lib.InvalidChannelLayerError:
                found.append("InvalidChannelLayerError")
    return found


@behaviour(
    TOPIC + "#configuration",
    "A layer is used where it is made",
    theirs=None,
    ours="RuntimeError",
    different="it has to be open: the server opens it, `application.opened()` or `async with layer`",
    tests=(
        "tests/layers/test_host.py::test_the_lifespan_opens_and_closes_them",
        "tests/layers/test_host.py::test_a_block_of_the_parent_opens_them",
    ),
)
async def not_opened(lib: Any) -> Any:
    return await told(lib.InMemoryChannelLayer().send("a", {"type": "x"}))


@behaviour(
    TOPIC + "#using-outside-of-consumers",
    "A layer in memory, used where no server runs",
    theirs=None,
    ours="InvalidChannelLayerError",
    better="an `InvalidChannelLayerError`, for nobody could hear it; Channels sends it to nobody",
)
def in_memory_from_plain_code(lib: Any) -> Any:
    try:
        return async_to_sync(lib.get_channel_layer().group_send)("all", {"type": "x"})
    except lib.InvalidChannelLayerError:
        return "InvalidChannelLayerError"


@behaviour(
    TOPIC + "#using-outside-of-consumers",
    "Async code outside of a consumer sends by `get_channel_layer()`",
    same="hello",
)
async def outside_of_consumers(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    async with lib.socket(Consumer) as client:
        await lib.get_channel_layer().group_send("all", {"type": "chat.message", "text": "hello"})
        return await client.receive_from()


@behaviour(
    TOPIC + "#synchronous-functions",
    "Blocking code, in a thread of a running server, sends by `async_to_sync`",
    same="hello",
)
async def from_a_thread(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        groups = ("all",)

        async def chat_message(self, event: Any) -> None:
            await self.send(event["text"])

    def send() -> None:
        layer = lib.get_channel_layer()
        async_to_sync(layer.group_send)("all", {"type": "chat.message", "text": "hello"})

    async with lib.socket(Consumer) as client:
        await lib.database_sync_to_async(send)()
        return await client.receive_from()


@behaviour(
    TOPIC + "#configuration",
    "`channel_layers.make_test_backend(alias)` makes a layer of `TEST_CONFIG`",
    theirs=7,
    ours="AttributeError",
    different="there is none: in tests `opened_layers()` of `trichannels.testing` makes what is used of `TEST_CONFIG`",
    tests=("tests/project/test_opened_layers.py::test_the_options_for_tests_count",),
)
def a_layer_for_tests(lib: Any) -> Any:
    from django.test import override_settings

    one = {"BACKEND": f"{lib.package}.layers.InMemoryChannelLayer", "TEST_CONFIG": {"capacity": 7}}
    with override_settings(CHANNEL_LAYERS={"default": one}):
        return told_at_once(lambda: lib.channel_layers.make_test_backend("default").capacity)
