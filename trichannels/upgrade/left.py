"""What is left in a Python file after all rules: one look at the result, so that a second run says the same."""

import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import PositionProvider, ProviderT

from .calls import TO_SYNC, last_name
from .names import BUILT_ON_CHANNELS, MANAGER, MODULES, NO_COUNTERPART, OTHER_ARGUMENTS, longest
from .report import Left
from .rule import Origins
from .settings import OURS, REPLACED, SERVERS, STATICFILES, is_apps

ASYNCIO: Mapping[str, str] = {
    "asyncio": "works on asyncio only: on trio use what anyio has for it, or serve on asyncio",
    "asyncio.CancelledError": "use anyio.get_cancelled_exc_class(), and raise it again",
    "asyncio.Event": "anyio.Event() has no clear(): put a new one in its place instead",
    "asyncio.Lock": "use `async with` and anyio.Lock(), which is released by the task that holds it",
    "asyncio.Queue": "use anyio.create_memory_object_stream(max_buffer_size)",
    "asyncio.Semaphore": "use anyio.Semaphore(value)",
    "asyncio.TimeoutError": "with anyio.fail_after() it is the built-in TimeoutError",
    "asyncio.create_task": "use self.nursery.start_soon(function, *args): a task that ends with the socket. It returns "
    "nothing: open an anyio.create_task_group() where a task is awaited or cancelled, and use functools.partial for "
    "keywords",
    "asyncio.ensure_future": "as asyncio.create_task: use self.nursery.start_soon(function, *args)",
    "asyncio.gather": "use `async with anyio.create_task_group() as tasks:` and tasks.start_soon(function, *args)",
    "asyncio.shield": "use `with anyio.CancelScope(shield=True):`",
    "asyncio.sleep": "use anyio.sleep(seconds)",
    "asyncio.timeout": "use `with anyio.fail_after(seconds):`",
    "asyncio.to_thread": "use trichannels.bridge.sync_to_async(function)(*args)",
    "asyncio.wait_for": "use `with anyio.fail_after(seconds):` around it, which raises TimeoutError",
}
"""By the longest beginning that fits."""

FIRST = "first: nothing is read before somebody asks"
LAZY = {
    "user": ("get_user", f"await get_user(self.scope) (trichannels.auth) {FIRST}"),
    "session": ("get_session", f"await get_session(self.scope) (trichannels.sessions) {FIRST}"),
}
MIDDLEWARE = {
    f"{package}.{name}"
    for package in ("channels", "trichannels")
    for name in ("auth.AuthMiddleware", "middleware.BaseMiddleware", "sessions.SessionMiddleware")
}
OVERRIDDEN = {"populate_scope", "resolve_scope"}  # what middleware of Channels 2 to 4 had, and ours does not call
NOT_CALLED = (
    'nobody calls it here: derive from trichannels.middleware.BaseMiddleware and set scope["user"] in '
    "`async def __call__(self, scope, receive, send)`, see docs/upgrading/channels-4.md"
)
ORDERED = f"put {OURS!r} before {STATICFILES!r}, which has a `runserver` as well"
REQUIREMENT = re.compile(r"(channels|channels[-_]redis|daphne)\s*(\[[\w, -]*\])?\s*([<>=!~;].*)?")


class LeftInPython(Origins, cst.CSTVisitor):
    """Collects into ``found``; ``name`` is the file's."""

    METADATA_DEPENDENCIES: ClassVar[Collection[ProviderT]] = (*Origins.METADATA_DEPENDENCIES, PositionProvider)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.found: set[Left] = set()
        self.consumers: set[str] = set()
        self.middleware: set[str] = set()
        self.asyncio: list[Left] = []  # counts only where there are consumers
        self.classes: list[tuple[bool, set[str]]] = []  # around us: is it a consumer, and what does it call
        self.functions: list[bool] = []  # around us: is it async
        self.waiting: list[tuple[str, Left]] = []  # what is no problem if the class calls the cure somewhere
        self.apps: dict[str, int] = {}
        self.seen: set[cst.CSTNode] = set()

    def _add(self, node: cst.CSTNode, what: str, advice: str) -> None:
        self.found.add(Left(self._line(node), what, advice))

    def _line(self, node: cst.CSTNode) -> int:
        return self.get_metadata(PositionProvider, node).start.line

    # ---- imports

    def visit_Import(self, node: cst.Import) -> bool:
        for alias in node.names:
            self._import(node, alias.evaluated_name, f"import {alias.evaluated_name}")
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        if node.relative or node.module is None:
            return False
        module = get_full_name_for_node(node.module) or ""
        if isinstance(node.names, cst.ImportStar):
            self._import(node, module, f"from {module} import *")
            return False
        for alias in node.names:
            self._import(alias, f"{module}.{alias.evaluated_name}", f"from {module} import {alias.evaluated_name}")
        return False

    def _import(self, node: cst.CSTNode, name: str, what: str) -> None:
        if name.split(".")[0] != "channels_redis" and (advice := longest(NO_COUNTERPART, name)):
            self._add(node, what, advice)
        elif name.split(".")[0] == "channels_redis":
            self._add(node, what, NO_COUNTERPART["channels_redis"])

    # ---- names in code

    def visit_Attribute(self, node: cst.Attribute) -> None:
        if node not in self.seen:
            self._name(node)
        self.seen.update((node.value, node.attr))

    def visit_Name(self, node: cst.Name) -> None:
        if node not in self.seen:
            self._name(node)

    def _name(self, node: cst.Name | cst.Attribute) -> None:
        for origin in self.origins(node):
            if origin.partition(".")[0] in BUILT_ON_CHANNELS or origin == "channels.DEFAULT_CHANNEL_LAYER":
                continue  # its import is listed, and that says it all
            advice = longest(NO_COUNTERPART, origin) or MANAGER.get(origin)
            if advice and not advice.startswith("trichannels has"):
                self._add(node, origin, advice)
            elif (advice := longest(ASYNCIO, origin)) and origin != "asyncio":
                self.asyncio.append(Left(self._line(node), origin, advice))

    def visit_Call(self, node: cst.Call) -> None:
        name = last_name(node.func)
        for origin in self.origins(node.func):
            if origin in OTHER_ARGUMENTS:
                self._add(node, origin, OTHER_ARGUMENTS[origin])
            if origin == "django.conf.urls.url":
                self._add(node, origin, "Django has no url() any more: use re_path() of django.urls")
            if origin in TO_SYNC - {"trichannels.bridge.async_to_sync"} and any(one for one, _ in self.classes):
                self._blocking(node)
            if origin == "trichannels.routing.ProtocolTypeRouter":
                self._router(node)
        if self.classes:
            self.classes[-1][1].add(name)
        if name in ("append", "insert", "extend", "remove") and isinstance(node.func, cst.Attribute):
            self._mutated(node, last_name(node.func.value))
        if name == "get" and isinstance(node.func, cst.Attribute) and node.args:
            self._scope(node, node.func.value, node.args[0].value)

    def _blocking(self, node: cst.Call) -> None:
        method = node.args[0].value if node.args else None
        is_layers = isinstance(method, cst.Attribute) and last_name(method.value) == "channel_layer"
        advice = (
            "in a thread get_channel_layer().group_send(…) blocks by itself; in async code await it"
            if is_layers
            else "in a consumer use that of trichannels.bridge, which runs it on the consumer's own loop"
        )
        self._add(node, "asgiref.sync.async_to_sync", advice)

    def _router(self, node: cst.Call) -> None:
        mapping = node.args[0].value if node.args else None
        if not isinstance(mapping, cst.Dict) or self.name.startswith("test") or self.functions:
            return
        keys = [one.key for one in mapping.elements if isinstance(one, cst.DictElement)]
        names = {key.evaluated_value for key in keys if isinstance(key, cst.SimpleString)}
        if "websocket" in names and "http" not in names and len(keys) == len(mapping.elements):
            advice = 'add "http": get_asgi_application() of trichannels.django.http, which nothing adds by itself here'
            self._add(node, "ProtocolTypeRouter without http", advice)

    # ---- consumers

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        consumer = self.is_consumer(node, self.consumers)
        if consumer:
            self.consumers.add(node.name.value)
        self.classes.append((consumer, set()))
        bases = [base.value for base in node.bases]
        if any(last_name(base) in self.middleware or self.origins(base) & MIDDLEWARE for base in bases):
            self.middleware.add(node.name.value)
            for method in (one for one in node.body.body if isinstance(one, cst.FunctionDef)):
                if method.name.value in OVERRIDDEN:
                    self._add(method.name, method.name.value, NOT_CALLED)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        _, called = self.classes.pop()
        self.found.update(left for cure, left in self.waiting if cure not in called)
        self.waiting = []

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.functions.append(node.asynchronous is not None)

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self.functions.pop()

    def visit_Subscript(self, node: cst.Subscript) -> None:
        index = node.slice[0].slice
        if isinstance(index, cst.Index):
            self._scope(node, node.value, index.value)

    def _scope(self, node: cst.CSTNode, owner: cst.BaseExpression, key: cst.BaseExpression) -> None:
        """Look at ``scope[key]``, or ``scope.get(key)``."""
        in_task = bool(self.classes) and self.classes[-1][0] and bool(self.functions) and self.functions[-1]
        name = key.evaluated_value if isinstance(key, cst.SimpleString) else None
        if in_task and last_name(owner) == "scope" and isinstance(name, str) and name in LAZY:
            cure, advice = LAZY[name]
            self.waiting.append((cure, Left(self._line(node), f'scope["{name}"] in async code', advice)))

    # ---- strings and settings

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        value = node.evaluated_value
        if not isinstance(value, str):
            return
        module, _, name = value.rpartition(".")
        if module in MODULES or value in MODULES:
            home = MODULES.get(module) or MODULES[value]
            there = f"{home.module}.{name}" if module in MODULES else home.module
            known = module not in MODULES or name in home.names
            self._add(node, f"{value!r}", f"write {there!r}" if known else f"{home.module} has no {name}")
        if self.name == "setup.py" and REQUIREMENT.fullmatch(value):
            self._add(node, f"{value!r}", "write trichannels[django,redis,serve], without redis if it is not used")

    def visit_DictElement(self, node: cst.DictElement) -> None:
        key, value = node.key, node.value
        if (
            isinstance(key, cst.SimpleString)
            and key.evaluated_value == "BACKEND"
            and isinstance(value, cst.SimpleString)
        ):
            path = value.evaluated_value
            if isinstance(path, str) and path.endswith("ChannelLayer") and not path.startswith("trichannels."):
                advice = "use trichannels.layers.redis.RedisChannelLayer or trichannels.layers.InMemoryChannelLayer"
                self._add(node, f"BACKEND {path!r}", advice)

    def visit_Element(self, node: cst.Element) -> None:
        if isinstance(node.value, cst.SimpleString) and node.value.evaluated_value in (OURS, STATICFILES):
            self.apps.setdefault(str(node.value.evaluated_value), self._line(node))

    def _mutated(self, node: cst.Call, owner: str) -> None:
        strings = {arg.value.evaluated_value for arg in node.args if isinstance(arg.value, cst.SimpleString)}
        if is_apps(owner) and strings & {*REPLACED, *SERVERS}:
            self._add(node, f"{owner}.{last_name(node.func)}", f"it is {OURS!r} now: {ORDERED}")

    def leave_Module(self, original_node: cst.Module) -> None:
        if self.consumers:
            self.found.update(self.asyncio)
        if STATICFILES in self.apps and self.apps.get(OURS, 0) > self.apps[STATICFILES]:
            self.found.add(Left(self.apps[OURS], "INSTALLED_APPS", ORDERED))
