"""The inputs that a fuzzer found worth keeping (``tests/fuzzing``), replayed; and that the replay would see a fault."""

from pathlib import Path

import pytest
import trio

from trichannels.events import Event
from trichannels.server import messages
from trichannels.server.peer import Peer
from trichannels.server.transport import WebSocketTransport
from trichannels.server.wire import Wire

from ..fuzzing.replay import run

pytestmark = [pytest.mark.once, pytest.mark.trio_only]

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
PINGS = bytes([2, 1, 4, 0, 9, 0x89, 100, *b"x" * 100, *[2, 255] * 30])  # takes nothing, and pings 7,650 times
FLOOD = bytes([2, 0, 5, 0x82, 20, 2, 255])  # a mebibyte for an application that does not receive


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 50


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_input_is_harmless(path: Path) -> None:
    run(path.read_bytes())


def test_a_read_ahead_without_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run(FLOOD)
    monkeypatch.setattr(messages, "MESSAGES", 10**9)
    monkeypatch.setattr(messages, "BYTES", 10**9)
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="bytes are held")):
        run(FLOOD)


def test_an_outbox_without_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run(PINGS)
    monkeypatch.setattr(Wire, "full", False)
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="are held")):
        run(PINGS)


def test_a_peer_that_may_stay_for_ever_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = bytes([5 | 0x80, 0, 1, 0x81, 1, 0x78])
    run(stays)
    monkeypatch.setattr(Peer, "hurry", lambda peer: None)
    with pytest.raises(trio.TooSlowError):
        run(stays)


def test_an_event_that_is_not_well_formed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = WebSocketTransport.receive

    async def broken(transport: WebSocketTransport) -> Event:
        event = await receive(transport)
        return {**event, "text": b"x"} if "text" in event else event

    message = bytes([0, 0, 1, 0x81, 1, 0x78])
    run(message)
    monkeypatch.setattr(WebSocketTransport, "receive", broken)
    with pytest.raises(AssertionError, match="failed"):
        run(message)
