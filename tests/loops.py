"""An event loop of the backend under test, for tests that start one themselves, or several."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from .conftest import BACKEND

T = TypeVar("T")


def run_on_backend(work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work()`` in an event loop of its own and return its result."""
    return anyio.run(work, backend=BACKEND)
