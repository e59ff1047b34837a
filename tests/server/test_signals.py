"""Signals become calls in the trio run, and what was there before comes back."""

import signal
from collections.abc import Iterator

import pytest
import trio

from trichannels.server.signals import obeyed_in_worker, obeyed_signals

pytestmark = pytest.mark.trio_only


@pytest.fixture
def handlers() -> Iterator[None]:
    """Check that every handler is as it was."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


async def called(calls: list[float], count: int) -> None:
    with trio.fail_after(10):
        while len(calls) < count:
            await trio.sleep(0)


async def test_each_signal_has_its_patience(handlers: None) -> None:
    calls: list[float] = []
    with obeyed_signals(calls.append, 30):
        for count, number in enumerate([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGINT], 1):
            signal.raise_signal(number)
            await called(calls, count)
    assert calls == [30, 30, 0.5, 0]


async def test_nohup_is_respected(handlers: None) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with obeyed_signals(print, 30):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_worker_leaves_ctrl_c_to_its_parent(handlers: None) -> None:
    calls: list[float] = []
    before = signal.getsignal(signal.SIGINT)
    with obeyed_in_worker(calls.append, 30):
        assert signal.getsignal(signal.SIGINT) is before
        signal.raise_signal(signal.SIGTERM)
        await called(calls, 1)
    assert calls == [30]
