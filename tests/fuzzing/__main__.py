"""Fuzz, guided by coverage, with libFuzzer's arguments: ``python -m tests.fuzzing CORPUS -max_total_time=600``."""

import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

TRACED = ["trichannels.server", "trichannels.protocol", "trichannels.instance", "trichannels.inbox"]
TRACED += ["websockets", "h11", "hypercorn.protocol"]

with atheris.instrument_imports(include=TRACED):
    from .replay import run


def main() -> None:
    """Run until libFuzzer ends the process."""
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


main()
