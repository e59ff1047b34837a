"""Workers: what is sent to named channels, and handled by consumers of a process that serves nobody. On Redis."""

# mypy: allow-subclassing-any

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .layers import WAIT
from .library import within
from .redis import prefix
from .rows import documented_at

behaviour = documented_at("topics/worker.html")


@asynccontextmanager
async def working(lib: Any, consumer: Any, *channels: str) -> AsyncIterator[Any]:
    """Run a worker on channels; all of them have the same consumer. Yields a layer to send with."""
    router = lib.ProtocolTypeRouter(
        {"channel": lib.ChannelNameRouter({channel: consumer.as_asgi() for channel in channels})}
    )
    options = {"prefix": prefix()}
    async with (
        lib.on_redis(**options) as layer,
        lib.on_redis(**options) as sender,
        lib.worker(router, layer, *channels),
    ):
        yield sender


class Heard:
    """What consumers of a worker have handled."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self._more = anyio.Event()

    def hear(self, what: Any) -> None:
        """Handle something; on the loop."""
        self.found.append(what)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, enough: Callable[[list[Any]], bool], seconds: float = WAIT) -> list[Any]:
        """Wait until there is enough, or so long."""
        with anyio.move_on_after(seconds):
            while not enough(self.found):
                await self._more.wait()
        return self.found


@behaviour(
    "#receiving-and-consumers",
    "An event to a named channel is handled by its consumer; the scope's type is `channel`",
    same=[["thumbnails", "channel", 7]],
    waits=True,
)
async def a_job(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make_thumbnail(self, event: Any) -> None:
            heard.hear([self.scope["channel"], self.scope["type"], event["id"]])

    async with working(lib, Consumer, "thumbnails") as layer:
        await layer.send("thumbnails", {"type": "make.thumbnail", "id": 7})
        return await heard.until(bool)


@behaviour("#receiving-and-consumers", "By a blocking consumer as well", same=[7], waits=True)
async def a_job_of_a_blocking_consumer(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.SyncConsumer):
        def make_thumbnail(self, event: Any) -> None:
            heard.found.append(event["id"])

    async with working(lib, Consumer, "thumbnails") as layer:
        await layer.send("thumbnails", {"type": "make.thumbnail", "id": 7})
        with anyio.move_on_after(WAIT):
            while not heard.found:
                await anyio.sleep(0.01)  # it is another thread that hears
    return heard.found


@behaviour(
    "#receiving-and-consumers",
    "A worker reads the channels that it is given, and no others",
    same=["nothing", "still there"],
    waits=True,
)
async def other_channels(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            heard.hear(event["type"])

    async with working(lib, Consumer, "thumbnails") as layer:
        await layer.send("other", {"type": "make"})
        found = await heard.until(bool, 0.3)
        left = await within(WAIT, layer.receive("other"))
        return [found[0] if found else "nothing", "still there" if left == {"type": "make"} else left]


@behaviour("#sending", "What is sent while no worker runs waits for one", same=[7], waits=True)
async def sent_before(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            heard.hear(event["id"])

    router = lib.ProtocolTypeRouter({"channel": lib.ChannelNameRouter({"thumbnails": Consumer.as_asgi()})})
    async with lib.on_redis(prefix=prefix()) as layer:
        await layer.send("thumbnails", {"type": "make", "id": 7})
        async with lib.worker(router, layer, "thumbnails"):
            return await heard.until(bool)


@behaviour(
    "#sending",
    "Each event must have a type",
    theirs=[],
    ours=[7],
    better="one without becomes a dead letter, and the worker goes on; in Channels it ends the worker",
    tests=("tests/test_worker.py::test_what_nobody_can_do_is_a_dead_letter_at_once",),
    waits=True,
)
async def an_event_without_a_type(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            heard.hear(event["id"])

    async with working(lib, Consumer, "thumbnails") as layer:
        await layer.send("thumbnails", {"id": 6})
        await layer.send("thumbnails", {"type": "make", "id": 7})
        return await heard.until(bool, lib.patience)


@behaviour(
    "",
    "Delivery is at most once: there are no retries",
    theirs=["failed"],
    ours=["failed", "done"],
    better="a job that fails is tried again, unless the worker is told otherwise; one that always fails becomes a dead "
    "letter",
    tests=("tests/test_worker.py::test_a_job_that_always_fails_becomes_a_dead_letter",),
    waits=True,
)
async def a_job_that_fails(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            heard.hear("failed" if not heard.found else "done")
            if len(heard.found) == 1:
                raise LookupError("lost")

    async with working(lib, Consumer, "thumbnails") as layer:
        await layer.send("thumbnails", {"type": "make"})
        await heard.until(bool)
        return await heard.until(lambda found: "done" in found, lib.patience)


@behaviour(
    "#receiving-and-consumers",
    "One instance of the consumer handles all events of a channel",
    theirs=[1, 2, 3],
    ours=[1, 1, 1],
    different="each job has an instance of its own: keep what jobs share outside of `self`",
    waits=True,
)
async def instances(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        count = 0

        async def make(self, event: Any) -> None:
            self.count += 1
            heard.hear(self.count)

    async with working(lib, Consumer, "thumbnails") as layer:
        for _ in range(3):
            await layer.send("thumbnails", {"type": "make"})
        return await heard.until(lambda found: len(found) == 3)


@behaviour(
    "#receiving-and-consumers",
    "Events of one channel are handled one after the other",
    theirs=1,
    ours=10,
    different="up to 10 jobs of a channel run at once, unless the worker's `concurrency` says otherwise: "
    "`runworker --concurrency 1`, for one at a time",
    tests=(
        "tests/test_worker.py::test_no_more_are_taken_than_may_run",
        "tests/project/test_commands.py::test_what_a_worker_cannot_do_is_one_line_and_code_2",
    ),
    waits=True,
)
async def jobs_at_once(lib: Any) -> Any:
    heard = Heard()

    class Consumer(lib.AsyncConsumer):
        async def make(self, event: Any) -> None:
            heard.hear("begun")
            await anyio.sleep_forever()

    async with working(lib, Consumer, "thumbnails") as layer:
        for _ in range(12):
            await layer.send("thumbnails", {"type": "make"})
        await heard.until(bool)
        await heard.until(lambda found: len(found) == 10, lib.patience)
        return len(await heard.until(lambda found: len(found) > 10, 0.1))
