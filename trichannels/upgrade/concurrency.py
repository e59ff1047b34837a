"""asyncio inside of consumers: what has an exact counterpart in the nursery or in anyio. The rest is in ``left``."""

from collections.abc import Mapping

import libcst as cst

from .calls import last_name
from .rule import Rule

CREATE_TASK = {"asyncio.create_task", "asyncio.ensure_future"}
INEXACT: Mapping[str, frozenset[str]] = {
    "asyncio.Event": frozenset({"clear"}),  # anyio's has none
    "asyncio.Lock": frozenset({"acquire", "release"}),  # anyio's is released by the task that has it, and by no other
}
"""The class, and the methods that make it something else than anyio's, if they are used on that name."""

NO_NURSERY = {"__init__", "disconnect", "websocket_disconnect", "http_disconnect"}  # not there yet, or ending


class Methods(cst.CSTVisitor):
    """Which methods a file uses on which names: ``{("ready", "clear")}``."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[tuple[str, str]] = set()

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self.used.add((last_name(node.value), node.attr.value))


class Concurrency(Rule):
    """Tasks belong to the socket's nursery, and sleeping and events are anyio's."""

    words = (b"asyncio",)
    frees = ("asyncio", *CREATE_TASK, *INEXACT, "asyncio.sleep")

    def __init__(self) -> None:
        super().__init__()
        self.methods = Methods()
        self.consumers: set[str] = set()
        self.around: list[cst.ClassDef | cst.FunctionDef] = []

    def visit_Module(self, node: cst.Module) -> None:
        node.visit(self.methods)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.around.append(node)
        if self.is_consumer(node, self.consumers):
            self.consumers.add(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self.around.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.around.append(node)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self.around.pop()
        return updated_node

    def _in_consumer(self) -> int | None:
        """Return where in ``around`` the consumer is that we are in."""
        for number, node in enumerate(self.around):
            if isinstance(node, cst.ClassDef) and node.name.value in self.consumers:
                return number
        return None

    def _self(self) -> str | None:
        """Return what the method calls its consumer, if that has a nursery by then."""
        number = self._in_consumer()
        method = None if number is None or number + 1 >= len(self.around) else self.around[number + 1]
        if not isinstance(method, cst.FunctionDef) or method.name.value in NO_NURSERY or not method.params.params:
            return None
        decorators = {last_name(decorator.decorator) for decorator in method.decorators}
        return None if decorators & {"staticmethod", "classmethod"} else method.params.params[0].name.value

    # ---- tasks

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.Expr:
        call, consumer = updated_node.value, self._self()
        if consumer is None or not isinstance(original_node.value, cst.Call) or not isinstance(call, cst.Call):
            return updated_node
        if not self.origins(original_node.value.func) & CREATE_TASK or not call.args:
            return updated_node
        task, *options = call.args
        begun = original_node.value.args[0].value
        named = all(option.keyword is not None and option.keyword.value == "name" for option in options)
        if not named or not isinstance(task.value, cst.Call) or not isinstance(begun, cst.Call):
            return updated_node
        if not self._is_plain(begun):
            return updated_node
        first = cst.Arg(task.value.func)
        args = [first, *task.value.args, *options]
        return updated_node.with_changes(value=start_soon(consumer, call, args))

    def _is_plain(self, call: cst.Call) -> bool:
        """Say whether it can be started by its function and arguments; and not one of asyncio's own."""
        if any(arg.keyword is not None or arg.star == "**" for arg in call.args):
            return False
        owner: cst.BaseExpression = call.func
        while isinstance(owner, cst.Attribute):
            owner = owner.value
        ours = not any(origin.partition(".")[0] == "asyncio" for origin in self.origins(call.func))
        return isinstance(owner, cst.Name) and ours

    # ---- sleeping, events and locks

    def leave_Await(self, original_node: cst.Await, updated_node: cst.Await) -> cst.Await:
        call, new = original_node.expression, updated_node.expression
        if self._in_consumer() is None or not isinstance(call, cst.Call) or not isinstance(new, cst.Call):
            return updated_node
        if "asyncio.sleep" not in self.origins(call.func) or len(call.args) != 1 or call.args[0].star:
            return updated_node
        return updated_node.with_changes(expression=new.with_changes(func=self._anyio("sleep")))

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        name = self._exact(original_node.value, *(target.target for target in original_node.targets))
        if name is None or not isinstance(updated_node.value, cst.Call):
            return updated_node
        return updated_node.with_changes(value=updated_node.value.with_changes(func=self._anyio(name)))

    def leave_AnnAssign(self, original_node: cst.AnnAssign, updated_node: cst.AnnAssign) -> cst.AnnAssign:
        name = self._exact(original_node.value, original_node.target)
        if name is None or not isinstance(updated_node.value, cst.Call):
            return updated_node
        note = updated_node.annotation
        if f"asyncio.{name}" in self.origins(original_node.annotation.annotation):
            note = note.with_changes(annotation=self._anyio(name))
        return updated_node.with_changes(annotation=note, value=updated_node.value.with_changes(func=self._anyio(name)))

    def _exact(self, value: cst.BaseExpression | None, *targets: cst.BaseExpression) -> str | None:
        """Return the name of anyio's class that takes the place of asyncio's; None if there is none."""
        if self._in_consumer() is None or not isinstance(value, cst.Call) or value.args:
            return None
        names = [last_name(target) for target in targets]
        for origin in self.origins(value.func) & INEXACT.keys():
            inexact = any((name, method) in self.methods.used for name in names for method in INEXACT[origin])
            return None if inexact or "" in names else origin.removeprefix("asyncio.")
        return None

    def _anyio(self, name: str) -> cst.Attribute:
        self.needs.add("anyio")
        return cst.Attribute(cst.Name("anyio"), cst.Name(name))


def start_soon(consumer: str, call: cst.Call, args: list[cst.Arg]) -> cst.Call:
    """Return the call of the nursery, laid out as ``call`` was."""
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    before = [arg if isinstance(arg.comma, cst.Comma) else arg.with_changes(comma=comma) for arg in args[:-1]]
    old = call.args[-1]
    last = args[-1].with_changes(comma=old.comma, whitespace_after_arg=old.whitespace_after_arg)
    nursery = cst.Attribute(cst.Name(consumer), cst.Name("nursery"))
    return call.with_changes(func=cst.Attribute(nursery, cst.Name("start_soon")), args=[*before, last])
