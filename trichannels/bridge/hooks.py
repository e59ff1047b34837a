"""What surrounds the blocking calls of one thread: there a database's connections are looked after. None here."""

from contextlib import AbstractContextManager


class Hooks:
    """Of one lane, made and used in its thread, but for ``interrupt``. These do nothing."""

    def before(self) -> None:
        """Before each call and each lease; what it raises, the call raises."""

    def after(self) -> None:
        """After each; what it raises is logged."""

    def transaction(self, using: str | None) -> AbstractContextManager[object]:
        """Return the block in which a lease with ``atomic=True`` is."""
        raise RuntimeError("lease(atomic=True) needs a bridge whose hooks know a database, as trichannels.db has it")

    def interrupt(self) -> None:
        """Have the thread's call end that waits for a database. Called from another thread."""

    def close(self) -> None:
        """When the thread ends."""
