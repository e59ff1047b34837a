"""A layer over any wire on which everybody hears everything: the base class for one of your own.

LISTEN and NOTIFY, a subject of NATS, a topic of MQTT, PUB and SUB of ZeroMQ, a multicast group: a subclass says how to
put bytes on it, and how to get them from it. The rest is here. ``examples/postgres_layer.py`` is such a subclass.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from secrets import token_hex
from typing import Any, ClassVar

import anyio
from anyio.lowlevel import checkpoint

from ..exceptions import InvalidChannelLayerError, LayerUnreachable, UnreadableMessage
from ..inbox import Envelope
from ..nursery import collapsed
from .base import require_channel_name, require_delay, require_group_name
from .boarded import BoardedLayer
from .broadcast_frames import ECHO, JOIN, LEAVE, LONGEST_HEAD, TO_CHANNEL, TO_GROUP, Frame, read_frame, write_frame
from .broadcast_wire import Ends, Late, Outlet, Receive, Transmit
from .history import Position, Recovery
from .postponed import Postponed
from .serializers import Message
from .switchboard import LOOSE, Switchboard

__all__ = ["LONGEST_HEAD", "BlockingBroadcast", "BroadcastLayer", "Receive", "Transmit"]

log = logging.getLogger("trichannels.layers")

UNREADABLE = 20  # calls of ``receive`` in a row without a frame: an end that is closed may answer so, and at once


class BroadcastLayer(BoardedLayer):
    """A layer for all processes that share a wire and a ``prefix``. Write ``open_sender`` and ``open_listener``.

    What is asked of the wire: it carries whole frames, bytes of any length; to all who listen, the sender among them;
    those of one sender in order; and what is sent after a ``transmit`` has returned comes after it, whoever sends it.
    (Without the last, a channel that is put into a group by another process may miss what is sent right after that.)
    It may lose frames only with an error at the sender, or by losing the connection.

    ``prefix``: tells layers on one wire apart; a group's name by its rules. ``timeout``: seconds within which a call
    succeeds or raises :class:`LayerUnreachable`. ``buffer_bytes``: of what waits in channels that no instance owns. The
    other options are those of every layer. There are no histories (``history`` is refused), presence and work queues.
    """

    where: str = "the wire"
    """What errors and logs call it, with its address and without its password."""
    errors: tuple[type[Exception], ...] = (
        OSError, EOFError,
        anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead,
    )  # fmt: skip
    """What opening, sending and receiving raise when the wire cannot be reached, or is lost."""
    blocking_backend: ClassVar[str] = "asyncio"
    """On which code without an event loop sends: ``"asyncio"`` or ``"trio"``."""

    def __init__(
        self,
        *,
        prefix: str = "trichannels",
        timeout: float = 5,
        buffer_bytes: int = 64 * 1024 * 1024,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.histories:
            raise InvalidChannelLayerError(f"{type(self).__name__} keeps no history: take the option out")
        self.prefix, self.timeout, self.buffer_bytes = require_group_name(prefix), timeout, buffer_bytes

    # ---- what a subclass writes

    @abstractmethod
    def open_sender(self) -> AbstractAsyncContextManager[Transmit]:
        """Connect, for a block, and give ``await transmit(frames)``, which sends frames: in order, all or none.

        It returns when they are there. It is called by one task at a time, and cancelled only when its time is over, or
        the layer closes. Then, and when it has raised anything but :class:`LayerRefused`, the block is left, and a new
        one entered. It raises :class:`LayerUnreachable` if it knows that nothing was sent: it is called again, on a new
        connection, while there is time. With one of ``errors``, it is not known what was sent: OutcomeUnknown.

        Leaving the block must not wait, for the layer may be closing.
        """

    @abstractmethod
    def open_listener(self) -> AbstractAsyncContextManager[Receive]:
        """Connect, for a block, and give ``await receive()``, which returns the next frame that anybody has sent.

        Within the block everything that is sent is heard; what is confirmed late is to be waited for before.
        It raises one of ``errors`` when the wire is lost, and ValueError for something that is no frame. After 20 of
        those in a row, raised or returned, the wire is taken to be lost.

        A wire that carries large frames apart may return what it has of one: enough to see whom it is for,
        ``LONGEST_HEAD`` bytes. If it :meth:`concerns` somebody here, it counts as lost.
        """

    def concerns(self, frame: bytes) -> bool:
        """Say whether a frame, or the first ``LONGEST_HEAD`` bytes of it, is for somebody in this process."""
        try:
            return self._is_for_us(self.board, read_frame(frame))
        except UnreadableMessage:
            return False

    # ---- lifetime

    async def open(self) -> None:
        """Connect; raises LayerUnreachable if that does not succeed within ``timeout``."""
        board = self.set_up_board()
        self._ends, self._hearing = Ends(self), anyio.Event()
        self._outlet = Outlet(self, self._ends)
        self._postponed = Postponed(self)
        self._late = Late(self._outlet, self.ledger, self.buffer_bytes, self.start_soon)
        self._echoes: dict[str, anyio.Event] = {}
        try:
            self.start_soon(self._ends.keep_open, self.open_sender, self._outlet.offer)
            self.start_soon(self._ends.keep_open, self.open_listener, partial(self._hear, board))
            with anyio.move_on_after(self.timeout):
                await self._outlet.ready()
                await self._hearing.wait()
                return
            raise self._ends.unreachable()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._postponed.forget()
        self._late.forget()
        self._outlet.close()
        for event in (self._hearing, *self._echoes.values()):  # who waits is told that it is closed
            event.set()
        self.take_down_board()

    # ---- what comes: one task reads it, and hands it to the board

    async def _hear(self, board: Switchboard, receive: Receive) -> None:
        """Read from one connection, until it is lost."""
        self._tell_of_gap(board, board.groups)
        self._hearing.set()
        unreadable = 0
        try:
            while unreadable < UNREADABLE:
                unreadable = 0 if await self._hear_one(board, receive) else unreadable + 1
                await checkpoint()
            raise LayerUnreachable(self.where, f"no frame {UNREADABLE} times in a row")
        finally:
            self._hearing = anyio.Event()
            self._tell_of_gap(board, board.groups)

    async def _hear_one(self, board: Switchboard, receive: Receive) -> bool:
        """Take the next frame; False if it was none. What cannot be read is thrown away: the next may be better."""
        frame = None
        try:
            frame = read_frame(await receive())
            await self._take(board, frame)
        except Exception as error:
            if frame is None and (isinstance(error, self.errors) or not isinstance(error, ValueError)):
                raise  # which says nothing of a frame
            log.warning("%s: a frame was thrown away", self.where, exc_info=error)
            board.ledger.undeliverable += 1
            if frame is not None:
                self._tell_of_gap(board, [frame.name])
        return frame is not None

    def _is_for_us(self, board: Switchboard, frame: Frame) -> bool:
        if frame.verb == TO_GROUP:
            return frame.name in board.groups
        return frame.name in self._echoes if frame.verb == ECHO else board.owns(frame.name)

    async def _take(self, board: Switchboard, frame: Frame) -> None:
        if not self._is_for_us(board, frame):
            return
        body = frame.whole()
        if frame.verb == TO_GROUP:
            await board.fan_out(frame.name, self._opened_envelope(body, frame.name))
        elif frame.verb == TO_CHANNEL:
            board.post_late(frame.name, self._opened_envelope(body, None))
        elif frame.verb == ECHO:
            self._echoes[frame.name].set()
        else:
            act = board.join if frame.verb == JOIN else board.leave
            act(require_group_name(body.decode("ascii")), require_channel_name(frame.name))

    def _opened_envelope(self, payload: bytes, group: str | None) -> Envelope:
        return self.seal(self.serializer.decode(payload), group)  # which refuses what nobody may send

    def _tell_of_gap(self, board: Switchboard, groups: Iterable[str]) -> None:
        for group in groups:
            for channel in board.groups.get(group, ()):
                if channel in board.mailboxes:
                    board.mailboxes[channel].resync(group)

    async def _heard_of_all(self) -> None:
        """Wait until what is sent is heard here; raises LayerUnreachable."""
        with anyio.move_on_after(self.timeout):
            return await self._hearing.wait()
        raise self._ends.unreachable()

    async def echo(self) -> None:
        """Return when all that was sent before, by anybody, has been delivered here: for tests, and health checks.

        Raises LayerUnreachable if the wire does not bring it back within ``timeout``. Cancelled, it changes nothing.
        """
        self.board  # noqa: B018 - it must be open
        token = token_hex(8)
        heard = self._echoes[token] = anyio.Event()
        try:
            with anyio.move_on_after(self.timeout):
                await self._hearing.wait()
                await self._outlet.put([write_frame(ECHO, token)])
                await heard.wait()
                self.board  # noqa: B018 - it may have closed meanwhile
                return
            raise LayerUnreachable(self.where, f"what was sent did not come back within {self.timeout:g} s")
        finally:
            del self._echoes[token]

    # ---- what goes

    def framed(self, channel: str, message: Message) -> bytes:
        """Return the frame of a message to a channel; raises what :meth:`send` does for a wrong one."""
        payload = self.encoded(message)
        self.require_no_queue(channel)
        return write_frame(TO_CHANNEL, channel, payload)

    def group_framed(self, group: str, message: Message, idempotency_key: str | None = None) -> bytes:
        """Return the frame of a message to a group; raises what :meth:`group_send` does for a wrong one."""
        require_group_name(group)
        payload = self.encoded(message)
        self.require_no_key(group, idempotency_key)
        return write_frame(TO_GROUP, group, payload)

    def require_no_queue(self, channel: str) -> None:
        """Raise InvalidChannelLayerError for a channel that any process might read: that is a work queue."""
        if "!" not in require_channel_name(channel):
            raise InvalidChannelLayerError(f"{type(self).__name__} has no work queues: there can be no {channel!r}")

    async def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        board, envelope = self.board, self.seal(message)
        self.require_no_queue(channel)
        if require_delay(delay):
            await checkpoint()
            self._postponed.send(self._post_late, channel, envelope, delay)
        elif board.owns(channel):
            await checkpoint()
            self.board.post(channel, envelope)
        else:
            await self._outlet.put([write_frame(TO_CHANNEL, channel, envelope.payload)])

    def _post_late(self, channel: str, envelope: Envelope) -> None:
        if self.board.owns(channel):
            self.board.post_late(channel, envelope)
        else:
            self._late.add(write_frame(TO_CHANNEL, channel, envelope.payload))

    async def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> Position | None:
        self.board  # noqa: B018 - it must be open
        await self._outlet.put([self.group_framed(group, message, idempotency_key)])
        return None

    async def group_send_many(self, events: Sequence[tuple[str, Message]]) -> list[Position | None]:
        """Send ``(group, message)`` pairs in one transmission: cancelled, nothing is sent."""
        self.board  # noqa: B018 - it must be open
        frames = [self.group_framed(group, message) for group, message in events]
        if frames:
            await self._outlet.put(frames)
        return [None] * len(frames)

    # ---- channels and groups

    async def receive(self, channel: str) -> Message:
        await checkpoint()
        return await self.board.take(require_channel_name(channel))

    async def new_channel(self, prefix: str = "specific") -> str:
        return require_channel_name(self.board.name(prefix, LOOSE))

    async def join(self, group: str, channel: str, since: Position | None = None) -> Recovery:
        board = self.board
        require_group_name(group)
        if board.owns(require_channel_name(channel)):
            await self._heard_of_all()
            self.board.join(group, channel)
        else:
            self.require_no_queue(channel)
            await self._outlet.put([write_frame(JOIN, channel, group.encode("ascii"))])
        return Recovery(group, None, since is None)

    async def group_discard(self, group: str, channel: str) -> None:
        await checkpoint()
        board = self.board
        require_group_name(group)
        if board.owns(require_channel_name(channel)):
            board.leave(group, channel)
        elif "!" in channel:
            await self._outlet.put([write_frame(LEAVE, channel, group.encode("ascii"))])

    async def flush(self) -> None:
        await checkpoint()
        board = self.board
        self._postponed.forget()
        self._late.forget()
        board.flush()

    # ---- code without a loop

    @classmethod
    def blocking(cls, **options: Any) -> "BlockingBroadcast":
        return BlockingBroadcast(cls(**options))

    async def transmit_once(self, frames: Sequence[bytes]) -> None:
        """Send frames over a connection of their own, of a layer that is not open; raises what ``send`` does."""
        ends = Ends(self)
        outlet = Outlet(self, ends)
        async with collapsed(), anyio.create_task_group() as nursery:
            nursery.start_soon(ends.keep_open, self.open_sender, outlet.offer)
            await outlet.put(frames)
            nursery.cancel_scope.cancel()


class BlockingBroadcast:
    """Sends without an event loop: what :meth:`BroadcastLayer.blocking` returns.

    Each call connects anew, in a small loop of its own, so that no thread and no fork can come between; it blocks for
    ``timeout`` seconds at most. On the thread of a running loop, it raises RuntimeError.
    """

    def __init__(self, layer: BroadcastLayer) -> None:
        self._layer = layer  # never opened: it knows how a message is written, and how to connect
        self.serializer = layer.serializer

    def __repr__(self) -> str:
        return f"<BlockingBroadcast to {self._layer.where}>"

    def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        """Send to a channel of a process; raises what the layer raises."""
        frame = self._layer.framed(channel, message)
        if require_delay(delay):
            raise InvalidChannelLayerError(f"send({channel!r}, delay=…): nobody is here who would do that later")
        self._run([frame])

    def group_send(self, group: str, message: Message, idempotency_key: str | None = None) -> None:
        """Send to every member of a group; raises what the layer raises."""
        self._run([self._layer.group_framed(group, message, idempotency_key)])

    def group_send_many(self, events: Sequence[tuple[str, Message]]) -> list[Position | None]:
        """Send ``(group, message)`` pairs: all, or none of them."""
        frames = [self._layer.group_framed(group, message) for group, message in events]
        if frames:
            self._run(frames)
        return [None] * len(frames)

    def close(self) -> None:
        """Give nothing back, for nothing is kept."""

    def _run(self, frames: Sequence[bytes]) -> None:
        anyio.run(self._layer.transmit_once, frames, backend=self._layer.blocking_backend)
