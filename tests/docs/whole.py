"""Pieces of code made whole, so that they run."""

from collections.abc import Callable, Mapping
from textwrap import indent
from typing import Any

import trio
from trio.testing import MockClock


def in_a_function(source: str, names: Mapping[str, Any], *, result: str = "None") -> Callable[..., Any]:
    """Return ``async def piece(self)`` of these lines; a … among them is ``pass``."""
    known = dict(names)
    body = f"{source.replace('…', 'pass').rstrip()}\nreturn {result}"
    exec(f"async def piece(self=None):\n{indent(body, '    ')}\n", known)
    piece: Callable[..., Any] = known["piece"]
    return piece


def before_and_after(source: str) -> list[tuple[str, str]]:
    """Return both halves of each line ``before      # after``."""
    return [
        (before.rstrip(), after.strip()) for before, _, after in (line.partition("  #") for line in source.splitlines())
    ]


def on_trio(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run it on a clock that leaps; what would hang raises."""

    async def run() -> Any:
        with trio.fail_after(60):
            return await function(*arguments)

    return trio.run(run, clock=MockClock(autojump_threshold=0))
