"""What one process tells another about a channel that lives there: a message, or a membership, which is answered.

A process has one inbox on the wire. Whoever sends to it learns from the server whether anybody listens there at all.
"""

from collections.abc import Callable
from typing import Any

import anyio

from ...exceptions import LayerUnreachable, TrichannelsError
from .names import ANSWER, JOIN, LEAVE, MESSAGE, Letter, Native, write_letter
from .server import RedisServer

AT_ONCE = 1000  # questions that wait for their answers


class PostOffice:
    """The letters of the process that has ``token``. ``server_of`` tells which server an inbox is on."""

    def __init__(self, token: str, names: Native, server_of: Callable[[str], RedisServer], timeout: float) -> None:
        self.token, self._names, self._server_of, self._timeout = token, names, server_of, timeout
        self._asked: dict[int, tuple[anyio.Event, list[str]]] = {}
        self._slots = anyio.Semaphore(AT_ONCE)
        self._number = 0

    def __repr__(self) -> str:
        return f"<PostOffice of {self.token}, {len(self._asked)} questions>"

    @property
    def inbox(self) -> str:
        """The pub/sub channel of this process."""
        return self._names.inbox(self.token)

    async def send(self, channel: str, sealed: bytes) -> bool:
        """Send a message to a channel of another process; False if that process is gone."""
        return await self._deliver(token_of(channel), Letter(MESSAGE, channel, sealed))

    async def ask(self, kind: str, group: str, channel: str) -> bool:
        """Have another process put its channel into a group, or take it out, and wait until that is done.

        False if that process is gone; raises :class:`LayerUnreachable` if it does not answer in time.
        """
        assert kind in (JOIN, LEAVE)
        async with self._slots:
            self._number += 1
            number, answered, answer = self._number, anyio.Event(), list[str]()
            self._asked[number] = answered, answer
            try:
                with anyio.move_on_after(self._timeout) as waiting:
                    letter = Letter(kind, channel, group=group, sender=self.token, number=number)
                    if not await self._deliver(token_of(channel), letter):
                        return False
                    await answered.wait()
            finally:
                del self._asked[number]
        problem = "its process has not answered in time" if waiting.cancelled_caught else "".join(answer)
        if problem:
            raise LayerUnreachable(f"the channel {channel!r}", problem)
        return True

    async def answer(self, question: Letter, error: TrichannelsError | None) -> None:
        """Tell who asked what came of it."""
        letter = Letter(ANSWER, body=str(error or "").encode(), number=question.number)
        await self._deliver(question.sender, letter)

    def answered(self, letter: Letter) -> None:
        """Take the answer to a question of ours; who asked may have given up."""
        if letter.number in self._asked:
            event, answer = self._asked[letter.number]
            answer.append(letter.body.decode(errors="replace"))
            event.set()

    async def _deliver(self, token: str, letter: Letter) -> bool:
        inbox = self._names.inbox(token)
        server = self._server_of(token)
        listeners: Any = await server.execute(server.publish_command, inbox, write_letter(letter), key=inbox)
        return int(listeners) > 0


def token_of(channel: str) -> str:
    """Return the token of the process that a channel with a ``!`` in its name belongs to."""
    return channel.partition("!")[0].rpartition(".")[2]
