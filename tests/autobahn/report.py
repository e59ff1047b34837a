"""What the client's results mean, and the page about them. Pure: no I/O."""

from collections import Counter
from itertools import groupby

from .client import Results, is_quick

# NON-STRICT: the RFC allows it, but the client would like another behaviour. INFORMATIONAL: the RFC leaves it open.
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
CLOSED_WELL = {"OK", "INFORMATIONAL"}
GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Reserved opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "9": "Limits and performance",
    "10": "Automatic fragmentation",
    "12": "Compression",
    "13": "Compression, by its parameters",
}
PAGE = """\
# The Autobahn suite

All {count} cases of the fuzzing client of `autobahntestsuite` 25.10.1 against `trichannels serve`: **{failed} failed**.
[cases.json](cases.json) has the behaviour, the behaviour on closing and the close code of each.

Run on {day} with `--permessage-deflate`, which the cases of compression (12 and 13) need; the others do not offer it.
"Non-strict" is right by RFC 6455 as well, where the client would like another answer: the echo of a message that came
together with a broken frame behind it (3 to 5), and the refusal of broken text in the middle of a frame (6).

| group | | cases | ok | non-strict | informational | failed |
|---|---|---|---|---|---|---|
{table}

Non-strict: {non_strict}. Informational: {informational}.

Made by `python -m tests.autobahn`, which needs Python 2.7 with `autobahntestsuite`. `make test` installs that in
`.venv-2.7` if there is a `python2.7`, and runs {quick} of the cases: not those of performance, and but a few of
compression, each of which sends a thousand messages.
"""


def group(case: str) -> str:
    return case.partition(".")[0]


def failures(results: Results) -> list[str]:
    """Return a line for each case that failed, or that went unanswered though we claim to know its subject."""
    return [f"{case}: {result}" for case, result in results.items() if not _passed(result)]


def _passed(result: dict[str, str | int | None]) -> bool:
    return result["behavior"] in PASSED and result["behaviorClose"] in CLOSED_WELL


def page(results: Results, day: str) -> str:
    """Return the page of the docs about a run on that day."""
    cases = _sorted(results)
    rows = [_row(number, list(inside), results) for number, inside in groupby(cases, group)]
    return PAGE.format(
        count=len(cases),
        day=day,
        quick=sum(is_quick(case) for case in cases),
        failed=len(failures(results)) or "none",
        table="\n".join(rows),
        non_strict=_listed("NON-STRICT", results),
        informational=_listed("INFORMATIONAL", results),
    )


def condensed(results: Results) -> dict[str, list[str | int | None]]:
    """Return what the docs keep of each case."""
    names = ("behavior", "behaviorClose", "remoteCloseCode")
    return {case: [results[case][name] for name in names] for case in _sorted(results)}


def _sorted(results: Results) -> list[str]:
    return sorted(results, key=lambda case: [int(part) for part in case.split(".")])


def _row(number: str, cases: list[str], results: Results) -> str:
    failed = len(failures({case: results[case] for case in cases}))
    count = Counter(results[case]["behavior"] for case in cases if _passed(results[case]))
    kinds = [count[kind] for kind in ("OK", "NON-STRICT", "INFORMATIONAL")]
    return "| " + " | ".join(map(str, [number, GROUPS[number], len(cases), *kinds, failed])) + " |"


def _listed(behaviour: str, results: Results) -> str:
    return ", ".join(case for case in _sorted(results) if results[case]["behavior"] == behaviour)
