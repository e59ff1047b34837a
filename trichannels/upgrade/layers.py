"""``async_to_sync`` around a channel layer: what the file itself proves about that layer, where it is called.

A layer that was taken on a loop is that loop's own, in its threads too; one that was taken in blocking code blocks.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import libcst as cst
from libcst.metadata import QualifiedNameProvider

from .rule import CONSUMERS, Origins, has_self, last_name

TO_SYNC = {"asgiref.sync.async_to_sync", "trichannels.bridge.async_to_sync"}
GROUPS = {"group_send", "group_add", "group_discard"}  # names that hardly anything else has
METHODS = GROUPS | {"send"}
TAKEN = {f"{package}.layers.get_channel_layer" for package in ("channels", "trichannels")}
ALIASES = {f"{package}.layers.channel_layers" for package in ("channels", "trichannels")}
SYNC_CONSUMERS = {"JsonWebsocketConsumer", "SyncConsumer", "WebsocketConsumer"}

Around: TypeAlias = Sequence[cst.ClassDef | cst.FunctionDef | cst.Lambda]
Verdict: TypeAlias = Literal["blocks", "captured", "in a task", "other method", "own", "unproven"]

ADVICE: dict[Verdict, str] = {
    "blocks": "the layer blocks by itself here: async_to_sync around it may go",
    "captured": "the layer was taken on the loop, whose own it is: take get_channel_layer() inside of the blocking "
    "function, where it blocks by itself; a function that a bridge runs may use async_to_sync of trichannels.bridge",
    "in a task": "in async code await the layer; in a thread get_channel_layer().group_send(…) blocks by itself",
    "other method": "blocking code has send, group_send, group_add and group_discard; the rest is for async code",
    "own": "in a thread get_channel_layer().group_send(…) blocks by itself; in async code await it",
    "unproven": "if that is a channel layer: in a thread get_channel_layer().group_send(…) blocks by itself; in async "
    "code await it",
}


class Layers(Origins, cst.CSTVisitor):
    """Looks through a file; then :meth:`verdict` tells of each ``async_to_sync(owner.method)``."""

    METADATA_DEPENDENCIES: ClassVar = Origins.METADATA_DEPENDENCIES

    def __init__(self) -> None:
        super().__init__()
        self.around: list[cst.ClassDef | cst.FunctionDef | cst.Lambda] = []
        self.values: dict[cst.CSTNode, tuple[cst.BaseExpression, Around]] = {}  # of names, by where they get them
        self.selves: dict[cst.CSTNode, cst.ClassDef] = {}  # first parameters of methods
        self.blocking: dict[str, bool | None] = {}  # classes: do they block; None where that is unknown
        self.calls: dict[cst.Call, Around] = {}

    def verdict(self, call: cst.Call) -> Verdict | None:
        """Say what is known of the layer in a call; None if it is no ``async_to_sync``, or around something else."""
        method = call.args[0].value if call in self.calls else None
        if not isinstance(method, cst.Attribute):
            return None
        around = self.calls[call]
        found = self._owner(method.value, around) or ("unproven" if looks_like_layer(method) else None)
        if found and is_in_task(around):
            return "own" if found == "own" else "in a task"
        return "other method" if found == "blocks" and method.attr.value not in METHODS else found

    def _owner(self, owner: cst.BaseExpression, around: Around) -> Verdict | None:
        if self._is_taken(owner):
            return "blocks"
        if isinstance(owner, cst.Name):
            return self._name(owner, around)
        if isinstance(owner, cst.Attribute) and owner.attr.value == "channel_layer":
            cls = self.class_of(owner.value)
            blocking = self.blocking.get(cls.name.value) if cls is not None else None
            return {True: "blocks", False: "own", None: "unproven"}[blocking]  # type: ignore[return-value]
        return None

    def _name(self, name: cst.Name, around: Around) -> Verdict | None:
        places = [self.values.get(node) for node in self.places(name, name.value)]
        values = [place[0] for place in places if place is not None]
        if not any(map(self._is_taken, values)):
            return None
        if None in places or not all(self._is_taken(value) or is_none(value) for value in values):
            return "unproven"
        captured = any(is_on_loop(place[1], around) for place in places if place is not None)
        return "captured" if captured else "blocks"

    def _is_taken(self, value: cst.BaseExpression) -> bool:
        """Say whether this is ``get_channel_layer(…)``, or ``channel_layers[…]``."""
        if isinstance(value, cst.Subscript):
            return self._is_only(value.value, ALIASES)
        return isinstance(value, cst.Call) and self._is_only(value.func, TAKEN)

    def _is_only(self, node: cst.CSTNode, known: set[str]) -> bool:
        """Say whether an expression was imported as one of those, and is nothing else anywhere."""
        every = {name.name for name in self.get_metadata(QualifiedNameProvider, node, set())}
        return bool(self.origins(node)) and every <= known

    def class_of(self, value: cst.BaseExpression) -> cst.ClassDef | None:
        """Return the class whose method calls its instance so; None for all other names."""
        nodes = self.places(value, value.value) if isinstance(value, cst.Name) else []
        return self.selves.get(nodes[0]) if len(nodes) == 1 else None

    # ---- looking

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.blocking[node.name.value] = self._blocks(node)
        self.around.append(node)

    def _blocks(self, node: cst.ClassDef) -> bool | None:
        kinds = {self._base_blocks(base.value) for base in node.bases}
        return False if False in kinds else True if True in kinds else None

    def _base_blocks(self, base: cst.BaseExpression) -> bool | None:
        base = base.value if isinstance(base, cst.Subscript) else base
        origins = self.origins(base)
        if not origins and (name := last_name(base)) in self.blocking:
            return self.blocking[name]
        names = {origin.rpartition(".")[2] for origin in origins} or {last_name(base)}
        if any(name.startswith("Async") for name in names):
            return False
        ours = all(origin.startswith(CONSUMERS) for origin in origins)
        return True if ours and names <= SYNC_CONSUMERS else None

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self.around.pop()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        owner = self.around[-1] if self.around else None
        if isinstance(owner, cst.ClassDef) and has_self(node):
            self.selves[node.params.params[0]] = owner
        self.around.append(node)

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self.around.pop()

    def visit_Lambda(self, node: cst.Lambda) -> None:
        self.around.append(node)

    def leave_Lambda(self, original_node: cst.Lambda) -> None:
        self.around.pop()

    def visit_Assign(self, node: cst.Assign) -> None:
        for target in node.targets:
            self.values[target.target] = node.value, tuple(self.around)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self.values[node.target] = node.value, tuple(self.around)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self.values[node.target] = node.value, tuple(self.around)

    def visit_Call(self, node: cst.Call) -> None:
        if len(node.args) == 1 and self.origins(node.func) & TO_SYNC:
            self.calls[node] = tuple(self.around)


def looks_like_layer(method: cst.Attribute) -> bool:
    """Say whether somebody who reads it would take it for a layer's."""
    return method.attr.value in GROUPS or "layer" in last_name(method.value).lower()


def functions(around: Around) -> Sequence[cst.CSTNode]:
    """Return the functions among what is around something."""
    return [node for node in around if not isinstance(node, cst.ClassDef)]


def is_in_task(around: Around) -> bool:
    """Say whether the innermost function is async."""
    return any(isinstance(node, cst.FunctionDef) and node.asynchronous is not None for node in functions(around)[-1:])


def is_on_loop(place: Around, use: Around) -> bool:
    """Say whether a value got there may be a loop's, though it is used in a thread: in another function than that."""
    outer = functions(place)
    tasks = (isinstance(node, cst.FunctionDef) and node.asynchronous is not None for node in outer)
    return list(outer) != list(functions(use)) and any(tasks)


def is_none(value: cst.BaseExpression) -> bool:
    """Say whether this is ``None``."""
    return isinstance(value, cst.Name) and value.value == "None"
