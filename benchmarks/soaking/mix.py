"""Who comes: of a thousand clients, how many leave in which way. Each thousand is the same, in another order."""

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from . import abrupt, orderly
from .peer import Site

Client = Callable[[Site], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Part:
    """So many of each thousand are such clients.

    ``ours``: other servers fall, or have their own way. ``slow``: it waits for a deadline of the server.
    """

    kind: str
    share: int
    client: Client
    ours: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        return self.client.__name__.replace("_", " ")


MIX = (
    Part("mid-handshake", 20, abrupt.reset_at_once),
    Part("mid-handshake", 35, abrupt.reset_in_request),
    Part("mid-handshake", 20, abrupt.half_close_in_request),
    Part("mid-handshake", 5, abrupt.stall_in_request, ours=True, slow=True),
    Part("mid-handshake", 30, abrupt.reset_behind_request),
    Part("mid-handshake", 10, abrupt.reset_behind_words, ours=True),
    Part("mid-handshake", 25, abrupt.reset_in_connect),
    Part("mid-handshake", 15, abrupt.reset_threads_in_connect),
    Part("mid-handshake", 10, abrupt.reset_in_tls, ours=True),
    Part("mid-handler", 60, abrupt.reset_in_handler),
    Part("mid-handler", 10, abrupt.reset_in_shield),
    Part("mid-handler", 20, abrupt.half_close_in_handler),
    Part("mid-handler", 20, abrupt.close_in_handler),
    Part("mid-handler", 15, abrupt.reset_in_handlers),
    Part("mid-handler", 20, abrupt.reset_in_thread),
    Part("mid-handler", 10, abrupt.reset_with_unread, ours=True),
    Part("mid-handler", 15, abrupt.reset_in_page),
    Part("mid-send", 60, abrupt.reset_in_flood),
    Part("mid-send", 30, abrupt.reset_in_unread_flood),
    Part("mid-send", 20, abrupt.half_close_in_flood),
    Part("mid-send", 5, abrupt.stall_in_flood, ours=True, slow=True),
    Part("mid-send", 15, abrupt.reset_in_roar),
    Part("mid-send", 20, abrupt.reset_in_stream),
    Part("mid-send", 10, abrupt.reset_in_secure_flood, ours=True),
    Part("mid-frame", 40, abrupt.reset_in_frame),
    Part("mid-frame", 20, abrupt.half_close_in_frame),
    Part("mid-frame", 20, abrupt.reset_between_fragments),
    Part("mid-frame", 20, abrupt.reset_in_body),
    Part("idle", 100, abrupt.reset_idle),
    Part("idle", 50, abrupt.half_close_idle),
    Part("idle", 10, abrupt.reset_secure_idle, ours=True),
    Part("closed by the client", 45, orderly.echo_and_close),
    Part("closed by the client", 10, orderly.echo_and_close_threads),
    Part("closed by the client", 25, orderly.shout_and_close),
    Part("closed by the application", 25, orderly.closed),
    Part("closed by the application", 5, orderly.closed_threads),
    Part("closed by the application", 10, orderly.stopped),
    Part("closed by the application", 10, orderly.overrun),
    Part("closed by the application", 10, orderly.refused),
    Part("closed by the application", 10, orderly.lost),
    Part("failed", 20, orderly.failed),
    Part("failed", 5, orderly.failed_threads),
    Part("failed", 5, orderly.failed_crew),
    Part("failed", 10, orderly.failed_beside),
    Part("failed", 5, orderly.failed_connect),
    Part("failed", 5, orderly.failed_page),
    Part("failed", 5, orderly.failed_goodbye),
    Part("closed by the server", 5, orderly.unmasked, ours=True),
    Part("closed by the server", 5, orderly.not_text, ours=True),
    Part("closed by the server", 5, orderly.too_large, ours=True),
    Part("closed by the server", 5, orderly.ignores_the_close, ours=True, slow=True),
    Part("closed by the server", 2, orderly.answers_no_ping, ours=True, slow=True),
    Part("HTTP", 13, orderly.page),
)
assert sum(part.share for part in MIX) == 1000, sum(part.share for part in MIX)
assert sum(part.share for part in MIX if part.kind in ("mid-handshake", "mid-handler", "mid-send")) == 500


def clients(*, ours: bool) -> Iterator[Part]:
    """Yield clients without end, the same ones in each run."""
    dice = random.Random(1)
    while True:
        thousand = [part for part in MIX for _ in range(part.share if ours or not part.ours else 0)]
        dice.shuffle(thousand)
        thousand.sort(key=lambda part: not part.slow)  # they come first, so that in the end nobody waits for them
        yield from thousand
