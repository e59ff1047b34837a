"""What is left in a Python file after all rules: one look at the result, so that a second run says the same."""

from collections.abc import Mapping

import libcst as cst
from libcst.helpers import get_full_name_for_node

from .layers import ADVICE, Layers
from .names import BUILT_ON_CHANNELS, MANAGER, NO_COUNTERPART, OTHER_ARGUMENTS, longest
from .report import Left
from .rule import Look, last_name, text_of

ASYNCIO: Mapping[str, str] = {
    "asyncio": "works on asyncio only: on trio use what anyio has for it, or serve on asyncio",
    "asyncio.CancelledError": "use anyio.get_cancelled_exc_class(), and raise it again",
    "asyncio.Event": "anyio.Event() has no clear(): put a new one in its place instead; and its wait() returns None",
    "asyncio.Lock": "use `async with` and anyio.Lock(), which is released by the task that holds it",
    "asyncio.Queue": "use anyio.create_memory_object_stream(max_buffer_size)",
    "asyncio.Semaphore": "use anyio.Semaphore(value)",
    "asyncio.TimeoutError": "with anyio.fail_after() it is the built-in TimeoutError",
    "asyncio.create_task": "use self.nursery.start_soon(function, *args): a task that ends with the socket. It returns "
    "nothing: open an anyio.create_task_group() where a task is awaited or cancelled, and use functools.partial for "
    "keywords. In __init__ and __call__ there is no nursery yet: connect() is the first to have it",
    "asyncio.ensure_future": "as asyncio.create_task: use self.nursery.start_soon(async_function, *args)",
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
OUR_OWN = "in a consumer use that of trichannels.bridge, which runs it on the consumer's own loop"


class LeftInPython(Look):
    """Names, calls and classes; strings and lists are in ``left_strings``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.consumers: set[str] = set()
        self.middleware: set[str] = set()
        self.asyncio: list[Left] = []  # counts only where there are consumers
        self.classes: list[tuple[bool, set[str]]] = []  # around us: is it a consumer, and what does it call
        self.functions: list[bool] = []  # around us: is it async
        self.waiting: list[tuple[str, Left]] = []  # what is no problem if the class calls the cure somewhere
        self.seen: set[cst.CSTNode] = set()
        self.layers = Layers()

    def visit_Module(self, node: cst.Module) -> None:
        self.layers.metadata = self.metadata
        node.visit(self.layers)

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
            self.add(node, what, advice)
        elif name.split(".")[0] == "channels_redis":
            self.add(node, what, NO_COUNTERPART["channels_redis"])

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
                self.add(node, origin, advice)
            elif (advice := longest(ASYNCIO, origin)) and origin != "asyncio":
                self.asyncio.append(Left(self.line(node), origin, advice))

    def visit_Call(self, node: cst.Call) -> None:
        name = last_name(node.func)
        for origin in self.origins(node.func):
            if origin in OTHER_ARGUMENTS:
                self.add(node, origin, OTHER_ARGUMENTS[origin])
            if origin == "django.conf.urls.url":
                self.add(node, origin, "Django has no url() any more: use re_path() of django.urls")
            if origin == "asgiref.sync.async_to_sync":
                self._to_sync(node)
            if origin == "trichannels.routing.ProtocolTypeRouter":
                self._router(node)
        if self.classes:
            self.classes[-1][1].add(name)
        if name == "get" and isinstance(node.func, cst.Attribute) and node.args:
            self._scope(node, node.func.value, node.args[0].value)

    def _to_sync(self, node: cst.Call) -> None:
        verdict = self.layers.verdict(node)
        in_consumer = any(one for one, _ in self.classes)
        advice = [ADVICE[verdict]] if verdict is not None else []
        advice += [OUR_OWN] if in_consumer and verdict in (None, "unproven") else []
        if advice:
            self.add(node, "asgiref.sync.async_to_sync", "; otherwise ".join(advice))

    def _router(self, node: cst.Call) -> None:
        mapping = node.args[0].value if node.args else None
        if not isinstance(mapping, cst.Dict) or self.name.startswith("test") or self.functions:
            return
        keys = [one.key for one in mapping.elements if isinstance(one, cst.DictElement)]
        names = set(map(text_of, keys))
        if "websocket" in names and "http" not in names and len(keys) == len(mapping.elements):
            advice = 'add "http": get_asgi_application() of trichannels.django.http, which nothing adds by itself here'
            self.add(node, "ProtocolTypeRouter without http", advice)

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
                    self.add(method.name, method.name.value, NOT_CALLED)

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
        name = text_of(key)
        if in_task and last_name(owner) == "scope" and name in LAZY:
            cure, advice = LAZY[name]
            self.waiting.append((cure, Left(self.line(node), f'scope["{name}"] in async code', advice)))

    def leave_Module(self, original_node: cst.Module) -> None:
        if self.consumers:
            self.found.update(self.asyncio)
