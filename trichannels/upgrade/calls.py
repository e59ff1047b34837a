"""Calls: the layer without ``async_to_sync``, and consumers in routes with ``as_asgi()``."""

import libcst as cst
from libcst.helpers import get_full_name_for_node

from .layers import TO_SYNC, Layers
from .rule import Rule, comments, last_name

ROUTES = {"path", "re_path", "url"}
ROUTERS = {"ChannelNameRouter", "ProtocolTypeRouter"}


class PlainCalls(Rule):
    """``async_to_sync(layer.group_send)(…)`` becomes ``layer.group_send(…)``: in blocking code it blocks by itself."""

    words = (b"async_to_sync",)
    frees = tuple(TO_SYNC)

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def visit_Module(self, node: cst.Module) -> None:
        self.layers.metadata = self.metadata
        node.visit(self.layers)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        inner, now = original_node.func, updated_node.func
        if not isinstance(inner, cst.Call) or not isinstance(now, cst.Call) or comments(inner):
            return updated_node
        proven = self.layers.verdict(inner) == "blocks"
        return updated_node.with_changes(func=on_its_own(now.args[0].value)) if proven else updated_node


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
