"""Pauses before another attempt: random, doubled each time, bounded."""

from trichannels.backoff import Backoff, pause_after


def test_pauses_grow_and_are_bounded() -> None:
    for failures, most in ((0, 0.5), (1, 1), (2, 2), (3, 4), (30, 10), (10_000, 10)):
        pauses = [pause_after(failures, 0.5, 10) for _ in range(500)]
        assert 0 <= min(pauses) < most / 4
        assert most * 3 / 4 < max(pauses) <= most


def test_each_pause_may_be_twice_as_long() -> None:
    each = [Backoff(0.5, 10) for _ in range(500)]
    for most in (0.5, 1, 2, 4, 8, 10, 10):
        assert {backoff.limit for backoff in each} == {most}
        pauses = [backoff.next() for backoff in each]
        assert 0 <= min(pauses) < most / 4
        assert most * 3 / 4 < max(pauses) <= most


def test_what_works_begins_anew() -> None:
    backoff = Backoff(1, 60)
    for _ in range(5):
        backoff.next()
    assert repr(backoff) == "<Backoff: up to 32 of 60 s>"
    backoff.reset()
    assert backoff.limit == 1
