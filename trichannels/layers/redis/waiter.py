"""What a task of the layer comes to, for others who wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import anyio

from ...exceptions import LayerClosed, TrichannelsError


class Waiter:
    """An answer that is awaited, or the error instead of it. Any number of tasks may wait."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: TrichannelsError | None = None
        self.answer: Any = None

    def settle(self, error: TrichannelsError | None, answer: Any = None) -> None:
        """Let those go on who wait."""
        self.error, self.answer = error, answer
        self.done.set()

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Settle it at the end of the block, which sets ``answer``. A :class:`TrichannelsError` is for who waits, and
        goes no further; anything else does, and is :class:`LayerClosed` for who waits.
        """
        try:
            yield
        except TrichannelsError as error:
            self.error = error
        except BaseException:
            self.error = LayerClosed("the layer")
            raise
        finally:
            self.done.set()

    async def outcome(self) -> Any:
        """Return the answer, or raise the error."""
        await self.done.wait()
        if self.error is not None:
            raise copy(self.error) from self.error  # each waiter its own: a traceback grows with each raise
        return self.answer
