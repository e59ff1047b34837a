"""Calls: the layer without ``async_to_sync``, and consumers in routes with ``as_asgi()``."""

import libcst as cst
from libcst.helpers import get_full_name_for_node

from .rule import Rule

BLOCKING = {"group_send", "group_add", "group_discard"}  # names that only a layer has
SEND = "send"  # which much else has, too
TO_SYNC = {"asgiref.sync.async_to_sync", "trichannels.bridge.async_to_sync"}
GET_LAYER = ("get_channel_layer",)

ROUTES = {"path", "re_path", "url"}
ROUTERS = {"ChannelNameRouter", "ProtocolTypeRouter"}


class Layers(cst.CSTVisitor):
    """Which names of a file are a layer's: ``layer`` stands for whatever blocks, ``itself`` for one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.itself: set[str] = set()

    def visit_Assign(self, node: cst.Assign) -> None:
        if isinstance(node.value, cst.Call):
            for target in node.targets:
                self._see(last_name(target.target), node.value)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        if isinstance(node.value, cst.Call):
            self._see(last_name(node.target), node.value)

    def _see(self, name: str, call: cst.Call) -> None:
        if is_get_layer(call):
            self.found.add(name)
        elif last_name(call.func).endswith("ChannelLayer"):
            self.itself.add(name)


class PlainCalls(Rule):
    """``async_to_sync(layer.group_send)(…)`` becomes ``layer.group_send(…)``: in blocking code it blocks by itself."""

    words = (b"async_to_sync",)
    frees = tuple(TO_SYNC)

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()
        self.functions: list[bool] = []  # around us, the innermost last: is it async?
        self.classes: list[bool] = []  # around us: has it async methods?

    def visit_Module(self, node: cst.Module) -> None:
        node.visit(self.layers)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.functions.append(node.asynchronous is not None)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self.functions.pop()
        return updated_node

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.classes.append(is_async(node))

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self.classes.pop()
        return updated_node

    def visit_Lambda(self, node: cst.Lambda) -> None:
        self.functions.append(False)

    def leave_Lambda(self, original_node: cst.Lambda, updated_node: cst.Lambda) -> cst.Lambda:
        self.functions.pop()
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        inner = original_node.func
        if not isinstance(inner, cst.Call) or not self.origins(inner.func) & TO_SYNC or len(inner.args) != 1:
            return updated_node
        method = inner.args[0].value
        in_task = bool(self.functions) and self.functions[-1]
        if in_task or not isinstance(method, cst.Attribute) or not self._is_layers(method):
            return updated_node
        now = updated_node.func
        assert isinstance(now, cst.Call)
        return updated_node.with_changes(func=on_its_own(now.args[0].value))

    def _is_layers(self, method: cst.Attribute) -> bool:
        name, owner = method.attr.value, last_name(method.value)
        if owner in self.layers.itself and owner not in self.layers.found:
            return False
        if owner == "channel_layer" and isinstance(method.value, cst.Attribute) and any(self.classes[-1:]):
            return False  # an async consumer's own layer is awaited, in its threads too
        is_layer = is_get_layer(method.value) or owner in self.layers.found or "layer" in owner.lower()
        return name in BLOCKING or (name == SEND and is_layer)


class AsAsgi(Rule):
    """``path("ws/", ChatConsumer)`` gets ``.as_asgi()``, which Channels 2 did without."""

    words = (b"path", b"url", b"Router")

    def __init__(self) -> None:
        super().__init__()
        self.consumers: set[str] = set()

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        if self.is_consumer(node, self.consumers):
            self.consumers.add(node.name.value)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        name = last_name(original_node.func)
        if name in ROUTES:
            args = [self._route(number, arg) for number, arg in enumerate(updated_node.args)]
            return updated_node.with_changes(args=args)
        if name in ROUTERS and updated_node.args and isinstance(mapping := updated_node.args[0].value, cst.Dict):
            new = mapping.with_changes(elements=[self._element(one) for one in mapping.elements])
            return updated_node.with_changes(
                args=[updated_node.args[0].with_changes(value=new), *updated_node.args[1:]]
            )
        return updated_node

    def _route(self, number: int, arg: cst.Arg) -> cst.Arg:
        is_view = number == 1 if arg.keyword is None else arg.keyword.value == "view"
        return arg.with_changes(value=as_asgi(arg.value)) if is_view and self._is_class(arg.value) else arg

    def _element(self, element: cst.BaseDictElement) -> cst.BaseDictElement:
        is_class = isinstance(element, cst.DictElement) and self._is_class(element.value)
        return element.with_changes(value=as_asgi(element.value)) if is_class else element

    def _is_class(self, value: cst.BaseExpression) -> bool:
        name = get_full_name_for_node(value) if isinstance(value, cst.Name | cst.Attribute) else None
        if name is None:
            return False
        before, _, last = name.rpartition(".")
        in_consumers = before.rpartition(".")[2] == "consumers" and last[:1].isupper()
        return last in self.consumers or (last.endswith("Consumer") and last[:1].isupper()) or in_consumers


def is_async(node: cst.ClassDef) -> bool:
    """Say whether a class has async methods, or derives from one that has them by its name."""
    methods = (one for one in node.body.body if isinstance(one, cst.FunctionDef))
    return any(one.asynchronous for one in methods) or any(last_name(b.value).startswith("Async") for b in node.bases)


def on_its_own(value: cst.BaseExpression) -> cst.BaseExpression:
    """Return what stood in parentheses; with its own, if it goes over several lines at a dot."""
    inner = value
    while isinstance(inner, cst.Attribute):
        if isinstance(inner.dot.whitespace_before, cst.ParenthesizedWhitespace):
            return value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        inner = inner.value
    return value


def as_asgi(value: cst.BaseExpression) -> cst.Call:
    """Return ``value.as_asgi()``."""
    return cst.Call(cst.Attribute(value, cst.Name("as_asgi")))


def is_get_layer(node: cst.BaseExpression) -> bool:
    """Say whether this is ``get_channel_layer(…)``, or ``channel_layers[…]``."""
    if isinstance(node, cst.Subscript):
        return last_name(node.value) == "channel_layers"
    return isinstance(node, cst.Call) and last_name(node.func) in GET_LAYER


def last_name(node: cst.CSTNode) -> str:
    """Return the last part of a dotted expression; "" if it ends otherwise."""
    if isinstance(node, cst.Attribute):
        return node.attr.value
    return node.value if isinstance(node, cst.Name) else ""
