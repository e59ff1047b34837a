"""asyncio inside of consumers."""

from textwrap import indent

import pytest

from .pairs import becomes, left, stays

pytestmark = pytest.mark.once


def consumer(body: str, method: str = "async def receive(self, text_data):", head: str = "import asyncio") -> str:
    """Return a file with a consumer."""
    return f"{head}\n\n\nclass Chat(AsyncWebsocketConsumer):\n    {method}\n{indent(body, '        ')}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("asyncio.create_task(self.f(x))", "self.nursery.start_soon(self.f, x)"),
        ("asyncio.create_task(self.f())  # go", "self.nursery.start_soon(self.f)  # go"),
        ("asyncio.create_task(f(1, *more))", "self.nursery.start_soon(f, 1, *more)"),
        ("asyncio.create_task(self.a.b(x), name='n')", "self.nursery.start_soon(self.a.b, x, name='n')"),
        (
            "asyncio.ensure_future(f(x))\nasync def f(x): pass",
            "self.nursery.start_soon(f, x)\nasync def f(x): pass",
        ),
        ("asyncio.create_task(\n    self.f(x),\n)", "self.nursery.start_soon(\n    self.f, x,\n)"),
        ("asyncio.create_task(\n    self.f(x)\n)", "self.nursery.start_soon(\n    self.f, x\n)"),
        (
            "asyncio.create_task(self.f(\n    1,\n    2,\n))",
            "self.nursery.start_soon(\n    self.f,\n    1,\n    2,\n)",
        ),
        (
            "asyncio.create_task(\n    self.f(\n        1, 2,\n    ),\n)",
            "self.nursery.start_soon(\n    self.f,\n    1, 2,\n)",
        ),
        ("def later():\n    asyncio.create_task(self.f(x))", "def later():\n    self.nursery.start_soon(self.f, x)"),
    ],
)
def test_a_task_that_nobody_waits_for_is_the_nurserys(before: str, after: str) -> None:
    becomes(consumer(before), consumer(after, head="").lstrip("\n"))


@pytest.mark.parametrize(
    "body",
    [
        "self.task = asyncio.create_task(self.f(x))",
        "await asyncio.create_task(self.f(x))",
        "asyncio.create_task(coroutine)",
        "asyncio.create_task(self.f(x=1))",
        "asyncio.create_task(self.f(**more))",
        "asyncio.create_task(make()(x))",
        "asyncio.create_task(asyncio.sleep(1))",
        "asyncio.create_task(self.f(x), context=c)",
        "asyncio.create_task(self.f(  # why\n    x,\n))",
        "asyncio.create_task(\n    self.f(x),  # why\n)",
        "def own(self): asyncio.create_task(self.f(x))",
        "class Own:\n    def f(self): asyncio.create_task(self.f(x))",
        "self = x; asyncio.create_task(self.f(x))",
    ],
)
def test_other_tasks_stay_and_are_listed(body: str) -> None:
    assert any(": asyncio.create_task: use self.nursery.start_soon(" in line for line in stays(consumer(body)))


@pytest.mark.parametrize("body", ["loop.run_in_executor(None, f)", "self.later(x)"])
def test_what_may_return_a_future_is_no_task_of_a_nursery(body: str) -> None:
    (line,) = stays(consumer(f"asyncio.ensure_future({body})"))
    assert line.startswith("6: asyncio.ensure_future: ")


@pytest.mark.parametrize(
    "method",
    [
        "async def disconnect(self, code):",
        "def __init__(self):",
        "async def __call__(self, scope, receive, send):",
        "@staticmethod\n    async def f(self):",
        "@classmethod\n    async def f(cls):",
        "async def f():",
    ],
)
def test_where_there_is_no_nursery_a_task_stays(method: str) -> None:
    assert stays(consumer("asyncio.create_task(self.f(x))", method))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("await asyncio.sleep(1)", "await anyio.sleep(1)"),
        (
            "self.ready = asyncio.Event()\nawait self.ready.wait()",
            "self.ready = anyio.Event()\nawait self.ready.wait()",
        ),
        ("self.ready: asyncio.Event = asyncio.Event()", "self.ready: anyio.Event = anyio.Event()"),
        ("lock: object = asyncio.Lock()", "lock: object = anyio.Lock()"),
        (
            "self.lock = lock = asyncio.Lock()\nasync with lock: pass",
            "self.lock = lock = anyio.Lock()\nasync with lock: pass",
        ),
    ],
)
def test_what_anyio_has_the_same(before: str, after: str) -> None:
    becomes(consumer(before), consumer(after, head="import anyio"))
    head = f"{consumer(after, head='import anyio')}\nasyncio.run(f())\n"
    becomes(
        f"{consumer(before)}\nasyncio.run(f())\n", head.replace("import anyio", "import asyncio\n\nimport anyio", 1)
    )


@pytest.mark.parametrize(
    ("body", "listed"),
    [
        ("await asyncio.sleep(1, 2)", "asyncio.sleep"),
        ("f(asyncio.sleep)", "asyncio.sleep"),
        ("self.ready = asyncio.Event()\nself.ready.clear()", "asyncio.Event"),
        ("f(asyncio.Event())", "asyncio.Event"),
        ("self.ready = asyncio.Event()\nif await self.ready.wait(): pass", "asyncio.Event"),
        ("self.ready = asyncio.Event()\nf(self.ready.wait)", "asyncio.Event"),
        ("self.ready = asyncio.Event()\nawait f(self.ready)", "asyncio.Event"),
        ("self.lock = asyncio.Lock()\nawait self.lock.acquire()", "asyncio.Lock"),
        ("self.locks = defaultdict(asyncio.Lock)", "asyncio.Lock"),
        ("await asyncio.wait_for(self.f(), 5)", "asyncio.wait_for"),
        ("x = await asyncio.wait_for(self.f(), 5)", "asyncio.wait_for"),
        ("await asyncio.gather(a(), b())", "asyncio.gather"),
        ("self.queue = asyncio.Queue()", "asyncio.Queue"),
        ("loop = asyncio.get_running_loop()", "asyncio.get_running_loop"),
    ],
)
def test_what_anyio_has_otherwise_stays_and_is_listed(body: str, listed: str) -> None:
    assert [line.split(": ")[1] for line in stays(consumer(body))] == [listed]


def test_advice_for_a_timeout() -> None:
    (line,) = left(consumer("await asyncio.wait_for(self.f(), 5)"))
    assert line == "6: asyncio.wait_for: use `with anyio.fail_after(seconds):` around it, which raises TimeoutError"


@pytest.mark.parametrize(
    ("head", "call"),
    [
        ("from asyncio import sleep", "sleep"),
        ("import asyncio as aio", "aio.sleep"),
        ("from asyncio import sleep as s", "s"),
    ],
)
def test_however_it_was_imported(head: str, call: str) -> None:
    after = consumer("await anyio.sleep(1)", head="import anyio")
    becomes(consumer(f"await {call}(1)", head=head), after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Doc."""\nimport asyncio', '"""Doc."""\n\nimport anyio'),
        ("import asyncio\nimport os", "import os\n\nimport anyio"),
        ("import asyncio\n\nfrom django import db", "import anyio\nfrom django import db"),
        ("import asyncio\nimport anyio", "import anyio"),
        ("from __future__ import annotations\nimport asyncio", "from __future__ import annotations\n\nimport anyio"),
        ("# Copyright\nimport asyncio\nfrom .a import b", "# Copyright\nimport anyio\nfrom .a import b"),
    ],
)
def test_where_the_import_goes(before: str, after: str) -> None:
    body = "await {}.sleep(1)"
    becomes(consumer(body.format("asyncio"), head=before), consumer(body.format("anyio"), head=after))


@pytest.mark.parametrize(
    "base",
    ["AsyncWebsocketConsumer", "websocket.AsyncWebsocketConsumer", "BaseConsumer", "JsonOne", "Other", "Base[int]"],
)
def test_which_classes_are_consumers(base: str) -> None:
    head = "import anyio\nfrom trichannels.generic.websocket import AsyncJsonWebsocketConsumer as JsonOne\n"
    head += "from trichannels.generic.websocket import AsyncWebsocketConsumer as Base\nclass Other(JsonOne): pass\n"
    method = "async def f(self):\n        await {}.sleep(1)\n"
    before = f"import asyncio\n{head}class Chat({base}):\n    {method.format('asyncio')}"
    becomes(before, f"{head}class Chat({base}):\n    {method.format('anyio')}")


def test_elsewhere_asyncio_stays_and_is_listed_only_beside_consumers() -> None:
    source = "import asyncio\nasync def helper():\n    await asyncio.sleep(1)\n"
    assert stays(f"{source}class View(object): pass  # Consumer\n") == []
    (line,) = stays(f"{source}class Chat(AsyncConsumer): pass\n")
    assert line == "3: asyncio.sleep: use anyio.sleep(seconds)"
