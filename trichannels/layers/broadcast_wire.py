"""The ends of a ``BroadcastLayer``'s wire: opened again when they are lost, and used by one caller after the other."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, Protocol, TypeAlias, TypeVar

import anyio

from ..backoff import pause_after
from ..exceptions import LayerClosed, LayerRefused, LayerUnreachable, OutcomeUnknown
from ..inbox import Ledger
from ..nursery import collapsed

log = logging.getLogger("trichannels.layers")

T = TypeVar("T")
Transmit: TypeAlias = Callable[[Sequence[bytes]], Awaitable[None]]
"""Puts frames on the wire."""
Receive: TypeAlias = Callable[[], Awaitable[bytes]]
"""Waits for the next frame."""

PAUSE = (0.05, 2.0)  # seconds before an end is opened again: at most, after none and after many failures


class Wire(Protocol):
    """What is asked of the layer."""

    errors: tuple[type[Exception], ...]
    where: str
    timeout: float


class Ends:
    """Opens the ends of a wire, for as long as it takes, and knows what was wrong with it last."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.problem = "nobody answers"

    def __repr__(self) -> str:
        return f"<Ends of {self._wire.where}: {self.problem}>"

    def unreachable(self) -> LayerUnreachable:
        """Return the error for who has waited for ``timeout`` seconds."""
        wire = self._wire
        return LayerUnreachable(wire.where, f"not reached within {wire.timeout:g} s: {self.problem}")

    async def keep_open(
        self, open_end: Callable[[], AbstractAsyncContextManager[T]], use: Callable[[T], Awaitable[object]]
    ) -> NoReturn:
        """Open one end after the other, for ever, and call ``use(end)`` in its block, which ends when that is lost."""
        failures = 0
        while True:
            opened = None
            try:
                async with collapsed(), open_end() as end:
                    opened = anyio.current_time()
                    await use(end)
            except Exception as error:  # noqa: BLE001 - a task that has ended would leave the process deaf, or dumb
                self._note(error, lost=opened is not None)
            # One that is lost as soon as it is open must not be opened again and again without a pause.
            lasted = opened is not None and anyio.current_time() - opened > PAUSE[1]
            failures = 0 if lasted else failures + 1
            await anyio.sleep(pause_after(failures, *PAUSE))

    def _note(self, error: Exception, *, lost: bool) -> None:
        said = error.problem if isinstance(error, LayerUnreachable) else str(error)
        before, self.problem = self.problem, said.strip() or repr(error)
        if not isinstance(error, (*self._wire.errors, LayerUnreachable, LayerRefused)):
            if self.problem != before:
                log.error("%s: this is none of its 'errors', and is tried again", self._wire.where, exc_info=error)
        elif lost:
            log.warning("%s was lost, and is tried again: %s", self._wire.where, self.problem)


class Outlet:
    """The end into which frames are put: a task of the layer holds it open, in ``offer``, and callers ``put``."""

    def __init__(self, wire: Wire, ends: Ends) -> None:
        self._wire, self._ends = wire, ends
        self._turn, self._using = anyio.Lock(), anyio.Lock()
        self._transmit: Transmit | None = None
        self._scope: anyio.CancelScope | None = None  # of the caller who is transmitting
        self._there, self._lost = anyio.Event(), anyio.Event()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._transmit is None else "open"
        return f"<Outlet to {self._wire.where}, {state}>"

    async def offer(self, transmit: Transmit) -> None:
        """Let callers use an end that is open, until it is lost; then no one uses it any more."""
        self._transmit, self._lost = transmit, anyio.Event()
        self._there.set()
        try:
            await self._lost.wait()
        finally:
            self._give_up()
            if self._scope is not None:
                self._scope.cancel()
            with anyio.CancelScope(shield=True):
                async with self._using:
                    pass

    async def ready(self) -> Transmit:
        """Wait until there is an open end; raises :class:`LayerClosed`."""
        while self._transmit is None:
            await self._there.wait()
            if self._closed:
                raise LayerClosed(type(self._wire).__name__)
        return self._transmit

    async def put(self, frames: Sequence[bytes]) -> None:
        """Have the frames transmitted within ``timeout`` seconds, behind those of earlier callers.

        Raises :class:`LayerUnreachable`, :class:`OutcomeUnknown`, :class:`LayerRefused`, :class:`LayerClosed`.
        Cancelled, nothing was sent.
        """
        with anyio.move_on_after(self._wire.timeout) as limit:
            async with self._turn:
                while True:
                    transmit = await self.ready()
                    # Now it cannot be taken back: who is cancelled waits for the outcome, and was not cancelled.
                    with anyio.CancelScope(deadline=limit.deadline, shield=True) as self._scope:
                        if await self._is_sent(transmit, frames):
                            return
                        continue
                    raise OutcomeUnknown(self._wire.where, self._why_not_known())
        raise self._ends.unreachable()

    async def _is_sent(self, transmit: Transmit, frames: Sequence[bytes]) -> bool:
        """Transmit; False if nothing was sent, because the end had been lost before."""
        self._using.acquire_nowait()
        try:
            await transmit(frames)
        except LayerRefused:
            raise
        except OutcomeUnknown:
            self._give_up()
            raise
        except LayerUnreachable as error:
            self._give_up()
            self._ends.problem = error.problem
            return False
        except self._wire.errors as error:
            self._give_up()
            raise OutcomeUnknown(self._wire.where, f"lost before it has answered: {error}") from error
        except BaseException:
            self._give_up()  # in the middle of something, perhaps
            raise
        finally:
            self._using.release()
        return True

    def _why_not_known(self) -> str:
        return "closed before it has answered" if self._closed else f"no answer within {self._wire.timeout:g} s"

    def _give_up(self) -> None:
        if self._transmit is not None:
            self._transmit = None
            self._there = anyio.Event()
            self._lost.set()

    def close(self) -> None:
        """Send who waits away."""
        self._closed = True
        self._give_up()
        self._there.set()


class Late:
    """Frames whose delay is over, on their way into an outlet, in order; ``most`` bytes of them may wait."""

    def __init__(self, outlet: Outlet, ledger: Ledger, most: int, start_soon: Callable[..., object]) -> None:
        self._outlet, self._ledger, self._most, self._start_soon = outlet, ledger, most, start_soon
        self._frames: list[bytes] = []
        self._bytes = 0
        self._running = False

    def __repr__(self) -> str:
        return f"<Late: {len(self._frames)} frames>"

    def add(self, frame: bytes) -> None:
        """Put one in soon. There is no sender any more who could be told: what is lost is counted."""
        if self._bytes + len(frame) > self._most:
            self._ledger.dropped += 1
            self._ledger.dropped_bytes += len(frame)
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if not self._running:
            self._running = True
            self._start_soon(self._run)

    def forget(self) -> None:
        """Let nothing of it happen."""
        self._frames, self._bytes = [], 0

    async def _run(self) -> None:
        try:
            while self._frames:
                frames = self._frames
                self.forget()
                await self._put(frames)
        finally:
            self._running = False

    async def _put(self, frames: list[bytes]) -> None:
        try:
            await self._outlet.put(frames)
        except Exception as error:  # noqa: BLE001 - nobody is there to be told
            self._ledger.undeliverable += len(frames)
            log.warning("%d messages with a delay were not sent when they were due: %s", len(frames), error)
