"""asyncio inside of consumers: what has an exact counterpart in the nursery or in anyio. The rest is in ``left``."""

from collections.abc import Mapping

import libcst as cst

from .rule import Rule, comments, has_self, last_name

ENSURE_FUTURE = "asyncio.ensure_future"
CREATE_TASK = {"asyncio.create_task", ENSURE_FUTURE}
EMPTY = cst.SimpleWhitespace("")
ITSELF = ""
INEXACT: Mapping[str, frozenset[str]] = {
    "asyncio.Event": frozenset({"clear", "wait", ITSELF}),  # anyio's has no clear(), and its wait() returns None
    "asyncio.Lock": frozenset({"acquire", "release", ITSELF}),  # anyio's is released by no other task than has it
}
"""The class, and the methods that make it something else than anyio's, if they are used on that name."""

NO_NURSERY = {
    "disconnect",
    "websocket_disconnect",
    "http_disconnect",
}  # it is ending; in __call__() it is not there yet


class Uses(cst.CSTVisitor):
    """Which methods a file uses on which names, ``{("ready", "clear")}``, and which names it hands on themselves.

    That somebody waits, and does nothing with what that returns, does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: set[tuple[str, str]] = set()
        self.coroutines: set[str] = set()  # names of async functions
        self.plain: set[cst.CSTNode] = set()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        if node.asynchronous is not None:
            self.coroutines.add(node.name.value)

    def visit_Expr(self, node: cst.Expr) -> None:
        call = node.value.expression if isinstance(node.value, cst.Await) else None
        if isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute) and call.func.attr.value == "wait":
            self.plain.add(call.func)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        if node not in self.plain:
            self.used.update({(last_name(node.value), node.attr.value), (node.attr.value, ITSELF)})
        self.plain.update((node.value, node.attr))

    def visit_Name(self, node: cst.Name) -> None:
        if node not in self.plain:
            self.used.add((node.value, ITSELF))

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self.plain.add(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self.plain.add(node.target)

    def visit_WithItem(self, node: cst.WithItem) -> None:
        self.plain.add(node.item)


class Concurrency(Rule):
    """Tasks belong to the socket's nursery, and sleeping and events are anyio's."""

    words = (b"asyncio",)
    frees = ("asyncio", *CREATE_TASK, *INEXACT, "asyncio.sleep")

    def __init__(self) -> None:
        super().__init__()
        self.uses = Uses()
        self.consumers: set[str] = set()
        self.around: list[cst.ClassDef | cst.FunctionDef] = []

    def visit_Module(self, node: cst.Module) -> None:
        node.visit(self.uses)

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

    def _self(self, here: cst.CSTNode) -> str | None:
        """Return what the method calls its consumer, if that has a nursery by then, and is called so here."""
        number = self._in_consumer()
        method = None if number is None or number + 1 >= len(self.around) else self.around[number + 1]
        if not isinstance(method, cst.FunctionDef) or not has_nursery(method):
            return None
        first = method.params.params[0]
        is_it = self.places(here, first.name.value) == [first]  # a function, or class, inside may have its own
        return first.name.value if is_it else None

    # ---- tasks

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.Expr:
        old, call = original_node.value, updated_node.value
        if not isinstance(old, cst.Call) or not isinstance(call, cst.Call) or not self._is_task(old):
            return updated_node
        consumer = self._self(old)
        if consumer is None or not isinstance(begun := call.args[0].value, cst.Call):
            return updated_node
        return updated_node.with_changes(value=start_soon(consumer, call, begun))

    def _is_task(self, call: cst.Call) -> bool:
        """Say whether this begins a task in a way that the nursery has as well."""
        origins = self.origins(call.func) & CREATE_TASK
        if not origins or not call.args or comments(call):  # which would be in no place of the new call
            return False
        task, *options = call.args
        named = all(option.keyword is not None and option.keyword.value == "name" for option in options)
        if not named or not isinstance(task.value, cst.Call) or not self._is_plain(task.value):
            return False
        # ensure_future() takes futures as well, which a function that is not async may return.
        return ENSURE_FUTURE not in origins or last_name(task.value.func) in self.uses.coroutines

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
            inexact = any((name, method) in self.uses.used for name in names for method in INEXACT[origin])
            return None if inexact or "" in names else origin.removeprefix("asyncio.")
        return None

    def _anyio(self, name: str) -> cst.Attribute:
        self.needs.add("anyio")
        return cst.Attribute(cst.Name("anyio"), cst.Name(name))


def has_nursery(method: cst.FunctionDef) -> bool:
    """Say whether a consumer has its nursery while a method of it runs: not before its run, nor at its end."""
    name = method.name.value
    return has_self(method) and not name.startswith("__") and name not in NO_NURSERY


def start_soon(consumer: str, call: cst.Call, begun: cst.Call) -> cst.Call:
    """Return the call of the nursery, laid out as ``call`` was, or as what is begun in it: an argument a line."""
    options = call.args[1:]
    space: cst.BaseParenthesizableWhitespace = cst.SimpleWhitespace(" ")
    whole = (
        call
        if is_broken(call.whitespace_before_args) or options or not is_broken(begun.whitespace_before_args)
        else begun
    )
    gap = whole.whitespace_before_args if is_broken(whole.whitespace_before_args) else space
    args = [cst.Arg(begun.func), *begun.args, *options]
    breaks = [begun.whitespace_before_args, *(separator(arg) for arg in args[1:-1])]
    before = [
        arg.with_changes(
            comma=cst.Comma(whitespace_after=gap if is_broken(after) else space), whitespace_after_arg=EMPTY
        )
        for arg, after in zip(args[:-1], breaks, strict=False)
    ]
    old = whole.args[-1] if whole.args else call.args[-1]
    last = args[-1].with_changes(comma=old.comma, whitespace_after_arg=old.whitespace_after_arg)
    nursery = cst.Attribute(cst.Name(consumer), cst.Name("nursery"))
    func = cst.Attribute(nursery, cst.Name("start_soon"))
    return call.with_changes(func=func, args=[*before, last], whitespace_before_args=whole.whitespace_before_args)


def separator(arg: cst.Arg) -> cst.BaseParenthesizableWhitespace:
    """Return what is behind an argument's comma."""
    return arg.comma.whitespace_after if isinstance(arg.comma, cst.Comma) else EMPTY


def is_broken(gap: cst.BaseParenthesizableWhitespace) -> bool:
    """Say whether a line ends there."""
    return isinstance(gap, cst.ParenthesizedWhitespace)
