"""Context variables in another thread. asgiref's ``Local`` keeps its values under the thread that has set them."""

import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from sniffio import current_async_library_cvar  # trio brings it along

T = TypeVar("T")


def come_home(work: Callable[[], T]) -> T:
    """Do ``work`` in a copied context; what asgiref has in it (Django's language, timezone, urlconf) counts here.

    No event loop runs here, whatever ``anyio.run`` has noted in the context.
    """
    current_async_library_cvar.set(None)
    storage = _storage()
    if storage is not None:
        here = threading.get_ident()
        for variable, value in copy_context().items():
            if type(value) is storage and value.thread_id != here:
                variable.set(storage(here, value.data))
    return work()


def _storage() -> Any:
    """Return asgiref's class for such values; None where there is no asgiref, or one that has none (before 3.12)."""
    return getattr(sys.modules.get("asgiref.local"), "_Storage", None)
